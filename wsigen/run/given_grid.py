"""The grid that a user gives: a file, or a reference image from which one is made. A run keeps a copy of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wsigen.base.errors import GridError, RunError, refusing
from wsigen.grids.compress import compress
from wsigen.grids.opening import SUFFIXES, open_grid, read_about
from wsigen.grids.wsz import CHUNK
from wsigen.models.card import BundleCard
from wsigen.run.config import RunConfig
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.files import sha256
from wsigen.storage.folder import Folder

KEPT_GRID = "wsigen-inputs/grid"
"""Where a run keeps it, but for the ending."""

OTHER_SIZE = 0.01
"""Relative difference of the sizes of grid and slide that is let pass: a slide is a whole number of cells."""


def follows_grid(config: RunConfig, card: BundleCard) -> bool:
    """Whether the slide follows a grid that the user gives: a file, or the reference of a model that knows grids."""
    return config.grid is not None or (config.reference is not None and card.grid is not None)


def check_grid(config: RunConfig, card: BundleCard, slide: PyramidSpec) -> None:
    """Refuse a grid that the model or the slide cannot follow.

    Raises
    ------
    GridError
        If the model knows no grids or those of another encoder, or the grid is of another size than the slide.
    """
    if config.grid is None:
        return
    if card.grid is None:
        raise GridError(f"{config.grid}: model {card.name!r} follows no grids; use another --model, or leave --grid out")
    about = read_about(config.grid)
    _check_cells(config.grid, len(card.grid.mean))
    if about.encoder != card.grid.encoder:
        raise GridError(f"{config.grid}: is of encoder {about.encoder!r}; model {card.name!r} follows {card.grid.encoder!r}")
    width, height = slide.width * slide.mpp, slide.height * slide.mpp
    pairs = ((width, about.width_um), (height, about.height_um))
    if any(abs(mine - its) > OTHER_SIZE * its + about.cell_um for mine, its in pairs):
        px = f"{round(about.width_um / slide.mpp)}x{round(about.height_um / slide.mpp)}"
        raise GridError(
            f"{config.grid}: is of a slide of {about.width_um:.0f}x{about.height_um:.0f} um, this one has "
            f"{width:.0f}x{height:.0f} um; give --size {px}"
        )


def kept_grid(folder: Folder, digest: str | None) -> Path:
    """The copy of the grid that a run keeps (RunError if it is missing, or another than the one of this SHA-256)."""
    name = next((KEPT_GRID + suffix for suffix in SUFFIXES if folder.has(KEPT_GRID + suffix)), None)
    if name is None:
        raise RunError(f"{folder.name}: the grid kept as {KEPT_GRID}.* is missing; put it back or start anew")
    file = folder.local(name)
    if sha256(file) != digest:
        raise RunError(f"{folder.name}: the grid kept as {name} is not the run's own; restore it or start anew")
    return file


def _check_cells(file: Path, dimension: int) -> None:
    """Read all cells once, in bands (GridError)."""
    grid = open_grid(file)
    found, rows, _ = grid.values.shape
    if found != dimension:
        raise GridError(f"{file}: has {found} numbers a cell, the model follows {dimension}")
    for first in range(0, rows, CHUNK):
        band = slice(first, first + CHUNK)
        with refusing(GridError, f"{file}: its cells cannot be read", "make it anew with 'wsigen compress'"):
            values, known = grid.values[:, band], grid.known[band]
        if not np.isfinite(values[:, known]).all():
            raise GridError(f"{file}: cells of rows {first} to {first + known.shape[0] - 1} are not finite; make it anew")


def grid_of_reference(config: RunConfig, slide: PyramidSpec, cell_um: float) -> bytes:
    """Make the file of the reference's grid, resized to the slide; cells of ``cell_um``, a latent px of the finest level."""
    with TemporaryDirectory(prefix="wsigen-") as folder:
        file = Path(folder) / "grid.wsz"
        compress(str(config.reference), file, cell_um=cell_um, size_um=(slide.width * slide.mpp, slide.height * slide.mpp))
        return file.read_bytes()
