"""The picture a pass starts from: the user's reference, or the decoded pass before it, read box by box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.decode import decode_region
from wsigen.run.tasks.encode import encode_pixels, encode_windows
from wsigen.slide.resample import apply, taps


def encode_guide(pass_: PassContext, box: Box) -> NDArray[np.float32]:
    """Encode the picture a pass starts from on a box of latents, float32 ``(C, h, w)``."""
    return encode_windows(pass_, box, lambda window: encode_pixels(pass_, window, lambda px: guide_pixels(pass_, px)))


def guide_pixels(pass_: PassContext, box: Box) -> NDArray[np.uint8]:
    """Pixels of the picture a pass starts from, uint8 ``(h, w, 3)``; ``box`` in image px of the pass."""
    return _of_reference(pass_, box) if pass_.plan.start == "reference" else _of_previous_pass(pass_, box)


def _of_reference(pass_: PassContext, box: Box) -> NDArray[np.uint8]:
    """The user's reference, resized to the slide; pixels of the canvas beyond the slide repeat its last ones."""
    scale, slide = pass_.plan.scale, pass_.run.slide
    size = (-(-slide.height // scale), -(-slide.width // scale))
    inside = box.intersect(Box(0, 0, *size))
    rgb = pass_.run.reference.region(inside, size)
    beyond = ((0, box.height - inside.height), (0, box.width - inside.width), (0, 0))
    return np.pad(rgb, beyond, mode="edge")


def _of_previous_pass(pass_: PassContext, box: Box) -> NDArray[np.uint8]:
    """The coarser pass, decoded just where it is needed and enlarged exactly by the ratio of the two scales (cubic)."""
    coarse = pass_.run.passes[pass_.plan.index - 1]
    plan, f = coarse.plan, coarse.plan.factor
    ratio = plan.scale // pass_.plan.scale
    rows = taps(box.y0, box.y1, plan.height * f * ratio, plan.height * f)
    columns = taps(box.x0, box.x1, plan.width * f * ratio, plan.width * f)
    (top, bottom), (left, right) = rows.span, columns.span
    latents = Box(top, left, bottom, right).cover(f)
    rgb = decode_region(coarse, latents)
    y0, x0 = top - latents.y0 * f, left - latents.x0 * f
    source = rgb[y0 : y0 + bottom - top, x0 : x0 + right - left]
    rows.index[...] -= top
    columns.index[...] -= left
    return apply(source, rows, columns)
