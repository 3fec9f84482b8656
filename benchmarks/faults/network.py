"""A network whose cables can be pulled: every worker in a network namespace of its own, on a bridge.

It needs ``ip`` and ``bridge`` (iproute2) and the right to make namespaces. Without them all processes meet on loopback and
faults of the network are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Network:
    """Where processes find each other.

    Attributes
    ----------
    host:
        Address of scheduler and driver.
    name:
        Of the bridge, and the beginning of the namespaces' names; empty for loopback.
    workers:
        Namespaces.
    """

    host: str = "127.0.0.1"
    name: str = ""
    workers: int = 0

    @property
    def can_be_cut(self) -> bool:
        """Whether there are cables."""
        return bool(self.name)

    def worker_host(self, number: int) -> str:
        """Address of a worker."""
        return f"{self.host.rpartition('.')[0]}.{10 + number}" if self.name else self.host

    def prefix(self, number: int) -> list[str]:
        """What a worker's command begins with."""
        return ["ip", "netns", "exec", f"{self.name}n{number}"] if self.name else []

    def cut(self, number: int) -> None:
        """Cut a worker off: packets to and from it are lost, and nobody is told."""
        _run("ip", "link", "set", f"{self.name}v{number}", "down")

    def mend(self, number: int) -> None:
        """Plug a worker in again."""
        _run("ip", "link", "set", f"{self.name}v{number}", "up")

    def part(self, numbers: list[int]) -> None:
        """Cut workers off from each other, but not from the scheduler."""
        for number in numbers:
            _run("bridge", "link", "set", "dev", f"{self.name}v{number}", "isolated", "on")

    def join(self, numbers: list[int]) -> None:
        """Let them see each other again."""
        for number in numbers:
            _run("bridge", "link", "set", "dev", f"{self.name}v{number}", "isolated", "off")

    def close(self) -> None:
        """Remove bridge and namespaces."""
        if self.name:
            for number in range(self.workers):
                _run("ip", "netns", "del", f"{self.name}n{number}", check=False)
                _run("ip", "link", "del", f"{self.name}v{number}", check=False)
            _run("ip", "link", "del", self.name, check=False)


def make_network(workers: int) -> tuple[Network, str]:
    """Make namespaces if this machine permits it.

    Returns
    -------
    tuple
        The network, and why it cannot be cut (empty if it can).
    """
    missing = [tool for tool in ("ip", "bridge") if shutil.which(tool) is None]
    if missing:
        return Network(), f"no {missing[0]} command here (iproute2)"
    number = _free_number()
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


def _free_number() -> int:
    """A number no other network of this kind has, here or from a campaign that was killed."""
    taken = {path.name for path in Path("/sys/class/net").iterdir()}
    numbers = (k % 200 for k in range(os.getpid(), os.getpid() + 200))
    return next((k for k in numbers if f"wsf{k}" not in taken), 0)


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
