"""A loaded bundle: predict, encode and decode, NumPy at the boundary and torch inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.geometry import Box
from wsigen.base.machine import keep_freed_memory
from wsigen.models.attention import attended_redundancy
from wsigen.models.card import BundleCard
from wsigen.models.conditioning import Condition
from wsigen.models.halo import EFFECTIVE_HALO, attended_radius, decoder_radius, redundancy
from wsigen.models.loading import Parts, load_parts
from wsigen.models.turns import Turns

if TYPE_CHECKING:
    from torch import Tensor

    from wsigen.models.attention import Features, SplitDecoder
    from wsigen.models.halo import Sides
    from wsigen.models.layers import Statistics

Array = NDArray[np.float32]
PRECISIONS = ("fp32", "bf16")

PIECE = 64
"""Latent px of a window that a CPU decodes at once: what layers take then fits into caches and into a heap that keeps it.
It decodes 1.20 times the work and not 1.09, in less time and memory (``python -m benchmarks.decoding``)."""


def load_model(path: Path, device: str = "cpu", precision: str = "fp32") -> Model:
    """Check and load the bundle in ``path``.

    Parameters
    ----------
    device:
        torch's name of the device. With CUDA, TF32 and the search for the fastest convolution are switched off
        in this process: both decide bits, and ``fp32`` shall mean it. On a CPU the process keeps freed memory from now on
        (`machine.keep_freed_memory`).
    precision:
        ``fp32``, or ``bf16``: the denoiser runs in mixed precision; the autoencoder stays in fp32, as eight
        bits of mantissa would show as banding.

    Raises
    ------
    BundleError
        See `bundle.check_bundle`; also if the weights do not fit their config.
    ValueError
        If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: possible: {', '.join(PRECISIONS)}")
    if device.startswith("cuda"):
        _demand_equal_bits()
    if device == "cpu":
        keep_freed_memory()
    return Model(load_parts(path, device), device, precision)


def _demand_equal_bits() -> None:
    """Let torch's CUDA libraries compute in full float32, by algorithms that give the same bits each time."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # on by default
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class Model:
    """What the engine knows of a network. Several threads may call `predict` and `decode` on one model.

    Attributes
    ----------
    card:
        The bundle's card.
    abar:
        float64, ``alphas_cumprod`` of the training schedule, one value per training timestep, decreasing.
    prediction_type:
        ``epsilon``, ``v_prediction`` or ``sample``.
    clip:
        x0 is clamped to ``[-clip, clip]`` in each step, or None.
    decoder_is_local:
        Whether the decoder has no attention: with frozen norms a decoded pixel then depends on its
        surroundings alone.
    decoder_splits:
        Whether its only attention can be computed apart (`features`); the layers after it are then local.
    radius:
        How far what is local depends on its surroundings, in latent px.
    has_norms:
        Whether the decoder has GroupNorms, whose statistics can be shared.
    halo:
        Context in latent px to decode around a window (or its features) so that its core is right: the radius, but at most
        `halo.EFFECTIVE_HALO`; 0 if no context makes it right.
    turns:
        For callers who must not all call it at the same time.
    """

    def __init__(self, parts: Parts, device: str, precision: str) -> None:
        self.card: BundleCard = parts.card
        self.abar: NDArray[np.float64] = parts.abar
        self.prediction_type: str = parts.prediction_type
        self.clip: float | None = parts.clip
        self.decoder_is_local: bool = parts.decoder_is_local
        self.has_norms: bool = bool(parts.norms)
        self.decoder_splits: bool = parts.split is not None and not parts.decoder_is_local
        self.radius: int = (attended_radius if self.decoder_splits else decoder_radius)(parts.vae_config)
        self.halo: int = min(self.radius, EFFECTIVE_HALO) if self.decoder_is_local or self.decoder_splits else 0
        self.turns = Turns()
        self._vae_config = parts.vae_config
        self.device, self.precision = device, precision
        self._parts = parts

    def predict(self, latents: Array, timestep: int, conditions: Sequence[Condition], level: int) -> Array:
        """Run the denoiser once on a batch.

        Parameters
        ----------
        latents:
            float32 ``[B, C, p, p]``, standardised.
        timestep:
            On the training scale, 0 .. ``len(abar) - 1``.
        conditions:
            One per row.
        level:
            Index of the magnification in the card.

        Returns
        -------
        ndarray
            float32 ``[B, C, p, p]``: the raw output, to be read by ``prediction_type``.
        """
        import torch

        if len(conditions) != len(latents):
            raise ValueError(f"{len(conditions)} conditions for a batch of {len(latents)}")
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self._device_type, torch.bfloat16, enabled=bf16):
            sample, extra = self._parts.inputs(self._tensor(latents), conditions, level)
            output = self._parts.unet(
                sample.contiguous(memory_format=torch.channels_last), timestep, return_dict=False, **extra
            )[0]
            return _array(output)

    def encode(self, rgb: NDArray[np.uint8]) -> Array:
        """Encode a picture to standardised latents (the mode of the posterior).

        Parameters
        ----------
        rgb:
            uint8 ``[H, W, 3]``, both sides multiples of the card's factor f.

        Returns
        -------
        ndarray
            float32 ``[C, H / f, W / f]``.

        Raises
        ------
        ValueError
            If a side is not a multiple of f.
        """
        import torch

        factor, (low, high) = self.card.latent.factor, self.card.latent.image_range
        if rgb.shape[0] % factor or rgb.shape[1] % factor:
            size = f"{rgb.shape[1]}x{rgb.shape[0]} px"
            raise ValueError(f"picture of {size}: sides must be multiples of {factor}")
        x = rgb.astype(np.float32) * np.float32((high - low) / 255.0) + np.float32(low)
        with torch.inference_mode():
            found = self._parts.vae.encode(self._tensor(x.transpose(2, 0, 1)[None]))
            raw = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
            return _array((raw - self._parts.mean) / self._parts.std)[0]

    def decode(self, latents: Array, halo: Sides = (0, 0, 0, 0)) -> Array:
        """Decode standardised latents float32 ``[C, h, w]`` to RGB float32 ``[h f, w f, 3]`` in 0 .. 255.

        Values are clamped to that range and not rounded. A CPU decodes large windows in pieces (`PIECE`) where that is
        as good as windows are: with a local decoder whose norms are frozen.

        Parameters
        ----------
        halo:
            Latent px at the top, bottom, left and right that are context alone and not part of the picture; for decoders that
            are local.
        """
        import torch

        with torch.inference_mode():
            if not (self.device == "cpu" and self.decoder_is_local and all(norm.frozen for norm in self._parts.norms)):
                return self._window(latents, halo)
            canvas, f = Box(0, 0, *latents.shape[1:]), self.card.latent.factor
            core = Box(halo[0], halo[2], canvas.y1 - halo[1], canvas.x1 - halo[3])
            rgb = np.empty((core.height * f, core.width * f, 3), np.float32)
            for piece in _pieces(core):
                around = piece.dilate(self.halo).intersect(canvas)
                decoded = self._window(latents[(slice(None), *around.slices)], _sides(piece, around))
                rgb[piece.relative_to(core).scale(f).slices] = decoded
            return rgb

    def features(self, read: Callable[[Box], Array], canvas: Box, needed: Sequence[Box]) -> Features:
        """Compute what a decoder that splits decodes boxes of a canvas from, with norms frozen.

        Parameters
        ----------
        read:
            Gives the standardised latents of any box of the canvas, float32 ``[C, h, w]``.
        needed:
            The boxes, latent px.
        """
        import torch

        with torch.inference_mode():
            return self._splits.features(lambda box: self._raw(self._tensor(read(box)[None])), canvas, needed)

    def decode_features(self, features: Features, box: Box, halo: Sides = (0, 0, 0, 0)) -> Array:
        """Decode a box of features as `decode` does one of latents; the halo is part of the box."""
        import torch

        with torch.inference_mode():
            return self._rgb(lambda: self._splits.decode(features.part(box)), halo)

    def norm_statistics(self, latents: Sequence[Array]) -> Statistics:
        """Measure the mean and variance of every group of every GroupNorm of the decoder.

        Windows of one shape that follow each other are pooled as if they were one picture, up to
        `halo.POOLED_PX` latent px at a time (that bounds the memory); those pools are averaged by their area.

        Parameters
        ----------
        latents:
            Windows float32 ``[C, h, w]``, standardised, preferably large and from all over the canvas.

        Returns
        -------
        ndarray
            float64 ``[n]``, empty if the decoder has no GroupNorm. For `freeze_norm`.
        """
        import torch

        from wsigen.models.layers import pool, pooled_statistics, pools_of

        if not self._parts.norms:
            return np.empty(0)
        if not latents:
            raise ValueError("norm statistics need at least one window")
        pools = []
        for batch in pools_of(latents):
            with torch.inference_mode(), pooled_statistics() as collected:
                self._decode(self._tensor(batch))
            statistics = np.concatenate([collected[norm] for norm in self._parts.norms])
            pools.append((batch[:, 0].size, statistics))
        return pool(pools).ravel()

    def freeze_norm(self, stats: Statistics | None) -> None:
        """Make every GroupNorm of the decoder use ``stats`` of `norm_statistics` in this thread; None: each its own.

        Raises
        ------
        ValueError
            If the statistics are another decoder's.
        """
        norms = self._parts.norms
        sizes = [2 * norm.norm.num_groups for norm in norms]
        if stats is not None and len(stats) != sum(sizes):
            raise ValueError(f"{len(stats)} norm statistics; this decoder has {sum(sizes)}")
        for norm, end, size in zip(norms, np.cumsum(sizes), sizes, strict=True):
            norm.freeze(None if stats is None else stats[end - size : end].reshape(-1, 2))

    def equal_halo(self, window: int) -> float:
        """Latent px around a decoded window of this side that would cost as much as its context, which shrinks, does.

        With attention also as much as what its windows share; then `decode` of a window is the measure.
        """
        vae = self._vae_config
        cost = attended_redundancy(vae, window) if self.decoder_splits else redundancy(vae, window, self.halo)
        return window * (math.sqrt(cost) - 1.0) / 2.0

    @property
    def _splits(self) -> SplitDecoder:
        if self._parts.split is None:
            raise ValueError("this decoder cannot be cut at its attention")
        return self._parts.split

    def _raw(self, latents: Tensor) -> Tensor:
        """Latents as the autoencoder gave them."""
        return latents * self._parts.std + self._parts.mean

    def _decode(self, latents: Tensor) -> Tensor:
        image: Tensor = self._parts.vae.decode(self._raw(latents)).sample
        return image

    def _window(self, latents: Array, halo: Sides) -> Array:
        """Decode at once."""
        return self._rgb(lambda: self._decode(self._tensor(latents[None])), halo)

    def _rgb(self, decode: Callable[[], Tensor], halo: Sides) -> Array:
        """The window of a picture that is decoded with ``halo``, in 0 .. 255."""
        low, high = self.card.latent.image_range
        with self._parts.halo.around(halo):
            image = self._parts.halo.core(decode())[0]
        image = image.float().sub_(low).mul_(255.0 / (high - low)).clamp_(0.0, 255.0)
        return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())

    def _tensor(self, values: Array) -> Tensor:
        import torch

        found = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        return found.to(self.device, memory_format=torch.channels_last)

    @property
    def _device_type(self) -> str:
        return self.device.split(":")[0]


def _pieces(core: Box) -> Iterator[Box]:
    """Cut a window into equal pieces of at most `PIECE` latent px a side."""
    ys, xs = (
        np.linspace(start, end, max(1, -(-(end - start) // PIECE)) + 1).round().astype(int).tolist()
        for start, end in ((core.y0, core.y1), (core.x0, core.x1))
    )
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            yield Box(y0, x0, y1, x1)


def _sides(inner: Box, around: Box) -> Sides:
    """What of a box lies around an inner one: top, bottom, left, right."""
    return (inner.y0 - around.y0, around.y1 - inner.y1, inner.x0 - around.x0, around.x1 - inner.x1)


def _array(values: Any) -> Array:
    return np.ascontiguousarray(values.float().cpu().numpy())
