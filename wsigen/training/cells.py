"""The mean colours of whole images, made once, and windows of them anywhere: what a network that draws grids is trained on.

Windows lie anywhere, not on a lattice of patches: coarse levels of a few slides have only dozens of patches, which a network
learns by heart instead of how tissue is built.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError, ImageError
from wsigen.base.geometry import Box
from wsigen.dataset.crops import ReadFailures, dihedral, jitter_stain
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.latents import LatentBatch
from wsigen.dataset.members import Member
from wsigen.grids.mean_colour import mean_colours
from wsigen.storage.files import atomic_path

READ_CELLS = 256
"""Side of what is read of an image at a time, cells."""

WHOLE = 1e-3
"""Relative difference from a whole ratio of um/px that is let pass."""

U8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageCells:
    """The cells of a dataset's training images, each level's made of the finest level whose um/px it is a whole multiple of.

    Attributes
    ----------
    bases : list of (int, int)
        Of every level: the level whose cells are kept, and how many of them a side make one of its own.
    files : dict of (int, int) to ndarray
        By the image's position in the dataset's members and the level that is kept: uint8 ``(h, w, 4)``, mapped into memory;
        red, green and blue, and the class. Images that cannot be read have none.
    cell_px : int
        px of a cell.
    """

    dataset: Dataset
    bases: list[tuple[int, int]]
    files: dict[tuple[int, int], U8]
    cell_px: int

    def window(self, member: int, level: int, corner: tuple[int, int], side: int) -> tuple[U8, U8]:
        """Colours ``(side, side, 3)`` and classes ``(side, side)`` of cells of a level; ``corner`` in cells that are kept.

        Beyond the image its last cells are repeated (canvases of levels are rounded, and may differ by a cell).
        """
        base, ratio = self.bases[level]
        (y, x), kept = corner, self.files[member, base]
        part = kept[y : y + side * ratio, x : x + side * ratio]
        if part.shape[:2] != (side * ratio, side * ratio):
            part = np.pad(part, ((0, side * ratio - part.shape[0]), (0, side * ratio - part.shape[1]), (0, 0)), mode="edge")
        means = part[..., :3].reshape(side, ratio, side, ratio, 3).mean(axis=(1, 3), dtype=np.float32)
        return np.rint(means).astype(np.uint8), part[ratio // 2 :: ratio, ratio // 2 :: ratio, 3].copy()


def image_cells(
    dataset: Dataset,
    folder: Path,
    cell_px: int,
    share: tuple[int, int] = (0, 1),
    meet: Callable[[], None] | None = None,
) -> ImageCells:
    """Make the cells of the images of the training split that are not in ``folder`` yet.

    Parameters
    ----------
    cell_px : int
        px of a cell.
    share, meet : tuple of int, callable
        As in `dataset.latents.cache_latents`.

    Raises
    ------
    DatasetError
        If an image cannot be read, unless the dataset skips such (then it has no cells), or a file of cells is damaged.
    """
    bases = whole_bases(dataset.mpps)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = sorted({int(m) for m in np.unique(dataset.split_patches("training").member)})
    pairs = [(member, base) for member in wanted for base in sorted({base for base, _ in bases})]
    places = {(m, base): folder / f"{_key(dataset, m, base, cell_px)}.npy" for m, base in pairs}
    failures = ReadFailures(dataset.skip_bad, expected=len(pairs))
    for member, base in pairs[share[0] :: share[1]]:
        if not (place := places[member, base]).is_file():
            try:
                made = _made(dataset.members[member], dataset.mpps[base], cell_px)
            except ImageError as error:
                failures.failed(dataset.members[member].name, error)
                continue
            with atomic_path(place) as beside, beside.open("wb") as file:
                np.save(file, made)
            failures.succeeded()
    if meet is not None:
        meet()
    files = {pair: _mapped(place) for pair, place in places.items() if place.is_file()}
    return ImageCells(dataset, bases, files, cell_px)


def whole_bases(mpps: list[float]) -> list[tuple[int, int]]:
    """Of every level the finest one that divides it, and their ratio: ``[(0, 1), (0, 2), (2, 1)]`` of 0.5, 1 and 1.3 um/px."""
    found = []
    for level, mpp in enumerate(mpps):
        ratios = [(base, mpp / mpps[base]) for base in range(level + 1)]
        base, ratio = next((b, r) for b, r in ratios if round(r) >= 1 and abs(r - round(r)) <= WHOLE * r)
        found.append((base, round(ratio)))
    return found


def _mapped(place: Path) -> U8:
    """The cells of a file, read where they are needed (DatasetError if it is not whole)."""
    try:
        cells = np.load(place, mmap_mode="r")
        if cells.dtype != np.uint8 or cells.ndim != 3 or cells.shape[2] != 4:
            raise ValueError(f"{cells.dtype} {cells.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{place}: damaged ({error}); delete it, and it is made anew") from None
    return cells


def _key(dataset: Dataset, member: int, base: int, cell_px: int) -> str:
    """Names the cells of an image by what decides them."""
    decisive = [dataset.key, dataset.members[member].name, dataset.mpps[base], cell_px]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:24]


def _made(member: Member, mpp: float, cell_px: int) -> U8:
    """Colours and classes of an image's whole cells, read part by part."""
    height, width = (extent // cell_px for extent in member.canvas(mpp))
    out = np.empty((height, width, 4), dtype=np.uint8)
    for y, x in itertools.product(range(0, height, READ_CELLS), range(0, width, READ_CELLS)):
        cells = Box(y, x, min(height, y + READ_CELLS), min(width, x + READ_CELLS))
        box = cells.scale(cell_px)
        means = mean_colours(member.image(box, mpp)[None], cell_px)[0].transpose(1, 2, 0)
        out[(*cells.slices, slice(3))] = np.rint((means + 1.0) * 127.5)
        out[(*cells.slices, 3)] = member.class_map(box, mpp, cell_px)
    return out


class CellStream:
    """Windows of cells around places of the drawn class, turned and jittered in stain; see `crops.Stream`.

    A patch that is drawn for the background gives a window around its tissue (its middle, if it shows none): what is bare is
    not drawn by a model either.

    Parameters
    ----------
    drawer : Drawer
        Of the training split's patches, each of which says where about a window lies.
    side : int
        Of the windows, cells.
    mean, std : ndarray
        (3,), by which colours in [-1, 1] are standardised.
    jitter : float
        See `dataset.crops.jitter_stain`.
    """

    def __init__(
        self,
        cells: ImageCells,
        drawer: Drawer,
        side: int,
        mean: NDArray[np.float32],
        std: NDArray[np.float32],
        jitter: float,
        seed: int,
    ) -> None:
        self._cells, self._drawer, self._side, self._seed = cells, drawer, side, seed
        self._mean, self._std, self._jitter = mean, std, jitter
        dataset = cells.dataset
        self._patches, self._members = dataset.split_patches("training"), dataset.members
        self._bare = {index for index, c in enumerate(dataset.table) if c.background}
        self._skipped = ReadFailures(dataset.skip_bad)

    def batch(self, step: int, count: int) -> LatentBatch:
        """Return the standardised cells of a step (>= 0)."""
        drawn = [self._one(np.random.default_rng((self._seed, step, i))) for i in range(count)]
        cells, maps, levels, labelled = zip(*drawn, strict=True)
        return LatentBatch(np.stack(cells), np.stack(maps), np.array(levels, np.int64), np.array(labelled, bool))

    def _one(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], U8, int, bool]:
        row, label = self._draw(rng)
        member, level = int(self._patches.member[row]), int(self._patches.level[row])
        colours, classes = self._cells.window(member, level, self._corner(row, label, rng), self._side)
        turn = int(rng.integers(8))
        turned = dihedral(jitter_stain(colours, rng, self._jitter) if self._jitter else colours, turn)
        standardised = ((turned / np.float32(127.5) - 1.0 - self._mean) / self._std).transpose(2, 0, 1)
        return standardised.astype(np.float32), dihedral(classes, turn), level, self._members[member].labelled

    def _draw(self, rng: np.random.Generator) -> tuple[int, int | None]:
        """A patch of an image that has cells, and the class around which a window lies; None: around tissue."""
        while True:
            row, label = self._drawer.draw(rng)
            member, level = int(self._patches.member[row]), int(self._patches.level[row])
            if (member, self._cells.bases[level][0]) not in self._cells.files:
                self._skipped.failed(self._members[member].name, ImageError("it has no cells"))
                continue
            self._skipped.succeeded()
            return row, None if label in self._bare else label

    def _corner(self, row: int, label: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """A window around a cell of the class, or of tissue, of a patch, at most a quarter of its side off the middle."""
        member, level = int(self._patches.member[row]), int(self._patches.level[row])
        (base, ratio), cell_px = self._cells.bases[level], self._cells.cell_px
        patch = self._patches.box(row, self._side * cell_px).snap(cell_px)
        side = self._side * ratio
        start = np.array([patch.y0, patch.x0]) // cell_px * ratio
        classes = self._cells.files[member, base][start[0] : start[0] + side, start[1] : start[1] + side, 3]
        if label is None:
            tissue = self._members[member].tissue(patch, self._cells.dataset.mpps[level], cell_px)
            tissue = tissue.repeat(ratio, axis=0).repeat(ratio, axis=1)[: classes.shape[0], : classes.shape[1]]
            wanted = tissue & ~np.isin(classes, list(self._bare))
        else:
            wanted = classes == label
        found = np.argwhere(wanted)
        place = found[rng.integers(len(found))] if len(found) else np.full(2, side // 2)
        off = rng.integers(-(side // 4), side // 4 + 1, size=2)
        corner = start + place - side // 2 + off
        last = np.maximum(np.array(self._cells.files[member, base].shape[:2]) - side, 0)
        y, x = np.clip(corner, 0, last)
        return int(y), int(x)
