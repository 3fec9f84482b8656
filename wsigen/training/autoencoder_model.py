"""Training of an f8 autoencoder, from scratch or from any diffusers ``AutoencoderKL``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsigen.base.errors import TrainingError
from wsigen.dataset.crops import CropBatch, Stream
from wsigen.training.losses import build_adversary, fine, hinge_loss, reconstruction_terms
from wsigen.training.recipes import AutoencoderNetwork, AutoencoderRecipe
from wsigen.training.task import Player, Tensors

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FACTOR = 8
"""Image px per latent px; class maps of a dataset have this grid."""


def build_vae(settings: AutoencoderNetwork, crop_px: int) -> AutoencoderKL:
    """Build an untrained autoencoder without attention, hence local but for its group norms."""
    from diffusers import AutoencoderKL

    depth = len(settings.channels)
    if 2 ** (depth - 1) != FACTOR:
        raise TrainingError(f"network.channels has {depth} levels; four are needed: latents are 1/{FACTOR} of the image")
    uneven = [c for c in settings.channels if c % settings.norm_groups]
    if uneven:
        raise TrainingError(f"network.channels {uneven[0]} is no multiple of network.norm_groups {settings.norm_groups}")
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


def load_vae(folder: Path) -> AutoencoderKL:
    """Load an ``AutoencoderKL`` from its folder or from a bundle's ``vae``; safetensors only.

    Raises
    ------
    TrainingError
        If there is none, or its latents are not 1/8 of the image.
    """
    from diffusers import AutoencoderKL

    found = next((f for f in (folder, folder / "vae", folder / "bundle" / "vae") if (f / "config.json").is_file()), None)
    if found is None:
        raise TrainingError(f"{folder}: no autoencoder there (a folder with config.json and *.safetensors, or its bundle)")
    try:
        model = AutoencoderKL.from_pretrained(
            str(found), use_safetensors=True, local_files_only=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{found}: cannot be loaded as AutoencoderKL ({reason})") from None
    factor = 2 ** (len(model.config["block_out_channels"]) - 1)
    if factor != FACTOR:
        raise TrainingError(f"{found}: latents are 1/{factor} of the image; class maps need 1/{FACTOR}")
    return model


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
    vae: AutoencoderKL, device: torch.device | str, precision: str = "no"
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function: uint8 [B, P, P, 3] -> posterior means, float32 [B, C, P/8, P/8].

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
            mean = vae.encode(x).latent_dist.mode()
        return np.asarray(mean.float().cpu().numpy())

    return encode


class Reconstruction(nn.Module):
    """Encode, sample the posterior with given noise, decode: one forward pass, as several processes need it."""

    def __init__(self, vae: AutoencoderKL, decoder_only: bool) -> None:
        super().__init__()
        self.vae, self._decoder_only = vae, decoder_only
        if decoder_only:
            for part in (vae.encoder, vae.quant_conv):
                if part is not None:
                    part.requires_grad_(False)

    def forward(self, x: Tensor, noise: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction (B, 3, H, W), mean and log variance.

        Parameters
        ----------
        x : (B, 3, H, W) in [-1, 1]
        noise : (B, C, H/8, W/8), standard normal: draws from the posterior
        added : (B, C, H/8, W/8), added to the draw
        """
        vae = self.vae
        coded = vae.encoder(x)
        coded = coded if vae.quant_conv is None else vae.quant_conv(coded)
        mean, logvar = coded.float().chunk(2, dim=1)
        logvar = logvar.clamp(-30.0, 20.0)
        latent = mean + torch.exp(0.5 * logvar) * noise + added
        latent = latent if vae.post_quant_conv is None else vae.post_quant_conv(latent)
        return vae.decoder(latent), mean, logvar


class AutoencoderTask:
    """See `task.Task`; players: the autoencoder, and (if weighted) the discriminator."""

    name = "autoencoder"

    def __init__(self, recipe: AutoencoderRecipe, stream: Stream[CropBatch]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self._stream = recipe, stream
        self.vae = load_vae(recipe.start) if recipe.start else build_vae(recipe.network, recipe.crop_px)
        if recipe.added_latents:
            self.vae = with_more_latents(self.vae, recipe.added_latents)
        self._network = Reconstruction(self.vae, recipe.decoder_only)
        self._adversary = build_adversary()
        self._made: list[tuple[Tensor, Tensor]] = []
        self.columns: tuple[str, ...] = ("l1", "gradient_l1", "colour", "kl", "fooled", "adversary")

    def players(self) -> dict[str, Player]:
        """The autoencoder, then the discriminator."""
        loop, losses = self.recipe.loop, self.recipe.losses
        found = {"model": Player(self._network, loop.learning_rate, loop.betas)}
        if losses.adversary:
            found["adversary"] = Player(self._adversary, losses.adversary_learning_rate, (0.5, 0.9))
        return found

    def playing(self, share: float) -> tuple[str, ...]:
        """The discriminator plays from ``adversary_start`` on."""
        return ("model", "adversary") if self._adversarial(share) else ("model",)

    def _adversarial(self, share: float) -> bool:
        losses = self.recipe.losses
        return losses.adversary > 0 and share >= losses.adversary_start

    def draw(self, step: int, part: int) -> Tensors:
        """Crops in [-1, 1], the posterior's noise, and noise added to the latents."""
        loop = self.recipe.loop
        batch = self._stream.batch(step * loop.parts + part, loop.part)
        side = self.recipe.crop_px // FACTOR
        shape = (loop.part, int(self.vae.config["latent_channels"]), side, side)
        rng = np.random.default_rng((self.recipe.seed, step, part, 1))  # not that of the stream's crops
        drawn = {"images": to_unit(batch.images), "noise": torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))}
        deviation = self.recipe.latent_noise * rng.random((loop.part, 1, 1, 1), dtype=np.float32)
        return drawn | {"added": torch.from_numpy(deviation * rng.standard_normal(shape, dtype=np.float32))}

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """The weighted sum of `losses.reconstruction_terms`, less how well the discriminator is fooled; or its own loss."""
        if player == "adversary":
            return self._adversary_loss(modules["adversary"])
        weights, x = self.recipe.losses, batch["images"]
        y, mean, logvar = modules["model"](x, batch["noise"], batch["added"])
        terms = reconstruction_terms(x, y.float(), mean, logvar)
        total = weights.l1 * terms.l1 + weights.gradient * terms.gradient
        total = total + weights.colour * terms.colour + weights.kl * terms.kl
        scalars = {"l1": terms.l1, "gradient_l1": terms.gradient, "colour": terms.colour, "kl": terms.kl}
        if self._adversarial(share):
            self._adversary.requires_grad_(False)
            scalars["fooled"] = self._adversary(fine(y.float())).float().mean()
            self._adversary.requires_grad_(True)
            total = total - weights.adversary * scalars["fooled"]
            self._made.append((x, y.detach().float()))
        return total, scalars

    def _adversary_loss(self, adversary: nn.Module) -> tuple[Tensor, Tensors]:
        x, y = self._made.pop(0)
        real, fake = adversary(fine(torch.cat([x, y]))).float().chunk(2)
        loss = hinge_loss(real, fake)
        return loss, {"adversary": loss}

    def after_step(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Nothing is learned without gradients."""

    def memories(self) -> dict[str, nn.Module]:
        """None."""
        return {}

    def preview(self, device: Any) -> NDArray[np.uint8]:
        """Up to four crops of the first batch above their reconstructions."""
        x = self.draw(0, 0)["images"][:4].to(device)
        y = self.vae.decode(self.vae.encode(x).latent_dist.mode()).sample
        return np.concatenate([np.concatenate(list(to_bytes(images)), axis=1) for images in (x, y)])
