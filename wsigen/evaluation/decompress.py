"""``wsigen decompress``: a slide drawn again from its grid, and how far it agrees with it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import GridError, OutputError, refusing
from wsigen.evaluation.grid_agreement import Decompression, measure_decompression
from wsigen.grids.grid import EncoderId, GridFile
from wsigen.grids.mean_colour import NAME
from wsigen.grids.opening import read_about
from wsigen.grids.tiles import cells_of
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.models.extractors.extractors import Extractor, open_extractor
from wsigen.run.config import RunConfig, make_config
from wsigen.run.generate import generate
from wsigen.run.result import Result
from wsigen.run.typed_settings import RunSettings
from wsigen.slide.reading import open_image
from wsigen.storage.files import atomic_path

if TYPE_CHECKING:
    from wsigen.models.autoencoder import Autoencoder
    from wsigen.run.engine.stage import Watcher

DEFAULTS: dict[str, Any] = {"strength": 0.5, "consistency": "picture"}
"""Settings that differ from those of ``generate``: each finer magnification begins from the coarser one at t = 500 of 1000, as
ZoomLDM's, and keeps to its picture (docs/grids.md has what was measured of other ways)."""


def decompress(
    grid_file: str | Path,
    output: str | Path,
    *,
    original: str | Path | None = None,
    report: str | Path | None = None,
    machine: str | Path | None = None,
    watch: Watcher | None = None,
    **settings: Unpack[RunSettings],
) -> tuple[Result, Decompression]:
    """Draw a slide from its grid, all magnifications from coarse to fine, and compress it again to compare.

    What comes out is synthetic. It follows the grid of a slide; its cells are nobody's.

    Parameters
    ----------
    grid_file : str or Path
        What ``wsigen compress`` wrote, or a feature file.
    output : str or Path
        The slide, ``*.ome.tiff``.
    original : str or Path, optional
        The slide that the grid was made of: it gives the figures a ceiling.
    report : str or Path, optional
        A folder for ``decompression.json`` and ``cells.png``, the grids side by side.
    machine, watch
        See `wsigen.generate`.
    **settings
        Fields of `RunConfig`; ``region`` for a part of the slide. By default as in `decompression_config`, and `DEFAULTS`.

    Raises
    ------
    WsigenError
        For anything wrong with the grid, the output or the machine.
    """
    config = decompression_config(grid_file, **settings)
    about = read_about(Path(grid_file))
    if original is not None:
        _check_original(Path(original), about.width_um, about.height_um)
    extractor = None if about.encoder == NAME else _extractor(Path(grid_file), about, config.device)
    picture = None if report is None else _folder(report) / "cells.png"
    result = generate(output, config, machine=machine, watch=watch)
    found = measure_decompression(
        Path(grid_file),
        result.slide,
        place=_place(config, result.slide),
        original=None if original is None else Path(original),
        round_trip=partial(_round_trip, _autoencoder(config)),
        extractor=extractor,
        picture=picture,
    )
    if picture is not None:
        with atomic_path(picture.with_name("decompression.json")) as beside:
            beside.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    return result, found


def decompression_config(grid_file: str | Path, **settings: Any) -> RunConfig:
    """The settings of a run that follows a grid (ConfigError, BundleError).

    By default through all magnifications of a model that is told tokens. A model that is told a cell for each latent px
    knows from the grid alone what coarser magnifications would tell it, and less exactly: it draws the finest alone.
    """
    config = make_config({**DEFAULTS, **settings, "grid": Path(grid_file)}, None)
    if config.levels is None:
        card = check_bundle(find_bundle(config.model))
        config = config.merged(levels=1 if card.grid is not None and card.grid.told == "channels" else len(card.levels))
    return config


# -- inside ------------------------------------------------------------------------------------------------------------


def _check_original(original: Path, width_um: float, height_um: float) -> None:
    image = open_image(original)
    shape, wanted = image.height * image.aspect / image.width, height_um / width_um
    if abs(shape - wanted) > 0.02 * wanted:
        raise GridError(f"{original}: has other proportions than the grid's slide of {width_um:.0f}x{height_um:.0f} um")


def _extractor(file: Path, about: GridFile, device: str) -> Extractor:
    """The grid's own encoder, of the same weights, and able to look at its cells (GridError)."""
    extractor = open_extractor(about.encoder, device)
    here = EncoderId(extractor.name, extractor.sha256)
    if not about.made_by.agrees(here):
        raise GridError(f"{file}: is of encoder {about.made_by}, and here is {here}; no cosine between the two says anything")
    cells_of(extractor.side_px, about.cell_um, about.encoder_mpp)
    return extractor


def _folder(report: str | Path) -> Path:
    folder = Path(report)
    with refusing(OutputError, f"{folder}: no folder of a report can be made there", "choose another --report"):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: not writable; choose another --report")
    return folder


def _place(config: RunConfig, slide: Path) -> tuple[float, float, float, float] | None:
    """The region in um."""
    if config.region is None:
        return None
    mpp = open_image(slide).mpp or 1.0
    x, y, width, height = (extent * mpp for extent in config.region)
    return x, y, width, height


def _autoencoder(config: RunConfig) -> Autoencoder:
    from wsigen.models.autoencoder import load_autoencoder

    folder = find_bundle(config.model)
    return load_autoencoder(folder, check_bundle(folder).latent, config.device)


def _round_trip(autoencoder: Autoencoder, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(autoencoder.decode(autoencoder.encode(picture))).astype(np.uint8)
