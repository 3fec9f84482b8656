"""A narrower denoiser that begins as a wider one: fewer channels at every level, those that carried most.

    python -m pipelines.narrow BUNDLE OUT --channels 64,128,160

The network of OUT has the layers of that of BUNDLE. Of each group of a group norm, as many channels are left as the new width
allows: those to which the layers before write most. So its first samples are no noise, and training goes on from them
(``start: OUT`` in a recipe of ``wsigen train denoiser``) many times faster than from random weights. The U-Nets that
``wsigen train`` builds can be narrowed, with as many levels as before.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Kept = NDArray[np.int64]
"""Indices of the channels that are kept, rising."""


def main() -> None:
    """Read a bundle, write it with the narrower denoiser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--channels", type=lambda text: tuple(int(part) for part in text.split(",")), required=True)
    args = parser.parse_args()
    from diffusers import UNet2DModel

    unet = narrowed(UNet2DModel.from_pretrained(args.bundle / "unet"), args.channels)
    shutil.copytree(args.bundle, args.out, ignore=shutil.ignore_patterns("unet"))
    unet.save_pretrained(args.out / "unet")
    print(f"{args.out}: {sum(p.numel() for p in unet.parameters()) / 1e6:.1f} million weights")


def narrowed(unet: Any, channels: Sequence[int]) -> Any:
    """Return a ``UNet2DModel`` of fewer channels that begins as ``unet``.

    Parameters
    ----------
    channels : sequence of int
        Per level, multiples of the norms' groups and of the width of an attention head.
    """
    wide = tuple(unet.config["block_out_channels"])
    if len(channels) != len(wide) or any(new > old for new, old in zip(channels, wide, strict=True)):
        raise SystemExit(f"{list(channels)}: one number for each of {list(wide)}, none of them larger")
    narrow = type(unet).from_config({**unet.config, "block_out_channels": tuple(channels)})
    narrow.load_state_dict(_Cut(unet, narrow).all())
    return narrow


class _Cut:
    """The weights of the narrow network, cut from those of the wide one layer by layer."""

    def __init__(self, wide: Any, narrow: Any) -> None:
        self.wide, self.narrow, self.weights = wide.state_dict(), narrow.state_dict(), dict[str, torch.Tensor]()
        self.groups, self.head = int(wide.config["norm_num_groups"]), int(wide.config["attention_head_dim"])
        self.layers, self.levels = int(wide.config["layers_per_block"]), len(wide.config["block_out_channels"])
        self.widths = wide.config["block_out_channels"]
        self.streams = [self._stream(level, width) for level, width in enumerate(narrow.config["block_out_channels"])]
        self.time = strongest(self._written("time_embedding.linear_2"), len(self.narrow["time_embedding.linear_2.weight"]), 1)

    def all(self) -> dict[str, torch.Tensor]:
        """Cut every layer, in the order of the data's way through the network."""
        first, last = self.streams[0], self.levels - 1
        self._layer("conv_in", first, None)
        self._time()
        skips, before = [0], 0
        for level, stream in enumerate(self.streams):
            for j in range(self.layers):
                self._resnet(f"down_blocks.{level}.resnets.{j}", self.streams[before], stream)
                self._attention(f"down_blocks.{level}.attentions.{j}", stream)
                before = level
                skips.append(level)
            if level < last:
                self._layer(f"down_blocks.{level}.downsamplers.0.conv", stream, stream)
                skips.append(level)
        for j in range(2):
            self._resnet(f"mid_block.resnets.{j}", self.streams[last], self.streams[last])
        self._attention("mid_block.attentions.0", self.streams[last])
        for up in range(self.levels):
            level = last - up
            for j in range(self.layers + 1):
                both = np.concatenate([self.streams[before], self.widths[before] + self.streams[skips.pop()]])
                self._resnet(f"up_blocks.{up}.resnets.{j}", both, self.streams[level])
                self._attention(f"up_blocks.{up}.attentions.{j}", self.streams[level])
                before = level
            if level:
                self._layer(f"up_blocks.{up}.upsamplers.0.conv", self.streams[level], self.streams[level])
        self._vector("conv_norm_out", first)
        self._layer("conv_out", None, first)
        return self.weights

    def _stream(self, level: int, width: int) -> Kept:
        """Choose the channels of what flows along a level: those to which all of its layers write most."""
        of_level: tuple[str, ...] = (f"down_blocks.{level}.", f"up_blocks.{self.levels - 1 - level}.")
        of_level += ("mid_block.",) if level == self.levels - 1 else ()
        ends = (".conv2.weight", ".conv_shortcut.weight", "samplers.0.conv.weight")
        names = [name for name in self.wide if name.startswith(of_level) and name.endswith(ends)]
        names += ["conv_in.weight"] if level == 0 else []
        power = [self._written(name.removesuffix(".weight")) for name in names]
        return strongest(np.sum(power, axis=0), width, self.groups)

    def _written(self, name: str) -> NDArray[np.float64]:
        """Squared weights by which a layer writes to each of its channels."""
        return (self.wide[f"{name}.weight"].double() ** 2).flatten(1).sum(1).numpy()

    def _read(self, name: str) -> NDArray[np.float64]:
        """Squared weights by which a layer reads each of its channels."""
        return (self.wide[f"{name}.weight"].double() ** 2).transpose(0, 1).flatten(1).sum(1).numpy()

    def _layer(self, name: str, rows: Kept | None, columns: Kept | None) -> None:
        weight = self.wide[f"{name}.weight"]
        weight = weight if rows is None else weight[rows]
        self.weights[f"{name}.weight"] = (weight if columns is None else weight[:, columns]).clone()
        if f"{name}.bias" in self.wide:
            bias = self.wide[f"{name}.bias"]
            self.weights[f"{name}.bias"] = (bias if rows is None else bias[rows]).clone()

    def _vector(self, name: str, rows: Kept) -> None:
        for part in ("weight", "bias"):
            self.weights[f"{name}.{part}"] = self.wide[f"{name}.{part}"][rows].clone()

    def _resnet(self, name: str, given: Kept, out: Kept) -> None:
        power = self._read(f"{name}.conv2") * self.wide[f"{name}.norm2.weight"].double().numpy() ** 2
        inner = strongest(power, len(self.narrow[f"{name}.conv1.weight"]), self.groups)
        self._vector(f"{name}.norm1", given)
        self._layer(f"{name}.conv1", inner, given)
        self._layer(f"{name}.time_emb_proj", inner, self.time)
        self._vector(f"{name}.norm2", inner)
        self._layer(f"{name}.conv2", out, inner)
        if f"{name}.conv_shortcut.weight" in self.wide:
            self._layer(f"{name}.conv_shortcut", out, given)

    def _attention(self, name: str, stream: Kept) -> None:
        if f"{name}.to_q.weight" not in self.wide:
            return
        power = self._written(f"{name}.to_v") * self._read(f"{name}.to_out.0")
        of_heads = power.reshape(-1, self.head).sum(1)
        heads = strongest(of_heads, len(self.narrow[f"{name}.to_q.weight"]) // self.head, 1)
        inner = (heads[:, None] * self.head + np.arange(self.head)).ravel()
        self._vector(f"{name}.group_norm", stream)
        for part in ("to_q", "to_k", "to_v"):
            self._layer(f"{name}.{part}", inner, stream)
        self._layer(f"{name}.to_out.0", stream, inner)

    def _time(self) -> None:
        """Cut the embedding of the timestep, of fewer waves: its first layer is fitted to what it gave at all timesteps."""
        from diffusers.models.embeddings import get_timestep_embedding

        first = "time_embedding.linear_1"
        inner = strongest(self._read("time_embedding.linear_2"), len(self.narrow[f"{first}.weight"]), 1)
        steps = torch.arange(1000)
        old, new = (
            get_timestep_embedding(steps, of[f"{first}.weight"].shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
            for of in (self.wide, self.narrow)
        )
        given = old @ self.wide[f"{first}.weight"][inner].T
        self._layer(first, inner, None)
        # Slow waves are nearly alike: without a bound on the condition the fit would differ by huge weights.
        fitted = torch.linalg.lstsq(new.double(), given.double(), rcond=0.01, driver="gelsd").solution
        self.weights[f"{first}.weight"] = fitted.T.float()
        self._layer("time_embedding.linear_2", self.time, inner)
        if "class_embedding.weight" in self.wide:
            self.weights["class_embedding.weight"] = self.wide["class_embedding.weight"][:, self.time].clone()


def strongest(power: NDArray[np.float64], count: int, groups: int) -> Kept:
    """Indices, rising, of the ``count`` channels of most power, as many of each of ``groups`` runs of equal length."""
    runs = power.reshape(groups, -1)
    best = np.sort(np.argsort(-runs, axis=1, kind="stable")[:, : count // groups], axis=1)
    return (best + np.arange(groups)[:, None] * runs.shape[1]).ravel()


if __name__ == "__main__":
    main()
