"""A cohort over one cluster: seconds over those of single runs, memory of many slides over few, time until a plan is shown."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import wsigen
from benchmarks.bundles import make_bundle
from benchmarks.figure import Figure, Options
from benchmarks.processes import in_process, peak_rss
from wsigen.cohort.make import make_cohort
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.slides import slides_of

SLIDES, WORKERS = 8, 2
FEW, MANY, QUICK = 10, 200, 40
LARGE_PLAN = 1000
SUBTYPES = "even"
KINDS = f"{SUBTYPES}: {{rest: 1.0, shape: {{tissue: 0.6}}}}\n"

FASTER, MEMORY, SECONDS = 1 / 1.15, 1.1, 30.0
"""Targets: seconds over those of single runs, memory over that of few slides, seconds until a plan is shown or estimated."""


def measure(options: Options) -> list[Figure]:
    """Speed of a cohort of a model whose calls take their time; memory with one whose calls do not."""
    many = QUICK if options.quick else MANY
    kinds = options.folder / "kinds.yaml"
    kinds.write_text(KINDS)
    heavy = make_bundle(options.folder / "heavy", widths=(32, 64), decoder_width=16)
    light = make_bundle(options.folder / "light", widths=(4,), decoder_width=4)
    together, alone = in_process(both_ways, heavy, kinds, options.folder)
    few, lots = (in_process(memory_of, light, kinds, options.folder, count) for count in (FEW, many))
    shown, estimated = in_process(before_work, options.model, options.folder)
    plan = f"a plan of {LARGE_PLAN:,} slides"
    return [
        Figure(
            "cohort", f"seconds of {SLIDES} slides as a cohort over single runs, {WORKERS} workers", together / alone, FASTER,
            f"{together:.0f} over {alone:.0f} s, all in one process with the model loaded; slides of 1280 x 1024 px, 6 steps",
        ),
        Figure("cohort", f"memory: cohort of {many} slides over {FEW}", lots / few, MEMORY, f"{lots >> 20} : {few >> 20} MiB"),
        Figure("cohort", f"preview of {plan}", shown, SECONDS, "24 layouts", "s"),
        Figure("cohort", f"estimate of {plan}", estimated, SECONDS, "3 slides counted, one measurement", "s"),
    ]  # fmt: skip


def plan_of(model: str | Path, kinds: Path | None, slides: int, **more: Any) -> CohortPlan:
    """A plan of layouts drawn by rule."""
    subtypes = (
        {"subtypes": {SUBTYPES: 1.0}, "subtypes_file": str(kinds)} if kinds else {"subtypes": {"solid": 0.5, "cores": 0.5}}
    )
    part: Any = {"slides": slides, **subtypes}  # pydantic reads it
    return CohortPlan(name="bench", model={str(model): 1.0}, parts=(part,), **more)


def both_ways(model: Path, kinds: Path, folder: Path) -> tuple[float, float]:
    """Seconds of a cohort, and of its slides one after the other; the model is loaded by a first slide."""
    plan = plan_of(model, kinds, SLIDES, size={"1280x1024": 1.0}, settings={"steps": 6, "guidance": 0.0, "chunk": 64})
    slides = slides_of(plan)
    wsigen.generate(folder / "first.ome.tiff", slides[0].config, workers=WORKERS)
    begin = perf_counter()
    make_cohort(plan, folder / "together", workers=WORKERS)
    together = perf_counter() - begin
    begin = perf_counter()
    for slide in slides:
        wsigen.generate(folder / f"{slide.id}.ome.tiff", slide.config, workers=WORKERS)
    return together, perf_counter() - begin


def memory_of(model: Path, kinds: Path, folder: Path, slides: int) -> int:
    """Peak memory of a process that makes so many slides, bytes."""
    plan = plan_of(model, kinds, slides, size={"512x512": 1.0}, settings={"steps": 1, "guidance": 0.0})
    make_cohort(plan, folder / f"{slides}", workers=WORKERS)
    return peak_rss()


def before_work(model: str, folder: Path) -> tuple[float, float]:
    """Seconds of preview and estimate."""
    plan = plan_of(model, None, LARGE_PLAN, size={"8192x6144": 0.5, "12288x8192": 0.5}, mode={"shifted": 0.5, "pathup": 0.5})
    begin = perf_counter()
    wsigen.preview_cohort(plan, folder / "layouts.png")
    shown = perf_counter() - begin
    begin = perf_counter()
    wsigen.estimate_cohort(plan, workers=WORKERS)
    return shown, perf_counter() - begin
