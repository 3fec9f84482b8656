"""The trained state of a task: networks, their running mean, optimisers; and one operation on it, a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from wsigen.base.errors import TrainingError
from wsigen.training.recipes import LoopSettings
from wsigen.training.snapshot import Identity, load_snapshot, save_snapshot
from wsigen.training.task import Task, Tensors

if TYPE_CHECKING:
    from accelerate import Accelerator

RISE, START, END = 0.3, 1 / 25, 1e-4
"""One cycle: share of the steps in which the rate rises, its first value over the peak, its last over the first."""

FLOOR = 0.01
"""Cosine: the last rate over the peak."""

_GRADIENT = " gradient"
"""What follows a player's name in the key of its gradient, which is checked and not reported."""


class Trainer:
    """The trained state, and one operation on it: `step`.

    The running mean of the model's weights is diffusers' ``EMAModel``: ``a <- d a + (1 - d) w``, where d rises to ``ema`` with
    the steps n as (1 + n) / (10 + n), so that the random initial weights are forgotten.
    """

    def __init__(self, task: Task, settings: LoopSettings, accelerator: Accelerator, seed: int) -> None:
        from diffusers.training_utils import EMAModel

        self.task, self.settings, self.accelerator, self.seed = task, settings, accelerator, seed
        if settings.parts % accelerator.num_processes:
            raise TrainingError(
                f"{accelerator.num_processes} processes for {settings.parts} part(s) of a step: set loop.micro_batch so that "
                "batch / micro_batch is a multiple of the processes"
            )
        self.players = task.players()
        self.model, *_ = self.players
        for memory in task.memories().values():
            memory.to(accelerator.device)
        self.modules: dict[str, nn.Module] = {}
        self.optimisers: dict[str, Any] = {}
        for name, player in self.players.items():
            player.module.to(accelerator.device).train()
            decay = settings.weight_decay
            optimiser = torch.optim.AdamW(
                _learned(player.module), player.peak_rate, player.betas, weight_decay=decay, fused=True
            )
            self.modules[name], self.optimisers[name] = accelerator.prepare(player.module, optimiser)
        self.kept: int | None = None  # steps in the checkpoint
        self._weights = _learned(self.players[self.model].module)
        self.average = EMAModel(self._weights, settings.ema, foreach=True) if settings.ema else None

    def draw(self, step: int) -> list[Tensors]:
        """Make this process's parts of a step."""
        own = range(self.accelerator.process_index, self.settings.parts, self.accelerator.num_processes)
        return [self.task.draw(step, part) for part in own]

    def step(self, step: int, parts: list[Tensors]) -> dict[str, Tensor]:
        """Take a step of every player; return scalars that are still on the device."""
        torch.manual_seed(hash((self.seed, step)) % 2**63)  # for dropout, where a fine-tuned network has it
        device = self.accelerator.device
        batches = [{k: v.to(device, non_blocking=True) for k, v in part.items()} for part in parts]
        reported: dict[str, Tensor] = {}
        for name in self.task.playing(step / self.settings.steps):
            scalars = self._learn(name, batches, step)
            if name == self.model:
                reported.update(scalars)
            else:  # the loss and the gradient of the model are what is reported; every gradient is checked
                reported.update({k: v for k, v in scalars.items() if k in self.task.columns})
                reported[f"{name}{_GRADIENT}"] = scalars["gradient"]
        if self.average is not None:
            self.average.step(self._weights)
        self.task.after_step(self.accelerator.gather)
        return reported | {"rate": torch.tensor(self._rate(self.model, step))}

    def _rate(self, name: str, step: int) -> float:
        s = self.settings
        return learning_rate(s.schedule, self.players[name].peak_rate, step, s.steps, s.warmup_steps)

    def _learn(self, name: str, batches: list[Tensors], step: int) -> dict[str, Tensor]:
        module, optimiser, accelerator = self.modules[name], self.optimisers[name], self.accelerator
        for group in optimiser.param_groups:
            group["lr"] = self._rate(name, step)
        optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for k, batch in enumerate(batches):
            with nullcontext() if k + 1 == len(batches) else accelerator.no_sync(module):
                loss, scalars = self.task.loss(name, self.modules, batch, step / self.settings.steps)
                accelerator.backward(loss / len(batches))
            for key, value in {"loss": loss, **scalars}.items():
                sums[key] = sums.get(key, torch.zeros_like(value.detach())) + value.detach() / len(batches)
        if accelerator.num_processes > 1:
            sums = {key: accelerator.reduce(value, "mean") for key, value in sums.items()}
        limit = self.settings.clip or float("inf")
        sums["gradient"] = torch.as_tensor(accelerator.clip_grad_norm_(module.parameters(), limit)).detach()
        optimiser.step()
        return sums

    def check(self, step: int, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Bring a step's scalars to the host; stop if a loss or a gradient of any player is not a number.

        All of them, as a checkpoint holds every player: one that has lost its numbers could not be resumed.
        """
        values = {key: float(value) for key, value in scalars.items()}
        for key, value in values.items():
            # fp16 scales its losses: a gradient beyond its range is skipped and the scale lowered, which is no fault.
            if key.endswith("gradient") and self.settings.precision == "fp16":
                continue
            if not math.isfinite(value):
                kept = "there is no checkpoint yet" if self.kept is None else f"the checkpoint of step {self.kept} stays"
                raise TrainingError(
                    f"{self.task.name}: the {key} is {value} at step {step}; stopped, {kept}: lower loop.learning_rate or "
                    "loop.clip and train anew, with another --out"
                )
        return {key: value for key, value in values.items() if not key.endswith(_GRADIENT)}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the running mean in the network's place; outside of the block the weights are back."""
        if self.average is None:
            yield
            return
        self.average.store(self._weights)
        self.use_average()
        try:
            yield
        finally:
            self.average.restore(self._weights)

    def use_average(self) -> None:
        """Put the running mean in the network's place for good."""
        if self.average is not None:
            self.average.copy_to(self._weights)

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds."""
        parts: dict[str, Any] = {f"module.{k}": p.module for k, p in self.players.items()}
        parts |= {f"optimiser.{k}": o for k, o in self.optimisers.items()}
        parts |= {f"memory.{k}": m for k, m in self.task.memories().items()}
        parts |= {"average": self.average, "scaler": self.accelerator.scaler}
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path, identity: Identity, step: int, scalars: Mapping[str, float]) -> None:
        """Write the checkpoint after ``step`` steps, with the last one's scalars (the main process alone)."""
        if self.accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in self.state().items()}
            save_snapshot(path, state, identity, step, scalars)
        self.kept = step
        self.accelerator.wait_for_everyone()

    def load(self, path: Path, identity: Identity) -> tuple[int, dict[str, float]]:
        """Restore a checkpoint; return its step and scalars."""
        snapshot = load_snapshot(path, identity)
        for name, part in self.state().items():
            part.load_state_dict(snapshot.state[name])
        if self.average is not None:
            self.average.to(self.accelerator.device)
        self.kept = snapshot.step
        return snapshot.step, snapshot.scalars


def _learned(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def learning_rate(
    schedule: Literal["one-cycle", "cosine", "constant"], peak: float, step: int, steps: int, warmup: int = 0
) -> float:
    """Learning rate of a step, a function of it alone: nothing to store, nothing to restore.

    Parameters
    ----------
    schedule : str
        ``one-cycle``: Smith's policy, the rates of torch's ``OneCycleLR`` with its defaults (DiffInfinite trains with it).
        That class by default cycles momentum as well (Adam's beta1 from 0.95 to 0.85 and back); here betas stay as given.
        ``cosine``: linear warm-up, then half a cosine to 1 % of the peak. ``constant``: warm-up, then the peak.
    peak : float
        The highest rate.
    step, steps : int
        0 .. steps - 1.
    warmup : int
        Steps of linear rise; not used by ``one-cycle``.
    """
    if schedule == "one-cycle":
        top, first = RISE * steps - 1.0, peak * START
        if step <= top:
            return peak + (first - peak) * _half_cosine(step / top)
        share = (step - top) / max(steps - 1.0 - top, 1e-9)
        return first * END + (peak - first * END) * _half_cosine(min(share, 1.0))
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    fall = FLOOR + (1.0 - FLOOR) * _half_cosine(step / max(1, steps)) if schedule == "cosine" else 1.0
    return peak * rise * fall


def _half_cosine(share: float) -> float:
    """1 at share 0, 0 at share 1."""
    return 0.5 * (1.0 + math.cos(math.pi * share))
