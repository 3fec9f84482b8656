"""A bundle's autoencoder: pictures to standardised latents and back, NumPy at the boundary and torch inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ModelOutputError
from wsigen.base.geometry import Box
from wsigen.models.attention import SplitDecoder, attentions, can_split
from wsigen.models.card import Latent
from wsigen.models.halo import EFFECTIVE_HALO, ShrinkingHalo, Sides, attended_radius, decoder_radius, sides
from wsigen.models.loading import load_network
from wsigen.models.network_config import Config, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from wsigen.models.attention import Features
    from wsigen.models.layers import Statistics

Array = NDArray[np.float32]
Numbers = TypeVar("Numbers", bound=NDArray[Any])

WHITE = 250.0
"""Grey level from which a window of one colour is bare glass that a decoder drew, and no fault."""

PIECE = 64
"""Latent px of a window that a CPU decodes at once: the activations then fit into caches and into a heap that keeps its memory.
It decodes 1.20 times the work and not 1.09, in less time and memory (``python -m benchmarks.decoding``)."""


def load_autoencoder(folder: Path, latent: Latent, device: str) -> Autoencoder:
    """Load the autoencoder of a bundle whose card describes its latents (`loading.load_network`: BundleError)."""
    return Autoencoder(load_network(folder / "vae", device), read_config(folder, "vae"), latent, device)


class Autoencoder:
    """An autoencoder. Several threads may use it; norms are frozen for each thread alone.

    Parameters
    ----------
    vae : AutoencoderKL, AutoencoderTiny or VQModel
        Its decoder's norms and activations are replaced, and its quantiser (`layers`).
    config : dict
        Of the autoencoder.
    latent : Latent
        Scale of the latents and range of images, from the card.
    device : str
        Torch's name of the device it lies on.

    Attributes
    ----------
    vae, latent
        As given.
    is_local : bool
        Whether the decoder has no attention: with frozen norms a decoded pixel then depends on its surroundings alone.
    splits : bool
        Whether its only attention can be computed apart (`features`); the layers after it are then local.
    radius : int
        How far what is local depends on its surroundings, latent px.
    has_norms : bool
        Whether the decoder has GroupNorms, whose statistics can be shared.
    halo : int
        Context in latent px to decode around a window (or its features) so that its core is right: the radius, but at most
        `halo.EFFECTIVE_HALO`; 0 if no context makes it right.
    """

    def __init__(self, vae: Any, config: Config, latent: Latent, device: str) -> None:
        import torch

        from wsigen.models.layers import NearestCode, activate_in_place, share_group_norms

        activate_in_place(vae)
        if hasattr(vae, "quantize"):
            vae.quantize = NearestCode(vae.quantize.embedding.weight)
        self.vae, self.latent, self._device = vae, latent, device
        self._mean, self._std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (latent.mean, latent.std))
        self._norms = share_group_norms(vae.decoder)
        self._shrinking = ShrinkingHalo(vae.decoder, config)
        self._split = SplitDecoder(vae) if can_split(vae) else None
        self.is_local: bool = not attentions(vae.decoder)
        self.splits: bool = self._split is not None
        self.has_norms: bool = bool(self._norms)
        self.radius: int = (attended_radius if self.splits else decoder_radius)(config)
        self.halo: int = min(self.radius, EFFECTIVE_HALO) if self.is_local or self.splits else 0

    def encode(self, rgb: NDArray[np.uint8]) -> Array:
        """Encode a picture to standardised latents (the mode of the posterior; a ``VQModel``'s before they are
        quantised, which is the first thing its decoder does).

        Parameters
        ----------
        rgb : ndarray
            uint8 ``(H, W, 3)``, both sides multiples of the factor f of the latents.

        Returns
        -------
        ndarray
            float32 ``(C, H / f, W / f)``.

        Raises
        ------
        ValueError
            If a side is not a multiple of f.
        """
        import torch

        factor, (low, high) = self.latent.factor, self.latent.image_range
        if rgb.shape[0] % factor or rgb.shape[1] % factor:
            size = f"{rgb.shape[1]}x{rgb.shape[0]} px"
            raise ValueError(f"picture of {size}: sides must be multiples of {factor}")
        x = rgb.astype(np.float32) * np.float32((high - low) / 255.0) + np.float32(low)
        with torch.inference_mode():
            encoded = self.vae.encode(self._tensor(x.transpose(2, 0, 1)[None]))
            raw = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            latents = np.ascontiguousarray(((raw - self._mean) / self._std).float().cpu().numpy())[0]
        return demand_finite(latents, "encoder")

    def decode(self, latents: Array, halo: Sides = (0, 0, 0, 0)) -> Array:
        """Decode standardised latents float32 ``(C, h, w)`` to RGB float32 ``(h f, w f, 3)`` in 0 .. 255.

        Values are clamped to that range and not rounded. A CPU decodes large windows in pieces (`PIECE`) where that is
        as good as windows are: with a local decoder whose norms are frozen.

        Parameters
        ----------
        latents : ndarray
            With their context.
        halo : tuple of int
            Latent px at the top, bottom, left and right that are context alone and not part of the picture; for decoders that
            are local.
        """
        import torch

        with torch.inference_mode():
            if not (self.in_pieces and all(norm.frozen for norm in self._norms)):
                return self._window(latents, halo)
            canvas, f = Box(0, 0, *latents.shape[1:]), self.latent.factor
            core = Box(halo[0], halo[2], canvas.y1 - halo[1], canvas.x1 - halo[3])
            rgb = np.empty((core.height * f, core.width * f, 3), np.float32)
            for piece in _pieces(core):
                around = piece.dilate(self.halo).intersect(canvas)
                decoded = self._window(latents[(slice(None), *around.slices)], sides(piece, around))
                rgb[piece.relative_to(core).scale(f).slices] = decoded
            return rgb

    def features(self, read: Callable[[Box], Array], canvas: Box, needed: Sequence[Box]) -> Features:
        """Compute what a decoder that splits decodes boxes of a canvas from, with norms frozen.

        Parameters
        ----------
        read : callable
            Gives the standardised latents of any box of the canvas, float32 ``(C, h, w)``.
        canvas : Box
            Latent px.
        needed : sequence of Box
            The boxes, at least one.

        Raises
        ------
        ValueError
            If the decoder cannot be split.
        """
        import torch

        with torch.inference_mode():
            return self._splitter.features(lambda box: self._raw(self._tensor(read(box)[None])), canvas, needed)

    def decode_features(self, features: Features, box: Box, halo: Sides = (0, 0, 0, 0)) -> Array:
        """Decode a box of features as `decode` does one of latents; the halo is part of the box."""
        import torch

        with torch.inference_mode():
            given = features.part(box)
            return _demand_picture(self._rgb(lambda: self._splitter.decode(given), halo), given)

    def norm_statistics(self, latents: Sequence[Array]) -> Statistics:
        """Measure the mean and variance of every group of every GroupNorm of the decoder.

        Windows of one shape that follow each other are pooled as if they were one picture, up to
        `halo.POOLED_PX` latent px at a time (that bounds the memory); those pools are averaged by their area.

        Parameters
        ----------
        latents : sequence of ndarray
            Windows float32 ``(C, h, w)``, standardised, preferably large and from all over the canvas.

        Returns
        -------
        ndarray
            float64 ``(n,)``, empty if the decoder has no GroupNorm. For `freeze_norm`.
        """
        import torch

        from wsigen.models.layers import pool, pooled_statistics, pools_of

        if not self._norms:
            return np.empty(0)
        if not latents:
            raise ValueError("norm statistics need at least one window")
        pools = []
        for batch in pools_of(latents):
            with torch.inference_mode(), pooled_statistics() as collected:
                self._decode(self._tensor(batch))
            statistics = np.concatenate([collected[norm] for norm in self._norms])
            pools.append((batch[:, 0].size, statistics))
        return demand_finite(pool(pools).ravel(), "decoder")

    def freeze_norm(self, stats: Statistics | None) -> None:
        """Make every GroupNorm of the decoder use ``stats`` of `norm_statistics` in this thread; None: each its own.

        Raises
        ------
        ValueError
            If the statistics are another decoder's.
        """
        sizes = [2 * norm.norm.num_groups for norm in self._norms]
        if stats is not None and len(stats) != sum(sizes):
            raise ValueError(f"{len(stats)} norm statistics; this decoder has {sum(sizes)}")
        for norm, end, size in zip(self._norms, np.cumsum(sizes), sizes, strict=True):
            norm.freeze(None if stats is None else stats[end - size : end].reshape(-1, 2))

    @property
    def in_pieces(self) -> bool:
        """Whether large windows are decoded in pieces of `PIECE` latent px, once norms are frozen."""
        return self._device == "cpu" and self.is_local

    @property
    def _splitter(self) -> SplitDecoder:
        if self._split is None:
            raise ValueError("this decoder cannot be cut at its attention")
        return self._split

    def _raw(self, latents: Tensor) -> Tensor:
        """Latents as the autoencoder gave them."""
        return latents * self._std + self._mean

    def _decode(self, latents: Tensor) -> Tensor:
        image: Tensor = self.vae.decode(self._raw(latents)).sample
        return image

    def _window(self, latents: Array, halo: Sides) -> Array:
        """Decode at once."""
        return _demand_picture(self._rgb(lambda: self._decode(self._tensor(latents[None])), halo), latents)

    def _rgb(self, decode: Callable[[], Tensor], halo: Sides) -> Array:
        """The window of a picture that is decoded with ``halo``, in 0 .. 255."""
        low, high = self.latent.image_range
        with self._shrinking.around(halo):
            image = self._shrinking.core(decode())[0]
        image = image.float().sub_(low).mul_(255.0 / (high - low))
        rgb = demand_finite(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()), "decoder")
        return np.clip(rgb, 0.0, 255.0, out=rgb)

    def _tensor(self, values: Array) -> Tensor:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        return tensor.to(self._device, memory_format=torch.channels_last)


def demand_finite(values: Numbers, network: str) -> Numbers:
    """Return what a network gave, if it is numbers.

    Raises
    ------
    ModelOutputError
        If it is not: NaN would become black on a slide, without a word.
    """
    if not np.isfinite(values).all():
        share = 1.0 - float(np.isfinite(values).mean())
        raise ModelOutputError(
            f"the {network} gives {share:.0%} values that are not finite; its weights, or latent.mean and latent.std of its "
            "card, are wrong, or the precision is too low: try another --precision or --device, or another model"
        )
    return values


def _demand_picture(rgb: Array, given: Any) -> Array:
    """Refuse a picture of one colour, white apart, that was decoded from more than one value (ModelOutputError)."""
    colour = rgb[0, 0]
    if colour.min() < WHITE and (rgb == colour).all() and float(given.max() - given.min()) > 0.0:
        raise ModelOutputError(
            f"the decoder gives one colour {colour.round().astype(int).tolist()} for all {rgb.shape[1]}x{rgb.shape[0]} px of a "
            "window; its weights, or latent.mean and latent.std of its card, are wrong: try another model"
        )
    return rgb


def _pieces(core: Box) -> Iterator[Box]:
    """Cut a window into equal pieces of at most `PIECE` latent px a side."""
    ys, xs = (
        np.linspace(start, end, max(1, -(-(end - start) // PIECE)) + 1).round().astype(int).tolist()
        for start, end in ((core.y0, core.y1), (core.x0, core.x1))
    )
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            yield Box(y0, x0, y1, x1)
