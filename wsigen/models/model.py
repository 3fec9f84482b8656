"""A loaded bundle: its denoiser, its autoencoder and its noise schedule. NumPy at the boundary and torch inside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.machine import keep_freed_memory
from wsigen.models.autoencoder import Autoencoder, demand_finite, load_autoencoder
from wsigen.models.bundle import GRID, check_bundle
from wsigen.models.card import BundleCard
from wsigen.models.conditioning import Condition
from wsigen.models.denoisers import call, read_architecture
from wsigen.models.flow import Flow, flow_of, is_flow
from wsigen.models.loading import load_network, read_schedule
from wsigen.models.network_config import read_config

if TYPE_CHECKING:
    from wsigen.models.inputs import Inputs

Array = NDArray[np.float32]
PRECISIONS = ("fp32", "bf16")


def load_model(path: Path, device: str = "cpu", precision: str = "fp32") -> Model:
    """Check and load the bundle in ``path``.

    Parameters
    ----------
    path : Path
        Its folder.
    device : str
        Torch's name of the device. With CUDA, TF32 and the search for the fastest convolution are switched off in this
        process: both decide bits, and ``fp32`` shall mean it. On a CPU the process keeps freed memory from now on
        (`machine.keep_freed_memory`).
    precision : str
        ``fp32``, or ``bf16``: the denoiser runs in mixed precision; the autoencoder stays in fp32, as eight bits of mantissa
        would show as banding.

    Raises
    ------
    BundleError
        See `bundle.check_bundle`; also if the weights do not fit their config.
    ValueError
        If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: possible: {', '.join(PRECISIONS)}")
    if device.startswith("cuda"):
        _demand_equal_bits()
    if device == "cpu":
        keep_freed_memory()
    card = check_bundle(path)
    grid = None if card.drawing is None else Denoiser(**_parts(path / GRID, card.drawing, device, precision))
    autoencoder = load_autoencoder(path, card.latent, device)
    return Model(**_parts(path, card, device, precision), autoencoder=autoencoder, grid=grid)


def _parts(folder: Path, card: BundleCard, device: str, precision: str) -> dict[str, Any]:
    """Load what a `Denoiser` is made of from its network and ``scheduler`` in a folder."""
    from wsigen.models.inputs import make_inputs

    abar, prediction_type, clip = read_schedule(folder)
    (_, network), scheduler = read_architecture(folder), read_config(folder, "scheduler")
    return {
        "card": card,
        "unet": load_network(folder / network.part, device),
        "inputs": make_inputs(folder, card, network, device),
        "abar": abar,
        "prediction_type": prediction_type,
        "clip": clip,
        "device": device,
        "precision": precision,
        "flow": flow_of(scheduler) if is_flow(scheduler) else None,
    }


def _demand_equal_bits() -> None:
    """Let torch's CUDA libraries compute in full float32, by algorithms that give the same bits each time."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # on by default
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


class CallLimit:
    """Lets only so many threads compute at once; the others read and write meanwhile.

    A denoise task keeps its slot for all model calls it has to make one after the other. If it gave the slot away after each,
    two tasks would come to their last calls together, and then read and write together while nobody computes. Decoding takes
    a slot for each window, which it reads, and fades into glass, outside it.

    Runs of one process that share a model are limited each for itself: those with another limit do not count.
    """

    def __init__(self) -> None:
        self._semaphores: dict[int, Semaphore] = {}

    def slot(self, most: int | None) -> AbstractContextManager[object]:
        """Wait until fewer than ``most`` threads have a slot (None: do not wait), and have one within."""
        return nullcontext() if most is None else self._semaphores.setdefault(most, Semaphore(most))


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A denoising network with what it is told and its noise schedule. Several threads may use one.

    Attributes
    ----------
    card : BundleCard
        Of the bundle; of a network that draws grids `BundleCard.drawing`.
    unet : nn.Module
        The network that denoises, a U-Net or a transformer.
    inputs : Inputs
        How conditions reach it.
    abar : ndarray
        float64, ``alphas_cumprod`` of the training schedule, one value per training timestep, decreasing.
    prediction_type : str
        What the denoiser predicts (`sampling.schedule.PREDICTIONS`).
    clip : float or None
        x0 is clamped to ``[-clip, clip]`` in each step.
    device, precision : str
        See `load_model`.
    flow : Flow or None
        Of a flow model, whose velocity `predict` turns into x0.
    """

    card: BundleCard
    unet: Any
    inputs: Inputs
    abar: NDArray[np.float64]
    prediction_type: str
    clip: float | None
    device: str
    precision: str
    flow: Flow | None

    def predict(self, latents: Array, timestep: int, conditions: Sequence[Condition], level: int) -> Array:
        """Run the denoiser once on a batch.

        Parameters
        ----------
        latents : ndarray
            float32 ``(B, C, p, p)``, standardised.
        timestep : int
            On the training scale, 0 .. ``len(abar) - 1``.
        conditions : sequence of Condition
            One per row.
        level : int
            Index of the magnification in the card.

        Returns
        -------
        ndarray
            float32 ``(B, C, p, p)``, to be read by ``prediction_type``.

        Raises
        ------
        ModelOutputError
            If it is not finite.
        """
        import torch

        if len(conditions) != len(latents):
            raise ValueError(f"{len(conditions)} conditions for a batch of {len(latents)}")
        flow = self.flow
        state, time = (latents, timestep) if flow is None else (flow.state(latents, timestep), flow.time(timestep))
        batch = torch.from_numpy(np.ascontiguousarray(state, dtype=np.float32))
        batch = batch.to(self.device, memory_format=torch.channels_last)
        bf16 = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=bf16):
            sample, extra = self.inputs(batch, conditions, level)
            sample = sample.contiguous(memory_format=torch.channels_last)
            output = call(self.unet, sample, time, extra, batch.shape[1], self.card.patch)
            predicted = np.ascontiguousarray(output.float().cpu().numpy())
        return demand_finite(predicted if flow is None else flow.clean(state, predicted, timestep), "denoiser")


@dataclass(frozen=True, eq=False)
class Model(Denoiser):
    """A loaded bundle: the denoiser of its latents, and what else it has. Several threads may use one.

    Attributes
    ----------
    autoencoder : Autoencoder
        Pictures to latents and back.
    grid : Denoiser or None
        Draws the grids that the denoiser is told; its latents are their cells.
    calls : CallLimit
        For callers who must not all compute at the same time.
    """

    autoencoder: Autoencoder
    grid: Denoiser | None = None
    calls: CallLimit = field(default_factory=CallLimit)
