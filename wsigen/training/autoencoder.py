"""Autoencoders (diffusers' ``AutoencoderKL``): built, loaded, widened, used to encode, and measured.

Denoisers are trained on latents of a ``VQModel``, too, which is not trained itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsigen.base.errors import TrainingError, refusing
from wsigen.dataset.crops import CropBatch, Stream
from wsigen.models.config_keys import demand_supported
from wsigen.models.derived_card import vae_channels, vae_factor
from wsigen.models.weights import choose_weights, demand_fit
from wsigen.training.recipes import AutoencoderNetwork

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, VQModel

Vae: TypeAlias = "AutoencoderKL | VQModel"
KINDS = ("AutoencoderKL", "VQModel")
"""Autoencoders whose latents a denoiser can be trained on."""


def build_vae(settings: AutoencoderNetwork, crop_px: int) -> AutoencoderKL:
    """Build an untrained autoencoder without attention, hence local but for its group norms."""
    from diffusers import AutoencoderKL

    depth = len(settings.channels)
    factor = 2 ** (depth - 1)
    if crop_px % factor:
        raise TrainingError(
            f"network.channels has {depth} levels, latents of 1/{factor} of the image; crop_px must be a multiple of {factor}"
        )
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_groups,
        mid_block_add_attention=False,
        sample_size=crop_px,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        # Begin with little noise on the latents, or the decoder learns to ignore them for its first steps.
        model.quant_conv.bias[settings.latent_channels :] = -4.0
    return model


def load_vae(folder: Path) -> Vae:
    """Load an autoencoder (`KINDS`) from its folder or from a bundle's ``vae``; safetensors only.

    Raises
    ------
    TrainingError
        If there is none, or it is of another kind.
    BundleError
        If its config asks for what is not done here.
    """
    import diffusers

    there = next((f for f in (folder, folder / "vae", folder / "bundle" / "vae") if (f / "config.json").is_file()), None)
    if there is None:
        raise TrainingError(f"{folder}: no autoencoder there (a folder with config.json and *.safetensors, or its bundle)")
    with refusing(TrainingError, f"{there}: cannot be loaded", "give a folder that diffusers wrote"):
        config = dict(diffusers.AutoencoderKL.load_config(str(there), local_files_only=True))
    name = config.get("_class_name", KINDS[0])
    if name not in KINDS:
        raise TrainingError(f"{there}: a {name}; denoisers are trained on latents of {' or '.join(KINDS)}")
    demand_supported({**config, "_class_name": name}, "vae", there)
    model: Vae = load_pretrained(getattr(diffusers, name), there)
    return model


def factor_of(vae: Vae) -> int:
    """px of a latent px."""
    return vae_factor({**vae.config, "_class_name": type(vae).__name__})


def channels_of(vae: Vae) -> int:
    """Channels of the latents."""
    return vae_channels({**vae.config, "_class_name": type(vae).__name__})


def load_pretrained(kind: Any, folder: Path) -> Any:
    """Load a network of diffusers in fp32, from safetensors alone.

    Raises
    ------
    TrainingError
        If it cannot be loaded.
    """
    with refusing(TrainingError, f"{folder}: cannot be loaded as {kind.__name__}", "give a folder that diffusers wrote"):
        demand_fit(lambda: kind.from_config(kind.load_config(str(folder), local_files_only=True)), folder)
        return kind.from_pretrained(
            str(folder),
            use_safetensors=True,
            variant=choose_weights(folder).variant,
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )


def with_more_latents(vae: AutoencoderKL, added: int) -> AutoencoderKL:
    """Return an autoencoder with more latent channels whose reconstructions are, to begin with, those of ``vae``.

    The encoder fills the new channels at random, the decoder gives them no weight; training finds their use.
    """
    from diffusers import AutoencoderKL

    before = int(vae.config["latent_channels"])
    after = before + added
    wide = AutoencoderKL.from_config({**vae.config, "latent_channels": after})
    old, new = vae.state_dict(), wide.state_dict()
    kept = torch.arange(before)
    both = torch.cat([kept, after + kept])  # of means, then of log variances
    with torch.no_grad():
        for name, value in new.items():
            if value.shape == old[name].shape:
                value.copy_(old[name])
        for part in ("weight", "bias"):
            new[f"encoder.conv_out.{part}"][both] = old[f"encoder.conv_out.{part}"]
        new["decoder.conv_in.weight"].zero_()[:, kept] = old["decoder.conv_in.weight"]
        for name, rows, size in (("quant_conv", both, 2 * after), ("post_quant_conv", kept, after)):
            if f"{name}.weight" in old:
                new[f"{name}.weight"].copy_(torch.eye(size)[:, :, None, None])
                new[f"{name}.weight"][rows[:, None], rows] = old[f"{name}.weight"]
                new[f"{name}.bias"].zero_()[rows] = old[f"{name}.bias"]
        if "quant_conv.bias" in old:
            new["quant_conv.bias"][after + before :] = -4.0  # as in `build_vae`
    return wide


def to_unit(images: NDArray[np.uint8]) -> Tensor:
    """Scale uint8 [B, H, W, 3] to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Scale (B, 3, H, W) in [-1, 1] to uint8 [B, H, W, 3]."""
    scaled = ((images.float() + 1.0) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return np.asarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def encoder_of(
    vae: Vae, device: torch.device | str, precision: str = "no"
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function: uint8 [B, P, P, 3] -> posterior means (`latents_of`), float32 [B, C, p, p].

    Parameters
    ----------
    precision : ``no``, ``bf16`` or ``fp16``, as in `recipes.LoopSettings`
    """
    # On a CPU channels last and bf16 encode more than twice as fast; the means move by less than 0.01 of their spread.
    vae = vae.to(device).eval().to(memory_format=torch.channels_last)
    mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    @torch.no_grad()
    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = to_unit(images).to(device, memory_format=torch.channels_last)
        with torch.autocast(x.device.type, mixed, enabled=mixed is not None):
            mean = latents_of(vae, x)
        return np.asarray(mean.float().cpu().numpy())

    return encode


def latents_of(vae: Vae, x: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) to the posterior's mode; a ``VQModel``'s latents before they are quantised."""
    encoded: Any = vae.encode(x)
    latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latents


def decoder_of(vae: Vae, mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """Return a function: standardised latents (B, C, p, p) -> images (B, 3, H, W) in [-1, 1], one at a time."""

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        decoder = vae.to(latents.device).eval()
        shift, scale = (torch.tensor(v, device=latents.device).view(1, -1, 1, 1) for v in (mean, std))
        return torch.cat([decoder.decode(z).sample for z in (latents * scale + shift).split(1)])

    return decode


@torch.no_grad()
def reconstruct(vae: Vae, x: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) to the posterior's mode and decode them."""
    made: Tensor = vae.decode(latents_of(vae, x)).sample
    return made


def measure_autoencoder(
    vae: Vae, crops: Stream[CropBatch], background: tuple[int, ...], count: int = 48, batch: int = 4
) -> dict[str, float]:
    """Reconstruct crops and compare them in 8 bit, outside background: empty glass would flatter every figure.

    Parameters
    ----------
    crops : Stream
        Of held-out images, without augmentation.
    background : tuple of int
        Classes that are left out; unknown cells count as tissue.

    Returns
    -------
    ``psnr_db`` over all pixels of tissue; ``colour_error``, the mean over crops and channels of the absolute difference of
    their mean colours, and ``colour_shift``, the largest channel's mean signed difference, in grey levels of 0-255;
    ``crops``, how many held tissue.
    """
    vae = vae.eval()
    device = next(vae.parameters()).device
    squares, pixels = 0.0, 0
    shifts: list[NDArray[np.float64]] = []
    for step in range(-(-count // batch)):
        given = crops.batch(step, batch)
        made = to_bytes(reconstruct(vae, to_unit(given.images).to(device)))
        difference = made.astype(np.float64) - given.images
        cells = ~np.isin(given.class_maps, background)
        cell_px = given.images.shape[1] // cells.shape[1]
        for one, tissue in zip(difference, cells.repeat(cell_px, axis=1).repeat(cell_px, axis=2), strict=True):
            if tissue.mean() >= 0.25:
                inside = one[tissue]
                squares, pixels = squares + float(np.square(inside).sum()), pixels + inside.size
                shifts.append(inside.mean(axis=0))
    if not shifts:
        return {}
    colours = np.stack(shifts)
    return {
        "psnr_db": float(20 * np.log10(255.0) - 10 * np.log10(max(squares / pixels, 1e-10))),
        "colour_error": float(np.abs(colours).mean()),
        "colour_shift": float(np.abs(colours.mean(axis=0)).max()),
        "crops": float(len(shifts)),
    }
