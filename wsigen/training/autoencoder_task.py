"""Training of an autoencoder: its losses, each one term without a weight on images in [-1, 1], and its task."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.errors import TrainingError
from wsigen.dataset.crops import CropBatch, Stream
from wsigen.dataset.dataset import Dataset
from wsigen.dataset.settings import CELL_PX
from wsigen.storage.files import write_atomic
from wsigen.training.autoencoder import (
    build_vae,
    factor_of,
    load_vae,
    measure_autoencoder,
    reconstruct,
    to_bytes,
    to_unit,
    with_more_latents,
)
from wsigen.training.loop import Outcome, train
from wsigen.training.processes import is_main
from wsigen.training.publish import save_network, whole_folder
from wsigen.training.recipes import AutoencoderRecipe
from wsigen.training.snapshot import Identity, identity_of, model_key
from wsigen.training.task import Player, Task, Tensors

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


FIGURES = "figures.json"
MEASURED_PX = 256
"""Side of the crops that are measured, px; of smaller patches as many as they have, in whole latent px."""


def make_autoencoder(recipe: AutoencoderRecipe, dataset: Dataset, out: Path, *, resume: bool = False) -> Outcome:
    """Train on the training split of a dataset; when all steps are done, write ``out/vae``.

    Where the dataset holds images out, their reconstruction is measured and written to ``out/figures.json``. ``out`` also
    gets the checkpoint, the losses and sample grids.
    """
    shares = recipe.level_shares
    stream = dataset.crops("training", recipe.crop_px, recipe.seed, shares, unlabelled_share=recipe.unlabelled_share)
    task = AutoencoderTask(recipe, stream)
    outcome = train(task, recipe.loop, out, identity(recipe, dataset.key), seed=recipe.seed, resume=resume)
    if outcome.result and is_main():
        with whole_folder(outcome.result) as beside:
            save_network(task.vae, beside)
        if len(dataset.split_patches("held_out")):
            write_figures(task.vae, recipe, dataset, out, outcome.step)
    return outcome


def identity(recipe: AutoencoderRecipe, key: str) -> Identity:
    """The settings and data (``key``) that decide the weights; the model it begins at by what it holds."""
    return identity_of(recipe.decisive() | {"start": model_key(recipe.start), "data": key})


def write_figures(vae: AutoencoderKL, recipe: AutoencoderRecipe, dataset: Dataset, out: Path, steps: int) -> dict[str, float]:
    """Measure an autoencoder on the held-out split at the finest level it has, and write ``out/figures.json``."""
    step = math.lcm(CELL_PX, factor_of(vae))
    side = max(step, min(MEASURED_PX, dataset.settings.patch_px) // step * step)
    finest = int(dataset.split_patches("held_out").level.min())
    shares = [float(level == finest) for level in range(len(dataset.levels))]
    background = tuple(i for i, tissue in enumerate(dataset.table) if tissue.background)
    figures = measure_autoencoder(vae, dataset.crops("held_out", side, recipe.seed, shares, augment=False), background)
    figures["steps"] = float(steps)
    write_atomic(out / FIGURES, json.dumps(figures, indent=1).encode())
    return figures


class AutoencoderTask(Task):
    """See `task.Task`; players: the autoencoder, and (if weighted) the discriminator."""

    name, result = "autoencoder", "vae"

    def __init__(self, recipe: AutoencoderRecipe, stream: Stream[CropBatch]) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self._stream = recipe, stream
        self.vae = _loaded(recipe.start) if recipe.start else build_vae(recipe.network, recipe.crop_px)
        if recipe.added_latents:
            self.vae = with_more_latents(self.vae, recipe.added_latents)
        self._network = Reconstruction(self.vae, recipe.decoder_only)
        self._adversary = build_adversary()
        self._made: list[tuple[Tensor, Tensor]] = []
        self.columns: tuple[str, ...] = ("l1", "gradient_l1", "colour", "kl", "fooled", "adversary")

    def players(self) -> dict[str, Player]:
        """The autoencoder, then the discriminator."""
        loop, losses = self.recipe.loop, self.recipe.losses
        players = {"model": Player(self._network, loop.learning_rate, loop.betas)}
        if losses.adversary:
            players["adversary"] = Player(self._adversary, losses.adversary_learning_rate, (0.5, 0.9))
        return players

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
        side = self.recipe.crop_px // factor_of(self.vae)
        shape = (loop.part, int(self.vae.config["latent_channels"]), side, side)
        rng = np.random.default_rng((self.recipe.seed, step, part, 1))  # not that of the stream's crops
        drawn = {"images": to_unit(batch.images), "noise": torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))}
        deviation = self.recipe.latent_noise * rng.random((loop.part, 1, 1, 1), dtype=np.float32)
        return drawn | {"added": torch.from_numpy(deviation * rng.standard_normal(shape, dtype=np.float32))}

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """The weighted sum of `reconstruction_terms`, less how well the discriminator is fooled; or its own loss."""
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

    def preview(self, device: Any) -> NDArray[np.uint8]:
        """Up to four crops of the first batch above their reconstructions."""
        x = self.draw(0, 0)["images"][:4].to(device)
        return np.concatenate([np.concatenate(list(to_bytes(images)), axis=1) for images in (x, reconstruct(self.vae, x))])


def _loaded(start: Path) -> AutoencoderKL:
    """The autoencoder that training begins at (TrainingError: it is of a kind that is not trained here)."""
    from diffusers import AutoencoderKL

    vae = load_vae(start)
    if not isinstance(vae, AutoencoderKL):
        raise TrainingError(f"{start}: a {type(vae).__name__} cannot be trained here, only used; begin at an AutoencoderKL")
    return vae


class Reconstruction(nn.Module):
    """Encode, sample the posterior with given noise, decode: one forward pass, as several processes need it."""

    def __init__(self, vae: AutoencoderKL, decoder_only: bool) -> None:
        super().__init__()
        self.vae = vae
        if decoder_only:
            for part in (vae.encoder, vae.quant_conv):
                if part is not None:
                    part.requires_grad_(False)

    def forward(self, x: Tensor, noise: Tensor, added: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction (B, 3, H, W), mean and log variance.

        Parameters
        ----------
        x : (B, 3, H, W) in [-1, 1]
        noise : (B, C, h, w), standard normal: draws from the posterior
        added : (B, C, h, w), added to the draw
        """
        vae = self.vae
        coded = vae.encoder(x)
        coded = coded if vae.quant_conv is None else vae.quant_conv(coded)
        mean, logvar = coded.float().chunk(2, dim=1)
        logvar = logvar.clamp(-30.0, 20.0)
        latent = mean + torch.exp(0.5 * logvar) * noise + added
        latent = latent if vae.post_quant_conv is None else vae.post_quant_conv(latent)
        return vae.decoder(latent), mean, logvar


class ReconstructionTerms(NamedTuple):
    """Scalars: L1 of pixels, of gradients and of local mean colour, and the KL divergence to a unit Gaussian."""

    l1: Tensor
    gradient: Tensor
    colour: Tensor
    kl: Tensor


def reconstruction_terms(x: Tensor, y: Tensor, mean: Tensor, logvar: Tensor) -> ReconstructionTerms:
    """Compare a reconstruction with the image.

    Parameters
    ----------
    x, y : (B, 3, H, W) image and reconstruction; H and W at least 32
    mean, logvar : (B, C, h, w) of the posterior

    Returns
    -------
    the terms; ``kl`` is the mean over latent values of (mean^2 + var - 1 - log var) / 2
    """
    edges = [(a - b).abs().mean() for a, b in zip(_gradients(x), _gradients(y), strict=True)]
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return ReconstructionTerms((x - y).abs().mean(), torch.stack(edges).sum(), colour_error(x - y), kl)


def colour_error(difference: Tensor) -> Tensor:
    """L1 of the mean colour of crops and of 32 px blocks, and (doubled) of chroma in 4 px blocks.

    Grey detail dominates a plain L1; without the last term pink and blue-grey fibres come out alike.
    """
    chroma = difference - difference.mean(dim=1, keepdim=True)
    return (
        difference.mean(dim=(2, 3)).abs().mean()
        + functional.avg_pool2d(difference, 32).abs().mean()
        + 2.0 * functional.avg_pool2d(chroma, 4).abs().mean()
    )


def build_adversary() -> nn.Sequential:
    """Build a small patch discriminator; each output sees 34 px."""
    widths = (3, 32, 64, 128)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))


def fine(x: Tensor) -> Tensor:
    """Keep what is finer than about 16 px: the adversary must not move the mean colour."""
    return x - functional.avg_pool2d(x, 17, stride=1, padding=8, count_include_pad=False)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss: real outputs above 1, false ones below -1."""
    return functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]
