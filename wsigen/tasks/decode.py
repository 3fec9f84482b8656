"""From final latents to pixels, window by window, without seams or drift of tone.

A window is decoded with a halo of context that is then cut off. What is not local in a decoder is its GroupNorm: its
statistics are estimated once per pass from a sample of windows and shared by all (``models.frozen_norm``). A decoder with
attention in its middle block stays non-local: there, overlapping windows are blended by Hann weights.

Memory bound: a window of 128 latent px with its halo, whatever the size of the slide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.geometry import Box
from wsigen.models.model import Model
from wsigen.sampling.lattice import lattice_crops, lattice_starts
from wsigen.slide.tiles import encode_block
from wsigen.tasks.context import PassContext, RunContext
from wsigen.tasks.state import held_pixels, read_state

WINDOW = 128
"""Side of a decoded window in latent px."""

BLEND_OVERLAP = 32
"""Overlap of blended windows in latent px, for decoders that are not local."""

FADE_FROM, FADE_TO = 1.0, 4.0
"""Distance from tissue, in latent px, over which decoded glass fades into the bundle's exact glass colour."""

FADE_MARGIN = 6
"""Context in latent px that decides the fade of a pixel."""

NORM_WINDOWS = 8
"""Windows whose statistics a pass's decoder shares."""


def decode_block(run: RunContext, part: PassContext, ij: tuple[int, int]) -> int:
    """Decode, encode and spool one block of the slide. Returns 0 (model calls)."""
    block = run.slide.grid.box(ij)
    f = part.plan.factor
    latents = Box(block.y0 // f, block.x0 // f, -(-block.y1 // f), -(-block.x1 // f))
    rgb = decode_region(run, part, latents)
    rgb = rgb[block.y0 - latents.y0 * f :, block.x0 - latents.x0 * f :][: block.height, : block.width]
    run.spool.write(ij, encode_block(run.slide, ij, rgb))
    return 0


def decode_region(run: RunContext, part: PassContext, box: Box) -> NDArray[np.uint8]:
    """Decode a box of final latents to uint8 ``[h f, w f, 3]``; bare glass costs no model call."""
    f, canvas = part.plan.factor, part.plan.grid.canvas
    total = np.zeros((box.height * f, box.width * f, 3), dtype=np.float32)
    glass = np.asarray(run.glass_rgb, dtype=np.float32)
    for window, weight in _windows(run, box, canvas):
        inner = window.intersect(box)
        out = inner.relative_to(box).scale(f).slices
        share = weight[inner.relative_to(window).scale(f).slices] if weight is not None else np.float32(1)
        near = inner.dilate(FADE_MARGIN).intersect(canvas)
        held = held_pixels(run, part, near)
        if held.all():
            total[out] += glass * share
            continue
        rgb = _decode_window(run, part, window)[inner.relative_to(window).scale(f).slices]
        if held.any():
            alpha = _glass_share(held, inner.relative_to(near), f)
            rgb = rgb + alpha * (glass - rgb)
        total[out] += rgb * share
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def calibrate(run: RunContext, part: PassContext) -> int:
    """Estimate the statistics that all windows of this pass share, from windows spread over its tissue."""
    boxes = [part.plan.grid.box((i, j)) for i, j in np.argwhere(part.state.activity).tolist()]
    chosen = [boxes[k] for k in sorted({round(k) for k in np.linspace(0, len(boxes) - 1, NORM_WINDOWS)})] if boxes else []
    windows = [_fullest_window(run, part, box) for box in chosen]
    latents = [read_state(run, part, part.schedule.steps, w)[0] for w in dict.fromkeys(windows)]
    model = run.model
    model.freeze_norm(None)
    part.state.write_norm(model.norm_statistics(latents) if latents else np.empty(0))
    return 0


def _windows(run: RunContext, box: Box, canvas: Box) -> Iterator[tuple[Box, NDArray[np.float32] | None]]:
    """Windows that cover ``box``, with pixel weights that add up to 1 (None: the window alone owns its pixels)."""
    if run.model.decoder_is_local:
        for y in range(box.y0 // WINDOW * WINDOW, box.y1, WINDOW):
            for x in range(box.x0 // WINDOW * WINDOW, box.x1, WINDOW):
                yield Box(y, x, y + WINDOW, x + WINDOW).intersect(box), None
        return
    side = min(WINDOW, canvas.height, canvas.width)
    overlap = min(BLEND_OVERLAP, side // 2)
    ys, xs = (lattice_starts(extent, side, side - overlap) for extent in canvas.shape)
    f = run.passes[0].plan.factor
    for crop in lattice_crops(ys, xs, side, "hann", canvas):
        if crop.box.overlaps(box):
            yield crop.box, np.kron(crop.weight, np.ones((f, f), np.float32))[..., None]


def _decode_window(run: RunContext, part: PassContext, window: Box) -> NDArray[np.float32]:
    """Decode a window with its halo; float32 ``[h f, w f, 3]`` in 0 .. 255."""
    model = _frozen_model(run, part)
    around = window.dilate(model.halo).intersect(part.plan.grid.canvas)
    latents, _ = read_state(run, part, part.schedule.steps, around)
    return model.decode(latents)[window.relative_to(around).scale(part.plan.factor).slices]


def _frozen_model(run: RunContext, part: PassContext) -> Model:
    """The model with this pass's decoder statistics."""
    model = run.model
    model.freeze_norm(part.norm)
    return model


def _glass_share(held: NDArray[np.bool_], inner: Box, f: int) -> NDArray[np.float32]:
    """How much of each pixel is plain glass, ``[h f, w f, 1]`` in [0, 1]: 0 on tissue and right beside it."""
    distance = ndimage.distance_transform_edt(held)
    share = np.clip((distance - FADE_FROM) / (FADE_TO - FADE_FROM), 0.0, 1.0).astype(np.float32)
    share = np.pad(share, 1, mode="edge")
    ys = (np.arange(inner.y0 * f, inner.y1 * f) + 0.5) / f + 0.5
    xs = (np.arange(inner.x0 * f, inner.x1 * f) + 0.5) / f + 0.5
    smooth = ndimage.map_coordinates(share, np.meshgrid(ys, xs, indexing="ij"), order=1)
    return smooth[..., None]


def _fullest_window(run: RunContext, part: PassContext, chunk: Box) -> Box:
    """The crop-sized window of a chunk with most tissue, the first of equals."""
    canvas, side = part.plan.grid.canvas, part.plan.side
    held = held_pixels(run, part, chunk)
    best, most = chunk, -1
    for y in range(chunk.y0, chunk.y1, side // 2):
        for x in range(chunk.x0, chunk.x1, side // 2):
            window = Box(min(y, canvas.y1 - side), min(x, canvas.x1 - side), 0, 0)
            window = Box(window.y0, window.x0, window.y0 + side, window.x0 + side)
            inside = window.intersect(chunk).relative_to(chunk).slices
            count = int((~held[inside]).sum())
            if count > most:
                best, most = window, count
    return best
