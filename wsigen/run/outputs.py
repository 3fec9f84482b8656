"""What lies at the end of a run: the slide and the files beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from wsigen.base.classes import ClassTable
from wsigen.base.errors import OutputError
from wsigen.models.bundle import check_bundle
from wsigen.models.card import BundleCard
from wsigen.run.continued import synthetic_of
from wsigen.run.manifest import make_manifest
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.slide.ome import ome_xml
from wsigen.slide.ome_rois import MOST_CORNERS, Roi, TooManyRoisError, read_rois
from wsigen.slide.sidecars import (
    import_script,
    write_annotations,
    write_edit_script,
    write_manifest,
    write_overlay,
    write_thumbnail,
)
from wsigen.slide.writer import level0_sha256, write_slide
from wsigen.storage.files import leftover_name, move_all, remove_leftovers, sha256, write_atomic

SUFFIXES = (".ome.tiff", ".ome.tif")

BESIDE = (".geojson", ".json", ".jpg", ".overlay.jpg", ".groovy")
"""Ends of the names of what lies beside a slide, in the order of `Files`."""


class Files(NamedTuple):
    """Paths of one slide's files.

    They are the OME-TIFF, GeoJSON of the classes, the manifest, a JPEG of the whole slide, the same with the classes over it,
    and the import script for QuPath.
    """

    slide: Path
    annotations: Path
    manifest: Path
    thumbnail: Path
    overlay: Path
    script: Path


def files_of(output: Path) -> Files:
    """Name the files of a slide.

    Raises
    ------
    OutputError
        If the name does not end in ``.ome.tiff`` or ``.ome.tif``: QuPath and Bio-Formats know the format by it.
    """
    for suffix in SUFFIXES:
        if output.name.lower().endswith(suffix) and len(output.name) > len(suffix):
            base = output.name[: -len(suffix)]
            return Files(output, *(output.with_name(base + end) for end in BESIDE))
    raise OutputError(f"{output}: a slide's name ends in .ome.tiff (QuPath knows the format by it)")


def drawn_of(output: Path) -> Path:
    """Name the file of the drawn polygons, ``OUT.drawn.geojson``."""
    return files_of(output).annotations.with_suffix(".drawn.geojson")


def write_outputs(
    run: RunContext, files: Files, place: Callable[[Files], None], note: Callable[[], None], tell: Callable[[str], None]
) -> tuple[str, dict[str, float]]:
    """Write slide, annotations, pictures, script and manifest from a finished run.

    All of them are written in a folder beside the slide; when they are complete, they get their places. An old manifest goes
    first and the new one comes last, so that a slide with a manifest is complete.

    Parameters
    ----------
    place : callable
        Called with the complete files before the first of them gets its place; an error leaves what lies there.
    note : callable
        Called after every block of the slide that was read.
    tell : callable
        Called with what a user should be told, a line.

    Returns
    -------
    str, dict of str to float
        SHA-256 of level 0, and the area of every class in px.
    """
    card = check_bundle(Path(run.spec.model))
    for path in files:
        remove_leftovers(path)
    with _folder_beside(files) as made:
        areas = export_annotations(run.passes[-1], card.table, made.annotations)
        rois = _rois(made.annotations, tell) if run.spec.settings.rois else ()
        description = ome_xml(run.slide, files.slide.name, _statements(run, card), rois)
        write_slide(made.slide, run.slide, run.spool, description, note)
        digest = level0_sha256(made.slide)
        write_thumbnail(made.slide, made.thumbnail)
        _write_overlay(run.passes[-1], card.table, made, areas)
        write_atomic(made.script, import_script().encode())
        beside = {path.name: sha256(path) for path in made if path != made.manifest}
        manifest = make_manifest(run.spec, card, areas, {"level0_tiles": digest, **beside})
        write_manifest(made.manifest, manifest.model_dump(mode="json"))
        place(made)
        write_edit_script(files.slide.parent)
        files.manifest.unlink(missing_ok=True)
        order = sorted(range(len(files)), key=lambda index: files[index] == files.manifest)
        move_all([made[index] for index in order], [files[index] for index in order])
    return digest, areas


@contextmanager
def _folder_beside(files: Files) -> Iterator[Files]:
    """The same files in a new folder beside them, which goes with all that is still in it; a killed run's is a leftover."""
    folder = files.slide.with_name(leftover_name(files.slide.name))
    folder.mkdir()
    try:
        yield Files(*(folder / path.name for path in files))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def export_annotations(pass_: PassContext, table: ClassTable, path: Path) -> dict[str, float]:
    """Write the class map that was used, not the one that was asked for; the area of every class in px."""
    plan, slide = pass_.plan, pass_.run.slide
    return write_annotations(
        path,
        pass_.state.read_classes,
        (plan.height, plan.width),
        plan.factor,
        (slide.height, slide.width),
        table,
        plan.seed,
        slide.mpp,
    )


def _rois(annotations: Path, tell: Callable[[str], None]) -> tuple[Roi, ...]:
    try:
        return read_rois(annotations)
    except TooManyRoisError:
        tell(f"annotations of more than {MOST_CORNERS:,} corners are too many for OME-XML; {annotations.name} alone has them")
        return ()


def _write_overlay(pass_: PassContext, table: ClassTable, made: Files, areas: dict[str, float]) -> None:
    slide, read = pass_.run.slide, pass_.state.read_classes
    write_overlay(made.thumbnail, made.overlay, read, pass_.plan.factor, (slide.height, slide.width), table, areas)


def _statements(run: RunContext, card: BundleCard) -> dict[str, str]:
    """What the slide's own metadata says of its making."""
    spec, plan = run.spec, run.passes[-1].plan
    return {
        **({"layout": spec.layout_title} if spec.drawn_layout and spec.layout_title else {}),
        "synthetic": synthetic_of(run.spec.settings),
        "generator": f"wsigen {spec.versions['wsigen']}",
        "model": card.name,
        "model_sha256": spec.model_sha256,
        "mode": plan.mode,
        "seed": str(spec.sampling.seed),
        "steps": str(plan.steps),
        "guidance": str(spec.sampling.guidance),
        "run": spec.run_id,
        "not_for": card.not_for,
    }
