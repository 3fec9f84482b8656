"""One entry point for workers: a task comes in as plain values, numbers go out, arrays stay in the store."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from wsigen.run.tasks.context import run_context

Kind = Literal["start", "denoise", "assemble", "calibrate", "decode", "encode"]


@dataclass(frozen=True, slots=True)
class Task:
    """What to do: a kind, the pass, the chunk (or block) and the step."""

    kind: Kind
    pass_index: int
    ij: tuple[int, int]
    step: int = 0

    @property
    def name(self) -> str:
        """For people: e.g. ``"denoise step 3 of chunk (0, 2) in pass 1"``."""
        where = f"block {self.ij}" if self.kind == "decode" else f"chunk {self.ij}"
        when = f" step {self.step}" if self.kind in ("denoise", "assemble") else ""
        return f"{self.kind}{when} of {where} in pass {self.pass_index}"

    @property
    def calls_model(self) -> bool:
        """Whether it may need the model (a start does where it follows a picture)."""
        return self.kind != "assemble"


@dataclass(frozen=True, slots=True)
class Report:
    """What a task says when done.

    Attributes
    ----------
    calls : int
        Rows of model calls made (one crop under one condition is one).
    seconds : float
        Time taken.
    differences : tuple of str
        What of the worker differs from the run and was let pass.
    """

    calls: int
    seconds: float
    differences: tuple[str, ...] = ()


def perform(run_dir: str, run_hash: str, threads: int | None, task: Task, calls_at_once: int | None = None) -> Report:
    """Do one task in a worker process.

    Parameters
    ----------
    run_dir, run_hash : str
        Where the run is, and the hash its specification must have.
    threads : int or None
        Torch threads of this worker (None: as it is).
    calls_at_once : int or None
        Tasks of this process that may call the model at the same time (None: all).
    """
    from wsigen.run.tasks.decode import calibrate, decode_block
    from wsigen.run.tasks.denoise import assemble, denoise, start
    from wsigen.run.tasks.encode_known import encode_known

    begin = perf_counter()
    run = run_context(run_dir, run_hash)
    if threads is not None:
        _limit_threads(threads)
    run.calls_at_once = calls_at_once
    pass_ = run.passes[task.pass_index]
    calls = 0
    if task.kind == "start":
        start(pass_, task.ij)
    elif task.kind == "denoise":
        calls = denoise(pass_, task.ij, task.step)
    elif task.kind == "assemble":
        assemble(pass_, task.ij, task.step)
    elif task.kind == "encode":
        encode_known(pass_, task.ij)
    elif task.kind == "calibrate":
        calibrate(pass_)
    else:
        decode_block(pass_, task.ij)
    return Report(calls, perf_counter() - begin, tuple(run.differences))


def _limit_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
