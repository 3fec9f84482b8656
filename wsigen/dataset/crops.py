"""`PixelCrops`: random crops read from the images region by region."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ReferenceImageError
from wsigen.base.geometry import Box
from wsigen.dataset.augment import dihedral, jitter_stain
from wsigen.dataset.batch import CELL_PX, Batch
from wsigen.dataset.damage import REDRAWN, Damage
from wsigen.dataset.drawing import Drawer
from wsigen.dataset.members import Member
from wsigen.dataset.patches import Patches

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8], int, bool]
"""Image, class map, level, whether its image has labels."""


class PixelCrops:
    """Crops around places of the drawn class or, in unlabelled patches, of tissue; see `batch.CropStream`.

    Memory bound: a batch, 32 opened images and the annotations of 64; never a slide.

    Parameters
    ----------
    members, patches:
        The images, and the patches that may be drawn.
    mpps:
        um/px of the levels.
    patch_px, side_px:
        Sides of patches and of crops (px of the level), multiples of 8; a crop is not larger than a patch.
    augment:
        Whether crops are turned and, half of them, jittered in stain.
    damage:
        What becomes of crops that cannot be read; by default an error.
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
        damage: Damage | None = None,
    ) -> None:
        self._members, self._patches, self._drawer, self._mpps = members, patches, drawer, mpps
        self._patch, self._side, self._seed, self._augment = patch_px, side_px, seed, augment
        self._damage = damage or Damage()

    def batch(self, step: int, count: int) -> Batch:
        """Return ``count`` crops of a step (>= 0)."""
        crops = [self._readable(step, i) for i in range(count)]
        images, maps, levels, labelled = zip(*crops, strict=True)
        return Batch(np.stack(images), np.stack(maps), np.array(levels, np.int64), np.array(labelled, bool))

    def _readable(self, step: int, i: int) -> Crop:
        """Draw a crop; where it cannot be read another one, a function of (seed, step, i, attempt)."""
        for attempt in itertools.count():  # ends: `Damage` allows a share of failures
            again = (REDRAWN + attempt,) if attempt else ()
            rng = np.random.default_rng((self._seed, step, i, *again))
            row, label = self._drawer.draw(rng)
            member = self._members[self._patches.member[row]]
            try:
                crop = self._crop(member, row, label, rng)
            except ReferenceImageError as error:
                self._damage.meet(member.name, error)
                continue
            self._damage.read()
            break
        return crop

    def _crop(self, member: Member, row: int, label: int | None, rng: np.random.Generator) -> Crop:
        level = int(self._patches.level[row])
        mpp = self._mpps[level]
        box = self._place(member, mpp, self._patches.box(row, self._patch), label, rng)
        image, classes = member.image(box, mpp), member.class_map(box, mpp)
        if self._augment:
            image = jitter_stain(image, rng) if rng.random() < 0.5 else image
            turn = int(rng.integers(8))
            image, classes = dihedral(image, turn), dihedral(classes, turn)
        return image, classes, level, member.labelled

    def _place(self, member: Member, mpp: float, patch: Box, label: int | None, rng: np.random.Generator) -> Box:
        """Put the crop around a cell of the class, at most a quarter of its side off the middle, on the canvas."""
        wanted = member.tissue(patch, mpp) if label is None else member.class_map(patch, mpp) == label
        cells = np.argwhere(wanted)
        cell = cells[rng.integers(len(cells))] + (patch.y0 // CELL_PX, patch.x0 // CELL_PX)
        side = self._side // CELL_PX
        corner = cell - side // 2 + rng.integers(-(side // 4), side // 4 + 1, size=2)
        last = np.array(member.canvas(mpp)) // CELL_PX - side
        y, x = (int(v) * CELL_PX for v in np.clip(corner, 0, last))
        return Box(y, x, y + self._side, x + self._side)
