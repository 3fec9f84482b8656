"""The picture a pass starts from: the user's reference, or the decoded pass before it, read box by box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box, lattice_windows
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.decode import decode_region
from wsigen.slide.resample import apply, taps

ENCODE_WINDOW = 128
"""Side of an encoded window in latent px: bounds the encoder's memory."""

ENCODE_HALO = 8
"""Context around an encoded window in latent px; what a window does not see differs by less than the noise added next."""


def encode_guide(pass_: PassContext, box: Box) -> NDArray[np.float32]:
    """Encode the picture a pass starts from on a box of latents, float32 ``(C, h, w)``, window by window in bounded memory."""
    out = np.empty((pass_.state.channels, *box.shape), dtype=np.float32)
    for window in lattice_windows(box, ENCODE_WINDOW):
        around = window.dilate(ENCODE_HALO).intersect(pass_.plan.grid.canvas)
        rgb = guide_pixels(pass_, around.scale(pass_.plan.factor))
        with pass_.run.model_slot():
            latents = pass_.run.model.autoencoder.encode(rgb)
        core = window.relative_to(around).slices
        out[(slice(None), *window.relative_to(box).slices)] = latents[(slice(None), *core)]
    return out


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
