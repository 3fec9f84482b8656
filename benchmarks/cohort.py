"""A cohort over one cluster: seconds over those of single runs and of one worker, what its driver costs, memory of many slides
over few, time until a plan is shown; whether the same pixels come out, and whether what lies beside them is complete and valid.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil

import wsigen
from benchmarks.bundles import make_bundle
from benchmarks.figure import Figure, Options
from benchmarks.processes import cpu_seconds, in_process, peak_rss, workers_of
from wsigen.cohort.make import make_cohort
from wsigen.cohort.plan import CohortPlan
from wsigen.cohort.slides import slides_of
from wsigen.cohort.table import read_rows
from wsigen.run.engine.stage import Stage

SLIDES, WORKERS = 8, 2
FEW, MANY, QUICK = 10, 200, 40
LARGE_PLAN = 1000
SUBTYPES = "even"
KINDS = f"{SUBTYPES}: {{rest: 1.0, shape: {{tissue: 0.6}}}}\n"

SCALED, QUICK_SCALED = 4, 2
"""Slides of the cohort that one and two workers make."""

FASTER, MEMORY, SECONDS = 1 / 1.15, 1.1, 30.0
"""Targets: seconds over those of single runs, memory over that of few slides, seconds until a plan is shown or estimated."""

TWO, DRIVER = 1.9, 0.03
"""Targets: seconds of one worker over those of two, the driver's share of a core."""


class Shares:
    """A watcher of a cohort: its seconds, and CPU seconds of the driver and of its workers, from the first look to the last."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looks: list[tuple[float, float]] = []

    def __call__(self, stage: Stage) -> None:
        """Look at all processes; at the end some may be gone."""
        self.seconds = max(self.seconds, stage.seconds)
        with suppress(psutil.Error):
            now = process_time(), sum(cpu_seconds(worker.pid) for worker in workers_of(os.getpid()))
            self._looks = [*self._looks[:1], now] if not self._looks or now[1] >= self._looks[-1][1] else self._looks

    @property
    def driver(self) -> float:
        """CPU seconds of the driver over those of a worker: its share of a core where workers have one each and always work."""
        (first, others), (last, all_others) = self._looks[0], self._looks[-1]
        return (last - first) / ((all_others - others) / WORKERS)


def measure(options: Options) -> list[Figure]:
    """Speed of a cohort of a model whose calls take their time; memory with one whose calls do not."""
    many = QUICK if options.quick else MANY
    kinds = options.folder / "kinds.yaml"
    kinds.write_text(KINDS)
    heavy = make_bundle(options.folder / "heavy", widths=(32, 64), decoder_width=16)
    light = make_bundle(options.folder / "light", widths=(4,), decoder_width=4)
    together, alone = in_process(both_ways, heavy, kinds, options.folder)
    slides = QUICK_SCALED if options.quick else SCALED
    one, _ = in_process(by_processes, options.model, options.folder, slides, 1)
    two, driver = in_process(by_processes, options.model, options.folder, slides, WORKERS)
    few, lots = (in_process(memory_of, light, kinds, options.folder, count) for count in (FEW, many))
    shown, estimated = in_process(before_work, options.model, options.folder)
    differing = in_process(differing_slides, options.folder / f"{FEW}", light, options.folder)
    lacking = in_process(lacking_files, options.folder / f"{FEW}")
    plan = f"a plan of {LARGE_PLAN:,} slides"
    return [
        Figure(
            "cohort", f"seconds of {SLIDES} slides as a cohort over single runs, {WORKERS} workers", together / alone, FASTER,
            f"{together:.0f} over {alone:.0f} s, all in one process with the model loaded; slides of 1280 x 1024 px, 6 steps",
        ),
        Figure(
            "cohort", f"a cohort of {slides} slides: one single-threaded worker over two, wall time", one / two, float("inf"),
            f"{one:.0f} over {two:.0f} s; processes, slides of 2048 px, 4 steps; {os.cpu_count()} cores for all",
            floor=TWO,
        ),
        Figure(
            "cohort", "driver and scheduler of this cohort: share of a core", driver, DRIVER,
            "their CPU seconds over those of a worker, the model loaded before", "cores",
        ),
        Figure("cohort", f"memory: cohort of {many} slides over {FEW}", lots / few, MEMORY, f"{lots >> 20} : {few >> 20} MiB"),
        Figure("cohort", f"preview of {plan}", shown, SECONDS, "24 layouts", "s"),
        Figure("cohort", f"estimate of {plan}", estimated, SECONDS, "3 slides counted, one measurement", "s"),
        Figure(
            "cohort", "slides whose level-0 SHA-256 differs", differing, 0,
            f"{FEW} slides by {WORKERS} workers; by one; the last slide first, stopped half-way and gone on with", "",
        ),
        Figure(
            "cohort", "to be written by hand: splits, tiles and masks, card, checksums, a valid Croissant description",
            len(lacking), 0, "; ".join(lacking) or "'make' and 'export --masks' write them all; mlcroissant finds no error", "",
        ),
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


def by_processes(model: str, folder: Path, slides: int, workers: int) -> tuple[float, float]:
    """Seconds of a cohort by worker processes of one thread, and the driver's share of a core."""
    plan = plan_of(model, None, slides, size={"2048x2048": 1.0}, settings={"steps": 4, "guidance": 0.0})
    wsigen.generate(folder / f"first-{workers}.ome.tiff", slides_of(plan)[0].config, size=(512, 512), steps=1)
    watch = Shares()
    make_cohort(plan, folder / f"by-{workers}", workers=workers, processes=True, threads=1, watch=watch)
    return watch.seconds, watch.driver * workers / WORKERS


def memory_of(model: Path, kinds: Path, folder: Path, slides: int) -> int:
    """Peak memory of a process that makes so many slides, bytes."""
    plan = plan_of(model, kinds, slides, size={"512x512": 1.0}, settings={"steps": 1, "guidance": 0.0})
    make_cohort(plan, folder / f"{slides}", workers=WORKERS)
    return peak_rss()


def differing_slides(cohort: Path, model: Path, folder: Path) -> int:
    """Slides of a cohort that come out with other pixels, or not at all, however they are made again."""
    names = [row["id"] for row in read_rows(cohort)]
    again = partial(wsigen.regenerate_cohort, cohort, places={model.name: model})
    tries = [again(workers=1)]

    def stop(stage: Stage) -> None:
        if stage.done > stage.total / 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        again(slides=names[::-1], out=folder / "again", workers=WORKERS, watch=stop)
    tries.append(again(slides=names[::-1], out=folder / "again", workers=WORKERS))
    return sum(len(names) - len(found.same) for found in tries)


def lacking_files(cohort: Path) -> list[str]:
    """What is not there after ``make`` and ``export --masks``, or is wrong."""
    import mlcroissant

    wsigen.export_cohort(cohort, tiles=256, masks=True, min_tissue=0.0)
    wanted = ("cohort.csv", "README.md", "LICENSE", "SHA256SUMS", "dataset.yaml", "tiles/tiles.csv", "tiles/dataset.yaml")
    lacking = [name for name in wanted if not (cohort / name).is_file()]
    lacking += [f"the split of {row['id']}" for row in read_rows(cohort) if not row["split"]]
    counts = [len(list(cohort.glob(f"tiles/*/{kind}/*"))) for kind in ("images", "masks")]
    lacking += ["tiles with masks"] if not counts[0] or len(set(counts)) > 1 else []
    try:
        said = mlcroissant.Dataset(jsonld=str(cohort / "croissant.json")).metadata.ctx.issues.report()
    except mlcroissant.ValidationError as error:
        said = str(error)
    return [*lacking, *wsigen.verify_cohort(cohort).problems, *([said] if said else [])]


def before_work(model: str, folder: Path) -> tuple[float, float]:
    """Seconds of preview and estimate."""
    plan = plan_of(model, None, LARGE_PLAN, size={"8192x6144": 0.5, "12288x8192": 0.5}, mode={"shifted": 0.5, "pathup": 0.5})
    begin = perf_counter()
    wsigen.preview_cohort(plan, folder / "layouts.png")
    shown = perf_counter() - begin
    begin = perf_counter()
    wsigen.estimate_cohort(plan, workers=WORKERS)
    return shown, perf_counter() - begin
