"""``wsigen cohort make``: a plan in, a folder of labelled slides out. The same call again goes on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Unpack

from wsigen.base.errors import ConfigError, OutputError, RunError, refusing
from wsigen.cohort.check import Needs, check_slides, demand_licences, demand_one_licence
from wsigen.cohort.estimate import demand_resources
from wsigen.cohort.execution import EXECUTION, execution_of, with_execution
from wsigen.cohort.figures import read_figures, why_private_is_unknown
from wsigen.cohort.folder import RECIPE, CohortFolder
from wsigen.cohort.labels import write_labels
from wsigen.cohort.lanes import Lanes
from wsigen.cohort.made import MadeCohort
from wsigen.cohort.plan import CohortPlan, read_plan
from wsigen.cohort.publish import write_cohort_files
from wsigen.cohort.recipe import Recipe, claim, local_plan, make_recipe, portable
from wsigen.cohort.slides import CohortSlide, slides_of
from wsigen.run.config import RunConfig
from wsigen.run.display import showing
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.stage import Watcher
from wsigen.run.engine.workers import Workers, demand_main_guard
from wsigen.run.generate import do_run, prepare_run
from wsigen.run.keywords import with_settings
from wsigen.run.prepare import Prepared
from wsigen.run.typed_settings import ResumeSettings

RUNS, MOST_RUNS = 2, 4
"""Slides on their way at a time; a worker keeps as many runs open."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """A cohort in its folder.

    Attributes
    ----------
    folder : Path
        Where it lies.
    slides : tuple of CohortSlide
        All of the plan.
    made : tuple of str
        Ids of the slides that are there.
    failed : dict of str to str
        What failed too often this time, and why.
    """

    folder: Path
    slides: tuple[CohortSlide, ...]
    made: tuple[str, ...]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all slides are there."""
        return len(self.made) == len(self.slides)


@with_settings(EXECUTION)
def make_cohort(
    plan: str | Path | CohortPlan,
    out: str | Path,
    *,
    runs: int = RUNS,
    publish: bool = False,
    machine: str | Path | None = None,
    progress: bool = False,
    watch: Watcher | None = None,
    **settings: Unpack[ResumeSettings],
) -> Cohort:
    """Make a cohort of labelled slides, or go on with one.

    Parameters
    ----------
    plan : str, Path or CohortPlan
        The plan.
    out : str or Path
        Its folder. It holds no other cohort; one of the same plan, perhaps with fewer slides, is gone on with.
    runs : int
        Slides on their way at a time, 1 to 4: bounds the disk that unfinished slides take.
    publish : bool
        Refuse what cannot be published: models or training data without a licence, and a cohort whose privacy is not measured.
    machine : str or Path, optional
        As for `wsigen.generate`.
    progress, watch
        As for `wsigen.generate`; the stage counts hundredths of slides.
    **settings
        Execution settings of `wsigen.generate`, e.g. ``workers=4``.

    Returns
    -------
    Cohort
        What is there. A slide that failed three times is named in ``failed``; the same call takes it up again.

    Raises
    ------
    WsigenError
        One line for whatever is wrong with the plan, the folder or the machine.

    Examples
    --------
    >>> cohort = wsigen.make_cohort("plan.yaml", "cohort", workers=4, progress=True)
    """
    source = str(plan) if isinstance(plan, str | Path) else plan.name
    plan = plan if isinstance(plan, CohortPlan) else read_plan(plan)
    if not 1 <= runs <= MOST_RUNS:
        raise ConfigError(f"runs: {runs}; 1 to {MOST_RUNS} slides can be made at a time")
    slides = slides_of(plan, source)
    needs = check_slides(slides, source)
    demand_one_licence(plan, needs, source)
    if publish:
        demand_licences(plan, slides, needs)
    found = portable(plan)
    recipe = make_recipe(found, needs)
    folder = CohortFolder(Path(out))
    execution = execution_of(settings, machine)
    begin: Callable[[], None] = partial(claim, folder, found, recipe)
    return make_slides(folder, recipe, found.places, execution, runs, begin, publish, progress, watch)


def make_slides(
    folder: CohortFolder,
    recipe: Recipe,
    places: Mapping[str, Path],
    execution: RunConfig,
    runs: int,
    begin: Callable[[], None],
    publish: bool = False,
    progress: bool = False,
    watch: Watcher | None = None,
    only: Callable[[Sequence[CohortSlide]], Sequence[CohortSlide]] = lambda slides: slides,
) -> Cohort:
    """Make the slides of a recipe that are not there yet.

    Parameters
    ----------
    places : mapping of str to Path
        Where models and references lie.
    execution : RunConfig
        Where and how; the rest of it does not count.
    begin : callable
        Claims the folder; called once nobody else works in it.
    only : callable
        Which slides, and in which order.
    """
    workers = Workers.of(execution)
    demand_main_guard(workers)
    with refusing(OutputError, f"{folder.root}: cannot be made", "choose another folder"):
        folder.root.mkdir(parents=True, exist_ok=True)
    with folder.held():
        begin()
        plan = local_plan(recipe, folder.root, places, str(folder.root))
        every = slides_of(plan, str(folder.root))
        needs = check_slides(every, str(folder.root))
        _demand_models(needs, recipe)
        wanted = [slide for slide in only(every) if not folder.done(slide.id, slide.config.drawn)]
        for slide in every:
            if folder.done(slide.id, slide.config.drawn) and folder.work(slide.id).exists():
                folder.clear_work(slide.id)  # killed at the very end of a slide
        failed: dict[str, str] = {}
        if wanted:
            demand_resources(folder.root, wanted, needs, execution, runs)
        recipe.write(folder.root / RECIPE)
        if wanted:
            by_id = {slide.id: slide for slide in wanted}
            lanes = Lanes(
                list(by_id),
                lambda name, cluster, look: _make(folder, by_id[name], execution, workers, cluster, look),
                folder.clear_work,
                plan.name,
            )
            with showing(progress, watch) as look, workers.clusters() as another:
                lanes.run(another, runs, look or (lambda stage: None))
            failed = lanes.failed
        made = tuple(slide.id for slide in every if folder.done(slide.id, slide.config.drawn))
        folder.clear()
        if made:
            there = [slide for slide in every if folder.done(slide.id, slide.config.drawn)]
            write_cohort_files(folder, MadeCohort(recipe, plan, there, len(every)))
        if publish:
            _demand_privacy(folder, len(made))
    return Cohort(folder.root, tuple(every), made, failed)


# -- inside ------------------------------------------------------------------------------------------------------------


def _make(
    folder: CohortFolder, slide: CohortSlide, execution: RunConfig, workers: Workers, cluster: Cluster, watch: Watcher
) -> None:
    """Make one slide with its labels, or go on with it, and give its files their places."""
    made = folder.made(slide.id)
    if not folder.complete(slide.id, slide.config.drawn):
        made.slide.parent.mkdir(parents=True, exist_ok=True)
        prepared = prepare_run(made.slide, with_execution(slide.config, execution), workers, alone=False)
        _write_labels(made.labels, prepared)
        do_run(prepared, workers, cluster, watch)
    folder.publish(slide.id)


def _demand_models(needs: Needs, recipe: Recipe) -> None:
    """Refuse models that are not those of the recipe (RunError)."""
    for name, model in needs.models.items():
        if model.sha256 != recipe.models.get(name, {}).get("sha256"):
            raise RunError(f"{model.folder}: is not the model {name!r} of the recipe (its SHA-256 differs); restore it")


def _demand_privacy(folder: CohortFolder, made: int) -> None:
    """Refuse to publish a cohort whose privacy was not measured, or is not within bounds (OutputError)."""
    reason = why_private_is_unknown(read_figures(folder.root), made)
    if reason is not None:
        raise OutputError(f"{folder.root}: is made, but cannot be published: {reason}; 'wsigen cohort report' measures it")


def _write_labels(path: Path, prepared: Prepared) -> None:
    """The class map that the slide is made from, cut at the slide's edge."""
    plan, layout = prepared.spec.passes[-1], prepared.layout
    shape = (-(-layout.height // plan.cell_px), -(-layout.width // plan.cell_px))
    write_labels(path, lambda box: layout.class_map(box, plan.cell_px), shape, prepared.card.table)
