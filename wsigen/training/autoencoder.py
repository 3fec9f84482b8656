"""The f8 autoencoder: diffusers' ``AutoencoderKL`` without attention, hence local but for its group norms."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.training.budget import Budget, cosine_rate
from wsigen.training.checkpoint import load_checkpoint, require_finite, save_checkpoint
from wsigen.training.settings import AutoencoderSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Batches = Callable[[int], Tensor]  # step -> (B, 3, H, W) in [-1, 1]


def build_autoencoder(settings: AutoencoderSettings) -> AutoencoderKL:
    """Build an untrained autoencoder."""
    from diffusers import AutoencoderKL

    depth = len(settings.channels)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        latent_channels=settings.latent_channels,
        norm_num_groups=settings.norm_groups,
        mid_block_add_attention=False,
        sample_size=settings.crop_px,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        # Begin with little noise on the latents, or the decoder learns to ignore them for its first steps.
        model.quant_conv.bias[settings.latent_channels :] = -4.0
    return model.to(memory_format=torch.channels_last)


def build_adversary() -> nn.Sequential:
    """Build a small patch discriminator; each output sees 34 px."""
    widths = (3, 32, 64, 128)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def _fine(x: Tensor) -> Tensor:
    """Keep what is finer than about 16 px: the adversary must not move the mean colour."""
    return x - functional.avg_pool2d(x, 17, stride=1, padding=8, count_include_pad=False)


def _colour_error(difference: Tensor) -> Tensor:
    """L1 of the mean colour of crops and of 32 px blocks, and of chroma in 4 px blocks.

    Grey detail dominates a plain L1; without the last term pink and blue-grey fibres come out alike.
    """
    chroma = difference - difference.mean(dim=1, keepdim=True)
    return (
        difference.mean(dim=(2, 3)).abs().mean()
        + functional.avg_pool2d(difference, 32).abs().mean()
        + 2.0 * functional.avg_pool2d(chroma, 4).abs().mean()
    )


def reconstruction_loss(
    x: Tensor, y: Tensor, mean: Tensor, logvar: Tensor, settings: AutoencoderSettings
) -> tuple[Tensor, Tensor]:
    """Compare a reconstruction with the image: L1, L1 of gradients and of local mean colour, and KL.

    Parameters
    ----------
    x, y : (B, 3, H, W) image and reconstruction
    mean, logvar : (B, C, H/8, W/8) of the posterior

    Returns
    -------
    the weighted sum, and the plain L1
    """
    l1 = (x - y).abs().mean()
    edges = sum((a - b).abs().mean() for a, b in zip(_gradients(x), _gradients(y), strict=True))
    colour = _colour_error(x - y)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    total = l1 + settings.gradient_weight * edges + settings.colour_weight * colour + settings.kl_weight * kl
    return total, l1


class AutoencoderTraining:
    """The trained state (weights, optimisers, step) and the one operation on it: `run`.

    With ``decoder_only`` the encoder stays as it is, so latents that were encoded before stay valid.
    """

    def __init__(self, settings: AutoencoderSettings, seed: int, decoder_only: bool = False) -> None:
        torch.manual_seed(seed)
        self.settings = settings
        self.seed = seed
        self.decoder_only = decoder_only
        self.model = build_autoencoder(settings)
        if decoder_only:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)
        self.adversary = build_adversary()
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            weight_decay=1e-4,
        )
        self.adversary_optimiser = torch.optim.AdamW(self.adversary.parameters(), lr=2e-4, betas=(0.5, 0.9))
        self.step = 0
        self.elapsed_s = 0.0

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "adversary": self.adversary,
            "optimiser": self.optimiser,
            "adversary_optimiser": self.adversary_optimiser,
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(path, {**state, "step": self.step, "elapsed_s": self.elapsed_s})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = load_checkpoint(path)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.elapsed_s = int(state["step"]), float(state["elapsed_s"])

    def load_networks(self, path: Path) -> None:
        """Begin at the networks of another training's checkpoint, with fresh optimisers at step 0."""
        state = load_checkpoint(path)
        self.model.load_state_dict(state["model"])
        self.adversary.load_state_dict(state["adversary"])

    def _forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.set_grad_enabled(not self.decoder_only):
                mean, logvar = self.model.quant_conv(self.model.encoder(x)).float().chunk(2, dim=1)
                logvar = logvar.clamp(-20.0, 10.0)
            latent = mean + torch.exp(0.5 * logvar) * noise
            decoded = self.model.decoder(self.model.post_quant_conv(latent))
        return decoded.float(), mean, logvar

    def train_step(self, x: Tensor, progress: float) -> float:
        """Take one step on a batch (B, 3, H, W) in [-1, 1]; return its L1 loss."""
        settings = self.settings
        for optimiser, peak in ((self.optimiser, settings.learning_rate), (self.adversary_optimiser, 2e-4)):
            optimiser.param_groups[0]["lr"] = cosine_rate(peak, progress, self.step)
        x = x.contiguous(memory_format=torch.channels_last)
        shape = (x.shape[0], settings.latent_channels, x.shape[2] // 8, x.shape[3] // 8)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + self.step))
        y, mean, logvar = self._forward(x, noise)
        loss, l1 = reconstruction_loss(x, y, mean, logvar, settings)
        adversarial = progress >= settings.adversary_start
        if adversarial:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                self.adversary.requires_grad_(False)
                loss = loss - settings.adversary_weight * self.adversary(_fine(y)).float().mean()
                self.adversary.requires_grad_(True)
        require_finite(loss.item(), "autoencoder", self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        if adversarial:
            self._train_adversary(x, y.detach())
        self.step += 1
        return float(l1.item())

    def _train_adversary(self, x: Tensor, y: Tensor) -> None:
        """Take one step of the hinge loss."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            real, fake = self.adversary(_fine(torch.cat([x, y]))).float().chunk(2)
        loss = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
        self.adversary_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.adversary_optimiser.step()

    def run(self, batches: Batches, budget: Budget, every_s: float, on_checkpoint: Callable[[], None]) -> None:
        """Train until the budget is used; call ``on_checkpoint`` every ``every_s`` seconds and at the end."""
        self.model.train()
        last, mean_l1 = time.monotonic(), 0.0
        while (progress := budget.progress(self.step)) < 1.0:
            l1 = self.train_step(batches(self.step), progress)
            mean_l1 = l1 if mean_l1 == 0.0 else 0.98 * mean_l1 + 0.02 * l1
            self.elapsed_s = budget.used_s()
            if self.step % 50 == 0:
                print(
                    f"autoencoder step {self.step} ({progress:.0%}) L1 {mean_l1:.4f} {self.elapsed_s:.0f} s",
                    flush=True,
                )
            if time.monotonic() - last >= every_s:
                on_checkpoint()
                last = time.monotonic()
        on_checkpoint()
