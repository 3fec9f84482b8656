"""The training loop of all models, on accelerate: mixed precision, several processes, parts of a step.

A batch and its noise are functions of (seed, step, part), the learning rate is a function of the step: what a checkpoint
holds (weights, their mean, optimisers, memories, step) is all that a resumed training needs for the very same losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wsigen.base.errors import TrainingError
from wsigen.training.prefetch import prefetched
from wsigen.training.processes import processes, together
from wsigen.training.recipes import LoopSettings
from wsigen.training.reports import Reports, losses_of
from wsigen.training.snapshot import Identity, load_snapshot
from wsigen.training.task import Task, Tensors
from wsigen.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended: steps done, whether these are all, the last step's scalars."""

    step: int
    finished: bool
    scalars: dict[str, float]


def train(
    task: Task, settings: LoopSettings, folder: Path, identity: Identity, *, seed: int = 0, resume: bool = False
) -> Outcome:
    """Train until the steps or the minutes are used; leave the task's network with the averaged weights.

    Parameters
    ----------
    folder:
        Gets ``checkpoint.pt``, ``losses.csv``, ``samples/`` and ``tensorboard/``.
    identity:
        Of the whole recipe and its data (`snapshot.identity_of`): only a checkpoint of the same one is resumed.
    resume:
        Go on from ``checkpoint.pt``; without it, a folder that has one is refused.

    Raises
    ------
    TrainingError
        A checkpoint that is there, or cannot be used or written; a loss that is not a number (the checkpoint of an
        earlier step stays); processes that do not divide the parts of a step.
    """
    path = folder / CHECKPOINT
    refuse_begun(path, resume)
    trainer = Trainer(task, settings, _accelerator(settings), seed)
    first = trainer.load(path, identity) if resume else 0
    columns = ("loss", *task.columns, "gradient", "rate")
    reports = None
    if trainer.accelerator.is_main_process:
        reports = Reports(folder, task.name, columns, first, settings.steps, settings.log_every)
    try:
        with together():
            outcome = _run(trainer, reports, path, identity, first)
    except OSError as error:
        raise TrainingError(f"{folder}: {error}; mend the cause and go on with --resume") from None
    finally:
        if reports is not None:
            reports.close()
    trainer.average.bake()
    return outcome


def check_folder(folder: Path, identity: Identity, resume: bool) -> None:
    """Raise what `train` would, before anything costly is done for it."""
    refuse_begun(folder / CHECKPOINT, resume)
    if resume:
        load_snapshot(folder / CHECKPOINT, identity)


def refuse_begun(path: Path, resume: bool) -> None:
    """Refuse to begin where a checkpoint is."""
    if not resume and path.exists():
        raise TrainingError(f"{path}: a training is there already; go on with --resume, or give another --out")


def _accelerator(settings: LoopSettings) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    processes()
    AcceleratorState._reset_state()  # another training of this process may have had another precision
    return Accelerator(mixed_precision=settings.precision)


def _run(trainer: Trainer, reports: Reports | None, path: Path, identity: Identity, first: int) -> Outcome:
    """Step by step; a step's scalars are read while the next one is on the device."""
    settings, begin, saved = trainer.settings, monotonic(), monotonic()
    # nothing is left to do where all steps are done: what the last one gave is known
    values = losses_of(path.parent, first - 1) if first == settings.steps and reports is not None else {}
    done, waiting = first, None
    with prefetched(trainer.draw, first, settings.steps, settings.threads) as batches:
        for step, parts in enumerate(_until(batches, trainer, begin), start=first):
            scalars = trainer.step(step, parts)
            if waiting is not None:
                values = _report(trainer, reports, *waiting)
            done, waiting = step + 1, (step, scalars)
            sample = settings.sample_every and done % settings.sample_every == 0
            due = monotonic() - saved >= 60 * settings.checkpoint_minutes
            if sample or _agreed(trainer, due) or done == settings.steps:
                values, waiting = _report(trainer, reports, *waiting), None
                if reports is not None:
                    reports.flush()
                trainer.save(path, identity, done)
                saved = monotonic()
            if sample and reports is not None:
                _sample(trainer, reports, done)
    if waiting is not None:  # out of time
        values = _report(trainer, reports, *waiting)
        if reports is not None:
            reports.flush()
        trainer.save(path, identity, done)
    return Outcome(done, done >= settings.steps, values)


def _until(batches: Iterator[list[Tensors]], trainer: Trainer, begin: float) -> Iterator[list[Tensors]]:
    """Give batches until the minutes are used; at least one."""
    minutes = trainer.settings.minutes
    for parts in batches:
        yield parts
        if minutes is not None and _agreed(trainer, monotonic() - begin >= 60 * minutes):
            return


def _agreed(trainer: Trainer, due: bool) -> bool:
    """The main process's clock decides for all."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return due
    told = torch.tensor(float(due and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(told, "sum") > 0)


def _report(trainer: Trainer, reports: Reports | None, step: int, scalars: Mapping[str, Tensor]) -> dict[str, float]:
    values = trainer.check(step, scalars)
    if reports is not None:
        reports.scalars(step, values)
    return values


def _sample(trainer: Trainer, reports: Reports, step: int) -> None:
    """Draw the sample grid with the averaged weights."""
    module = next(iter(trainer.players.values())).module
    module.eval()
    with trainer.average.applied(), torch.no_grad():
        image = trainer.task.preview(trainer.accelerator.device)
    module.train()
    if image is not None:
        reports.picture(step, image)
