"""Decoded pixels beside those of the slide that is continued: which ones are its own, and how both are joined."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.run.tasks.context import PassContext
from wsigen.sampling.known import NEVER, first_step
from wsigen.slide.blend import REACH_PX, blended

RGB = NDArray[np.uint8]


class Join:
    """What is joined around a block of the slide.

    Parameters
    ----------
    pass_ : PassContext
        The finest pass.
    block : Box
        Pixels that are wanted, px of the slide that is made.

    Attributes
    ----------
    around : Box
        The block with the surroundings that decide how its pixels are joined.
    kept : ndarray
        Which of them are the old slide's own, bool ``(h, w)``.
    """

    def __init__(self, pass_: PassContext, block: Box) -> None:
        slide = pass_.run.slide
        self._pass, self._block = pass_, block
        self._edits = pass_.run.spec.settings.regions is not None
        self.around = block.dilate(REACH_PX).intersect(Box(0, 0, slide.height, slide.width))
        self._starts = _of_pixels(pass_, self.around)
        self.kept = self._kept()

    def whole(self, glass: tuple[int, int, int]) -> RGB | None:
        """The block if nothing in it or near it is made; of an edit, which has no use for it, glass."""
        if not self.kept.all():
            return None
        if self._edits:
            return np.full((*self._block.shape, 3), glass, np.uint8)
        return self._own[self._inner]

    def before(self, glass: tuple[int, int, int]) -> RGB:
        """The pixels without what is decoded: the old slide's, and glass elsewhere."""
        return np.where(self.kept[..., None], self._own, np.asarray(glass, np.uint8))

    def with_made(self, made: RGB) -> RGB:
        """The block, joined from what was decoded on `around`."""
        first = first_step(self._pass.plan.schedule, self._pass.plan.strength, self._pass.run.spec.settings.edit_strength)
        margin = (self._starts > first) & (self._starts < NEVER)  # in it alone: nothing of what is replaced may show
        return blended(self._own, made, self.kept, margin & self._edits)[self._inner]

    @cached_property
    def _own(self) -> RGB:
        return self._pass.run.continued.pixels(self.around)

    @property
    def _inner(self) -> tuple[slice, slice]:
        return self._block.relative_to(self.around).slices

    def _kept(self) -> NDArray[np.bool_]:
        inside = self.around.intersect(self._pass.run.continued.box)
        kept = np.zeros(self.around.shape, dtype=bool)
        if not inside.empty:
            kept[inside.relative_to(self.around).slices] = True
        return kept & (self._starts == NEVER) if self._edits else kept


def _of_pixels(pass_: PassContext, box: Box) -> NDArray[np.uint16]:
    """`PassContext.starts` for every pixel of a box."""
    f = pass_.plan.factor
    latents = box.cover(f)
    starts = np.repeat(np.repeat(pass_.starts(latents), f, axis=0), f, axis=1)
    return starts[box.relative_to(latents.scale(f)).slices]
