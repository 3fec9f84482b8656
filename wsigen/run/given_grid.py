"""The grid that a user gives: a file, or a reference image from which one is made. A run keeps a copy of it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from wsigen.base.errors import EvaluationError, GridError, RunError
from wsigen.grids.compress import compress
from wsigen.grids.fitting import misfit
from wsigen.grids.grid import GridFile
from wsigen.grids.opening import SUFFIXES, open_grid, read_about
from wsigen.grids.wsz import CHUNK
from wsigen.models.card import BundleCard, GridCondition
from wsigen.run.config import RunConfig
from wsigen.slide.pyramid import PyramidSpec
from wsigen.storage.files import sha256
from wsigen.storage.folder import Folder

KEPT_GRID = "wsigen-inputs/grid"
"""Where a run keeps it, but for the ending."""

OTHER_SIZE = 0.01
"""Relative difference of the sizes of grid and slide that is let pass: um/px are written with few digits."""


def follows_grid(config: RunConfig, card: BundleCard) -> bool:
    """Whether the slide follows a grid that the user gives: a file, or the reference of a model that knows grids."""
    return config.grid is not None or (config.reference is not None and card.grid is not None)


def check_grid(config: RunConfig, card: BundleCard, slide: PyramidSpec) -> None:
    """Refuse a grid that the model or the slide cannot follow.

    Raises
    ------
    GridError
        If the model knows no grids or those of another encoder or cell, or needs one and gets none, or the grid is of another
        size than the slide.
    """
    if config.grid is None:
        _check_need(config, card)
        return
    if card.grid is None:
        raise GridError(f"{config.grid}: model {card.name!r} follows no grids; use another --model, or leave --grid out")
    about = read_about(config.grid)
    _check_kind(str(config.grid), about, card, slide.mpp)
    _check_cells(config.grid, card.grid.numbers)
    if config.region is not None:
        _check_region(config, about, slide.mpp)
        return
    width, height = slide.width * slide.mpp, slide.height * slide.mpp
    pairs = ((width, about.width_um), (height, about.height_um))
    if any(abs(mine - its) > OTHER_SIZE * its + about.cell_um for mine, its in pairs):
        px = f"{round(about.width_um / slide.mpp)}x{round(about.height_um / slide.mpp)}"
        raise GridError(
            f"{config.grid}: is of a slide of {about.width_um:.0f}x{about.height_um:.0f} um, this one has "
            f"{width:.0f}x{height:.0f} um; give --size {px}"
        )


def _check_region(config: RunConfig, about: GridFile, mpp: float) -> None:
    """Refuse a region that reaches beyond the grid's slide (GridError)."""
    x, y, width, height = cast("tuple[int, int, int, int]", config.region)
    most = (round(about.width_um / mpp), round(about.height_um / mpp))
    if x + width > most[0] or y + height > most[1]:
        raise GridError(
            f"setting 'region': {x},{y},{width},{height} reaches beyond the slide of {config.grid}, {most[0]}x{most[1]} px"
        )


def _check_need(config: RunConfig, card: BundleCard) -> None:
    """Refuse to generate without a grid with a model that was never trained so (GridError)."""
    grid = card.grid
    if grid is not None and grid.required and grid.network is None and not follows_grid(config, card):
        raise GridError(
            f"model {card.name!r} follows grids of encoder {grid.encoder!r} and draws none itself: give one with --grid FILE "
            "('wsigen compress SLIDE' makes it), or an image with --reference"
        )


def _check_kind(source: str, about: GridFile, card: BundleCard, mpp: float) -> None:
    """Refuse cells that mean something else than those the model was trained with (GridError)."""
    fault = misfit(about.made_by, about.cell_um, cast("GridCondition", card.grid), mpp * card.latent.factor)
    if fault:
        raise GridError(f"{source}: {fault} (model {card.name!r})")


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
    """Read all cells once, in bands: what is damaged is found before anything is drawn (GridError)."""
    grid = open_grid(file)
    found, rows, _ = grid.values.shape
    if found != dimension:
        raise GridError(f"{file}: has {found} numbers a cell, the model follows {dimension}")
    for first in range(0, rows, CHUNK):
        band = slice(first, first + CHUNK)
        _ = grid.values[:, band], grid.known[band]


def grid_of_reference(config: RunConfig, card: BundleCard, slide: PyramidSpec, cell_um: float) -> bytes:
    """Make the file of the reference's grid, resized to the slide.

    Parameters
    ----------
    cell_um : float
        A latent px of the finest level, um: the cells of models that follow cells of any size.

    Raises
    ------
    GridError
        If the encoder that the model follows is not here, or not the one of its name.
    """
    grid = cast("GridCondition", card.grid)
    size_um = (slide.width * slide.mpp, slide.height * slide.mpp)
    with TemporaryDirectory(prefix="wsigen-") as folder:
        file = Path(folder) / "grid.wsz"
        try:
            about = compress(
                str(config.reference),
                file,
                encoder=grid.encoder,
                cell_um=grid.cell_um or cell_um,
                encoder_mpp=grid.encoder_mpp,
                size_um=size_um,
                device="cpu" if config.scheduler else config.device,
            )
        except EvaluationError as error:
            raise GridError(
                f"{config.reference}: model {card.name!r} follows encoder {grid.encoder!r}, not usable here ({error}); "
                "compress the reference where it is, and give --grid"
            ) from None
        _check_kind(str(config.reference), about, card, slide.mpp)
        return file.read_bytes()
