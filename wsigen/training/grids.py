"""The grids that networks are told in training: cells beside the latents, worn and hidden as sampling will find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsigen.base.errors import TrainingError
from wsigen.grids.mean_colour import mean_colours
from wsigen.models.card import Level
from wsigen.training.grid_settings import GridTelling

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def with_cells(encode: Encode, factor: int) -> Encode:
    """Encode pictures uint8 ``(B, P, P, 3)`` to latents and, as further channels, their mean colours, ``(B, C + 3, p, p)``."""
    return lambda images: np.concatenate([encode(images), mean_colours(images, factor)], axis=1)


def told_grid(cells: Tensor, possible: NDArray[np.bool_], telling: GridTelling, rng: np.random.Generator) -> Tensor:
    """Wear and hide cells: larger ones for some crops, noise on all, nothing at all for a share.

    Parameters
    ----------
    cells : Tensor
        ``(B, D, p, p)``, standardised.
    possible : ndarray
        bool ``(B,)``: of the others nothing is told.

    Returns
    -------
    Tensor
        ``(B, D + 1, p, p)``; the last channel is 1 where the grid is told.
    """
    count = len(cells)
    sides = rng.choice(telling.cell_sides, size=count)
    coarse = torch.stack([enlarged(cell[None], int(side))[0] for cell, side in zip(cells, sides, strict=True)])
    known = torch.from_numpy(possible).float()[:, None, None, None].expand(-1, 1, *cells.shape[2:])
    return worn_windows(torch.cat([coarse, known], dim=1), telling, rng)


def worn_windows(windows: Tensor, telling: GridTelling, rng: np.random.Generator) -> Tensor:
    """Add noise to windows ``(B, D + 1, h, w)``, whose last channel is "known", and hide a share of them."""
    cells, known = windows[:, :-1], windows[:, -1:]
    count = len(cells)
    deviation = telling.noise * rng.random((count, 1, 1, 1), dtype=np.float32)
    worn = cells + torch.from_numpy(deviation * rng.standard_normal(tuple(cells.shape), dtype=np.float32))
    told = torch.from_numpy(rng.random(count) >= telling.p_unknown).float()[:, None, None, None]
    return torch.cat([worn * known * told, known * told], dim=1)


def enlarged(cells: Tensor, side: int) -> Tensor:
    """Means of blocks of ``side`` x ``side`` cells, at the size of the cells: what `grids.grid.Grid.window` gives of them."""
    if side == 1:
        return cells
    means = functional.avg_pool2d(cells, side)
    return means.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)


def check_sides(what: str, sides: Sequence[int], crop: int) -> None:
    """Refuse blocks of cells that crops, the smallest of so many cells a side, are not made of (TrainingError)."""
    unfit = next((side for side in sides if crop % side), None)
    if unfit is not None:
        problem = f"{unfit} does not divide the {crop} cells a side of a crop"
        raise TrainingError(f"{what}: {problem}; choose others, or another patch_px")


def coarser_cells(cells: Tensor, levels: NDArray[np.int64], ratios: Sequence[int]) -> tuple[Tensor, NDArray[np.bool_]]:
    """What a network that draws grids is told: the next coarser grid of the same place, and whether there is one.

    Parameters
    ----------
    cells : Tensor
        ``(B, D, p, p)``.
    levels : ndarray
        int64 ``(B,)``.
    ratios : sequence of int
        Of the um/px of level i + 1 to those of level i.
    """
    sides = [ratios[level] if level < len(ratios) else 1 for level in levels]
    rows = [enlarged(cell[None], side)[0] for cell, side in zip(cells, sides, strict=True)]
    return torch.stack(rows), levels < len(ratios)


def level_ratios(levels: Sequence[Level]) -> list[int]:
    """Whole ratios of the um/px of each level to those of the one before; the others cannot be told (ends before them)."""
    ratios = []
    for fine, coarse in pairwise(levels):
        ratio = (coarse.mpp or 0.0) / (fine.mpp or 1.0)
        if abs(ratio - round(ratio)) > 0.02 * ratio or round(ratio) < 2:
            break
        ratios.append(round(ratio))
    return ratios
