"""Whether a slide can be written, known before the first crop: everything that the end of a run will do is done once, tiny."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import ClassTable
from wsigen.base.errors import OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.run.outputs import Files, files_of
from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import MIN_SIDE, PyramidSpec
from wsigen.slide.sidecars import import_script, write_annotations, write_manifest, write_overlay, write_thumbnail
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import level0_sha256, write_slide
from wsigen.storage.files import held, leftover_name, sha256, write_atomic


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before anything is read (OutputError)."""
    files = files_of(output)
    with refusing(OutputError, f"{output}: cannot be written", "choose another name for the slide"):
        folder = output.absolute().parent
        if not folder.is_dir():
            raise OutputError(f"{folder}: no such folder; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: not writable; choose another place for the slide")
        for path in files:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder; choose another name for the slide")
            if os.path.lexists(path) and not overwrite:  # a link that leads nowhere, too
                raise OutputError(f"{path}: exists already; add --overwrite to replace it or choose another name")


def try_output(files: Files, slide: PyramidSpec, table: ClassTable) -> None:
    """Write a slide of one tile and all that lies beside a slide, by the same libraries to names as long, and remove it.

    Parameters
    ----------
    files : Files
        Where the slide will be.
    slide : PyramidSpec
        What it will be.
    table : ClassTable
        The classes of its annotations.

    Raises
    ------
    OutputError
        If any of that fails: a name too long for the file system or in letters that a library cannot write, a full disk, um/px
        that no TIFF can hold.
    """
    folder = files.slide.with_name(leftover_name(files.slide.name))
    advice = "choose another name or folder for the slide"
    try:
        with refusing(OutputError, f"{files.slide}: cannot be written", advice):
            folder.mkdir()
            _write_all(Files(*(folder / path.name for path in files)), slide, table)
            _ = [path.name for path in folder.parent.iterdir()]  # what killed writers left there is looked for
    finally:
        with suppress(OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)


def _write_all(files: Files, slide: PyramidSpec, table: ClassTable) -> None:
    spec = replace(slide, width=MIN_SIDE, height=MIN_SIDE)
    side = (spec.height, spec.width)
    spool = Spool(files.slide.parent / "spool")
    spool.write((0, 0), encode_block(spec, (0, 0), np.zeros((*side, 3), np.uint8)))
    write_slide(files.slide, spec, spool, ome_xml(spec, files.slide.name, {}))
    digests = {"level0_tiles": level0_sha256(files.slide)}

    def classes(box: Box) -> NDArray[np.uint8]:
        return np.zeros(box.shape, np.uint8)

    areas = write_annotations(files.annotations, classes, side, 1, side, table, 0, spec.mpp)
    write_thumbnail(files.slide, files.thumbnail, side=16)
    write_overlay(files.thumbnail, files.overlay, classes, 1, side, table, areas)
    write_atomic(files.script, import_script().encode())
    write_manifest(files.manifest, digests | {path.name: sha256(path) for path in files if path != files.manifest})


@contextmanager
def held_output(slide: Path) -> Iterator[None]:
    """Keep a slide's place for this run, from whatever directory others work: two would replace each other's files.

    Raises
    ------
    OutputError
        If another run holds it.
    """
    place = slide.with_name(f".{slide.name}.lock")
    with held(
        place,
        lambda holder: OutputError(f"{slide}: another run makes it ({holder}); wait for it or choose another name"),
        "choose another place for the slide",
    ):
        yield
