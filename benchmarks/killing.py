"""Runs of the command line that are killed at random moments and go on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

POLL_S, PATIENCE_S = 0.02, 120.0


class CommandRuns:
    """Runs of one slide as processes, and what became of them.

    Parameters
    ----------
    folder:
        Where the slides go.
    settings:
        Options of ``wsigen generate``.
    chance:
        Draws the moments of kills, and which worker.

    Attributes
    ----------
    digests:
        SHA-256 of level 0 of every finished run.
    driver_kills, worker_kills:
        Kills that met a running process.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], chance: random.Random) -> None:
        self._folder, self._settings, self._chance = folder, settings, chance
        self._seconds = 0.0
        self.digests: list[str] = []
        self.driver_kills = self.worker_kills = 0

    def whole(self) -> None:
        """A run that nobody disturbs; kills of other runs fall into the time it takes."""
        output = self._folder / "whole.ome.tiff"
        process = self._start(self._command(output), output)
        begin = monotonic()
        self._finish(process)
        self._seconds = monotonic() - begin
        self._note(output)

    def kill_driver(self, number: int, kills: int, processes: bool) -> None:
        """Start a run, kill it and go on with it ``kills`` times, then let it end."""
        output = self._folder / f"driver-{number}.ome.tiff"
        more = ["--processes", "--workers", "2"] if processes else []
        for left in range(kills, -1, -1):
            run_dir = self._run_dir(output)
            begun = (run_dir / "run.json").exists()
            if not begun and _record(output).exists():
                break
            command = ["resume", str(run_dir)] if begun else [*self._command(output), *more]
            process = self._start(command, output)
            if left and not _ends_within(process, self._chance.uniform(0.0, self._seconds / kills)):
                process.kill()
                process.wait()
                self.driver_kills += 1
            else:
                self._finish(process)
        self._note(output)

    def kill_workers(self, number: int, kills: int) -> None:
        """Kill worker processes of a run, which must end by itself."""
        output = self._folder / f"worker-{number}.ome.tiff"
        process = self._start([*self._command(output), "--processes", "--workers", "2"], output)
        for _ in range(kills):
            victims: list[psutil.Process] = []
            while len(victims) < 2 and not _ends_within(process, POLL_S):
                victims = workers_of(process.pid)
            if victims and not _ends_within(process, self._chance.uniform(0.0, self._seconds / kills)):
                self._chance.choice(victims).kill()
                self.worker_kills += 1
        self._finish(process)
        self._note(output)

    def _command(self, output: Path) -> list[str]:
        options = []
        for key, value in self._settings.items():
            text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
            options += [f"--{key.replace('_', '-')}", text]
        return ["generate", str(output), *options]

    def _run_dir(self, output: Path) -> Path:
        return output.with_name(output.name.replace(".ome.tiff", ".run"))

    def _start(self, command: list[str], output: Path) -> subprocess.Popen[bytes]:
        """Start the command line and wait until it holds the run, which is when work begins."""
        lock = self._run_dir(output) / "driver.lock"
        before = lock.stat().st_mtime_ns if lock.exists() else 0
        with self._log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "wsigen", *command], stdout=log, stderr=log)
        begin = monotonic()
        while not _ends_within(process, POLL_S) and monotonic() - begin < PATIENCE_S:
            if lock.exists() and lock.stat().st_mtime_ns != before:
                break
        return process

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        if process.wait(timeout=10 * PATIENCE_S):
            end = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"a run ended with exit code {process.returncode}:\n{end}")

    def _note(self, output: Path) -> None:
        self.digests.append(json.loads(_record(output).read_text())["sha256"]["level0_tiles"])


def _record(output: Path) -> Path:
    return output.with_name(output.name.replace(".ome.tiff", ".json"))


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait so long at most; whether the process has ended."""
    end = monotonic() + seconds
    while process.poll() is None and monotonic() < end:
        sleep(min(POLL_S, max(0.0, end - monotonic())))
    return process.poll() is not None


def workers_of(pid: int) -> list[psutil.Process]:
    """Worker processes of a driver: what multiprocessing started for it, but for its resource tracker."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [child for child in children if any("spawn_main" in part for part in child.cmdline())]
    except psutil.Error:
        return []
