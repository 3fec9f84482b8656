"""What a cohort will cost: a few of its slides are prepared and counted, the others are taken for like them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Unpack

from wsigen.base.errors import ConfigError, ResourceError
from wsigen.cohort.check import Needs, check_slides
from wsigen.cohort.execution import EXECUTION, execution_of, with_execution
from wsigen.cohort.plan import CohortPlan, read_plan
from wsigen.cohort.slides import CohortSlide, slides_of
from wsigen.run.config import RunConfig
from wsigen.run.display import duration
from wsigen.run.engine.workers import Workers
from wsigen.run.estimate.estimate import cost_of
from wsigen.run.estimate.memory import Projection, allowed_memory, demand_memory, existing_parent, gib, project_run
from wsigen.run.estimate.speed import Speed, measure_speed
from wsigen.run.keywords import with_settings
from wsigen.run.prepare import Prepared, prepare
from wsigen.run.typed_settings import ResumeSettings

MOST_KINDS = 3
"""Kinds of slides of which one is prepared and counted, which takes seconds; of more kinds those of most area stand for all.

That of the largest slide is always among them, as it decides what memory and disk must hold.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Slides that cost alike: how many there are, and the first of them, prepared."""

    count: int
    prepared: Prepared
    projection: Projection


@dataclass(frozen=True, slots=True)
class CohortEstimate:
    """The cost of a cohort.

    Attributes
    ----------
    slides, looked_at : int
        How many there are, and of how many the cost was counted.
    calls, windows : int
        Rows of model calls and decoded windows, of all slides.
    seconds : float
        Of all slides one after the other, from a short measurement on this machine.
    disk, alive : int
        Bytes of all slides, and of the runs that are alive at a time.
    memory : int
        Bytes of the largest run.
    workers : Workers
        Who is to do it.
    """

    slides: int
    looked_at: int
    calls: int
    windows: int
    seconds: float
    disk: int
    alive: int
    memory: int
    workers: Workers

    def __str__(self) -> str:
        """For people, a line each."""
        where = f"{self.workers.count} worker{'s' if self.workers.count > 1 else ''} here"
        return "\n".join(
            [
                f"slides:       {self.slides:,} (counted on {self.looked_at} of them)",
                f"model calls:  {self.calls:,} crops, {self.windows:,} decoded windows",
                f"time:         about {duration(self.seconds)} with {where}, {duration(self.seconds / self.slides)} a slide",
                f"memory:       {gib(self.memory)}",
                f"disk:         {gib(self.disk)} of slides, {gib(self.alive)} more while they are made",
            ]
        )


@with_settings(EXECUTION)
def estimate_cohort(
    plan: str | Path | CohortPlan, *, runs: int = 2, machine: str | Path | None = None, **settings: Unpack[ResumeSettings]
) -> CohortEstimate:
    """Say what a cohort would cost: count and measure without generating anything.

    Parameters
    ----------
    plan : str, Path or CohortPlan
        The plan.
    runs, machine, **settings
        As for `make_cohort`.

    Raises
    ------
    WsigenError
        As ``make_cohort`` does for the same plan.
    """
    source = str(plan) if isinstance(plan, str | Path) else plan.name
    plan = plan if isinstance(plan, CohortPlan) else read_plan(plan)
    if runs < 1:
        raise ConfigError(f"runs: {runs}; one slide at a time is the least")
    slides = slides_of(plan, source)
    needs = check_slides(slides, source)
    execution = execution_of(settings, machine)
    workers = Workers.of(execution)
    begin = perf_counter()
    kinds = _kinds(slides, needs, lambda config: config.merged(device=execution.device))
    started = (perf_counter() - begin) / len(kinds)
    speeds: dict[str, Speed] = {}
    for kind in sorted(kinds, key=_area, reverse=True):
        if kind.prepared.spec.model not in speeds:
            speeds[kind.prepared.spec.model] = measure_speed(kind.prepared, workers.threads, perf_counter, None)
    costs = [(k.count, cost_of(k.prepared, k.projection, workers, speeds[k.prepared.spec.model], started)) for k in kinds]
    disk, alive = _room(kinds, runs)
    return CohortEstimate(
        slides=len(slides),
        looked_at=len(kinds),
        calls=sum(count * cost.calls for count, cost in costs),
        windows=sum(count * cost.windows for count, cost in costs),
        seconds=sum(count * cost.seconds for count, cost in costs),
        disk=disk,
        alive=alive,
        memory=max(k.projection.total(workers.count, workers.processes, workers.tasks_at_once) for k in kinds),
        workers=workers,
    )


def demand_resources(folder: Path, slides: list[CohortSlide], needs: Needs, execution: RunConfig, runs: int) -> None:
    """Refuse a cohort that needs more memory than there is, or disk where it would lie, or a device that is not there.

    Its slides do not look again: beside others that are being made, less of both is free than they may use.

    Parameters
    ----------
    slides : list of CohortSlide
        Those that are still to be made.
    needs : Needs
        What `check_slides` found of all.
    execution : RunConfig
        Where and how.
    runs : int
        Runs that are alive at a time.

    Raises
    ------
    ResourceError
        If there is too little memory or room.
    ConfigError
        If the models cannot be loaded on the device.
    """
    kinds, workers = _kinds(slides, needs, lambda config: with_execution(config, execution)), Workers.of(execution)
    if workers.scheduler is None:
        allowed = allowed_memory(execution)
        for kind in kinds:
            demand_memory(kind.projection, workers.count, workers.processes, allowed, workers.tasks_at_once)
    disk, alive = _room(kinds, runs)
    place = existing_parent(folder)
    free = shutil.disk_usage(place).free
    if disk + alive > free:
        raise ResourceError(
            f"projected disk space {gib(disk)} for {len(slides)} slides, and {gib(alive)} for {min(runs, len(slides))} on "
            f"their way, exceeds the {gib(free)} free at {place}; free some, make fewer, or lower --runs"
        )


# -- inside ------------------------------------------------------------------------------------------------------------


def _kinds(slides: Iterable[CohortSlide], needs: Needs, change: Callable[[RunConfig], RunConfig]) -> list[Kind]:
    """Slides grouped by what decides their cost; of more kinds than are looked at, those of most area stand for the others."""
    groups: dict[tuple[object, ...], list[CohortSlide]] = {}
    px: dict[tuple[object, ...], int] = {}
    for slide in slides:
        area = _area_of(slide, needs)
        what = (slide.part, slide.config.size or area, slide.mode, slide.model)
        groups.setdefault(what, []).append(slide)
        px[what] = area
    whole = {what: px[what] * len(group) for what, group in groups.items()}
    largest = max(groups, key=lambda what: px[what])
    others = sorted(groups.keys() - {largest}, key=lambda what: whole[what], reverse=True)
    chosen = [largest, *others[: MOST_KINDS - 1]]
    factor = sum(whole.values()) / sum(whole[what] for what in chosen)
    kinds = []
    for group in (groups[what] for what in chosen):
        prepared = prepare(change(group[0].config), Path("estimate.ome.tiff"))
        projection = project_run(prepared.spec, prepared.card, prepared.free_layout)
        kinds.append(Kind(round(len(group) * factor), prepared, projection))
    return kinds


def _area_of(slide: CohortSlide, needs: Needs) -> int:
    """The px of a slide, as the plan or its file says."""
    size = slide.config.size
    return needs.areas[slide.source] if size is None and slide.source is not None else math.prod(size or (1,))


def _area(kind: Kind) -> int:
    return kind.prepared.layout.height * kind.prepared.layout.width


def _room(kinds: list[Kind], runs: int) -> tuple[int, int]:
    """Bytes of all slides, and of the largest runs that may be alive at a time with their spools."""
    disk = sum(kind.count * (kind.projection.disk_output // 2) for kind in kinds)
    largest = max(k.projection.disk_state + k.projection.disk_output // 2 + k.projection.disk_scratch for k in kinds)
    return disk, min(runs, sum(kind.count for kind in kinds)) * largest
