"""A run that faults befall, one after another, each while work goes on."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from benchmarks.faults.fleet import POLL_S
from benchmarks.faults.kinds import END, END_WHAT, KINDS, MissedError, Scene
from benchmarks.faults.progress import half_steps

PATIENCE_S = 600.0
"""Seconds after a fault within which work must go on: far more than it takes, for machines that are busy with other work."""

STARTS = 4
"""Times in a row a driver may end without having done anything."""

END_S = 0.6
"""Seconds over which the moments of kills at the end are spread: writing and clearing take about so long."""


class CampaignError(RuntimeError):
    """A run that did not go on; the message holds the driver's last words."""


@dataclass
class Fault:
    """What one fault came to.

    Attributes
    ----------
    kind:
        Its name.
    half_step:
        Half-steps and blocks done when it struck.
    seconds:
        From the end of the fault to work going on.
    ended:
        Whether the driver ended by it, other than by being killed.
    """

    kind: str
    half_step: int
    seconds: float = 0.0
    ended: bool = False


@dataclass
class Campaign:
    """Faults in a drawn order at drawn moments.

    Parameters
    ----------
    scene:
        What there is to harm.
    total:
        Half-steps and blocks of the whole run.

    Attributes
    ----------
    faults:
        Those that struck.
    odd:
        What should not have happened, one line each.
    """

    scene: Scene
    total: int
    faults: list[Fault] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def strike_all(self, kinds: list[str]) -> None:
        """Let all faults strike, spread over the run."""
        for k, kind in enumerate(kinds):
            moment = self._next_moment(len(kinds) - k)
            while True:
                done = self._drive_to(moment)
                if self.scene.driver.code == 0:
                    self.odd.append(f"the run ended before {len(kinds) - k} of the faults could strike: give it more tasks")
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

    # -- inside --------------------------------------------------------------------------------------------------------

    def _next_moment(self, left: int) -> int:
        """Half-steps at which the next fault strikes: early in its share, as work goes on while some last."""
        now = half_steps(self.scene.run_dir)
        return now + round((self.total - now) / (left + 1) * self.scene.chance.uniform(0.0, 0.4))

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
        what = KINDS[fault.kind].what if fault.kind in KINDS else END_WHAT
        share = 100 * fault.half_step / self.total
        text = f"{len(self.faults):4d}  at {share:5.1f} %  {what}: went on after {fault.seconds:.1f} s"
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
                self.odd.append(f"the driver ended for no known fault: {scene.driver.last_line()}")
            else:
                fault.ended = True
        self._count_starts()
        scene.driver.start(begun=(scene.run_dir / "run.json").exists())

    def _count_starts(self) -> None:
        """Give up on a driver that ends again and again without having done anything."""
        now = half_steps(self.scene.run_dir)
        self._idle_starts = self._idle_starts + 1 if now == self._last_start else 0
        self._last_start = now
        if self._idle_starts > STARTS:
            raise CampaignError(f"the driver ends again and again:\n{self.scene.driver.last_words()}")

    _idle_starts: int = 0
    _last_start: int = -1

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
