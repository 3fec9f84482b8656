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
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from wsigen.run.display import LINE_EVERY_S, duration
from wsigen.storage.files import atomic_path, write_atomic


class Reports:
    """All of it, in one folder: ``losses.csv``, ``samples/``, ``tensorboard/`` (if tensorboard is installed).

    ``losses.csv`` has a line per step. On resuming, lines from the checkpoint's step on are dropped and made again.
    """

    def __init__(self, folder: Path, name: str, columns: Sequence[str], first_step: int, steps: int, every: int) -> None:
        self._folder, self._name, self._first, self._steps, self._every = folder, name, first_step, steps, every
        table = folder / "losses.csv"
        kept = _rows_before(table, first_step)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(table, "".join([",".join(["step", *columns]) + "\n", *kept]).encode())
        self._file = table.open("a", encoding="utf-8", newline="")
        self._rows = csv.DictWriter(self._file, ["step", *columns], extrasaction="ignore", lineterminator="\n")
        self._board = _board(folder / "tensorboard", first_step)
        self._begin = self._told = monotonic()
        bar = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        self._bar = Progress(*bar, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(name, total=steps, completed=first_step)
        self._bar.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report one step; a column that is not there stays empty."""
        self._rows.writerow({"step": step} | {name: f"{value:.9g}" for name, value in values.items()})
        self._progress(step + 1, values)
        if self._board is not None and step % self._every == 0:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)

    def _progress(self, done: int, values: Mapping[str, float]) -> None:
        """Move the bar; where there is none, print a line if it is time."""
        now = monotonic()
        if self._bar.disable and now - self._told < LINE_EVERY_S and done < self._steps:
            return
        speed = (done - self._first) / max(now - self._begin, 1e-9)
        losses = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        left = duration((self._steps - done) / speed)
        line = f"{self._name}: step {done}/{self._steps}  {losses}  {speed:.2f} steps/s  {left} left"
        self._bar.update(self._task, completed=done, description=line)
        if self._bar.disable:
            self._told = now
            print(line, file=sys.stderr, flush=True)

    def picture(self, step: int, image: NDArray[np.uint8]) -> None:
        """Keep a sample grid, uint8 [H, W, 3]."""
        path = self._folder / "samples" / f"{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as beside:
            Image.fromarray(image).save(beside, format="PNG")
        if self._board is not None:
            self._board.add_image("samples", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._file.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close all files."""
        self._file.close()
        self._bar.stop()
        if self._board is not None:
            self._board.close()


def _rows_before(table: Path, step: int) -> list[str]:
    if step == 0 or not table.is_file():
        return []
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
    return [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) < step]


def _board(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
