"""A scheduler, workers and a driver: each a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.machine import Network

ROOT = Path(__file__).parents[2]
POLL_S = 0.5
"""Seconds between looks at the run; on a busy machine each takes time from it."""

ENDS_S = 60.0
"""Seconds a process may take to end when asked to: it may be importing torch on a busy machine."""

TTL_S = 8.0
"""Seconds without a heartbeat after which the scheduler gives a worker up (dask's own default is five minutes)."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL_S:g}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
}


@dataclass
class Fleet:
    """The scheduler and its workers.

    Parameters
    ----------
    folder : where the processes have their folders and logs
    count : workers
    network : gives every process its address, and workers their network namespaces if there are any
    temporary : where the processes make temporary files (dask's own go beside it)
    """

    folder: Path
    count: int
    network: Network
    temporary: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _port: int = 0

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind((self.network.host, 0))
            self._port = int(probe.getsockname()[1])

    @property
    def address(self) -> str:
        """Of the scheduler; the same after every restart."""
        return f"tcp://{self.network.host}:{self._port}"

    @property
    def workers(self) -> list[str]:
        """Names of the workers."""
        return [f"worker-{k}" for k in range(self.count)]

    def start(self) -> None:
        """Start the scheduler and all workers."""
        for name in ["scheduler", *self.workers]:
            self._start(name)

    def tend(self) -> None:
        """Start again what has ended: a worker that was given up ends by itself."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._start(name)

    def kill(self, name: str) -> None:
        """SIGKILL a process and start it again at once."""
        self._processes[name].kill()
        self._processes[name].wait()
        self._start(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP: a worker holds its tasks and answers nobody; SIGCONT: it goes on where it was, and writes late."""
        self._processes[name].send_signal(number)

    def pid(self, name: str) -> int:
        """Process id."""
        return self._processes[name].pid

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [self.pid(name) for name in self.workers]

    def stop(self) -> list[str]:
        """End all; returns the names of those that did not end by themselves when asked to.

        Workers first: a dask worker that hears SIGTERM and its scheduler's farewell at the same moment may wait for ever (seen
        with 2026.8: "Reason: scheduler-close" within 10 ms of the signal, then heartbeats to nobody).
        """
        late = []
        for names in (self.workers, ["scheduler"]):
            there = {name: self._processes.pop(name) for name in names if name in self._processes}
            for process in there.values():
                process.send_signal(signal.SIGCONT)
                process.terminate()
            for name, process in there.items():
                try:
                    process.wait(ENDS_S)
                except subprocess.TimeoutExpired:
                    late.append(name)
                    process.kill()
                    process.wait()
        return late

    def _start(self, name: str) -> None:
        (folder := self.folder / name).mkdir(parents=True, exist_ok=True)
        prefix, dashboard = list[str](), ["--dashboard-address", "127.0.0.1:0"]
        if name == "scheduler":
            options = ["scheduler", "--host", self.network.host, "--port", str(self._port), *dashboard]
        else:
            number = int(name.rpartition("-")[2])
            options = ["worker", self.address, "--host", self.network.worker_host(number), *dashboard, "--no-dashboard"]
            options += ["--nthreads", "1", "--no-nanny", "--death-timeout", "60", "--memory-limit", "0"]
            prefix = self.network.prefix(number)
        command = [*prefix, sys.executable, "-m", "dask", *options]
        self._processes[name] = _process(command, folder, self.folder / f"{name}.log", self.temporary)


@dataclass
class Driver:
    """``wsigen generate`` and ``wsigen resume`` of one slide.

    Parameters
    ----------
    folder : its working directory; its log is ``driver.log``
    generate, resume : arguments of the two commands
    temporary : where it makes temporary files
    """

    folder: Path
    generate: list[str]
    resume: list[str]
    temporary: Path
    starts: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    @property
    def log(self) -> Path:
        """What it said, of all starts together."""
        return self.folder / "driver.log"

    def start(self, begun: bool) -> None:
        """Start it: ``resume`` if a run has begun, else ``generate``."""
        self.starts += 1
        command = [sys.executable, "-m", "wsigen", *(self.resume if begun else self.generate)]
        self._process = _process(command, self.folder, self.log, self.temporary)

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; whether it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._started.wait(seconds)
        return not self.running

    @property
    def pid(self) -> int:
        """Process id of the one that was started last."""
        return self._started.pid

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the driver was not started")
        return self._process

    def last_words(self) -> str:
        """The end of its log; its last line is mostly the error."""
        return self.log.read_text(errors="replace")[-1500:].strip() if self.log.exists() else ""


def _process(command: list[str], folder: Path, log: Path, temporary: Path) -> subprocess.Popen[bytes]:
    """Start a process with one model thread, a scheduler that loses patience soon, and a TMPDIR of its own.

    dask's workers keep a folder open there as long as they live; it goes elsewhere.
    """
    scratch = temporary.with_name(f"{temporary.name}-dask")
    environment = {**os.environ, **ENVIRONMENT, "TMPDIR": str(temporary), "DASK_TEMPORARY_DIRECTORY": str(scratch)}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
