"""What the processes run on and can lose: a network whose cables can be pulled, and a small disk that can be filled.

The network: every worker in a network namespace of its own, on a bridge. It needs ``ip`` and ``bridge`` (iproute2) and the
right to make namespaces; without them all processes meet on loopback and faults of the network are skipped. The disk: a file
system in memory, or, without the right to mount, a limit on the workers.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Network:
    """Where processes find each other.

    Attributes
    ----------
    host : address of scheduler and driver
    name : of the bridge, and the beginning of the namespaces' names; empty for loopback
    workers : namespaces
    """

    host: str = "127.0.0.1"
    name: str = ""
    workers: int = 0

    def worker_host(self, number: int) -> str:
        """Address of a worker."""
        return f"{self.host.rpartition('.')[0]}.{10 + number}" if self.name else self.host

    def prefix(self, number: int) -> list[str]:
        """What a worker's command begins with."""
        return ["ip", "netns", "exec", f"{self.name}n{number}"] if self.name else []

    def plug(self, number: int, there: bool) -> None:
        """Cut a worker off (packets to and from it are lost, and nobody is told), or plug it in again."""
        _run("ip", "link", "set", f"{self.name}v{number}", "up" if there else "down")

    def isolate(self, numbers: list[int], apart: bool) -> None:
        """Cut workers off from each other, but not from the scheduler; or let them see each other again."""
        for number in numbers:
            _run("bridge", "link", "set", "dev", f"{self.name}v{number}", "isolated", "on" if apart else "off")

    def close(self) -> None:
        """Remove bridge and namespaces."""
        if self.name:
            for number in range(self.workers):
                _run("ip", "netns", "del", f"{self.name}n{number}", check=False)
                _run("ip", "link", "del", f"{self.name}v{number}", check=False)
            _run("ip", "link", "del", self.name, check=False)


def make_network(workers: int) -> tuple[Network, str]:
    """Make namespaces if this machine permits it; returns the network, and why it cannot be cut (empty if it can)."""
    missing = [tool for tool in ("ip", "bridge") if shutil.which(tool) is None]
    if missing:
        return Network(), f"no {missing[0]} command here (iproute2)"
    taken = {path.name for path in Path("/sys/class/net").iterdir()}  # here or by a campaign that was killed
    numbers = (k % 200 for k in range(os.getpid(), os.getpid() + 200))
    number = next((k for k in numbers if f"wsf{k}" not in taken), 0)
    network = Network(f"10.213.{number}.1", f"wsf{number}", workers)
    try:
        _run("ip", "link", "add", network.name, "type", "bridge")
        _run("ip", "address", "add", f"{network.host}/24", "dev", network.name)
        _run("ip", "link", "set", network.name, "up")
        for k in range(workers):
            _add_worker(network, k)
    except subprocess.CalledProcessError as error:
        network.close()
        return Network(), f"no right to make network namespaces ({error.stderr.strip() or error})"
    return network, ""


def _add_worker(network: Network, number: int) -> None:
    """A namespace, a pair of cable ends, one in it and one on the bridge."""
    space, outer, inner = f"{network.name}n{number}", f"{network.name}v{number}", f"{network.name}w{number}"
    _run("ip", "netns", "add", space)
    _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
    _run("ip", "link", "set", inner, "netns", space)
    _run("ip", "link", "set", outer, "master", network.name)
    _run("ip", "link", "set", outer, "up")
    _run("ip", "-n", space, "address", "add", f"{network.worker_host(number)}/24", "dev", inner)
    _run("ip", "-n", space, "link", "set", inner, "up")
    _run("ip", "-n", space, "link", "set", "lo", "up")


def _run(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, capture_output=True, text=True)


@dataclass(frozen=True)
class Disk:
    """Where the run directory lies: the mount point of a file system of its own, or an ordinary folder."""

    folder: Path
    mounted: bool

    @property
    def kind(self) -> str:
        """For the report."""
        return "tmpfs filled up" if self.mounted else "RLIMIT_FSIZE of 0 on the workers"

    def fill(self, workers: list[int]) -> None:
        """Leave no byte free (or let the workers write none)."""
        if not self.mounted:
            return _limit(workers, 0)
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))

    def free(self, workers: list[int]) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)
        if not self.mounted:
            _limit(workers, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Unmount."""
        if self.mounted:
            _run("umount", "--lazy", str(self.folder), check=False)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


def make_disk(folder: Path, size_mib: int) -> Disk:
    """Mount a tmpfs of this size if this machine permits it."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    may = shutil.which("mount") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0
    return Disk(folder, may)


def _limit(pids: list[int], size: int) -> None:
    """Bound the size of files that processes may write; Python sees EFBIG."""
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            process.rlimit(resource.RLIMIT_FSIZE, (size, process.rlimit(resource.RLIMIT_FSIZE)[1]))
