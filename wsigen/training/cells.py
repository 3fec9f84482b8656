"""The mean colours of whole images, made once, and windows of them anywhere: what a network that draws grids is trained on.

Windows lie anywhere, not on a lattice of patches: coarse levels of a few slides have only dozens of patches, which a network
learns by heart instead of how tissue is built.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError, ImageError
from wsigen.base.geometry import Box
from wsigen.dataset.crops import ReadFailures, dihedral, jitter_stain
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.latents import LatentBatch, await_others
from wsigen.dataset.members import Member
from wsigen.grids.mean_colour import mean_colours
from wsigen.storage.files import atomic_path

READ_CELLS = 256
"""Side of what is read of an image at a time, cells."""

UNREADABLE = UNKNOWN - 1
"""Class of cells of an image that cannot be read; class tables are shorter."""

WHOLE = 1e-3
"""Relative difference from a whole ratio of um/px that is let pass."""

U8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ImageCells:
    """The cells of a dataset's training images, each level's made of the finest level whose um/px it is a whole multiple of.

    Attributes
    ----------
    bases : dict of (int, int) to (int, int)
        By the image's position in the dataset's members and a level on which it has patches: the level whose cells are kept,
        and how many of them a side make one of its own.
    files : dict of (int, int) to Path
        By the image and the level that is kept: uint8 ``(h, w, 4)``; red, green and blue, and the class, which is
        `UNREADABLE` where the image cannot be read.
    cell_px : int
        px of a cell.
    """

    dataset: Dataset
    bases: dict[tuple[int, int], tuple[int, int]]
    files: dict[tuple[int, int], Path]
    cell_px: int

    def kept(self, member: int, level: int) -> tuple[U8, int]:
        """The cells that are kept for a level of an image, and how many of them a side make one of its own.

        They are mapped into memory as long as they are held: a file for each of a thousand images would be too many at once.
        """
        base, ratio = self.bases[member, level]
        return _mapped(self.files[member, base]), ratio


def window(kept: U8, ratio: int, corner: tuple[int, int], side: int) -> tuple[U8, U8]:
    """Colours ``(side, side, 3)`` and classes ``(side, side)`` of cells of ``ratio`` x ``ratio`` kept ones each.

    What lies beyond the image repeats its last cells: images may be as large as a patch, and their last cells are not whole
    ones of a coarse level.

    Raises
    ------
    ImageError
        If a part of it cannot be read.
    """
    y, x = corner
    part = kept[y : y + side * ratio, x : x + side * ratio]
    if (part[..., 3] == UNREADABLE).any():
        raise ImageError("a part of it could not be read when its cells were made")
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
    """Make the cells of the images of the training split that are not in ``folder`` yet, on the levels that show patches.

    Parameters
    ----------
    cell_px : int
        px of a cell.
    share, meet : tuple of int, callable
        As in `dataset.latents.cache_latents`: each process makes those of every so manieth image.

    Raises
    ------
    DatasetError
        If an image cannot be read everywhere, unless the dataset skips such places, or a file of cells is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bases = _bases(dataset)
    pairs = sorted({(member, base) for (member, _), (base, _) in bases.items()})
    places = {(m, base): folder / f"{_key(dataset, m, base, cell_px)}.npy" for m, base in pairs}
    own = set(sorted({member for member, _ in pairs})[share[0] :: share[1]])
    todo = [pair for pair in pairs if pair[0] in own and not places[pair].is_file()]
    failures, slowest_s = ReadFailures(dataset.skip_bad, expected=_parts(dataset, todo, cell_px)), 0.0
    for member, base in todo:
        begin = monotonic()
        with atomic_path(places[member, base]) as beside:
            _make(dataset.members[member], dataset.mpps[base], cell_px, beside, failures)
        slowest_s = max(slowest_s, monotonic() - begin)
    if share[1] > 1:
        await_others(lambda: sum(not place.is_file() for place in places.values()), slowest_s)
    if meet is not None:
        meet()
    for place in places.values():
        _mapped(place)
    return ImageCells(dataset, bases, places, cell_px)


def _bases(dataset: Dataset) -> dict[tuple[int, int], tuple[int, int]]:
    """`whole_bases` of every image, of the levels on which it has patches to train on."""
    patches = dataset.split_patches("training")
    levels: dict[int, set[int]] = {}
    for member, level in set(zip(patches.member.tolist(), patches.level.tolist(), strict=True)):
        levels.setdefault(member, set()).add(level)
    return {
        (member, level): base
        for member, of_member in levels.items()
        for level, base in whole_bases({level: dataset.mpps[level] for level in sorted(of_member)}).items()
    }


def whole_bases(mpps: dict[int, float]) -> dict[int, tuple[int, int]]:
    """Of every level the finest one that divides it, and their ratio: of 0.5, 1 and 1.3 um/px (0, 1), (0, 2), (2, 1).

    Parameters
    ----------
    mpps : dict of int to float
        um/px of the levels, fine to coarse.
    """
    found = {}
    for level, mpp in mpps.items():
        ratios = [(base, mpp / other) for base, other in mpps.items() if base <= level]
        base, ratio = next((b, r) for b, r in ratios if round(r) >= 1 and abs(r - round(r)) <= WHOLE * r)
        found[level] = (base, round(ratio))
    return found


def _mapped(place: Path) -> U8:
    """The cells of a file, read where they are needed (DatasetError if it is not whole)."""
    try:
        cells = np.load(place, mmap_mode="r")
        if cells.dtype != np.uint8 or cells.ndim != 3 or cells.shape[2] != 4:
            raise ValueError(f"{cells.dtype} {cells.shape}")
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{place}: damaged ({error}); delete it, and it is made anew") from None
    except OSError as error:
        raise DatasetError(f"{place}: cannot be read ({error})") from None
    return cells


def _key(dataset: Dataset, member: int, base: int, cell_px: int) -> str:
    """Names the cells of an image by what decides them."""
    decisive = [dataset.key, dataset.members[member].name, dataset.mpps[base], cell_px, dataset.skip_bad]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:24]


def _parts(dataset: Dataset, pairs: list[tuple[int, int]], cell_px: int) -> int:
    """How many parts of images are read."""
    sides = (dataset.members[member].canvas(dataset.mpps[base]) for member, base in pairs)
    return sum(math.prod(-(-extent // (cell_px * READ_CELLS)) for extent in canvas) for canvas in sides)


def _make(member: Member, mpp: float, cell_px: int, file: Path, failures: ReadFailures) -> None:
    """Write colours and classes of an image's whole cells as a .npy, read part by part, a band of parts at a time."""
    height, width = (extent // cell_px for extent in member.canvas(mpp))
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (height, width, 4)})
        for y in range(0, height, READ_CELLS):
            band = np.empty((min(READ_CELLS, height - y), width, 4), dtype=np.uint8)
            for x in range(0, width, READ_CELLS):
                cells = Box(y, x, y + len(band), min(width, x + READ_CELLS))
                band[:, x : cells.x1] = _part(member, mpp, cell_px, cells, failures)
            out.write(band.tobytes())


def _part(member: Member, mpp: float, cell_px: int, cells: Box, failures: ReadFailures) -> U8:
    """Colours and classes of some cells, uint8 ``(h, w, 4)``."""
    box, part = cells.scale(cell_px), np.full((*cells.shape, 4), UNREADABLE, dtype=np.uint8)
    try:
        means = mean_colours(member.image(box, mpp)[None], cell_px)[0].transpose(1, 2, 0)
    except ImageError as error:
        failures.failed(member.name, error)
        return part
    failures.succeeded()
    part[..., :3] = np.rint((means + 1.0) * 127.5)
    part[..., 3] = member.class_map(box, mpp, cell_px)
    return part


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
        while True:
            row, label = self._drawer.draw(rng)
            member, level = self._members[int(self._patches.member[row])], int(self._patches.level[row])
            kept, ratio = self._cells.kept(int(self._patches.member[row]), level)
            corner = self._corner(kept, ratio, row, None if label in self._bare else label, rng)
            try:
                colours, classes = window(kept, ratio, corner, self._side)
            except ImageError as error:
                self._skipped.failed(member.name, error)
                continue
            self._skipped.succeeded()
            break
        turn = int(rng.integers(8))
        turned = dihedral(jitter_stain(colours, rng, self._jitter) if self._jitter else colours, turn)
        standardised = ((turned / np.float32(127.5) - 1.0 - self._mean) / self._std).transpose(2, 0, 1)
        return standardised.astype(np.float32), dihedral(classes, turn), level, member.labelled

    def _corner(self, kept: U8, ratio: int, row: int, label: int | None, rng: np.random.Generator) -> tuple[int, int]:
        """A window around a cell of the class of a patch, at most a quarter of its side off the middle; in cells that are kept.

        Without a class it lies around tissue; around the patch's middle if there is no such cell.
        """
        member, level = int(self._patches.member[row]), int(self._patches.level[row])
        cell_px = self._cells.cell_px
        patch = self._patches.box(row, self._side * cell_px).snap(cell_px)
        side = self._side * ratio
        start = np.array([patch.y0, patch.x0]) // cell_px * ratio
        classes = kept[start[0] : start[0] + side, start[1] : start[1] + side, 3]
        if label is None:
            tissue = self._members[member].tissue(patch, self._cells.dataset.mpps[level], cell_px)
            tissue = tissue.repeat(ratio, axis=0).repeat(ratio, axis=1)[: classes.shape[0], : classes.shape[1]]
            wanted = tissue & ~np.isin(classes, [*self._bare, UNREADABLE])
        else:
            wanted = classes == label
        found = np.argwhere(wanted)
        place = found[rng.integers(len(found))] if len(found) else np.full(2, side // 2)
        off = rng.integers(-(side // 4), side // 4 + 1, size=2)
        corner = start + place - side // 2 + off
        last = np.maximum(np.array(kept.shape[:2]) - side, 0)
        y, x = np.clip(corner, 0, last)
        return int(y), int(x)
