"""Checkpoints as ZoomLDM releases them: random, of the published layers at a small width, and an independent run of them.

The functions below are the published networks (latent diffusion's U-Net and VQ autoencoder, torchvision's transformer) on plain
tensors. They make each tensor when they first need it: so one run on an input makes the checkpoint and says what the networks
give.
"""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, group_norm, interpolate, layer_norm, linear, pad, silu, softmax


class Parameters:
    """Tensors by name, random ones where there are none yet."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int, scale: float = 1.0, about: float = 0.0) -> Tensor:
        if name not in self.state:
            self.state[name] = torch.randn(shape) * scale + about
        return self.state[name]

    def linear(self, name: str, x: Tensor, width: int, bias: bool = True) -> Tensor:
        weight = self.get(f"{name}.weight", width, x.shape[-1], scale=x.shape[-1] ** -0.5)
        return linear(x, weight, self.get(f"{name}.bias", width, scale=0.1) if bias else None)

    def conv(self, name: str, x: Tensor, width: int, side: int = 3, stride: int = 1, padding: int | None = None) -> Tensor:
        weight = self.get(f"{name}.weight", width, x.shape[1], side, side, scale=(x.shape[1] * side**2) ** -0.5)
        return conv2d(x, weight, self.get(f"{name}.bias", width, scale=0.1), stride, side // 2 if padding is None else padding)

    def group(self, name: str, x: Tensor, eps: float) -> Tensor:
        return group_norm(x, 32, *self._affine(name, x.shape[1]), eps)

    def layer(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return layer_norm(x, x.shape[-1:], *self._affine(name, x.shape[-1]), eps)

    def _affine(self, name: str, width: int) -> tuple[Tensor, Tensor]:
        return self.get(f"{name}.weight", width, scale=0.1, about=1.0), self.get(f"{name}.bias", width, scale=0.1)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int = 1) -> Tensor:
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key, value))
    return (softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v).transpose(1, 2).flatten(2)


def unet(p: Parameters, x: Tensor, t: Tensor, context: Tensor, width: int = 32) -> Tensor:
    """openaimodel.UNetModel: widths 1-2-3-5, two residual blocks a level, attention in all but the first, one head."""
    freqs = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = t[:, None].float() * freqs
    time = p.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], dim=1), 4 * width)
    time = silu(p.linear("time_embed.2", silu(time), 4 * width))

    def residual(name: str, x: Tensor, out: int) -> Tensor:
        h = p.conv(f"{name}.in_layers.2", silu(p.group(f"{name}.in_layers.0", x, 1e-5)), out)
        h = h + p.linear(f"{name}.emb_layers.1", time, out)[..., None, None]
        h = p.conv(f"{name}.out_layers.3", silu(p.group(f"{name}.out_layers.0", h, 1e-5)), out)
        return h + (x if x.shape[1] == out else p.conv(f"{name}.skip_connection", x, out, 1))

    def transformer(name: str, x: Tensor) -> Tensor:
        c, block = x.shape[1], f"{name}.transformer_blocks.0"
        h = p.conv(f"{name}.proj_in", p.group(f"{name}.norm", x, 1e-6), c, 1).flatten(2).transpose(1, 2)
        for k, own in ((1, True), (2, False)):
            n = p.layer(f"{block}.norm{k}", h)
            q, *kv = (p.linear(f"{block}.attn{k}.to_{w}", n if w == "q" or own else context, c, bias=False) for w in "qkv")
            h = h + p.linear(f"{block}.attn{k}.to_out.0", attend(q, *kv), c)
        value, gate = p.linear(f"{block}.ff.net.0.proj", p.layer(f"{block}.norm3", h), 8 * c).chunk(2, dim=-1)
        h = h + p.linear(f"{block}.ff.net.2", value * gelu(gate), c)
        return x + p.conv(f"{name}.proj_out", h.transpose(1, 2).unflatten(2, x.shape[2:]), c, 1)

    widths, channels = [width * m for m in (1, 2, 3, 5)], x.shape[1]
    h = p.conv("input_blocks.0.0", x, width)
    skips, i = [h], 1
    for level, out in enumerate(widths):
        for _ in range(2):
            h = residual(f"input_blocks.{i}.0", h, out)
            h = transformer(f"input_blocks.{i}.1", h) if level else h
            skips, i = [*skips, h], i + 1
        if level < 3:
            h = p.conv(f"input_blocks.{i}.0.op", h, out, stride=2)
            skips, i = [*skips, h], i + 1
    h = residual("middle_block.0", h, widths[-1])
    h = residual("middle_block.2", transformer("middle_block.1", h), widths[-1])
    for i in range(12):
        level = 3 - i // 3
        h = residual(f"output_blocks.{i}.0", torch.cat([h, skips.pop()], dim=1), widths[level])
        h = transformer(f"output_blocks.{i}.1", h) if level else h
        if level and i % 3 == 2:
            h = p.conv(f"output_blocks.{i}.2.conv", interpolate(h, scale_factor=2.0), widths[level])
    return p.conv("out.2", silu(p.group("out.0", h, 1e-5)), channels)


def residual(p: Parameters, name: str, x: Tensor, out: int) -> Tensor:
    h = p.conv(f"{name}.conv1", silu(p.group(f"{name}.norm1", x, 1e-6)), out)
    h = p.conv(f"{name}.conv2", silu(p.group(f"{name}.norm2", h, 1e-6)), out)
    return h + (x if x.shape[1] == out else p.conv(f"{name}.nin_shortcut", x, out, 1))


def middle(p: Parameters, name: str, x: Tensor) -> Tensor:
    x = residual(p, f"{name}.mid.block_1", x, c := x.shape[1])
    n = p.group(f"{name}.mid.attn_1.norm", x, 1e-6)
    q, k, v = (p.conv(f"{name}.mid.attn_1.{w}", n, c, 1).flatten(2).transpose(1, 2) for w in "qkv")
    x = x + p.conv(f"{name}.mid.attn_1.proj_out", attend(q, k, v).transpose(1, 2).unflatten(2, x.shape[2:]), c, 1)
    return residual(p, f"{name}.mid.block_2", x, c)


def encode(p: Parameters, x: Tensor, width: int = 32) -> Tensor:
    """autoencoder.VQModelInterface.encode: not quantised."""
    h = p.conv("encoder.conv_in", x, width)
    for level, factor in enumerate((1, 2, 4)):
        for k in range(2):
            h = residual(p, f"encoder.down.{level}.block.{k}", h, width * factor)
        if level < 2:
            h = p.conv(f"encoder.down.{level}.downsample.conv", pad(h, (0, 1, 0, 1)), width * factor, stride=2, padding=0)
    h = silu(p.group("encoder.norm_out", middle(p, "encoder", h), 1e-6))
    return p.conv("quant_conv", p.conv("encoder.conv_out", h, 3), 3, 1)


def decode(p: Parameters, z: Tensor, width: int = 32, codes: int = 64) -> Tensor:
    """autoencoder.VQModelInterface.decode: quantises first."""
    book = p.get("quantize.embedding.weight", codes, 3)
    nearest = ((z[:, None] - book[None, :, :, None, None]) ** 2).sum(dim=2).argmin(dim=1)
    h = p.conv("post_quant_conv", book[nearest].permute(0, 3, 1, 2), 3, 1)
    h = middle(p, "decoder", p.conv("decoder.conv_in", h, 4 * width))
    for level in (2, 1, 0):
        for k in range(3):
            h = residual(p, f"decoder.up.{level}.block.{k}", h, width * 2**level)
        if level:
            h = p.conv(f"decoder.up.{level}.upsample.conv", interpolate(h, scale_factor=2.0), width * 2**level)
    return p.conv("decoder.conv_out", silu(p.group("decoder.norm_out", h, 1e-6)), 3)


def summarise(p: Parameters, cells: Tensor, level: int, levels: int, width: int = 64, layers: int = 2) -> Tensor:
    """modules.EmbeddingViT2_5 on one window ``(D, m, m)``."""
    x = p.linear("dim_reduce", cells.flatten(1).T, width)
    first = 32 - len(x) // 2 if len(x) > 1 else 32
    slots = p.get("pad_token", 1, 1, width)[0].repeat(64, 1)
    slots[first : first + len(x)] = x
    x = torch.cat([p.get("mag_embedding.weight", levels, width)[level : level + 1], slots])[None]
    x = x + p.get("encoder.pos_embedding", 1, 65, width, scale=0.1)
    for k in range(layers):
        name = f"encoder.layers.encoder_layer_{k}"
        n = p.layer(f"{name}.ln_1", x, 1e-6)
        weight = p.get(f"{name}.self_attention.in_proj_weight", 3 * width, width, scale=width**-0.5)
        qkv = linear(n, weight, p.get(f"{name}.self_attention.in_proj_bias", 3 * width, scale=0.1)).chunk(3, dim=-1)
        x = x + p.linear(f"{name}.self_attention.out_proj", attend(*qkv, heads=8), width)
        h = gelu(p.linear(f"{name}.mlp.0", p.layer(f"{name}.ln_2", x, 1e-6), 4 * width))
        x = x + p.linear(f"{name}.mlp.3", h, width)
    x = p.linear("final_proj", p.layer("encoder.ln", x, 1e-6), width)
    return p.layer("layer_norm", x)[0]


def token_model(p: Parameters, x: Tensor, t: Tensor, level: Tensor, levels: int, width: int = 128, depth: int = 2) -> Tensor:
    """cdm_dit/models.DiT on tokens ``(B, T, C)``, heads of 64: x0 and what it says of the variance."""
    freqs = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    angles = t[:, None].float() * freqs
    time = silu(p.linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], dim=1), width))
    told = p.linear("t_embedder.mlp.2", time, width)
    told = silu(told + p.get("y_embedder.embedding_table.weight", levels, width)[level])[:, None]

    def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return layer_norm(x, (width,), eps=1e-6) * (1 + scale) + shift

    h = p.linear("x_embedder", x, width) + p.get("pos_embed", 1, x.shape[1], width)
    for k in range(depth):
        a = p.linear(f"blocks.{k}.adaLN_modulation.1", told, 6 * width).chunk(6, dim=-1)
        qkv = p.linear(f"blocks.{k}.attn.qkv", modulated(h, a[0], a[1]), 3 * width).chunk(3, dim=-1)
        h = h + a[2] * p.linear(f"blocks.{k}.attn.proj", attend(*qkv, heads=width // 64), width)
        m = gelu(p.linear(f"blocks.{k}.mlp.fc1", modulated(h, a[3], a[4]), 4 * width), approximate="tanh")
        h = h + a[5] * p.linear(f"blocks.{k}.mlp.fc2", m, width)
    shift, scale = p.linear("final_layer.adaLN_modulation.1", told, 2 * width).chunk(2, dim=-1)
    return p.linear("final_layer.linear", modulated(h, shift, scale), 2 * x.shape[-1])


def make_token_checkpoint(levels: int = 8, tokens: int = 65) -> tuple[dict[str, Any], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """A checkpoint of the conditioning diffusion model as its training writes it; inputs and output of its running mean."""
    p = Parameters()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        x, t, level = torch.randn(2, tokens, 64), torch.tensor([3, 700]), torch.tensor([0, levels - 1])
        out = token_model(p, x, t, level, levels)[..., :64]
        state = {name: torch.randn_like(tensor) for name, tensor in p.state.items()}
    options = Namespace(model="DiT-B", epochs=1400, data_path="/somewhere")
    return {"model": state, "ema": p.state, "opt": {"state": {}, "param_groups": []}, "args": options}, (x, t, level, out)


def make_checkpoint(levels: int, averaged: bool = True, dimension: int = 12) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint, and what its networks give: inputs and outputs by network."""
    network, vae, tokens = Parameters(), Parameters(), Parameters()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(levels)
        x, t, context = torch.randn(2, 3, 16, 16), torch.tensor([7, 801]), torch.randn(2, 65, 64)
        image, cells = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(dimension, 4, 4)
        results: dict[str, Any] = {"unet": (x, t, context, unet(network, x, t, context))}
        z = encode(vae, image)
        results["vae"] = (image, z, decode(vae, z))
        results["summariser"] = (cells, 1, summarise(tokens, cells, 1, levels))
        state = {f"first_stage_model.{name}": tensor for name, tensor in vae.state.items()}
        state |= {f"cond_stage_model.{name}": tensor for name, tensor in tokens.state.items()}
        for name, tensor in network.state.items():
            online = torch.randn_like(tensor) if averaged else tensor
            state[f"model.diffusion_model.{name}"] = online
            if averaged:
                state[f"model_ema.diffusion_model{name}".replace(".", "").replace("model_ema", "model_ema.")] = tensor
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(5)} if averaged else {}
        betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
        state |= {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}
    return state, results
