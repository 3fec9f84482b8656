"""The picture a pass starts from: the user's reference, or the decoded pass before it, read box by box."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.run.tasks.context import PassContext, RunContext
from wsigen.run.tasks.decode import decode_region
from wsigen.sampling.passes import PassPlan
from wsigen.slide.resample import apply, taps

ENCODE_WINDOW = 128
"""Side of an encoded window in latent px: bounds the encoder's memory."""

ENCODE_HALO = 8
"""Context around an encoded window in latent px; what a window does not see differs by less than the noise added next."""


class Guide(Protocol):
    """Anything that gives RGB boxes on a canvas of any size."""

    def region(self, box: Box) -> NDArray[np.uint8]:
        """Pixels of ``box`` in image px of the pass that starts; uint8 ``[h, w, 3]``."""
        ...


class ReferenceGuide:
    """The user's reference, resized to the slide; pixels of the canvas beyond the slide repeat its last ones."""

    def __init__(self, run: RunContext, part: PassContext) -> None:
        self._reference = run.reference
        scale = part.plan.scale
        self._size = (-(-run.slide.height // scale), -(-run.slide.width // scale))

    def region(self, box: Box) -> NDArray[np.uint8]:
        """Pixels of ``box`` of the resized reference."""
        inside = box.intersect(Box(0, 0, *self._size))
        rgb = self._reference.region(inside, self._size)
        beyond = ((0, box.height - inside.height), (0, box.width - inside.width), (0, 0))
        return np.pad(rgb, beyond, mode="edge")


class PreviousPass:
    """The decoded result of a coarser pass, each of whose pixels becomes ``ratio`` x ``ratio`` of the pass that starts."""

    def __init__(self, run: RunContext, part: PassContext, ratio: int) -> None:
        self._run = run
        self._part = part
        self._ratio = ratio

    def region(self, box: Box) -> NDArray[np.uint8]:
        """Decode just the latents below ``box`` and enlarge them exactly ``ratio`` times (cubic)."""
        plan = self._part.plan
        f = plan.factor
        rows = taps(box.y0, box.y1, plan.height * f * self._ratio, plan.height * f)
        columns = taps(box.x0, box.x1, plan.width * f * self._ratio, plan.width * f)
        (top, bottom), (left, right) = rows.span, columns.span
        latents = Box(top // f, left // f, -(-bottom // f), -(-right // f))
        rgb = decode_region(self._run, self._part, latents)
        y0, x0 = top - latents.y0 * f, left - latents.x0 * f
        source = rgb[y0 : y0 + bottom - top, x0 : x0 + right - left]
        rows.index[...] -= top
        columns.index[...] -= left
        return apply(source, rows, columns)


def guide_of(run: RunContext, part: PassContext) -> Guide:
    """The picture pass ``part`` starts from."""
    if part.plan.start == "reference":
        return ReferenceGuide(run, part)
    coarse = run.passes[part.plan.index - 1]
    return PreviousPass(run, coarse, coarse.plan.scale // part.plan.scale)


def encode_region(run: RunContext, guide: Guide, box: Box, plan: PassPlan) -> NDArray[np.float32]:
    """Encode the guide on a box of latents, float32 ``[C, h, w]``, window by window in bounded memory."""
    f, canvas, model = plan.factor, plan.grid.canvas, run.model
    out = np.empty((model.card.latent.channels, *box.shape), dtype=np.float32)
    for window in split(box, ENCODE_WINDOW):
        around = window.dilate(ENCODE_HALO).intersect(canvas)
        rgb = guide.region(around.scale(f))
        with run.model_slot():
            latents = model.autoencoder.encode(rgb)
        core = window.relative_to(around).slices
        out[(slice(None), *window.relative_to(box).slices)] = latents[(slice(None), *core)]
    return out


def split(box: Box, side: int) -> list[Box]:
    """Cut a box into windows on the global lattice of ``side``, row-major."""
    return [
        Box(y, x, y + side, x + side).intersect(box)
        for y in range(box.y0 // side * side, box.y1, side)
        for x in range(box.x0 // side * side, box.x1, side)
    ]
