"""The kinds of faults, and a run that they befall, one after another, each while work goes on."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from benchmarks.faults.fleet import POLL_S, TTL_S, Driver, Fleet
from benchmarks.faults.machine import Disk, Network
from benchmarks.faults.store import damage, half_steps

GIVES_UP_S = 60.0
"""Seconds a driver may need to notice that the disk is full."""

PATIENCE_S = 600.0
"""Seconds after a fault within which work must go on: far more than it takes, for machines that are busy with other work."""

STARTS = 4
"""Times in a row a driver may end without having done anything."""

END_S = 0.6
"""Seconds over which the moments of kills at the end are spread: writing and clearing take about so long."""


class MissedError(Exception):
    """A fault found nothing to harm."""


class CampaignError(RuntimeError):
    """A run that did not go on; the message holds the driver's last words."""


@dataclass(frozen=True)
class Scene:
    """All that a fault can harm.

    Attributes
    ----------
    readable : finds the files of the run that will still be read, by whether the driver is stopped
    damaged : what damage left of the files it hit, by their names in the run directory
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


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes
    ----------
    what : for the table
    strike : does it, and undoes what would not mend itself (MissedError if there is nothing to do it to)
    stops : whether the driver may end by it; otherwise it must go on by itself
    """

    what: str
    strike: Callable[[Scene], None]
    stops: bool = False


def _freeze(scene: Scene) -> None:
    name = f"worker-{scene.any_worker()}"
    scene.fleet.signal(name, signal.SIGSTOP)
    sleep(TTL_S + scene.chance.uniform(1.0, 3.0))
    scene.fleet.signal(name, signal.SIGCONT)


def _cut(scene: Scene) -> None:
    number = scene.any_worker()
    scene.network.plug(number, there=False)
    sleep(scene.chance.uniform(0.5, 2.0 * TTL_S))
    scene.network.plug(number, there=True)


def _part(scene: Scene) -> None:
    pair = scene.chance.sample(range(scene.fleet.count), 2)
    scene.network.isolate(pair, apart=True)
    sleep(scene.chance.uniform(0.5, TTL_S))
    scene.network.isolate(pair, apart=False)


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
    "driver": Kind("driver killed", lambda scene: scene.driver.kill(), stops=True),
    "worker": Kind("worker killed", lambda scene: scene.fleet.kill(f"worker-{scene.any_worker()}")),
    "scheduler": Kind("scheduler killed", lambda scene: scene.fleet.kill("scheduler"), stops=True),
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
WHAT = {name: kind.what for name, kind in KINDS.items()} | {END: "driver killed while it writes the slide or clears up"}


def draw(count: int, kinds: list[str], chance: random.Random) -> list[str]:
    """As many faults of every kind as of any other (but for one), in random order; the first kills the driver.

    Raises
    ------
    CampaignError
        If there are no kinds to draw from.
    """
    if count and not kinds:
        raise CampaignError("none of the kinds of faults asked for can strike here; choose others with --kinds")
    drawn = [kinds[k % len(kinds)] for k in range(count)]
    chance.shuffle(drawn)
    if "driver" in drawn:
        drawn.remove("driver")
        drawn.insert(0, "driver")
    return drawn


@dataclass
class Fault:
    """What one fault came to.

    Attributes
    ----------
    half_step : half-steps and blocks done when it struck
    seconds : from the end of the fault to work going on
    ended : whether the driver ended by it, other than by being killed
    """

    kind: str
    half_step: int
    seconds: float = 0.0
    ended: bool = False


@dataclass
class Campaign:
    """Faults in a drawn order at drawn moments.

    Attributes
    ----------
    scene : what there is to harm
    total : half-steps and blocks of the whole run
    faults : those that struck
    odd : what should not have happened, one line each
    """

    scene: Scene
    total: int
    faults: list[Fault] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    _idle_starts: int = 0
    _last_start: int = -1

    def strike_all(self, kinds: list[str]) -> None:
        """Let all faults strike, spread over the run, each early in its share: work goes on while some last."""
        for k, kind in enumerate(kinds):
            now, left = half_steps(self.scene.run_dir), len(kinds) - k
            moment = now + round((self.total - now) / (left + 1) * self.scene.chance.uniform(0.0, 0.4))
            while True:
                done = self._drive_to(moment)
                if self.scene.driver.code == 0:
                    self.odd.append(f"the run ended before {left} of the faults could strike: give it more tasks")
                    return
                if self._strike(kind, done):
                    break
                moment = done + 1  # there was nothing to harm

    def finish(self) -> None:
        """Let the run end."""
        self._drive_to(None)

    def strike_the_end(self, count: int) -> None:
        """Kill the driver while it writes the slide or clears up (the run must be finished and kept)."""
        scene = self.scene
        for _ in range(count):
            if not scene.run_dir.exists():
                break
            self._start_to_write()
            sleep(scene.chance.uniform(0.0, END_S))
            if scene.driver.running:
                done = half_steps(scene.run_dir)
                scene.driver.kill()
                self._note(Fault(END, done))
        if scene.run_dir.exists() and not scene.driver.running:
            scene.driver.start(begun=True)
        while not scene.driver.wait(1.0):
            scene.fleet.tend()

    def _strike(self, kind: str, done: int) -> bool:
        """Let a fault strike and wait until work goes on; False if it hit nothing."""
        scene, fault = self.scene, Fault(kind, done)
        before = scene.driver.running
        in_flight = 2 * scene.fleet.count if KINDS[kind].stops else 0  # of the old driver: they end without a new one
        try:
            KINDS[kind].strike(scene)
        except MissedError:
            return False
        begin = monotonic()
        low = half_steps(scene.run_dir)
        while True:
            self._keep_going(fault)
            now = half_steps(scene.run_dir)
            low = min(low, now)
            if (now > low + in_flight and scene.driver.running) or scene.driver.code == 0:
                break
            if monotonic() - begin > PATIENCE_S:
                raise CampaignError(f"no work for {PATIENCE_S:g} s after {kind}:\n{scene.driver.last_words()}")
            sleep(POLL_S)
        fault.seconds = monotonic() - begin
        if fault.ended and before and not KINDS[kind].stops:
            self.odd.append(f"the driver ended by a fault it should survive: {kind}")
        self._note(fault)
        return True

    def _note(self, fault: Fault) -> None:
        self.faults.append(fault)
        share = 100 * fault.half_step / self.total
        text = f"{len(self.faults):4d}  at {share:5.1f} %  {WHAT[fault.kind]}: went on after {fault.seconds:.1f} s"
        print(text, file=sys.stderr, flush=True)

    def _drive_to(self, half_step: int | None) -> int:
        """Let the run go on until so much is done, or to its end; what is done then."""
        idle = 0.0
        while True:
            before = monotonic()
            self._keep_going(None)
            now = half_steps(self.scene.run_dir)
            if self.scene.driver.code == 0 or (half_step is not None and now >= half_step and self.scene.driver.running):
                return now
            sleep(POLL_S)
            idle += monotonic() - before
            if idle > 12 * PATIENCE_S:
                raise CampaignError(f"the run does not end:\n{self.scene.driver.last_words()}")

    def _keep_going(self, fault: Fault | None) -> None:
        """Start again what has ended: workers, scheduler, and the driver if it ended with an error."""
        scene = self.scene
        scene.fleet.tend()
        code = scene.driver.code
        if scene.driver.running or code == 0:
            return
        if code is not None and code > 0:
            if fault is None:
                last = scene.driver.last_words().rpartition("\n")[2]
                self.odd.append(f"the driver ended for no known fault: {last}")
            else:
                fault.ended = True
        now = half_steps(scene.run_dir)
        self._idle_starts = self._idle_starts + 1 if now == self._last_start else 0
        self._last_start = now
        if self._idle_starts > STARTS:
            raise CampaignError(f"the driver ends again and again:\n{scene.driver.last_words()}")
        scene.driver.start(begun=(scene.run_dir / "run.json").exists())

    def _start_to_write(self) -> None:
        """Go on with a finished run and wait until the driver writes the slide, or ends."""
        scene, mark = self.scene, self.scene.run_dir / "outputs-begun"
        before = _touched(mark)
        scene.driver.start(begun=True)
        while scene.driver.running and _touched(mark) in (before, 0):
            scene.fleet.tend()
            sleep(POLL_S / 5)


def _touched(path: Path) -> int:
    """When a file was last touched; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
