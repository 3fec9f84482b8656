"""Training of a denoiser: noising, hidden conditions, the loss, and sample grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import TrainingError
from wsigen.dataset.crops import Stream
from wsigen.dataset.latents import LatentBatch
from wsigen.models.denoisers import folded, unfolded
from wsigen.models.inputs import with_tokens
from wsigen.models.summariser import summarise
from wsigen.training.autoencoder import to_bytes
from wsigen.training.conditions import Conditioner, crop_labels, memory_rows
from wsigen.training.entropy import FeatureMemory, feature_entropy, pooled
from wsigen.training.recipes import BundleSettings, GridSampling, LatentRecipe, NoiseLevels
from wsigen.training.task import Player, Task, Tensors

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

NOISE, QUARTERS = 1, 2
"""What a random generator of a step is for; not 0, which would be the generator of the stream's crops."""


Telling = Callable[[LatentBatch, np.random.Generator], tuple[Tensor, Tensor | None]]
"""A batch and a random generator -> the latents to denoise ``(B, C, p, p)``, and the grids told beside them (`grids`)."""


class DenoiserTask(Task):
    """See `task.Task`; one player, the U-Net, and with the feature entropy loss its memory.

    Parameters
    ----------
    sampling : BundleSettings or GridSampling
        Guidance, steps and eta of the sample pictures.
    decoder : callable, optional
        Latents to pictures (B, 3, H, W) in [-1, 1].
    patch : int
        Side of the squares of latent px that the U-Net sees as one.
    telling : callable, optional
        How batches hold grids; by default they hold none.
    summariser : nn.Module, optional
        Of grids that are told by tokens (`models.summariser`), trained jointly.
    """

    name, result = "denoiser", "bundle"

    def __init__(
        self,
        recipe: LatentRecipe,
        sampling: BundleSettings | GridSampling,
        unet: nn.Module,
        scheduler: DDIMScheduler,
        conditioner: Conditioner,
        stream: Stream[LatentBatch],
        decoder: Callable[[Tensor], Tensor] | None = None,
        telling: Telling | None = None,
        summariser: nn.Module | None = None,
        patch: int = 1,
    ) -> None:
        self.recipe, self.unet, self.scheduler, self._sampling = recipe, unet, scheduler, sampling
        self._conditioner, self._stream, self._decoder = conditioner, stream, decoder
        self._tell: Telling = telling or (lambda batch, rng: (torch.from_numpy(batch.latents), None))
        self._network, self._noising = Denoiser(unet, summariser, patch), Noising(scheduler, recipe.noise_levels)
        self._memory: FeatureMemory | None = None
        self._seen: list[tuple[Tensor, Tensor]] = []
        self.columns: tuple[str, ...] = ("mse",)
        if recipe.entropy.enabled:
            rows = conditioner.classes * conditioner.levels
            width = int(unet.config["block_out_channels"][-1])  # type: ignore[index]  # a diffusers config
            self._memory = FeatureMemory(rows, width, recipe.entropy.decay, recipe.seed)
            self.columns = ("mse", "entropy")

    def players(self) -> dict[str, Player]:
        """The U-Net, with its summariser if it has one."""
        loop = self.recipe.loop
        return {"model": Player(self._network, loop.learning_rate, loop.betas)}

    def draw(self, step: int, part: int) -> Tensors:
        """Noisy latents, their targets, and class maps with some conditions hidden."""
        loop = self.recipe.loop
        batch = self._stream.batch(step * loop.parts + part, loop.part)
        # The last word keeps these draws apart from those of the stream, the step's own from those of its parts.
        rng = np.random.default_rng((self.recipe.seed, step, part, NOISE))
        if np.random.default_rng((self.recipe.seed, step, 0, QUARTERS)).random() < self.recipe.quarter_share:
            batch = quartered(batch)
        class_maps = batch.class_maps.copy()
        hide_conditions(class_maps, batch.labelled, self.recipe.p_unc, rng)
        latents, grids = self._tell(batch, rng)
        noisy, steps, target = self._noising(latents, rng, batch.levels)
        given = {"class_maps": torch.from_numpy(class_maps), "levels": torch.from_numpy(batch.levels)}
        given |= {} if grids is None else {"grids": grids}
        return {"noisy": noisy, "steps": steps, "target": target, **given}

    def loss(self, player: str, modules: Mapping[str, nn.Module], batch: Tensors, share: float) -> tuple[Tensor, Tensors]:
        """L = L_r + beta L_e (PathUp eq. 4), L_r the mean squared error of the prediction."""
        sample, conditions = self._conditioner(batch["noisy"], batch["class_maps"], batch["levels"], batch.get("grids"))
        prediction, features = modules["model"](sample, batch["steps"], **conditions)
        error = functional.mse_loss(prediction.float(), batch["target"])
        if self._memory is None:
            return error, {"mse": error}
        labels = crop_labels(batch["class_maps"], self._conditioner.classes)
        rows = memory_rows(labels, batch["levels"], self._conditioner.classes)
        entropy = feature_entropy(features, rows, self._memory.vectors, self.recipe.entropy.temperature)
        self._seen.append((features.detach(), rows))
        return error + self.recipe.entropy.beta * entropy, {"mse": error, "entropy": entropy}

    def after_step(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Update the memory with the features of all parts and processes."""
        if self._memory is not None:
            features, rows = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
            self._memory.update(gather(features), gather(rows))
            self._seen.clear()

    def memories(self) -> dict[str, nn.Module]:
        """The feature memory, if there is one."""
        return {} if self._memory is None else {"features": self._memory}

    def preview(self, device: Any) -> NDArray[np.uint8] | None:
        """Decoded samples: of crops' own class maps and grids, if it is told grids, below the crops; else one per class."""
        if self._decoder is None:
            return None
        drawn = self.draw(0, 0)
        return self._by_class(drawn["noisy"].shape[-1], device) if "grids" not in drawn else self._as_told(drawn, device)

    def _by_class(self, side: int, device: Any) -> NDArray[np.uint8]:
        """A column per class (the last without a condition), a row per level."""
        c, rows = self._conditioner, []
        for level in range(c.levels):
            labels = torch.tensor([*range(c.classes), UNKNOWN], dtype=torch.uint8, device=device)
            maps = labels[:, None, None].expand(-1, side, side)
            rows.append(self._row(maps, torch.full((len(labels),), level, device=device), None, level))
        return np.concatenate(rows)

    def _as_told(self, drawn: Tensors, device: Any) -> NDArray[np.uint8]:
        """Up to six crops of the first batch above samples of their class maps and grids."""
        rng = np.random.default_rng((self.recipe.seed, 0, 0, NOISE))
        latents, _ = self._tell(self._stream.batch(0, self.recipe.loop.part), rng)
        side, most = drawn["noisy"].shape[-1], 6
        real = np.concatenate(list(self._pictures(latents[:most, :, :side, :side].to(device))), axis=1)
        maps, levels, grids = (drawn[name][:most].to(device) for name in ("class_maps", "levels", "grids"))
        if len(maps) < len(drawn["noisy"]) and side < latents.shape[-1]:  # quarters of a crop lie beside each other
            maps, levels, grids = (drawn[name][::4][:most].to(device) for name in ("class_maps", "levels", "grids"))
        return np.concatenate([real, self._row(maps, levels, grids, 0)])

    def _row(self, maps: Tensor, levels: Tensor, grids: Tensor | None, seed: int) -> NDArray[np.uint8]:
        how = self._sampling
        eta = how.eta if how.sampler == "ddim" else 0.0
        latents = draw_samples(
            self._network, self.scheduler, self._conditioner, maps, levels, grids,
            steps=how.steps if eta else min(20, how.steps), guidance=how.guidance, eta=eta, seed=seed,
        )  # fmt: skip
        return np.concatenate(list(self._pictures(latents)), axis=1)

    def _pictures(self, latents: Tensor) -> NDArray[np.uint8]:
        return to_bytes(cast("Callable[[Tensor], Tensor]", self._decoder)(latents))


class Denoiser(nn.Module):
    """The summariser, the U-Net, and what comes out of its middle block, in one forward pass (as several processes need it)."""

    def __init__(self, unet: nn.Module, summariser: nn.Module | None = None, patch: int = 1) -> None:
        super().__init__()
        self.unet, self.summariser, self.patch = unet, summariser, patch
        self._middle: Tensor | None = None
        middle = getattr(unet, "mid_block", None)
        if middle is not None:
            middle.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self._middle = output

    def forward(
        self,
        sample: Tensor,
        steps: Tensor,
        windows: Tensor | None = None,
        levels: Tensor | None = None,
        sides: Tensor | None = None,
        **conditions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the prediction (B, C, p, p) and z (B, D), the mean of the middle block's output over its pixels.

        ``windows``, ``levels`` and ``sides`` are those of `conditions.Conditioner`.
        """
        if windows is not None and levels is not None and sides is not None:
            conditions = with_tokens(conditions, self._tokens(windows, levels, sides).to(sample))
        prediction = self.unet(folded(sample, self.patch), steps, return_dict=False, **conditions)[0]
        middle, self._middle = self._middle, None
        if middle is None:
            raise TrainingError("the U-Net has no middle block; begin at another one, or give none")
        return unfolded(prediction, self.patch), pooled(middle)

    def _tokens(self, windows: Tensor, levels: Tensor, sides: Tensor) -> Tensor:
        """Tokens (B, T, C) of windows of several sides; those of hidden ones are 0, whatever their level."""
        summariser = cast("Any", self.summariser)
        tokens = windows.new_zeros(len(windows), summariser.tokens, summariser.width)
        for side in sides.unique().tolist():
            rows = (sides == side).nonzero()[:, 0]
            made = summarise(summariser, windows[rows, :, :side, :side], levels[rows])
            tokens = tokens.index_copy(0, rows, made.to(tokens))
        return tokens


class Noising:
    """Forward noising x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, and what the network must predict."""

    def __init__(self, scheduler: DDIMScheduler, levels: NoiseLevels | None = None) -> None:
        self._scheduler, self._levels = scheduler, levels
        self.steps = int(scheduler.config["num_train_timesteps"])
        self._kind = str(scheduler.config["prediction_type"])

    def __call__(
        self, latents: Tensor, rng: np.random.Generator, magnifications: NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t, t (stratified over the batch, so that every step sees all noise levels) and the target."""
        count = len(latents)
        shares = (np.arange(count) + rng.random(count)) / count
        if self._levels is not None:
            means = np.atleast_1d(self._levels.mean)
            mean = means[magnifications] if len(means) > 1 and magnifications is not None else means[0]
            shares = _logit_normal(shares, mean, self._levels.deviation)
        steps = torch.from_numpy(np.minimum(shares * self.steps, self.steps - 1).astype(np.int64))
        noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), dtype=np.float32))
        noisy = self._scheduler.add_noise(latents, noise, steps)
        velocity = self._kind == "v_prediction"
        return noisy, steps, self._scheduler.get_velocity(latents, noise, steps) if velocity else noise


def check_noise(recipe: LatentRecipe, magnifications: int) -> None:
    """Refuse means of noise levels that are neither one nor one for each magnification (TrainingError)."""
    if recipe.noise_levels is not None and np.size(recipe.noise_levels.mean) not in (1, magnifications):
        raise TrainingError(f"noise_levels.mean: give one number, or one for each of {magnifications} magnifications")


def _logit_normal(shares: NDArray[np.float64], mean: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Shares in (0, 1) of logit-normal distributions, from as many of a uniform one."""
    normal = torch.special.ndtri(torch.from_numpy(shares).clamp(1e-6, 1.0 - 1e-6)).numpy()
    return np.asarray(1.0 / (1.0 + np.exp(-(mean + deviation * normal))))


def quartered(batch: LatentBatch) -> LatentBatch:
    """Cut every crop in four: B crops of p x p become 4 B of p/2 x p/2, the quarters of a crop beside each other."""

    def cut(values: NDArray[Any]) -> NDArray[Any]:
        half = values.shape[-1] // 2
        parts = [values[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        return np.stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])

    return LatentBatch(cut(batch.latents), cut(batch.class_maps), np.repeat(batch.levels, 4), np.repeat(batch.labelled, 4))


def hide_conditions(class_maps: NDArray[np.uint8], labelled: NDArray[np.bool_], p_unc: float, rng: np.random.Generator) -> None:
    """Semi-supervised guidance: make maps wholly unknown, in place.

    A crop of an image without labels always, any other with probability ``p_unc`` (DiffInfinite draws the unlabelled
    crop first; how often that happens is the stream's ``unlabelled_share``).
    """
    hidden = (rng.random(len(class_maps)) < p_unc) | ~labelled
    class_maps[hidden] = UNKNOWN


@torch.no_grad()
def draw_samples(
    network: Denoiser,
    scheduler: DDIMScheduler,
    conditioner: Conditioner,
    class_maps: Tensor,
    levels: Tensor,
    grids: Tensor | None = None,
    *,
    steps: int,
    guidance: float,
    eta: float,
    seed: int,
) -> Tensor:
    """Draw latents for class maps by DDIM, to look at while training goes; out = (1 + w) out(map) - w out(unknown).

    Parameters
    ----------
    class_maps : (B, p, p) uint8
    levels : (B,)
    grids : (B, D + 1, p, p) or windows of it, told with and without the map
    guidance : w; 0 is no guidance
    eta : noise of each step, 0 .. 1

    Returns
    -------
    (B, C, p, p) standardised latents
    """
    config: Any = network.unet.config
    sampler = type(scheduler).from_config(scheduler.config)
    sampler.set_timesteps(steps)
    shape = (len(class_maps), int(config["out_channels"]) // network.patch**2, *class_maps.shape[1:])
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=source).to(class_maps.device)
    unknown = torch.full_like(class_maps, UNKNOWN)

    def predict(maps: Tensor, t: Tensor) -> Tensor:
        sample, extra = conditioner(x, maps, levels, grids)
        prediction, _ = network(sample, t.to(x.device).expand(len(x)), **extra)
        return prediction.float()

    for t in sampler.timesteps:
        out = predict(class_maps, t)
        if guidance:
            out = (1.0 + guidance) * out - guidance * predict(unknown, t)
        noise = torch.randn(shape, generator=source).to(x.device) if eta else None
        x = sampler.step(out, t, x, eta=eta, variance_noise=noise).prev_sample
    return x
