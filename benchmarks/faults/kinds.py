"""The kinds of faults: what each does to a run, and what it undoes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

from benchmarks.faults.damage import damage
from benchmarks.faults.disk import Disk
from benchmarks.faults.fleet import TTL_S, Driver, Fleet
from benchmarks.faults.network import Network

GIVES_UP_S = 60.0
"""Seconds a driver may need to notice that the disk is full."""


@dataclass(frozen=True)
class Scene:
    """All that a fault can harm.

    Attributes
    ----------
    readable:
        Finds the files of the run that will still be read, by whether the driver is stopped.
    damaged:
        What damage left of the files it hit, by their names in the run directory.
    """

    fleet: Fleet
    driver: Driver
    network: Network
    disk: Disk
    run_dir: Path
    chance: random.Random
    readable: Callable[[bool], list[Path]]
    damaged: dict[str, bytes] = field(default_factory=dict)

    def any_worker(self) -> int:
        """Number of a worker."""
        return self.chance.randrange(self.fleet.count)


class MissedError(Exception):
    """A fault found nothing to harm."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes
    ----------
    what:
        For the table.
    strike:
        Does it, and undoes what would not mend itself (MissedError if there is nothing to do it to).
    stops:
        Whether the driver may end by it; otherwise it must go on by itself.
    """

    what: str
    strike: Callable[[Scene], None]
    stops: bool = False


def _kill_driver(scene: Scene) -> None:
    scene.driver.kill()


def _kill_worker(scene: Scene) -> None:
    scene.fleet.kill(f"worker-{scene.any_worker()}")


def _kill_scheduler(scene: Scene) -> None:
    scene.fleet.kill("scheduler")


def _freeze(scene: Scene) -> None:
    name = f"worker-{scene.any_worker()}"
    scene.fleet.freeze(name)
    sleep(TTL_S + scene.chance.uniform(1.0, 3.0))
    scene.fleet.thaw(name)


def _cut(scene: Scene) -> None:
    number = scene.any_worker()
    scene.network.cut(number)
    sleep(scene.chance.uniform(0.5, 2.0 * TTL_S))
    scene.network.mend(number)


def _part(scene: Scene) -> None:
    pair = scene.chance.sample(range(scene.fleet.count), 2)
    scene.network.part(pair)
    sleep(scene.chance.uniform(0.5, TTL_S))
    scene.network.join(pair)


def _fill_disk(scene: Scene) -> None:
    scene.disk.fill(scene.fleet.pids())
    scene.driver.wait(GIVES_UP_S)
    scene.disk.free(scene.fleet.pids())


def _damage(truncate: bool, stopped: bool) -> Callable[[Scene], None]:
    def strike(scene: Scene) -> None:
        if stopped:
            scene.driver.kill()
        path = damage(scene.readable(stopped), scene.chance, truncate)
        if path is None:
            raise MissedError
        with suppress(FileNotFoundError):  # noticed and deleted already
            scene.damaged[str(path.relative_to(scene.run_dir))] = path.read_bytes()

    return strike


KINDS = {
    "driver": Kind("driver killed", _kill_driver, stops=True),
    "worker": Kind("worker killed", _kill_worker),
    "scheduler": Kind("scheduler killed", _kill_scheduler, stops=True),
    "freeze": Kind(f"worker frozen for more than {TTL_S:g} s, back late", _freeze),
    "disk": Kind("disk full, then freed", _fill_disk, stops=True),
    "flip": Kind("driver killed, a bit of the store flipped", _damage(truncate=False, stopped=True), stops=True),
    "truncate": Kind("driver killed, a file of the store truncated", _damage(truncate=True, stopped=True), stops=True),
    "flip-live": Kind("a bit of the store flipped in a running run", _damage(truncate=False, stopped=False)),
    "truncate-live": Kind("a file of the store truncated in a running run", _damage(truncate=True, stopped=False)),
    "cut": Kind("worker cut off from the network, plugged in again", _cut),
    "part": Kind("two workers cut off from each other", _part),
}
"""By name on the command line; ``end`` (the driver killed while it writes or clears) comes last in every campaign."""

NETWORK = ("cut", "part")
END = "end"
END_WHAT = "driver killed while it writes the slide or clears up"
