"""The whole experiment: an undisturbed run, a disturbed one, and what differs between them."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from benchmarks.faults.campaign import Campaign, CampaignError, draw
from benchmarks.faults.disk import make_disk
from benchmarks.faults.fleet import Driver, Fleet
from benchmarks.faults.kinds import KINDS, NETWORK, Scene
from benchmarks.faults.network import Network, make_network
from benchmarks.faults.progress import contents, half_steps
from benchmarks.faults.readers import Pass, sort_out, still_read
from benchmarks.faults.report import Report
from benchmarks.faults.subject import Place, Subject

DISK_MIB = 1024
"""Size of the small disk: room for the run, and filled in a second."""

SIDECARS = (".ome.tiff", ".geojson", ".json", ".png", ".groovy")


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes
    ----------
    faults, seed, kinds:
        How many, what draws them, of which kinds.
    end:
        Of them, kills of the driver while it writes or clears.
    workers:
        Worker processes.
    """

    faults: int
    seed: int = 0
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    end: int = 0
    workers: int = 2


def experiment(subject: Subject, plan: Plan, folder: Path) -> Report:
    """Make the slide undisturbed and disturbed, and compare.

    Parameters
    ----------
    folder:
        An empty folder for both.

    Raises
    ------
    CampaignError
        If no fault that was asked for can strike on this machine.
    """
    network, why_not = make_network(plan.workers)
    with closing(network):
        skipped = _skipped(plan, why_not)
        chance = random.Random(plan.seed)
        kinds = draw(plan.faults - plan.end, [kind for kind in plan.kinds if kind not in skipped], chance)
        return _experiment(subject, plan, folder, network, skipped, kinds, chance)


def _skipped(plan: Plan, why_not: str) -> dict[str, str]:
    """Kinds that cannot strike, and why."""
    if why_not:
        return {kind: why_not for kind in NETWORK if kind in plan.kinds}
    return {"part": "it takes two workers (--workers 2)"} if plan.workers < 2 and "part" in plan.kinds else {}


def _experiment(
    subject: Subject,
    plan: Plan,
    folder: Path,
    network: Network,
    skipped: dict[str, str],
    kinds: list[str],
    chance: random.Random,
) -> Report:
    calm = Place(folder / "calm" / "slide.ome.tiff", folder / "calm" / "slide.run")
    calm.output.parent.mkdir()
    _undisturbed(subject, calm)
    disk = make_disk(folder / "disk", DISK_MIB)
    report = Report(plan.seed, disk.kind, skipped, tasks=half_steps(calm.run_dir), expected=calm.digest())
    place = Place(folder / "disturbed" / "slide.ome.tiff", disk.folder / "slide.run")
    place.output.parent.mkdir()
    temporary = folder / "temporary"
    temporary.mkdir()
    fleet = Fleet(folder / "fleet", plan.workers, network, temporary)
    how = ["--scheduler", fleet.address]
    generate = subject.command(place.output, "--run-dir", str(place.run_dir), "--keep-run", *how)
    driver = Driver(folder, generate, ["resume", str(place.run_dir), *how], temporary)
    scene = Scene(fleet, driver, network, disk, place.run_dir, chance, _readable(calm, place))
    campaign = Campaign(scene, report.tasks)
    begin = monotonic()
    try:
        fleet.start()
        campaign.strike_all(kinds)
        campaign.finish()
        ended = (contents(calm.run_dir), contents(place.run_dir))
        report.problems += _differences(*ended, scene.damaged)
        report.healed, report.unread = sort_out(*ended, scene.damaged)
        driver.resume.append("--no-keep-run")
        campaign.strike_the_end(plan.end)
    except CampaignError as error:
        report.problems.append(str(error))
    finally:
        driver.kill()
        late = fleet.stop()
        left = _leftovers(place, temporary)
        disk.close()
    report.seconds, report.starts, report.faults = monotonic() - begin, driver.starts, campaign.faults
    report.problems += [*campaign.odd, *left, *(f"{name} did not end when asked to" for name in late)]
    _compare_outputs(report, calm, place, driver)
    shutil.rmtree(calm.run_dir)
    return report


def _undisturbed(subject: Subject, calm: Place) -> None:
    """The same slide in one process, on threads."""
    from wsigen.cli import main

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given, sys.argv = sys.argv, ["wsigen", *subject.command(calm.output, "--keep-run")]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.argv = given


def _readable(calm: Place, place: Place) -> Callable[[bool], list[Path]]:
    """How to find what will still be read of the disturbed run, by the plan of the undisturbed one."""
    from wsigen.run.tasks.context import RunContext

    run = RunContext(calm.run_dir)
    passes = []
    for part in run.passes:
        active = frozenset((int(i), int(j)) for i, j in zip(*part.state.activity.nonzero(), strict=True))
        passes.append(Pass(part.plan.grid, active, part.plan.steps))
    return lambda stopped: still_read(place.run_dir, passes, len(run.slide.grid), stopped)


def _differences(calm: dict[str, bytes], disturbed: dict[str, bytes], damaged: Mapping[str, bytes]) -> list[str]:
    """Files of the finished run's store that are not as in the undisturbed run: swept alike, and equal to the byte.

    A key that lies there just as the harness damaged it is none: whatever was made from it is compared as well, so nobody who
    read it took it for whole, and nobody will read it again. Blocks are part of the slide and must be whole.
    """
    found = [f"left over in the store: {name}" for name in sorted(disturbed.keys() - calm.keys())]
    found += [f"missing from the store: {name}" for name in sorted(calm.keys() - disturbed.keys())]
    both = sorted(calm.keys() & disturbed.keys())
    unread = {name for name, left in damaged.items() if disturbed.get(name) == left and not name.endswith(".blk")}
    return found + [f"not as undisturbed: {name}" for name in both if calm[name] != disturbed[name] and name not in unread]


def _leftovers(place: Place, temporary: Path) -> list[str]:
    """Anything but the slide and its sidecars."""
    found = [f"left over: {path}" for folder in (place.run_dir.parent, temporary) for path in sorted(folder.iterdir())]
    expected = {place.beside(suffix) for suffix in SIDECARS}
    return found + [f"left over: {path}" for path in sorted(set(place.output.parent.iterdir()) - expected)]


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
