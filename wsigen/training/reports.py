"""What a training tells: losses as CSV and to TensorBoard, sample grids as PNG, a bar or lines of progress."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.storage.files import atomic_path, write_atomic

LOSSES = "losses.csv"


class LossTable:
    """``losses.csv``: a line per step. On resuming, lines from the checkpoint's step on are dropped and made again."""

    def __init__(self, path: Path, columns: Sequence[str], first_step: int) -> None:
        kept = []
        if first_step and path.is_file():
            rows = path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
            kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) < first_step]
        write_atomic(path, "".join([",".join(["step", *columns]) + "\n", *kept]).encode())
        self._file = path.open("a", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, ["step", *columns], extrasaction="ignore", lineterminator="\n")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append a step; a column that is not there stays empty."""
        self._rows.writerow({"step": step} | {name: f"{value:.9g}" for name, value in values.items()})

    def flush(self) -> None:
        """Bring all lines to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Reports:
    """All of it, in one folder: ``losses.csv``, ``samples/``, ``tensorboard/`` (if tensorboard is installed)."""

    def __init__(self, folder: Path, name: str, columns: Sequence[str], first_step: int, steps: int, every: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._every = folder, every
        self._table = LossTable(folder / LOSSES, columns, first_step)
        self._board = _board(folder / "tensorboard", first_step)
        self._progress = _progress(name, first_step, steps)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report one step."""
        self._table.add(step, values)
        self._progress.show(step, values)
        if self._board is not None and step % self._every == 0:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        """Keep a sample grid, uint8 [H, W, 3]."""
        from PIL import Image

        path = self._folder / "samples" / f"{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as beside:
            Image.fromarray(image).save(beside, format="PNG")
        if self._board is not None:
            self._board.add_image("samples", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._table.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close all files."""
        self._table.close()
        self._progress.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)


class _Lines:
    """A plain line every few seconds."""

    EVERY_S = 10.0

    def __init__(self, name: str, first: int, steps: int) -> None:
        self._name, self._first, self._steps = name, first, steps
        self._begin = self._last = monotonic()

    def text(self, step: int, values: Mapping[str, float]) -> str:
        """One line about a step."""
        spent = monotonic() - self._begin
        done = step + 1 - self._first
        left = spent / done * (self._steps - step - 1)
        losses = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        return f"{self._name}: step {step + 1}/{self._steps}  {losses}  {done / spent:.2f} steps/s  {left / 60:.0f} min left"

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Print if it is time."""
        if monotonic() - self._last >= self.EVERY_S or step + 1 == self._steps:
            self._last = monotonic()
            print(self.text(step, values), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to close."""


class _Bar(_Lines):
    """rich's bar on a terminal."""

    def __init__(self, name: str, first: int, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        super().__init__(name, first, steps)
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        self._bars = Progress(*columns, console=Console(stderr=True))
        self._task = self._bars.add_task(name, total=steps, completed=first)
        self._bars.start()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar."""
        self._bars.update(self._task, completed=step + 1, description=self.text(step, values))

    def close(self) -> None:
        """Stop drawing."""
        self._bars.stop()


def _progress(name: str, first: int, steps: int) -> _Lines:
    return (_Bar if sys.stderr.isatty() else _Lines)(name, first, steps)
