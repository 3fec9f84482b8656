"""The whole experiment: an undisturbed run, a disturbed one, what differs between them, and what that proves."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import wsigen
from benchmarks.bundles import make_bundle, write_squares
from benchmarks.faults.campaign import KINDS, NETWORK, WHAT, Campaign, CampaignError, Fault, Scene, draw
from benchmarks.faults.fleet import Driver, Fleet
from benchmarks.faults.machine import make_disk, make_network
from benchmarks.faults.store import Pass, contents, differences, half_steps, sort_out, still_read
from wsigen.run.outputs import files_of
from wsigen.slide.sidecars import EDIT_SCRIPT

DISK_MIB = 1024
"""Size of the small disk: room for the run, and filled in a second."""


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes
    ----------
    faults, seed, kinds : how many, what draws them, of which kinds
    end : of them, kills of the driver while it writes or clears
    workers : worker processes
    """

    faults: int
    seed: int = 0
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    end: int = 0
    workers: int = 2

    def skipped(self, why_not: str) -> dict[str, str]:
        """Kinds that cannot strike, and why; ``why_not``: why the network cannot be cut."""
        if why_not:
            return {kind: why_not for kind in NETWORK if kind in self.kinds}
        return {"part": "it takes two workers (--workers 2)"} if self.workers < 2 and "part" in self.kinds else {}


@dataclass(frozen=True)
class Place:
    """Where one making of the slide puts its files."""

    output: Path
    run_dir: Path

    def beside(self, suffix: str) -> Path:
        """A file beside the slide."""
        return self.output.with_name(self.output.name.removesuffix(".ome.tiff") + suffix)

    def digest(self) -> str:
        """SHA-256 of level 0, as the slide's manifest has it."""
        return str(json.loads(self.beside(".json").read_text())["sha256"]["level0_tiles"])


@dataclass
class Report:
    """What a campaign proved.

    Attributes
    ----------
    seed, seconds, tasks : what drew the faults; wall time of the disturbed run; half-steps and blocks of the slide
    digest, expected : SHA-256 of level 0 of the disturbed and of the undisturbed run
    problems : one line each: other pixels, other annotations, leftovers, a driver that ended though it should not. None: passed
    skipped : kinds that this machine does not permit, with the reason
    starts, disk : times a driver was started; how the disk was filled
    healed, unread : damaged files that were made again (or deleted as they should be), and those nobody read after the damage
    """

    seed: int
    disk: str
    skipped: dict[str, str]
    seconds: float = 0.0
    tasks: int = 0
    digest: str = ""
    expected: str = ""
    starts: int = 0
    healed: int = 0
    unread: int = 0
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, changed or left over."""
        return bool(self.digest) and self.digest == self.expected and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "count": len(self.faults), "passed": self.passed, "kinds": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """One entry per kind that struck."""
        found = []
        for kind, what in WHAT.items():
            struck = [fault for fault in self.faults if fault.kind == kind]
            if struck:
                seconds, ended = [fault.seconds for fault in struck], sum(fault.ended for fault in struck)
                took = {"median_s": round(median(seconds), 1), "longest_s": round(max(seconds), 1)}
                found.append({"kind": kind, "what": what, "count": len(struck), "driver_ended": ended, **took})
        return found

    def print(self) -> None:
        """The table and the verdict."""
        from rich.console import Console
        from rich.table import Table

        title = f"{len(self.faults)} faults in one run of {self.tasks} tasks ({self.seconds:.0f} s, seed {self.seed})"
        table = Table(title=title)
        table.add_column("fault")
        for name in ("count", "driver ended", "work went on after (median), s", "(longest), s"):
            table.add_column(name, justify="right")
        for row in self.rows():
            table.add_row(*(str(row[key]) for key in ("what", "count", "driver_ended", "median_s", "longest_s")))
        for kind, reason in self.skipped.items():
            table.add_row(f"{WHAT[kind]}: skipped, {reason}", "0")
        console = Console(width=140)
        console.print(table)
        for line in (
            f"disk: {self.disk}; drivers started: {self.starts}; level 0 sha256 {self.digest or '-'}",
            f"damaged files: {self.healed} whole again or gone by their time, {self.unread} that nobody read any more",
            *(f"problem: {problem}" for problem in self.problems),
            "same pixels, same annotations, nothing left over" if self.passed else "FAILED",
        ):
            console.print(line, soft_wrap=True, markup=False)


def make_subject(folder: Path, size: int, steps: int, known: bool = False) -> dict[str, Any]:
    """Settings of the slide that is made: two passes, a sampler with a memory, tissue of two classes, and glass.

    Every kind of key is in its store. With chunks of 16 latent px ``steps`` decides how many tasks there are.

    Parameters
    ----------
    known : bool
        Whether it continues another slide, of whose pixels then latents are kept.
    """
    bundle = make_bundle(folder / "bundle", (8, 16), 8, crop=16, levels=2)
    share = size // 8
    squares = [("Stroma", share, share, 5 * share), ("Tumor", 2 * share, 2 * share, 2 * share)]
    layout = write_squares(folder / "layout.geojson", squares)
    base = {"model": str(bundle), "layout": str(layout), "size": f"{size}x{size}", "steps": steps, "chunk": 16}
    settings: dict[str, Any] = {**base, "levels": 2, "sampler": "dpm++", "seed": 11, "strength": 0.9}
    if known:
        old = folder / "old" / "old.ome.tiff"
        old.parent.mkdir()
        side = max(512, size // 2)
        wsigen.generate(old, **{**settings, "layout": None, "class_name": "Stroma", "size": (side, side), "steps": 2})
        settings |= {"extend": str(old), "at": f"{size // 4},{size // 4}"}
    return settings


def experiment(subject: dict[str, Any], plan: Plan, folder: Path) -> Report:
    """Make the slide undisturbed and disturbed, and compare; ``folder`` is an empty one for both.

    Raises
    ------
    CampaignError
        If no fault that was asked for can strike on this machine.
    """
    network, why_not = make_network(plan.workers)
    with closing(network):
        skipped, chance = plan.skipped(why_not), random.Random(plan.seed)
        kinds = draw(plan.faults - plan.end, [kind for kind in plan.kinds if kind not in skipped], chance)
        calm, place = (Place(folder / name / "slide.ome.tiff", folder / name / "slide.run") for name in ("calm", "disturbed"))
        for each in (calm, place):
            each.output.parent.mkdir()
        asked = {**subject, "size": tuple(map(int, subject["size"].split("x")))}
        wsigen.generate(calm.output, **asked, keep_run=True)  # in this process, on threads
        with closing(make_disk(folder / "disk", DISK_MIB)) as disk:
            report = Report(plan.seed, disk.kind, skipped, tasks=half_steps(calm.run_dir), expected=calm.digest())
            place = Place(place.output, disk.folder / "slide.run")
            (temporary := folder / "temporary").mkdir()
            fleet = Fleet(folder / "fleet", plan.workers, network, temporary)
            how = ["--scheduler", fleet.address]
            options = [word for key, value in subject.items() for word in (f"--{key}", str(value))]
            generate = ["generate", str(place.output), *options, "--run-dir", str(place.run_dir), "--keep-run", *how]
            driver = Driver(folder, generate, ["resume", str(place.run_dir), "--output", str(place.output), *how], temporary)
            scene = Scene(fleet, driver, network, disk, place.run_dir, chance, _readable(calm, place))
            _disturb(report, Campaign(scene, report.tasks), kinds, plan.end, calm)
            report.problems += _leftovers(place, temporary)
    _compare_outputs(report, calm, place, driver)
    shutil.rmtree(calm.run_dir)
    return report


def _disturb(report: Report, campaign: Campaign, kinds: list[str], end: int, calm: Place) -> None:
    """Let the campaign befall the run, and all processes end."""
    scene, begin = campaign.scene, monotonic()
    try:
        scene.fleet.start()
        campaign.strike_all(kinds)
        campaign.finish()
        ended = (contents(calm.run_dir), contents(scene.run_dir))
        report.problems += differences(*ended, scene.damaged)
        report.healed, report.unread = sort_out(*ended, scene.damaged)
        scene.driver.resume.append("--no-keep-run")
        campaign.strike_the_end(end)
    except CampaignError as error:
        report.problems.append(str(error))
    finally:
        scene.driver.kill()
        late = scene.fleet.stop()
    report.seconds, report.starts, report.faults = monotonic() - begin, scene.driver.starts, campaign.faults
    report.problems += [*campaign.odd, *(f"{name} did not end when asked to" for name in late)]


def _readable(calm: Place, place: Place) -> Callable[[bool], list[Path]]:
    """How to find what will still be read of the disturbed run, by the plan of the undisturbed one."""
    from wsigen.run.tasks.context import RunContext

    run = RunContext(calm.run_dir)
    passes = []
    for pass_ in run.passes:
        active = frozenset((int(i), int(j)) for i, j in zip(*pass_.state.activity.nonzero(), strict=True))
        passes.append(Pass(pass_.plan.grid, active, pass_.plan.steps))
    return lambda stopped: still_read(place.run_dir, passes, len(run.slide.grid), stopped)


def _leftovers(place: Place, temporary: Path) -> list[str]:
    """Anything but the slide and its sidecars."""
    found = [path for folder in (place.run_dir.parent, temporary) for path in sorted(folder.iterdir())]
    expected = {*files_of(place.output), place.output.with_name(EDIT_SCRIPT)}
    return [f"left over: {path}" for path in (*found, *sorted(set(place.output.parent.iterdir()) - expected))]


def _compare_outputs(report: Report, calm: Place, place: Place, driver: Driver) -> None:
    """Pixels, annotations, and no traceback in the driver's log."""
    try:
        report.digest = place.digest()
        if place.beside(".geojson").read_bytes() != calm.beside(".geojson").read_bytes():
            report.problems.append("the annotations are not those of the undisturbed run")
        if place.output.read_bytes() != calm.output.read_bytes():
            report.problems.append("the slide's file is not the one of the undisturbed run")
    except OSError as error:
        report.problems.append(f"no slide: {error}")
    if "Traceback" in driver.log.read_text(errors="replace"):
        report.problems.append(f"a traceback in {driver.log}")
