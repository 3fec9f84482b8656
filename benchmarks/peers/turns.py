"""Processes that take turns, so that what is compared is measured side by side on a machine whose load changes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter, process_time
from typing import Any


@dataclass(frozen=True, slots=True)
class Turn:
    """What a process did in its turn.

    Attributes
    ----------
    wall, cpu:
        Seconds; the CPU's are those of all its threads.
    steps:
        Denoising steps of the whole canvas, mostly a part of one.
    rows:
        Crops through the network.
    """

    wall: float
    cpu: float
    steps: float
    rows: int


class Player:
    """The end of the process that works: it waits for its turn, works, and tells.

    Without ``turns`` it never waits and tells nothing.
    """

    def __init__(self, turns: bool) -> None:
        self._turns = turns
        self._wall = self._cpu = 0.0

    def wait(self) -> None:
        """Wait until it is our turn; the process ends if nobody will ever say so."""
        if self._turns and not sys.stdin.readline():
            raise SystemExit(1)
        self._wall, self._cpu = perf_counter(), process_time()

    def tell(self, steps: float, rows: int) -> None:
        """Say what was done since."""
        if self._turns:
            _say(asdict(Turn(perf_counter() - self._wall, process_time() - self._cpu, steps, rows)))

    @staticmethod
    def end(**found: Any) -> None:
        """Say what was found in the end."""
        _say(found)


def _say(content: dict[str, Any]) -> None:
    print(f"\n{json.dumps(content)}", flush=True)


class Worker:
    """The other end: a process of ``python -m MODULE ARGUMENTS``.

    Parameters
    ----------
    command:
        Module and arguments.
    """

    def __init__(self, *command: str) -> None:
        self._name = " ".join(command)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> Turn:
        """Let it work once."""
        self.go()
        return Turn(**self._read())

    def go(self) -> None:
        """Let it work without waiting for it."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for what it found (RuntimeError if it died)."""
        found = self._read()
        if self._process.wait():
            raise RuntimeError(f"{self._name}: ended with exit code {self._process.returncode}")
        return found

    def stop(self) -> None:
        """End it, finished or not."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"{self._name}: ended with exit code {self._process.wait()} before it was done")
