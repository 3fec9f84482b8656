"""ZoomLDM's conditioning diffusion model: tokens of a summariser drawn from noise, for a magnification.

A transformer over the tokens of one picture of 256 px (Yellapragada et al. 2025, section 3.3; blocks of Peebles & Xie 2023 with
"adaLN-Zero"), trained to predict x0. So tiles of any magnification can be drawn without a reference. It says nothing of what
lies beside a tile: slides are not made of it. Its tensors have the released names.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.errors import BundleError, refusing
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.models.bundle import TOKEN_MODEL
from wsigen.models.checkpoint import filled, read_tensors
from wsigen.models.network_config import TokenModelConfig, read_config
from wsigen.models.weights import choose_weights, demand_fit
from wsigen.sampling.schedule import Schedule, ddim_step

Array = NDArray[np.float32]

STEPS = 200
"""As its authors sample."""

TIMESTEPS, FREQUENCIES = 1000, 256


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(width, heads), _Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(told).chunk(6, dim=1)
        x = x + gate_a[:, None] * self.attn(_modulated(x, shift_a, scale_a))
        return x + gate_m[:, None] * self.mlp(_modulated(x, shift_m, scale_m))


class _Last(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        out: Tensor = self.linear(_modulated(x, *self.adaLN_modulation(told).chunk(2, dim=1)))
        return out


class TokenModel(nn.Module):
    """Predicts clean tokens from noisy ones; what it also says of their variance is left out.

    Parameters
    ----------
    config : TokenModelConfig
        Its sizes.
    """

    def __init__(self, config: TokenModelConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.x_embedder = nn.Linear(config.width, hidden)
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(nn.Linear(FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))}
        )
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(config.levels, hidden)})
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, hidden))
        self.blocks = nn.ModuleList([_Block(hidden, config.heads) for _ in range(config.depth)])
        self.final_layer = _Last(hidden, 2 * config.width)

    def forward(self, x: Tensor, time: Tensor, levels: Tensor) -> Tensor:
        """(B, T, C), (B,), (B,) -> (B, T, C)."""
        rates = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES // 2, device=x.device) / (FREQUENCIES // 2))
        angles = time[:, None].float() * rates
        told = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=1))
        told = told + self.y_embedder["embedding_table"](levels)
        x = self.x_embedder(x) + self.pos_embed
        for block in self.blocks:
            x = block(x, told)
        clean: Tensor = self.final_layer(x, told)[..., : self.config.width]
        return clean


def read_release(file: Path) -> TokenModel:
    """Read a released checkpoint of the model, its running mean.

    It holds a dictionary with the options of its training besides (``argparse.Namespace``), which are read as plain values.

    Raises
    ------
    BundleError
        If it holds anything else, or the tensors of another network.
    """
    state = read_tensors(file, "ema", (argparse.Namespace,))
    with refusing(BundleError, file, "it is no conditioning diffusion model of ZoomLDM: take it as it was released"):
        hidden, width = state["x_embedder.weight"].shape
        config = TokenModelConfig(
            tokens=state["pos_embed"].shape[1],
            width=width,
            levels=state["y_embedder.embedding_table.weight"].shape[0],
            hidden=hidden,
            depth=1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
            heads=max(1, hidden // 72 if hidden == 1152 else hidden // 64),  # of XL; of S, B and L
        )
        network: TokenModel = filled(lambda: TokenModel(config), state, "network")
    return network


def save_token_model(network: TokenModel, folder: Path) -> None:
    """Write ``config.json`` and the weights; the folder is made."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(network.config.model_dump(), indent=2) + "\n", encoding="utf-8")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, str(folder / "model.safetensors"))


def load_token_model(bundle: Path, device: str = "cpu") -> TokenModel:
    """Load the model of a bundle for inference.

    Raises
    ------
    BundleError
        If the bundle has none, or its weights do not fit.
    """
    from safetensors.torch import load_file

    folder = bundle / TOKEN_MODEL
    if not (folder / "config.json").is_file():
        raise BundleError(
            f"{bundle}: draws no tokens: it has no {TOKEN_MODEL}; 'wsigen train tokens' trains one, "
            "'wsigen models import zoomldm FILE OUT --tokens FILE' adds the released one"
        )
    config = TokenModelConfig(**read_config(bundle, TOKEN_MODEL))
    demand_fit(lambda: TokenModel(config), folder)
    network = TokenModel(config)
    with refusing(BundleError, folder, "copy the bundle again"):
        held: dict[str, Tensor] = {}
        for file in choose_weights(folder).files:
            held |= load_file(str(file))
        network.load_state_dict(held)
    return network.requires_grad_(False).eval().to(device)


@dataclass(frozen=True, slots=True)
class TokenDraw:
    """Which tokens are drawn: of a magnification level, one set for each seed, in so many steps."""

    level: int
    seeds: Sequence[int]
    steps: int = STEPS


def sample_tokens(network: TokenModel, draw: TokenDraw) -> Array:
    """Draw tokens ``(seeds, T, C)``, float32, by DDIM without noise (Song et al. 2021)."""
    config, count = network.config, len(draw.seeds)
    if not 0 <= draw.level < config.levels:
        raise ValueError(f"level {draw.level}: the network knows {config.levels}")
    device, schedule = network.pos_embed.device, _schedule(draw.steps)
    y = np.stack([_noise(seed, config) for seed in draw.seeds])
    levels = torch.full((count,), draw.level, device=device)
    for s, timestep in enumerate(schedule.timesteps):
        with torch.inference_mode():
            time = torch.full((count,), timestep, device=device)
            x0 = network(torch.from_numpy(y).to(device), time, levels).float().cpu().numpy()
        y = ddim_step(y, x0, schedule.abar[s], schedule.abar[s + 1])
    return y


def _noise(seed: int, config: TokenModelConfig) -> Array:
    """Of one set of tokens, ``(T, C)``: a field of one row whose pixels are tokens."""
    field = normal_field(seed, Stream.TOKENS, Box(0, 0, 1, config.tokens), config.width)
    return np.ascontiguousarray(field[:, 0].T)


def noise_levels() -> NDArray[np.float64]:
    """The share abar of the signal's variance at each timestep: the cosine schedule."""
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler(TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    return np.asarray(scheduler.alphas_cumprod.double().numpy())


def _schedule(steps: int) -> Schedule:
    """Steps spread evenly from the first timestep to the last, both of them taken, as its authors do."""
    taken = sorted({round(t) for t in np.linspace(0, TIMESTEPS - 1, steps)}, reverse=True)
    abar = noise_levels()
    return Schedule(tuple(taken), (*(float(abar[t]) for t in taken), 1.0))
