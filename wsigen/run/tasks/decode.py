"""From final latents to pixels, window by window, without seams or drift of tone.

A window is decoded with a halo of context that is cut off on the way (``models.halo``): 1.09 to 1.13 times the work of
the window alone. What is not local in a decoder is its GroupNorm: its statistics are estimated once per pass from a sample of
windows and shared by all (``models.layers``). Attention in its middle block is not local either: it is computed on
windows of a lattice, whose features are blended, and decoded as latents otherwise are (``models.attention``: about 1.3 times
the work). Decoders with attention elsewhere are decoded in overlapping windows blended by Hann weights, and each block
decodes all that touch it (4 times the work of the block).

Where finer levels are to be true to coarser ones (``run.tasks.agree``), each window also decodes the coarser pass below it.

Memory bound: a window of 128 latent px with its halo, whatever the size of the slide; with attention, also the features of
256 latent px a side and their halo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wsigen.base.geometry import Box, lattice_windows
from wsigen.models.attention import PART, attention_windows
from wsigen.models.autoencoder import Autoencoder
from wsigen.models.halo import sides
from wsigen.run.tasks.agree import Agreement
from wsigen.run.tasks.context import PassContext
from wsigen.run.tasks.join import Join
from wsigen.sampling.known import NEVER
from wsigen.sampling.plan import lattice_crops, lattice_starts
from wsigen.slide.blend import REACH_PX
from wsigen.slide.tiles import encode_block

if TYPE_CHECKING:
    from wsigen.models.attention import Features
    from wsigen.sampling.passes import PassPlan

WINDOW = 128
"""Side of a decoded window in latent px."""

BLEND_OVERLAP = 32
"""Overlap of blended windows in latent px, for decoders that are neither local nor split."""

FADE_FROM, FADE_TO = 1.0, 4.0
"""Distance from tissue, in latent px, over which decoded glass fades into the bundle's exact glass colour."""

FADE_MARGIN = 6
"""Context in latent px that decides the fade of a pixel."""

NORM_WINDOWS = 8
"""Windows whose statistics a pass's decoder shares."""

FULL = 0.5
"""Share of a window's latent px that are denoised from which it counts as full."""


def decode_block(pass_: PassContext, ij: tuple[int, int]) -> None:
    """Decode, encode and spool one block of the slide."""
    block = pass_.run.slide.grid.box(ij)
    rgb = _pixels(pass_, block) if pass_.run.spec.settings.extend is None else _joined(pass_, block)
    if (stain := pass_.run.spec.settings.stain) is not None:
        rgb = stain.apply(rgb, pass_.run.spec.glass.rgb)
    pass_.run.spool.write(ij, encode_block(pass_.run.slide, ij, rgb))


def _joined(pass_: PassContext, block: Box) -> NDArray[np.uint8]:
    """A block of a slide that is continued: its own pixels stay, and those that are made beside them take on its colour."""
    join, glass = Join(pass_, block), pass_.run.spec.glass.rgb
    if (whole := join.whole(glass)) is not None:
        return whole
    return join.with_made(_pixels(pass_, join.around, join.before(glass)))


def _pixels(pass_: PassContext, box: Box, before: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode a box in px of the slide; ``before`` stays where nothing is decoded (by default glass)."""
    f = pass_.plan.factor
    latents = box.cover(f)
    inner = box.relative_to(latents.scale(f))
    if before is not None:
        beyond = ((inner.y0, latents.height * f - inner.y1), (inner.x0, latents.width * f - inner.x1), (0, 0))
        before = np.pad(before, beyond, mode="edge")
    return decode_region(pass_, latents, before)[inner.slices]


def decode_region(pass_: PassContext, box: Box, before: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Decode a box of final latents to uint8 ``(h f, w f, 3)``; bare glass costs no model call.

    Parameters
    ----------
    before : ndarray, optional
        The pixels that stay where nothing is decoded, uint8 ``(h f, w f, 3)``; by default glass.
    """
    if not pass_.run.model.autoencoder.halo:
        return _rounded(_blended_region(pass_, box))
    f = pass_.plan.factor
    out = np.empty((box.height * f, box.width * f, 3), dtype=np.uint8)
    out[:] = np.asarray(pass_.run.spec.glass.rgb, dtype=np.uint8) if before is None else before
    for core, rgb in _windows(pass_, box):
        out[core.relative_to(box).scale(f).slices] = _rounded(rgb)
    return out


def _unrounded_region(pass_: PassContext, box: Box) -> NDArray[np.float32]:
    """The same as float32, by which finer passes are corrected: that would enlarge how a value is rounded here and there."""
    if not pass_.run.model.autoencoder.halo:
        return _blended_region(pass_, box)
    f = pass_.plan.factor
    out = np.empty((box.height * f, box.width * f, 3), dtype=np.float32)
    out[:] = np.asarray(pass_.run.spec.glass.rgb, dtype=np.float32)
    for core, rgb in _windows(pass_, box):
        out[core.relative_to(box).scale(f).slices] = rgb
    return out


def _windows(pass_: PassContext, box: Box) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """The decoded windows of a box, without what is plain glass or stays as it is."""
    for shared in lattice_windows(box, PART):
        cores = [core for window in lattice_windows(shared, WINDOW) if (core := _tissue_part(pass_, window)) is not None]
        features = _features(pass_, cores) if pass_.run.model.autoencoder.splits and cores else None
        for core in cores:
            yield core, _with_glass(pass_, core, core, features)


def _blended_region(pass_: PassContext, box: Box) -> NDArray[np.float32]:
    """A box by overlapping windows."""
    f = pass_.plan.factor
    total = np.zeros((box.height * f, box.width * f, 3), dtype=np.float32)
    for window, weight in _blended(box, pass_.plan.grid.canvas, f):
        inner = window.intersect(box)
        share = weight[inner.relative_to(window).scale(f).slices]
        total[inner.relative_to(box).scale(f).slices] += _with_glass(pass_, window, inner) * share
    return total


def calibrate(pass_: PassContext) -> None:
    """Estimate the statistics that all windows of this pass share, from windows spread over its tissue."""
    latents = [pass_.read(pass_.plan.schedule.steps, window)[0] for window in full_windows(pass_)]
    statistics = np.empty(0)
    if latents:
        with pass_.run.model_slot():
            statistics = pass_.run.model.autoencoder.norm_statistics(latents)
    pass_.state.write_norm(statistics)


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)


def _features(pass_: PassContext, cores: list[Box]) -> Features:
    """What ``cores`` are decoded from where there is attention."""
    autoencoder = _frozen(pass_)
    canvas = pass_.plan.grid.canvas
    needed = [_grown(pass_, core).dilate(autoencoder.halo).intersect(canvas) for core in cores]
    boxes = [window.around for window in attention_windows(canvas, needed)]
    latents = {box: pass_.read(pass_.plan.schedule.steps, box)[0] for box in boxes}
    with pass_.run.model_slot():
        return autoencoder.features(latents.__getitem__, canvas, needed)


def _tissue_part(pass_: PassContext, window: Box) -> Box | None:
    """The smallest box of a window outside which all is plain glass or stays as it is; None if nothing else is in it."""
    near = window.dilate(FADE_MARGIN).intersect(pass_.plan.grid.canvas)
    bare = pass_.bare(near)
    if not bare.any() and pass_.run.spec.settings.extend is None:
        return window
    shown = ndimage.distance_transform_edt(bare) < FADE_TO + 1.0 if bare.any() else ~bare
    shown = shown[window.relative_to(near).slices]
    if pass_.run.spec.settings.extend is not None:
        shown = shown & _near_free(pass_, window)
    ys, xs = np.nonzero(shown)
    if len(ys) == 0 or bare.all():
        return None
    return Box(int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1).shift(window.y0, window.x0)


def _near_free(pass_: PassContext, window: Box) -> NDArray[np.bool_]:
    """Which latent px of a window lie near one that was denoised: those that show, or say how what shows is joined."""
    reach = -(-REACH_PX // pass_.plan.factor)
    near = window.dilate(reach).intersect(pass_.plan.grid.canvas)
    free = pass_.starts(near) < NEVER
    wide = ndimage.maximum_filter(free, 2 * reach + 1, mode="constant") if free.any() else free
    return np.asarray(wide[window.relative_to(near).slices])


def _with_glass(pass_: PassContext, window: Box, inner: Box, features: Features | None = None) -> NDArray[np.float32]:
    """Pixels of ``inner``, decoded as part of ``window``, faded into plain glass away from tissue."""
    f, glass = pass_.plan.factor, np.asarray(pass_.run.spec.glass.rgb, dtype=np.float32)
    near = inner.dilate(FADE_MARGIN).intersect(pass_.plan.grid.canvas)
    bare = pass_.bare(near)
    if bare.all():
        return np.broadcast_to(glass, (inner.height * f, inner.width * f, 3))
    rgb = _true_to_coarser(pass_, window, features)[inner.relative_to(window).scale(f).slices]
    return rgb + _glass_share(bare, inner.relative_to(near), f) * (glass - rgb) if bare.any() else rgb


def _blended(box: Box, canvas: Box, f: int) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Overlapping windows of the global lattice with Hann weights per pixel, for decoders that are neither local nor split."""
    side = min(WINDOW, canvas.height, canvas.width)
    overlap = min(BLEND_OVERLAP, side // 2)
    ys, xs = (lattice_starts(extent, side, side - overlap) for extent in canvas.shape)
    for crop in lattice_crops(ys, xs, side, "hann", canvas):
        if crop.box.overlaps(box):
            yield crop.box, np.kron(crop.weight, np.ones((f, f), np.float32))[..., None]


def _true_to_coarser(pass_: PassContext, window: Box, features: Features | None) -> NDArray[np.float32]:
    """Decode a window, and correct it to the pass before, itself decoded, if that is asked for.

    Blended windows are corrected for themselves: where coarser px are cut at their borders, they weigh least.
    """
    if pass_.plan.consistency == "none":
        return _decode_window(pass_, window, features)
    coarse = pass_.run.passes[pass_.plan.index - 1]
    agreement, f = Agreement(pass_.plan, coarse.plan, window), coarse.plan.factor
    latents = agreement.below.cover(f)
    shown = ~coarse.bare(latents)
    if not shown.any():
        return _decode_window(pass_, window, features)
    below = agreement.below.relative_to(latents.scale(f)).slices
    decoded = _grown(pass_, window)
    rgb = _decode_window(pass_, decoded, features)
    of_pixels = np.repeat(np.repeat(shown, f, axis=0), f, axis=1)
    return agreement.corrected(rgb, decoded, _unrounded_region(coarse, latents)[below], of_pixels[below])


def _grown(pass_: PassContext, window: Box) -> Box:
    """What of a pass is decoded for a window: what it is corrected by lies around it."""
    if pass_.plan.consistency == "none" or not pass_.run.model.autoencoder.halo:
        return window
    return Agreement(pass_.plan, pass_.run.passes[pass_.plan.index - 1].plan, window).around


def _decode_window(pass_: PassContext, window: Box, features: Features | None) -> NDArray[np.float32]:
    """Decode a window with its halo (blended ones overlap instead); float32 ``(h f, w f, 3)`` in 0 .. 255."""
    autoencoder = _frozen(pass_)
    around = window.dilate(autoencoder.halo).intersect(pass_.plan.grid.canvas)
    halo = sides(window, around)
    if features is not None:
        with pass_.run.model_slot():
            return autoencoder.decode_features(features, around, halo)
    latents, _ = pass_.read(pass_.plan.schedule.steps, around)
    with pass_.run.model_slot():
        return autoencoder.decode(latents, halo)


def _frozen(pass_: PassContext) -> Autoencoder:
    """The autoencoder with this pass's decoder statistics."""
    autoencoder = pass_.run.model.autoencoder
    autoencoder.freeze_norm(pass_.norm)
    return autoencoder


def _glass_share(bare: NDArray[np.bool_], inner: Box, f: int) -> NDArray[np.float32]:
    """How much of each pixel is plain glass, ``(h f, w f, 1)`` in [0, 1]: 0 on tissue and right beside it."""
    distance = ndimage.distance_transform_edt(bare)
    share = np.clip((distance - FADE_FROM) / (FADE_TO - FADE_FROM), 0.0, 1.0).astype(np.float32)
    share = np.pad(share, 1, mode="edge")
    ys = (np.arange(inner.y0 * f, inner.y1 * f) + 0.5) / f + 0.5
    xs = (np.arange(inner.x0 * f, inner.x1 * f) + 0.5) / f + 0.5
    smooth = ndimage.map_coordinates(share, np.meshgrid(ys, xs, indexing="ij"), order=1)
    return smooth[..., None]


def full_windows(pass_: PassContext) -> list[Box]:
    """Up to `NORM_WINDOWS` crop-sized windows spread over the canvas, of those that are denoised for the most part.

    Where none is, the fullest. They lie on a lattice of the canvas, however it is cut into chunks, which are read once.
    """
    grid, side = pass_.plan.grid, pass_.plan.side
    half = side // 2
    free = np.zeros([math.ceil(extent / half) + 1 for extent in grid.canvas.shape], dtype=np.int64)
    for i, j in np.argwhere(pass_.state.activity).tolist():
        chunk = grid.box((i, j))
        denoised = pass_.starts(chunk) < NEVER
        for part in lattice_windows(chunk, half):
            free[part.y0 // half, part.x0 // half] += np.count_nonzero(denoised[part.relative_to(chunk).slices])
    count = free[:-1, :-1] + free[1:, :-1] + free[:-1, 1:] + free[1:, 1:]
    if not count.any():
        return []
    full = np.argwhere(count >= min(FULL * side**2, count.max()))
    chosen = full[sorted({round(k) for k in np.linspace(0, len(full) - 1, NORM_WINDOWS)})]
    starts = np.minimum(chosen * half, [grid.height - side, grid.width - side])
    return list(dict.fromkeys(Box(y, x, y + side, x + side) for y, x in starts.tolist()))


def calibrated_px(plan: PassPlan) -> int:
    """Latent px, at most, from which the statistics of a pass's decoder are estimated."""
    return min(NORM_WINDOWS * plan.side**2, plan.height * plan.width)
