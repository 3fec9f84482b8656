"""`MadeCohort`: a cohort as it lies in its folder."""

from __future__ import annotations

from dataclasses import dataclass

from wsigen.base.errors import ConfigError
from wsigen.cohort.folder import RECIPE, CohortFolder
from wsigen.cohort.plan import CohortPlan, plan_of
from wsigen.cohort.recipe import Recipe, read_recipe
from wsigen.cohort.slides import CohortSlide, slides_of


@dataclass(frozen=True, slots=True)
class MadeCohort:
    """A recipe, its plan, and those of its slides that are there.

    Attributes
    ----------
    recipe, plan : Recipe, CohortPlan
        How it is made.
    slides : list of CohortSlide
        Those that are there.
    total : int
        How many there are to be.
    """

    recipe: Recipe
    plan: CohortPlan
    slides: list[CohortSlide]
    total: int


def read_made(folder: CohortFolder) -> MadeCohort:
    """Read a cohort with at least one slide (WsigenError)."""
    path = folder.root / RECIPE
    recipe = read_recipe(path)
    plan = plan_of(recipe.plan, str(path), folder.root)
    every = slides_of(plan, str(path), absent=True)
    slides = [slide for slide in every if folder.done(slide.id, slide.config.drawn)]
    if not slides:
        raise ConfigError(f"{folder.root}: no slide is there; make it first")
    return MadeCohort(recipe, plan, slides, len(every))
