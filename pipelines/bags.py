"""Slides as bags: what a model that is told tokens keeps of a slide, in three forms.

* ``grid``: every known cell of the slide's grid.
* ``means``: the parts of its windows of the coarsest magnification, means of cells. The summariser is given these, but each
  standardised over its own numbers; here they are as they are. ZoomLDM's supplement compares the first and the third; without
  this control pooling alone may explain the difference.
* ``tokens``: what the summariser makes of these windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsigen.base.csv_file import read_table
from wsigen.base.errors import ConfigError, refusing
from wsigen.base.geometry import Box
from wsigen.grids.compress import compress
from wsigen.grids.fitting import misfit
from wsigen.grids.grid import standardised_cells
from wsigen.grids.opening import open_grid, read_about
from wsigen.models.bundle import check_bundle
from wsigen.models.extractors.extractors import Extractor, open_extractor
from wsigen.models.summariser import load_summariser, summarise
from wsigen.slide.reading import open_image

KINDS = ("grid", "means", "tokens")

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of a table's columns: a slide (or a grid of one), what it is, and which patient it is of."""

    slide: str = "slide"
    label: str = "label"
    group: str = "group"


@dataclass(frozen=True, slots=True)
class Row:
    """A slide of the table."""

    slide: Path
    label: str
    group: str


def read_rows(table: Path, columns: Columns, folder: Path) -> list[Row]:
    """Read a labelled table of slides whose paths count from ``folder`` (ConfigError)."""
    with refusing(ConfigError, table, "give a CSV of slides, labels and groups"):
        header, lines = read_table(table)
    wanted = (columns.slide, columns.label, columns.group)
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ConfigError(f"{table}: has no column {missing[0]!r}; it has {', '.join(header)}")
    at = [header.index(name) for name in wanted]
    rows = [Row(folder / line[at[0]], line[at[1]], line[at[2]]) for line in lines if len(line) > max(at)]
    if len({row.label for row in rows}) < 2:
        raise ConfigError(f"{table}: column {columns.label!r} holds fewer than two labels; there is nothing to tell apart")
    for row in rows:
        if not row.slide.is_file():
            raise ConfigError(f"{table}: {row.slide} is not there; paths count from {folder}")
    return rows


class BagMaker:
    """Makes the bags of slides by a bundle's encoder and summariser.

    Parameters
    ----------
    bundle : Path
        One that is told tokens (ConfigError).
    extractor : Extractor, optional
        Its encoder; by default it is opened by its name, once a slide needs it.
    """

    def __init__(self, bundle: Path, extractor: Extractor | None = None, device: str = "cpu") -> None:
        card = check_bundle(bundle)
        if card.grid is None or card.grid.told != "tokens":
            raise ConfigError(f"{bundle}: is told no tokens, so that it has no summariser to compare")
        self._told, self._device, self._level = card.grid, device, len(card.levels) - 1
        self._crop_um = card.crop_latent * card.latent.factor * (card.levels[-1].mpp or 1.0)
        self._summariser = load_summariser(bundle, device)
        self._given = extractor

    @cached_property
    def _extractor(self) -> Extractor:
        return self._given or open_extractor(self._told.encoder, self._device)

    def grid_of(self, slide: Path, folder: Path, mpp: float | None = None) -> Path:
        """The slide's grid: made into ``folder``, unless it is there or the slide is one."""
        if slide.suffix == ".wsz":
            return slide
        stat, cell_um, encoder_mpp = slide.stat(), self._told.cell_um, self._told.encoder_mpp
        decisive = (slide.absolute(), stat.st_size, stat.st_mtime_ns, self._extractor.sha256, cell_um, encoder_mpp, mpp)
        made_of = " ".join(map(str, decisive))
        file = folder / f"{slide.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}.wsz"
        if not file.is_file():
            image = open_image(slide)
            image = image if mpp is None else replace(image, mpp=mpp)
            compress(image, file, encoder=self._extractor, cell_um=cell_um, encoder_mpp=encoder_mpp)
        return file

    def bags(self, file: Path) -> dict[str, Array]:
        """The bags of a grid, float32 ``(n, D)`` by kind (ConfigError if it shows no tissue)."""
        about, grid = read_about(file), open_grid(file)
        fault = misfit(about.made_by, about.cell_um, self._told)
        if fault:
            raise ConfigError(f"{file}: {fault}")
        side, means, tokens = self._told.parts[self._level], [], []
        for y in self._starts(about.height_um):
            for x in self._starts(about.width_um):
                values, known = grid.window(Box(0, 0, side, side), self._crop_um / side, (y, x))
                if known.any():
                    means.append(values[:, known].T)
                    tokens.append(self._tokens(values, known))
        if not means:
            raise ConfigError(f"{file}: shows no tissue; leave the slide out of the table")
        cells = np.asarray(grid.values[:], np.float32)[:, np.asarray(grid.known[:])].T
        return dict(zip(KINDS, (cells, np.concatenate(means), np.concatenate(tokens)), strict=True))

    def _starts(self, extent_um: float) -> Sequence[float]:
        """Where windows begin that cover an extent, the last one flush with its end."""
        count = max(1, int(np.ceil(extent_um / self._crop_um - 1e-3)))
        return [float(v) for v in np.linspace(0, max(0.0, extent_um - self._crop_um), count)]

    @torch.inference_mode()
    def _tokens(self, values: Array, known: NDArray[np.bool_]) -> Array:
        window = np.concatenate([standardised_cells(values, known), known[None].astype(np.float32)])
        level = torch.tensor([self._level], device=self._device)
        made = summarise(self._summariser, torch.from_numpy(window)[None].to(self._device), level)
        return np.asarray(made[0].float().cpu().numpy())
