"""The f8 autoencoder: diffusers' ``AutoencoderKL`` without attention, hence local but for its group norms."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsigen.training.budget import Budget, cosine_rate
from wsigen.training.checkpoint import load_checkpoint, require_finite, save_checkpoint
from wsigen.training.losses import build_adversary, fine, hinge_loss, reconstruction_terms
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


def reconstruction_loss(
    x: Tensor, y: Tensor, mean: Tensor, logvar: Tensor, settings: AutoencoderSettings
) -> tuple[Tensor, Tensor]:
    """Weigh the terms of `losses.reconstruction_terms`; return the sum, and the plain L1."""
    terms = reconstruction_terms(x, y, mean, logvar)
    weighted = settings.gradient_weight * terms.gradient + settings.colour_weight * terms.colour + settings.kl_weight * terms.kl
    return terms.l1 + weighted, terms.l1


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
                loss = loss - settings.adversary_weight * self.adversary(fine(y)).float().mean()
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
            real, fake = self.adversary(fine(torch.cat([x, y]))).float().chunk(2)
        loss = hinge_loss(real, fake)
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
