"""A whole run, stage by stage, and what binds each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale.events import Independent, Platform, denoise, longest_chain, simulate
from benchmarks.scale.slide import Costs, DecodeTasks, PassTasks, Slide, write_sections
from benchmarks.scale.times import Scenario, TaskTimes
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.run.config import make_config
from wsigen.run.prepare import prepare


@dataclass(frozen=True, slots=True)
class Found:
    """What a run took.

    Attributes
    ----------
    stages:
        Name, seconds, what binds it.
    tasks, moved_gb:
        How many tasks there were, GB moved.
    """

    stages: list[tuple[str, float, str]]
    tasks: int
    moved_gb: float

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(seconds for _, seconds, _ in self.stages)

    @property
    def binds(self) -> str:
        """What binds for the greatest part of the time, and for how much of it."""
        shares: dict[str, float] = {}
        for _, seconds, cause in self.stages:
            shares[cause] = shares.get(cause, 0.0) + seconds / self.seconds
        cause = max(shares, key=lambda name: shares[name])
        return f"{cause} ({shares[cause]:.0%})"

    def share(self, *names: str) -> float:
        """Of the time, that of some stages."""
        return sum(seconds for name, seconds, _ in self.stages if name in names) / self.seconds


def open_slide(folder: Path, size: int, chunk: int, layout: str, steps: int | None, levels: int, model: str) -> Slide:
    """Prepare a square slide, as ``generate`` would (WsigenError if it would refuse)."""
    name = next(c.name for c in check_bundle(find_bundle(model)).table if not c.background)
    what: dict[str, object] = {"class_name": name}
    if layout != "all tissue":
        what = {"layout": write_sections(folder / "layout.geojson", size, name)}
    settings = {"model": model, "size": (size, size), "chunk": chunk, "steps": steps, "levels": levels, **what}
    return Slide(prepare(make_config({k: v for k, v in settings.items() if v is not None}), folder / "slide.ome.tiff"))


def run_slide(slide: Slide, times: TaskTimes, scenario: Scenario, platform: Platform) -> Found:
    """Simulate a run from the class map to the file."""
    costs = Costs(slide, times, scenario)
    passes = [PassTasks(costs, plan) for plan in slide.plans]
    stages = [("class map", sum(part.prepare.alone(platform.store) for part in passes), "class map")]
    tasks, moved = 0, 0.0
    for part in passes:
        plan = part.plan
        outcome = denoise(plan.grid, part.active, plan.steps, part.load, platform)
        chain = longest_chain(plan.grid, part.active, plan.steps, part.load, platform)
        stages.append(("denoise", outcome.seconds, _binding(outcome.bounds(platform, chain))))
        one = part.calibrate.alone(platform.store) + platform.driver + platform.scheduler
        stages.append(("calibrate", one, "statistics"))
        tasks, moved = tasks + outcome.tasks + 1, moved + outcome.size
    decode = DecodeTasks(costs, passes[-1])
    blocks = list(decode.grid)
    outcome = simulate(Independent(blocks), decode.load, platform)
    chain = max(decode.load(0, ij).alone(platform.store) for ij in blocks) + platform.driver + platform.scheduler
    stages.append(("decode", outcome.seconds, _binding(outcome.bounds(platform, chain))))
    stages.append(("file", decode.file.alone(platform.store), "file"))
    return Found(stages, tasks + outcome.tasks, (moved + outcome.size) / 1e9)


def _binding(bounds: dict[str, float]) -> str:
    """The bound that is the highest."""
    return max(bounds, key=lambda name: bounds[name])
