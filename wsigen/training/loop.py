"""The training loop of all models, on accelerate: mixed precision, several processes, parts of a step.

A batch and its noise are functions of (seed, step, part), the learning rate is a function of the step: what a checkpoint
holds (weights, their mean, optimisers, memories, step) is all that a resumed training needs for the very same losses.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from wsigen.base.errors import TrainingError
from wsigen.training.processes import processes, together
from wsigen.training.recipes import LoopSettings
from wsigen.training.reports import Reports
from wsigen.training.snapshot import Identity, load_snapshot
from wsigen.training.task import Task
from wsigen.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT = "checkpoint.pt"

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    result : Path or None
        Folder of the model; None if the training stopped before its last step (go on with ``resume=True``).
    step : int
        Steps done.
    scalars : dict of str to float
        Losses of the last step.
    """

    result: Path | None
    step: int
    scalars: dict[str, float]


def train(
    task: Task, settings: LoopSettings, folder: Path, identity: Identity, *, seed: int = 0, resume: bool = False
) -> Outcome:
    """Train until the steps or the minutes are used; leave the task's network with the averaged weights.

    Parameters
    ----------
    folder : Path
        Gets ``checkpoint.pt``, ``losses.csv``, ``samples/`` and ``tensorboard/``.
    identity : dict
        Of the whole recipe and its data (`snapshot.identity_of`): only a checkpoint of the same one is resumed.
    resume : bool
        Go on from ``checkpoint.pt``; without it, a folder that has one is refused.

    Raises
    ------
    TrainingError
        A checkpoint that is there, or cannot be used or written; a loss that is not a number (the checkpoint of an
        earlier step stays); processes that do not divide the parts of a step.
    """
    path = folder / CHECKPOINT
    if not resume:
        check_folder(folder, identity, resume)
    trainer = Trainer(task, settings, _accelerator(settings), seed)
    first, scalars = trainer.load(path, identity) if resume else (0, {})
    reports = None
    if trainer.accelerator.is_main_process:
        columns = ("loss", *task.columns, "gradient", "rate")
        reports = Reports(folder, task.name, columns, first, settings.steps, settings.log_every)
    try:
        with together():
            done, scalars = _run(trainer, reports, path, identity, first, scalars)
    except OSError as error:
        raise TrainingError(f"{folder}: {error}; mend the cause and go on with --resume") from None
    finally:
        if reports is not None:
            reports.close()
    trainer.use_average()
    return Outcome(folder / task.result if done == settings.steps else None, done, scalars)


def check_folder(folder: Path, identity: Identity, resume: bool) -> None:
    """Raise what `train` would, before anything costly is done for it."""
    path = folder / CHECKPOINT
    if resume:
        load_snapshot(path, identity)
    elif path.exists():
        raise TrainingError(f"{path}: a training is there already; go on with --resume, or give another --out")


def _accelerator(settings: LoopSettings) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    processes()
    AcceleratorState._reset_state()  # another training of this process may have had another precision
    return Accelerator(mixed_precision=settings.precision)


def _run(
    trainer: Trainer, reports: Reports | None, path: Path, identity: Identity, done: int, values: dict[str, float]
) -> tuple[int, dict[str, float]]:
    """Go on after ``done`` steps, the last of which gave ``values``; a step's scalars are read while the next one computes.

    Returns
    -------
    steps done, and what the last one gave
    """
    settings, begin, saved = trainer.settings, monotonic(), monotonic()
    waiting: tuple[int, dict[str, Tensor]] | None = None

    def settle(pending: tuple[int, Mapping[str, Tensor]] | None) -> dict[str, float]:
        """Check and report the step that is pending."""
        if pending is None:
            return values
        scalars = trainer.check(*pending)
        if reports is not None:
            reports.scalars(pending[0], scalars)
        return scalars

    with closing(prefetched(trainer.draw, done, settings.steps, settings.threads)) as batches:
        for parts in batches:
            scalars = trainer.step(done, parts)
            values = settle(waiting)
            done, waiting = done + 1, (done, scalars)
            sample = settings.sample_every and (done % settings.sample_every == 0 or done == settings.steps)
            out_of_time = settings.minutes is not None and _agreed(trainer, monotonic() - begin >= 60 * settings.minutes)
            due = monotonic() - saved >= 60 * settings.checkpoint_minutes
            if sample or out_of_time or done == settings.steps or _agreed(trainer, due):
                values, waiting = settle(waiting), None
                if reports is not None:
                    reports.flush()
                trainer.save(path, identity, done, values)
                saved = monotonic()
            if sample and reports is not None:
                _sample(trainer, reports, done)
            if out_of_time:
                break
    return done, values


def _agreed(trainer: Trainer, due: bool) -> bool:
    """The main process's clock decides for all."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return due
    vote = torch.tensor(float(due and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(vote, "sum") > 0)


def _sample(trainer: Trainer, reports: Reports, step: int) -> None:
    """Draw the sample grid with the averaged weights."""
    module = trainer.players[trainer.model].module
    module.eval()
    with trainer.averaged(), torch.no_grad():
        image = trainer.task.preview(trainer.accelerator.device)
    module.train()
    if image is not None:
        reports.picture(step, image)


def prefetched(make: Callable[[int], Item], first: int, end: int, threads: int = 1, depth: int = 2) -> Generator[Item]:
    """Yield ``make(first), ..., make(end - 1)``, made by threads while the caller works; to be closed (`contextlib.closing`).

    **Memory bound**: at most ``depth`` items wait at a time. An error in ``make`` is raised where its item is taken.
    """
    numbers = iter(range(first, end))
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:

        def begin(count: int) -> list[Future[Item]]:
            return [pool.submit(make, number) for number in itertools.islice(numbers, count)]

        waiting = deque(begin(max(depth, threads)))
        try:
            while waiting:
                item = waiting.popleft().result()
                waiting.extend(begin(1))  # the threads go on while the caller computes
                yield item
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
