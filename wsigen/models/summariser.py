"""Summarisers: windows of a grid to the tokens that a denoiser attends to.

ZoomLDM (Yellapragada et al. 2025) gives a denoiser the embeddings under its window through a network of its own, trained with
it, and tells it the magnification there. Two such networks: the transformer of the released model, whose tensors have the
released names, and a convolutional one as the paper's supplement has it (its layers are not published: these are ours).

A summariser is a folder ``summariser`` of a bundle: ``config.json``, whose ``_class_name`` is the network's and whose other
keys are its arguments, and safetensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.errors import BundleError, refusing
from wsigen.models.bundle import SUMMARISER
from wsigen.models.network_config import Config, read_config
from wsigen.models.weights import choose_weights, demand_fit

WEIGHTS = "model.safetensors"


class Summariser(Protocol):
    """A network from windows of a grid to tokens."""

    tokens: int
    """T, whatever the window."""

    width: int
    """C, numbers of a token."""

    def __call__(self, cells: Tensor, levels: Tensor) -> Tensor:
        """Summarise windows ``(B, D, m, m)`` of magnification levels ``(B,)``, standardised, to tokens ``(B, T, C)``."""
        ...


class Attention(nn.Module):
    """Self-attention of several heads (Vaswani et al. 2017), its tensors named as torch's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A block of a vision transformer, its norms first (Dosovitskiy et al. 2021, eq. 2 and 3)."""

    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.self_attention = Attention(width, heads)
        first, last = nn.Linear(width, mlp), nn.Linear(mlp, width)
        for layer in (first, last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
        self.mlp = nn.Sequential(first, nn.GELU(), nn.Identity(), last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.self_attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Positions, blocks, and a norm at the end."""

    def __init__(self, tokens: int, width: int, layers: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.layers = nn.Sequential()
        for i in range(layers):
            self.layers.add_module(f"encoder_layer_{i}", Block(width, heads, mlp))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.ln(self.layers(x + self.pos_embedding))


class ViTSummariser(nn.Module):
    """The released summariser (``EmbeddingViT2_5``): a token of the magnification, and one of each slot for a cell.

    Windows of fewer cells than there are slots lie in the middle of them, row by row; the others hold a trained token. The
    slots do not say how many rows there are, so windows are squares whose sides are powers of two.

    Parameters
    ----------
    dimension : int
        D, numbers of a cell.
    levels : int
        Magnifications.
    side : int
        Cells a side of the largest window; its square is the number of slots.
    width, layers, heads, mlp : int
        Of the transformer.
    """

    def __init__(
        self, dimension: int, levels: int, side: int = 8, width: int = 512, layers: int = 12, heads: int = 8, mlp: int = 2048
    ) -> None:
        super().__init__()
        self.config: Config = {"dimension": dimension, "levels": levels, "side": side, "width": width}
        self.config |= {"layers": layers, "heads": heads, "mlp": mlp}
        self.side, self.width, self.tokens = side, width, side**2 + 1
        self.mag_embedding = nn.Embedding(levels, width)
        self.pad_token = nn.Parameter(torch.randn(1, 1, width))
        self.dim_reduce = nn.Linear(dimension, width)
        self.encoder = Encoder(self.tokens, width, layers, heads, mlp)
        self.final_proj = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, cells: Tensor, levels: Tensor) -> Tensor:
        """(B, D, m, m), (B,) -> (B, side^2 + 1, C); m is a power of two, at most ``side``."""
        count, slots = cells.shape[-2] * cells.shape[-1], self.tokens - 1
        first = slots // 2 - count // 2
        x = self.dim_reduce(cells.flatten(2).transpose(1, 2))
        x = functional.pad(x, (0, 0, first, slots - first - count))
        place = torch.arange(slots, device=x.device)[:, None]
        x = torch.where((place >= first) & (place < first + count), x, self.pad_token)
        x = torch.cat([self.mag_embedding(levels)[:, None], x], dim=1)
        return self.layer_norm(self.final_proj(self.encoder(x)))


class ConvSummariser(nn.Module):
    """A convolutional summariser to ``out_side x out_side`` tokens, as the supplement has one (128 x 128 cells to 8 x 8 x 512).

    Windows are enlarged to the largest one by repeating cells, then halved by convolutions.

    Parameters
    ----------
    dimension, levels : int
        As those of `ViTSummariser`.
    side : int
        Cells a side of the largest window: ``out_side`` times a power of two.
    width, out_side : int
        Numbers of a token, and tokens a side.
    groups : int
        Of the norms.
    """

    def __init__(
        self, dimension: int, levels: int, side: int = 128, width: int = 512, out_side: int = 8, groups: int = 32
    ) -> None:
        super().__init__()
        self.config: Config = {"dimension": dimension, "levels": levels, "side": side, "width": width}
        self.config |= {"out_side": out_side, "groups": groups}
        self.side, self.width, self.tokens = side, width, out_side**2
        halvings = (side // out_side).bit_length() - 1
        self.stem = nn.Conv2d(dimension, width, 1)
        self.level = nn.Embedding(levels, width)
        down: list[nn.Module] = []
        for _ in range(halvings):
            down += [nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, stride=2, padding=1)]
        self.down = nn.Sequential(*down)
        self.mix = nn.Sequential(
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(groups, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip
        self.positions = nn.Parameter(torch.randn(1, self.tokens, width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, cells: Tensor, levels: Tensor) -> Tensor:
        """(B, D, m, m), (B,) -> (B, out_side^2, C); m divides ``side``."""
        x = self.stem(cells) + self.level(levels)[:, :, None, None]
        x = x.repeat_interleave(self.side // x.shape[-2], dim=-2).repeat_interleave(self.side // x.shape[-1], dim=-1)
        x = self.down(x)
        x = x + self.mix(x)
        return self.norm(x.flatten(2).transpose(1, 2) + self.positions)


AnySummariser = ViTSummariser | ConvSummariser

KINDS: dict[str, type[ViTSummariser] | type[ConvSummariser]] = {
    "ViTSummariser": ViTSummariser,
    "ConvSummariser": ConvSummariser,
}


def summarise(network: Summariser, windows: Tensor, levels: Tensor) -> Tensor:
    """Tokens ``(B, T, C)`` of windows ``(B, D + 1, m, m)``, whose last channel is 1 where cells are known.

    Windows of which nothing is known are null: their tokens are 0, which is the null condition of guidance.
    """
    known = windows[:, -1:]
    given = known.flatten(1).amax(dim=1) > 0
    tokens = network(windows[:, :-1] * known, levels)
    return torch.where(given[:, None, None], tokens, torch.zeros_like(tokens))


def build_summariser(config: Config) -> AnySummariser:
    """A summariser with random weights, by its config."""
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    return KINDS[config["_class_name"]](**arguments)


def save_summariser(network: AnySummariser, folder: Path, half: bool = False) -> None:
    """Write ``config.json`` and the weights; the folder is made."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": type(network).__name__, **network.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    dtype = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})


def load_summariser(bundle: Path, device: str) -> AnySummariser:
    """Load the summariser of a bundle for inference (BundleError if it does not fit its weights)."""
    from safetensors.torch import load_file

    folder = bundle / SUMMARISER
    config = read_config(bundle, SUMMARISER)
    demand_fit(lambda: build_summariser(config), folder)
    network = build_summariser(config)
    with refusing(BundleError, folder, "copy the bundle again"):
        held: dict[str, Tensor] = {}
        for file in choose_weights(folder).files:
            held |= load_file(str(file))
        network.load_state_dict({name: value.float() for name, value in held.items()})
    return network.requires_grad_(False).eval().to(device)
