"""Patches of a dataset through an encoder, block by block."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import DatasetError, ReferenceImageError
from wsigen.dataset.augment import dihedral, jitter_stain
from wsigen.dataset.batch import CELL_PX
from wsigen.dataset.damage import REDRAWN, Damage
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.drawing import MOST
from wsigen.dataset.patches import Patches

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 ``[B, P, P, 3]`` -> float32 ``[B, C, p, p]``, p = P / 8."""

Read = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]
"""A patch: pixels, classes and tissue of its cells."""


MOST_TRIED = 20
"""Patches read in place of one that cannot be read, before a training gives up."""


class PatchEncoder:
    """Reads, augments and encodes patches; one that cannot be read is replaced or an error (`damage`)."""

    def __init__(self, dataset: Dataset, patches: Patches, encode: Encode, batch: int, jitter: float) -> None:
        self.dataset, self.patches, self._encode, self._batch, self._jitter = dataset, patches, encode, batch, jitter
        self._damage = Damage(dataset.skip_bad, expected=len(patches.level))

    def block(self, rows: range, variant: int) -> tuple[NDArray[np.float16], NDArray[np.uint8], NDArray[np.float64]]:
        """Encode some rows: latents, class maps, and count, sum, sum of squares over tissue, float64 ``[3, C]``."""
        latents, maps, tissues = [], [], []
        for start in range(rows.start, rows.stop, self._batch):
            read = [self._read(row, variant) for row in range(start, min(rows.stop, start + self._batch))]
            images, classes, tissue = (np.stack(part) for part in zip(*read, strict=True))
            latents.append(self._checked(images))
            maps.append(classes)
            tissues.append(tissue)
        values = np.concatenate(latents)
        inside = np.moveaxis(values, 1, 0)[:, np.concatenate(tissues)].astype(np.float64)
        sums = np.stack([np.full(len(inside), inside.shape[1]), inside.sum(axis=1), (inside**2).sum(axis=1)])
        return values.astype(np.float16), np.concatenate(maps), sums

    def channels(self) -> int:
        """Channels of the encoder's latents."""
        return int(self._checked(self._read(0, 0)[0][None]).shape[1])

    def _checked(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        latents = np.asarray(self._encode(images), np.float32)
        side = self.dataset.settings.patch_px // CELL_PX
        if latents.ndim != 4 or latents.shape[0] != len(images) or latents.shape[2:] != (side, side):
            raise DatasetError(
                f"the encoder gives {latents.shape} for {images.shape}; class maps need {side} x {side} latents (f8)"
            )
        if not np.isfinite(latents).all() or np.abs(latents).max() > np.finfo(np.float16).max:
            raise DatasetError("the encoder gives latents that are not finite or beyond float16; check its weights")
        return latents

    def _read(self, row: int, variant: int) -> Read:
        image, classes, tissue = self._readable(row)
        dataset = self.dataset
        glass = [i for i, c in enumerate(dataset.table) if c.background]
        tissue = tissue & ~np.isin(classes, glass)
        if variant:
            rng = np.random.default_rng((dataset.settings.seed, row, variant))
            image = jitter_stain(image, rng, self._jitter) if self._jitter else image
            turn = variant % 8
            image, classes, tissue = dihedral(image, turn), dihedral(classes, turn), dihedral(tissue, turn)
        return image, classes, tissue

    def _readable(self, row: int) -> Read:
        """Read a patch, or in its place one of the same kind: a function of (seed, row, attempt)."""
        taken = row
        failed: set[int] = set()
        for attempt in itertools.count():
            member, mpp = self.dataset.members[self.patches.member[taken]], self.dataset.mpps[self.patches.level[taken]]
            box = self.patches.box(taken, self.dataset.settings.patch_px)
            try:
                image = member.image(box, mpp)
            except ReferenceImageError as error:
                self._damage.meet(member.name, error)
                failed.add(taken)
                others = self._alike(row, failed)
                if len(others) == 0 or len(failed) >= MOST_TRIED:
                    raise DatasetError(
                        f"{member.name}: cannot be read at a patch, nor can {len(failed) - 1} others like it; mend or remove it"
                    ) from None
                rng = np.random.default_rng((self.dataset.settings.seed, row, REDRAWN + attempt))
                taken = int(others[rng.integers(len(others))])
                continue
            self._damage.read()
            break
        return image, member.class_map(box, mpp), member.tissue(box, mpp)

    def _alike(self, row: int, failed: set[int]) -> NDArray[np.int64]:
        """Rows that are drawn as ``row`` is: of its level, its most frequent class, half of it or less, labelled or not.

        Without those that failed; if no other is left, any row of its level.
        """
        p = self.patches
        labelled = np.array([m.labelled for m in self.dataset.members])[p.member]
        cells = (self.dataset.settings.patch_px // CELL_PX) ** 2
        most, label = p.counts.max(axis=1), p.counts.argmax(axis=1)
        kinds = np.stack([p.level, labelled, label, most > 0, most >= MOST * cells])
        whole = np.ones(len(p.level), bool)
        whole[list(failed)] = False
        alike = np.flatnonzero((kinds == kinds[:, row, None]).all(axis=0) & whole)
        return alike if len(alike) else np.flatnonzero((p.level == p.level[row]) & whole)
