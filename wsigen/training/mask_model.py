"""Train the mask model: a diffusion model of whole slides' class maps (DiffInfinite, section 3.2, appendix E).

::

    x_0 = +1 where the class is, -1 elsewhere, one channel a class       (the paper: one channel of indices through a VAE)
    y_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps
    L   = mean over known cells |v - v_theta(y_t, t, c)|^2,   v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0

with c the slide's subtype, or the null condition with probability ``null_share`` (the paper's p_unc). A cell of unknown
class is 0 in every channel and takes no part in the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

from wsigen.classes import UNKNOWN
from wsigen.models.mask_sampling import MaskNetwork, sample_channels
from wsigen.training.mask_maps import MaskBatch

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DModel


class MaskSettings(BaseModel):
    """Settings of the mask model.

    Attributes
    ----------
    side, cell_um:
        Cells per side of the maps, and um of a cell (45 um is 1/64 of 0.7 um/px).
    channels, layers, norm_groups, head_dim:
        Of the network; attention at its two coarsest levels.
    batch, steps, learning_rate:
        The paper: 64, 100,000, OneCycle up to 1e-4 (Adam).
    null_share:
        Probability of the null condition, the paper's p_unc.
    average:
        Decay of the running mean of the weights, which is what is sampled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: Annotated[int, Field(ge=8, le=1024)] = 64
    cell_um: Annotated[float, Field(gt=0)] = 45.0
    channels: Annotated[tuple[int, ...], Field(min_length=2)] = (32, 64, 128)
    layers: Annotated[int, Field(ge=1)] = 2
    norm_groups: Annotated[int, Field(ge=1)] = 8
    head_dim: Annotated[int, Field(ge=1)] = 32
    batch: Annotated[int, Field(ge=1)] = 64
    steps: Annotated[int, Field(ge=1)] = 100_000
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    null_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999

    @model_validator(mode="after")
    def _fits(self) -> MaskSettings:
        multiple = 2 ** (len(self.channels) - 1)
        if self.side % multiple:
            raise ValueError(f"side {self.side} is no multiple of {multiple}, which {len(self.channels)} levels need")
        if any(c % self.norm_groups or c % self.head_dim for c in self.channels[-2:]) or self.channels[0] % self.norm_groups:
            raise ValueError(f"channels {self.channels} must be multiples of norm_groups, the last two of head_dim, too")
        return self


def build_mask_network(settings: MaskSettings, classes: int, subtypes: int) -> UNet2DModel:
    """Build an untrained network; its embedding ``subtypes`` is the null condition."""
    from diffusers import UNet2DModel

    depth = len(settings.channels)
    return UNet2DModel(
        sample_size=settings.side,
        in_channels=classes,
        out_channels=classes,
        block_out_channels=settings.channels,
        layers_per_block=settings.layers,
        down_block_types=("DownBlock2D",) * (depth - 2) + ("AttnDownBlock2D",) * 2,
        up_block_types=("AttnUpBlock2D",) * 2 + ("UpBlock2D",) * (depth - 2),
        norm_num_groups=settings.norm_groups,
        attention_head_dim=settings.head_dim,
        num_class_embeds=subtypes + 1,
    )


def build_mask_scheduler() -> DDIMScheduler:
    """The schedule the mask model is trained and sampled with: cosine, v, x0 within [-1, 1]."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
        clip_sample_range=1.0,
        timestep_spacing="trailing",
    )


class MaskTraining:
    """The trained state (weights, their running mean, optimiser, step) and the one operation on it: `step`.

    Parameters
    ----------
    classes, subtypes:
        How many there are.
    seed:
        Of weights, noise and conditions; noise depends on (seed, step) alone, so that a resumed training goes on alike.
    """

    def __init__(self, settings: MaskSettings, classes: int, subtypes: int, seed: int, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        self.settings, self.classes, self.subtypes, self.seed = settings, classes, subtypes, seed
        self.device = torch.device(device)
        self.model = build_mask_network(settings, classes, subtypes).to(self.device)
        self.average = build_mask_network(settings, classes, subtypes).to(self.device).requires_grad_(False).eval()
        self.average.load_state_dict(self.model.state_dict())
        self.abar = build_mask_scheduler().alphas_cumprod.to(self.device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate)
        self.rate = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, settings.learning_rate, total_steps=settings.steps + 1)
        self.done = 0

    def step(self, batch: MaskBatch) -> float:
        """Take one step; return the loss, the mean squared error of v over the known cells."""
        loss = self.loss(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        if self.done < self.settings.steps:
            self.rate.step()
        self.done += 1
        self._update_average()
        return float(loss.detach())

    def loss(self, batch: MaskBatch) -> Tensor:
        """The loss of a batch at the present step."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.done) % 2**63)
        cells = torch.from_numpy(batch.cells).long()
        x0 = one_hot(cells, self.classes)
        noise = torch.randn(x0.shape, generator=generator)
        # Stratified over the batch: every step sees all noise levels.
        count = len(cells)
        strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        times = (strata * len(self.abar)).long().clamp(max=len(self.abar) - 1)
        forget = torch.rand(count, generator=generator) < self.settings.null_share
        conditions = torch.where(forget, self.subtypes, torch.from_numpy(batch.subtypes))
        x0, noise, times, conditions = (t.to(self.device) for t in (x0, noise, times, conditions))
        a = self.abar[times].sqrt().view(-1, 1, 1, 1)
        s = (1.0 - self.abar[times]).sqrt().view(-1, 1, 1, 1)
        v = self.model(a * x0 + s * noise, times, class_labels=conditions).sample
        known = (cells != UNKNOWN).to(self.device)[:, None]
        error = (v - (a * noise - s * x0)).square() * known
        return error.sum() / (known.sum() * self.classes).clamp(min=1)

    def sample(self, subtype: int | None, shape: tuple[int, int], seed: int, steps: int = 50, guidance: float = 1.0) -> Any:
        """Draw a map from the averaged weights, before cleaning: uint8 ``[h, w]``; no subtype is the null condition."""
        network = MaskNetwork(self.average.to("cpu"), self.abar.double().cpu().numpy(), "v_prediction")
        chosen = self.subtypes if subtype is None else subtype
        channels = sample_channels(network, shape, chosen, self.subtypes, guidance, steps, seed)
        self.average.to(self.device)
        return channels.argmax(axis=0).astype(np.uint8)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed training needs: tensors, numbers and containers of them."""
        return {**{name: part.state_dict() for name, part in self._parts().items()}, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.done = int(state["done"])

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "average": self.average, "optimiser": self.optimiser, "rate": self.rate}

    def _update_average(self) -> None:
        """Running mean of the weights, shorter at the beginning: decay min(average, (1 + n) / (10 + n))."""
        decay = min(self.settings.average, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(new, 1.0 - decay)


def one_hot(cells: Tensor, classes: int) -> Tensor:
    """Class maps int64 ``[B, h, w]`` -> float32 ``[B, classes, h, w]``: +1, -1, and 0 where the class is unknown."""
    known = cells != UNKNOWN
    hot = functional.one_hot(torch.where(known, cells, 0), classes).permute(0, 3, 1, 2).float()
    return (2.0 * hot - 1.0) * known[:, None]
