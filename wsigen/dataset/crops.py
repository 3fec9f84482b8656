"""Random crops with their class maps, read from the images region by region; and how they are augmented."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError, ImageError
from wsigen.base.geometry import Box
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches
from wsigen.dataset.settings import CELL_PX

MOST_FAILED, LEAST_FAILED = 0.25, 20
"""Share of the reads that may fail, of which at least so many have to: beyond it, it is not a damaged tile."""

REDRAWN = 2**16
"""Last words of the random generators' keys from here on: apart from those of a step's other draws (`denoiser_task.NOISE`)."""

U8 = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)
AnyBatch = TypeVar("AnyBatch", covariant=True)


class Stream(Protocol[AnyBatch]):
    """Random batches: a pure function of (seed, step), so that a resumed training sees the very same ones."""

    def batch(self, step: int, count: int) -> AnyBatch:
        """Return ``count`` examples; a longer batch of the same step begins with those of a shorter one."""
        ...


@dataclass(frozen=True, slots=True)
class CropBatch:
    """A batch of training crops.

    Attributes
    ----------
    images : uint8 [B, P, P, 3] RGB
    class_maps : uint8 [B, P / c, P / c] of cells of c px, indices into the dataset's table, or `classes.UNKNOWN`
    levels : int64 [B], index into the dataset's levels (0 = finest)
    labelled : bool [B], whether the crop comes from an image with any label
    """

    images: U8
    class_maps: U8
    levels: NDArray[np.int64]
    labelled: NDArray[np.bool_]


class CropStream:
    """Crops around places of the drawn class or, in unlabelled patches, of tissue; see `Stream`.

    Memory bound: a batch, 32 opened images and the annotations of 64; never a slide.

    Parameters
    ----------
    members, patches : sequence of Member, Patches
        The images, and the patches that may be drawn.
    mpps : sequence of float
        um/px of the levels.
    patch_px, side_px : int
        Sides of patches and of crops (px of the level), multiples of 8; a crop is not larger than a patch.
    augment : bool
        Whether crops are turned and, half of them, jittered in stain.
    failures : ReadFailures
        What becomes of crops that cannot be read.
    cell_px : int
        Side of the cells of class maps; crops lie on their grid.
    """

    def __init__(
        self,
        members: Sequence[Member],
        patches: Patches,
        drawer: Drawer,
        mpps: Sequence[float],
        patch_px: int,
        side_px: int,
        seed: int,
        augment: bool,
        failures: ReadFailures,
        cell_px: int = CELL_PX,
    ) -> None:
        self._members, self._patches, self._drawer, self._mpps = members, patches, drawer, mpps
        self._patch, self._side, self._seed, self._augment, self._failures = patch_px, side_px, seed, augment, failures
        self._cell = cell_px

    def batch(self, step: int, count: int) -> CropBatch:
        """Return ``count`` crops of a step (>= 0)."""
        crops = [self._readable(step, i) for i in range(count)]
        images, maps, levels, labelled = zip(*crops, strict=True)
        return CropBatch(np.stack(images), np.stack(maps), np.array(levels, np.int64), np.array(labelled, bool))

    def _readable(self, step: int, i: int) -> tuple[U8, U8, int, bool]:
        """Draw a crop; where it cannot be read another one, a function of (seed, step, i, attempt)."""
        for attempt in itertools.count():  # ends: `ReadFailures` allows a share of them
            again = (REDRAWN + attempt,) if attempt else ()
            rng = np.random.default_rng((self._seed, step, i, *again))
            row, label = self._drawer.draw(rng)
            member, level = self._members[self._patches.member[row]], int(self._patches.level[row])
            try:
                image, classes = self._crop(member, self._mpps[level], self._patches.box(row, self._patch), label, rng)
            except ImageError as error:
                self._failures.failed(member.name, error)
                continue
            self._failures.succeeded()
            break
        return image, classes, level, member.labelled

    def _crop(self, member: Member, mpp: float, patch: Box, label: int | None, rng: np.random.Generator) -> tuple[U8, U8]:
        box = self._place(member, mpp, patch, label, rng)
        image, classes = member.image(box, mpp), member.class_map(box, mpp, self._cell)
        if self._augment:
            image = jitter_stain(image, rng) if rng.random() < 0.5 else image
            turn = int(rng.integers(8))
            image, classes = dihedral(image, turn), dihedral(classes, turn)
        return image, classes

    def _place(self, member: Member, mpp: float, patch: Box, label: int | None, rng: np.random.Generator) -> Box:
        """Put the crop around a cell of the class, at most a quarter of its side off the middle, on the canvas.

        Without a class it lies around tissue, or around what is labelled of a patch that shows none.
        """
        wanted = member.tissue(patch, mpp) if label is None else member.class_map(patch, mpp) == label
        if label is None and not wanted.any():
            wanted = member.class_map(patch, mpp) != UNKNOWN
        cells = np.argwhere(wanted)
        cell = cells[rng.integers(len(cells))] + (patch.y0 // CELL_PX, patch.x0 // CELL_PX)
        side = self._side // CELL_PX
        corner = cell - side // 2 + rng.integers(-(side // 4), side // 4 + 1, size=2)
        last = np.array(member.canvas(mpp)) // CELL_PX - side
        y, x = (int(v) * CELL_PX for v in np.clip(corner, 0, last))
        return Box(y, x, y + self._side, x + self._side).snap(self._cell)


def jitter_stain(crop: U8, rng: np.random.Generator, amount: float = 0.24) -> U8:
    """Scale the optical density of each colour a little, half of it alike for all three; glass (density 0) keeps its colour.

    Parameters
    ----------
    crop : uint8 [h, w, 3] RGB
    amount : float
        Largest relative change of a density.

    Returns
    -------
    uint8 [h, w, 3]
    """
    density = -np.log((crop.astype(np.float32) + 1.0) / 256.0)
    scale = 1.0 + amount / 2 * rng.uniform(-1.0, 1.0, size=3) + amount / 2 * rng.uniform(-1.0, 1.0)
    # Glass is near density 0.05: keep that part untouched.
    jittered = np.where(density > 0.08, 0.08 + (density - 0.08) * scale, density)
    return np.asarray(np.clip(256.0 * np.exp(-jittered) - 1.0, 0, 255) + 0.5, dtype=np.uint8)


def dihedral(image: NDArray[Scalar], variant: int) -> NDArray[Scalar]:
    """Return one of the eight flips and quarter turns of the first two axes; variant 0 changes nothing."""
    turned = np.rot90(image, variant % 4)
    return np.ascontiguousarray(turned[:, ::-1] if variant >= 4 else turned)


class ReadFailures:
    """Counts the reads of a stream and decides what a failed one means; several threads may use it.

    Some images open and cannot be read everywhere: indexing reads a coarse view of a slide, and a damaged tile of its full
    resolution is met by the training.

    Parameters
    ----------
    skip : bool
        Whether another place is read instead (``--skip-bad``).
    expected : int
        Reads there will be at least: where they come image by image, one bad image must not look like all of them.
    remedy : str
        What a person may do where nothing is skipped.
    """

    def __init__(self, skip: bool = False, expected: int = 0, remedy: str = "mend it, or go on with --skip-bad") -> None:
        self.skip, self.reads, self.expected, self._remedy = skip, 0, expected, remedy
        self.by_image: dict[str, int] = {}
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Count a read that went well."""
        with self._lock:
            self.reads += 1

    def failed(self, name: str, error: ImageError) -> None:
        """Count a read that failed, and name the image the first time.

        Raises
        ------
        DatasetError
            If images must be whole, or too many reads fail.
        """
        reason = str(error).split(";")[0]
        if not self.skip:
            raise DatasetError(f"{name}: opens and cannot be read everywhere: {reason}; {self._remedy}")
        with self._lock:
            self.by_image[name] = self.by_image.get(name, 0) + 1
            first, total = self.by_image[name] == 1, sum(self.by_image.values())
            self.reads += 1
            reads = max(self.reads, self.expected)
        if total >= LEAST_FAILED and total > MOST_FAILED * reads:
            worst = max(self.by_image, key=lambda other: self.by_image[other])
            raise DatasetError(
                f"{total} of {reads} reads failed, {self.by_image[worst]} of them of {worst}: more than damaged places; "
                f"mend or remove the images (the last: {reason})"
            )
        if first:
            print(f"note: {name}: {reason}; other places are read instead", file=sys.stderr, flush=True)
