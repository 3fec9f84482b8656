"""The denoiser: diffusers' ``UNet2DModel`` that sees the noisy latents, a one-hot class map and the level."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsigen.training.budget import Budget, cosine_rate
from wsigen.training.checkpoint import load_checkpoint, require_finite, save_checkpoint
from pipelines.her2st.seeds import UNKNOWN
from wsigen.training.settings import DenoiserSettings

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DModel

Batches = Callable[[int], tuple[Tensor, Tensor, Tensor]]  # step -> latents, labels, levels


def build_denoiser(settings: DenoiserSettings, latent_channels: int) -> UNet2DModel:
    """Build an untrained denoiser with attention at its coarsest level alone."""
    from diffusers import UNet2DModel

    depth = len(settings.channels)
    model = UNet2DModel(
        sample_size=settings.large_crop[0],
        in_channels=latent_channels + UNKNOWN + 1,
        out_channels=latent_channels,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        down_block_types=("DownBlock2D",) * (depth - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (depth - 1),
        norm_num_groups=settings.norm_groups,
        attention_head_dim=settings.head_dim,
        num_class_embeds=2,
    )
    return model.to(memory_format=torch.channels_last)


def build_scheduler() -> DDIMScheduler:
    """Build the schedule the denoiser is trained and sampled with."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def one_hot(labels: Tensor) -> Tensor:
    """Turn class maps (B, h, w) into (B, 6, h, w), the last channel for unknown."""
    return functional.one_hot(labels, UNKNOWN + 1).permute(0, 3, 1, 2).float()


def predict(model: nn.Module, noisy: Tensor, steps: Tensor, labels: Tensor, levels: Tensor) -> Tensor:
    """Predict v for noisy latents (B, C, h, w)."""
    x = torch.cat([noisy, one_hot(labels)], dim=1).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v: Tensor = model(x, steps, class_labels=levels).sample
    return v.float()


class DenoiserTraining:
    """The trained state (weights, their running mean, optimiser, step) and the one operation on it: `run`."""

    def __init__(self, settings: DenoiserSettings, latent_channels: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings = settings
        self.seed = seed
        self.model = build_denoiser(settings, latent_channels)
        self.average = build_denoiser(settings, latent_channels).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
        self.scheduler = build_scheduler()
        self.step = 0
        self.elapsed_s = 0.0
        self.loss = 0.0  # running mean

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average, "optimiser": self.optimiser}

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(path, {**state, "step": self.step, "elapsed_s": self.elapsed_s, "loss": self.loss})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = load_checkpoint(path)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.elapsed_s, self.loss = (
            int(state["step"]),
            float(state["elapsed_s"]),
            float(state["loss"]),
        )

    def train_step(self, latents: Tensor, labels: Tensor, levels: Tensor, progress: float) -> float:
        """Take one step on standardised latents (B, C, h, w); return the loss, mean squared error of v."""
        self.optimiser.param_groups[0]["lr"] = cosine_rate(self.settings.learning_rate, progress, self.step)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        noise = torch.randn(latents.shape, generator=generator)
        # Stratified over the batch: every step sees all noise levels.
        strata = (torch.arange(len(latents)) + torch.rand(len(latents), generator=generator)) / len(latents)
        steps = (strata * self.scheduler.config["num_train_timesteps"]).long()
        noisy = self.scheduler.add_noise(latents, noise, steps)
        target = self.scheduler.get_velocity(latents, noise, steps)
        loss = functional.mse_loss(predict(self.model, noisy, steps, labels, levels), target)
        require_finite(loss.item(), "denoiser", self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1.0 + self.step) / (10.0 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1.0 - decay)

    def run(self, batches: Batches, budget: Budget, every_s: float, on_checkpoint: Callable[[], None]) -> None:
        """Train until the budget is used; call ``on_checkpoint`` every ``every_s`` seconds and at the end."""
        self.model.train()
        last = time.monotonic()
        while (progress := budget.progress(self.step)) < 1.0:
            loss = self.train_step(*batches(self.step), progress)
            self.loss = loss if self.loss == 0.0 else 0.99 * self.loss + 0.01 * loss
            self.elapsed_s = budget.used_s()
            if self.step % 50 == 0:
                print(
                    f"denoiser step {self.step} ({progress:.0%}) loss {self.loss:.4f} {self.elapsed_s:.0f} s",
                    flush=True,
                )
            if time.monotonic() - last >= every_s:
                on_checkpoint()
                last = time.monotonic()
        on_checkpoint()
