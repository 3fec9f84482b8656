"""The trained state of a task: networks, their mean, optimisers; and one operation on it, a step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsigen.base.errors import TrainingError
from wsigen.training.average import WeightAverage
from wsigen.training.rates import learning_rate
from wsigen.training.recipes import LoopSettings
from wsigen.training.snapshot import Identity, load_snapshot, save_snapshot
from wsigen.training.task import Task, Tensors

if TYPE_CHECKING:
    from accelerate import Accelerator

_GRADIENT = " gradient"
"""What follows a player's name in the key of its gradient, which is checked and not reported."""


class Trainer:
    """The trained state, and one operation on it: `step`."""

    def __init__(self, task: Task, settings: LoopSettings, accelerator: Accelerator, seed: int) -> None:
        self.task, self.settings, self.accelerator, self.seed = task, settings, accelerator, seed
        if settings.parts % accelerator.num_processes:
            raise TrainingError(
                f"{accelerator.num_processes} processes for {settings.parts} part(s) of a step: set loop.micro_batch so that "
                "batch / micro_batch is a multiple of the processes"
            )
        self.players = task.players()
        for memory in task.memories().values():
            memory.to(accelerator.device)
        self.modules: dict[str, nn.Module] = {}
        self.optimisers: dict[str, Any] = {}
        for name, player in self.players.items():
            player.module.to(accelerator.device).train()
            learned = [p for p in player.module.parameters() if p.requires_grad]
            decay = settings.weight_decay
            optimiser = torch.optim.AdamW(learned, player.peak_rate, player.betas, weight_decay=decay, fused=True)
            self.modules[name], self.optimisers[name] = accelerator.prepare(player.module, optimiser)
        self.kept: int | None = None  # steps in the checkpoint
        self.average = WeightAverage(next(iter(self.players.values())).module, settings.ema)

    def draw(self, step: int) -> list[Tensors]:
        """Make this process's parts of a step."""
        own = range(self.accelerator.process_index, self.settings.parts, self.accelerator.num_processes)
        return [self.task.draw(step, part) for part in own]

    def step(self, step: int, parts: list[Tensors]) -> dict[str, Tensor]:
        """Take a step of every player; return scalars that are still on the device."""
        torch.manual_seed(hash((self.seed, step)) % 2**63)  # for dropout, where a fine-tuned network has it
        device = self.accelerator.device
        batches = [{k: v.to(device, non_blocking=True) for k, v in part.items()} for part in parts]
        found: dict[str, Tensor] = {}
        model = next(iter(self.players))
        for name in self.task.playing(step / self.settings.steps):
            scalars = self._learn(name, batches, step)
            if name == model:
                found.update(scalars)
            else:  # the loss and the gradient of the model are what is reported; every gradient is checked
                found.update({k: v for k, v in scalars.items() if k in self.task.columns})
                found[f"{name}{_GRADIENT}"] = scalars["gradient"]
        self.average.update(step)
        self.task.after_step(self.accelerator.gather)
        found["rate"] = torch.tensor(self._rate(model, step))
        return found

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
            if not -float("inf") < value < float("inf"):
                kept = "there is no checkpoint yet" if self.kept is None else f"the checkpoint of step {self.kept} stays"
                raise TrainingError(
                    f"{self.task.name}: the {key} is {value} at step {step}; stopped, {kept}: lower loop.learning_rate or "
                    "loop.clip and train anew, with another --out"
                )
        return {key: value for key, value in values.items() if not key.endswith(_GRADIENT)}

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds."""
        parts: dict[str, Any] = {f"module.{k}": p.module for k, p in self.players.items()}
        parts |= {f"optimiser.{k}": o for k, o in self.optimisers.items()}
        parts |= {f"memory.{k}": m for k, m in self.task.memories().items()}
        parts["average"] = self.average
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def save(self, path: Path, identity: Identity, step: int) -> None:
        """Write the checkpoint after ``step`` steps (the main process alone)."""
        if self.accelerator.is_main_process:
            state = {name: part.state_dict() for name, part in self.state().items()}
            save_snapshot(path, state, identity, step)
        self.kept = step
        self.accelerator.wait_for_everyone()

    def load(self, path: Path, identity: Identity) -> int:
        """Restore a checkpoint; return its step."""
        step, state = load_snapshot(path, identity)
        for name, part in self.state().items():
            part.load_state_dict(state[name])
        self.kept = step
        return step
