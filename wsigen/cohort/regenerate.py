"""``wsigen cohort regenerate``: slides made anew from the recipe, and compared: the recipe is the slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

from wsigen.base.errors import ConfigError, WsigenError, suggest
from wsigen.cohort.execution import EXECUTION, execution_of
from wsigen.cohort.folder import INPUTS, RECIPE, CohortFolder
from wsigen.cohort.make import RUNS, make_slides
from wsigen.cohort.recipe import Portable, Recipe, claim, read_recipe
from wsigen.cohort.slides import CohortSlide
from wsigen.cohort.table import read_rows
from wsigen.models.bundle import find_bundle
from wsigen.run.engine.stage import Watcher
from wsigen.run.keywords import with_settings
from wsigen.run.spec import DECIDING, package_versions
from wsigen.run.typed_settings import ResumeSettings


@dataclass(frozen=True, slots=True)
class Regenerated:
    """Slides that were made again.

    Attributes
    ----------
    same, other : tuple of str
        Ids of slides whose level 0 has the SHA-256 of the cohort, and of those that came out otherwise.
    unknown : tuple of str
        Those with which nothing could be compared.
    failed : dict of str to str
        What could not be made, and why.
    notes : tuple of str
        Versions that are other ones here.
    """

    same: tuple[str, ...]
    other: tuple[str, ...]
    unknown: tuple[str, ...]
    failed: dict[str, str]
    notes: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether every slide came out again."""
        return not (self.other or self.failed)


@with_settings(EXECUTION)
def regenerate_cohort(
    source: str | Path,
    *,
    slides: int | str | Sequence[str] | None = None,
    out: str | Path | None = None,
    places: Mapping[str, str | Path] | None = None,
    runs: int = RUNS,
    machine: str | Path | None = None,
    progress: bool = False,
    watch: Watcher | None = None,
    **settings: Unpack[ResumeSettings],
) -> Regenerated:
    """Make slides of a cohort again, from its recipe, and compare their pixels.

    Parameters
    ----------
    source : str or Path
        The cohort's folder, or its ``recipe.yaml`` (with ``inputs/`` beside it, if layouts were drawn).
    slides : int, str or list of str, optional
        How many (the first ones), or which; all by default.
    out : str or Path, optional
        Keep the slides in this folder, a cohort of its own; by default they are removed again.
    places : mapping of str to path, optional
        Where models and references lie that the recipe knows by name alone.
    runs, machine, progress, watch, **settings
        As for `make_cohort`.

    Returns
    -------
    Regenerated
        Which slides came out again.

    Raises
    ------
    WsigenError
        If there is no recipe, or a model or reference is missing or another one.
    """
    path = Path(source)
    path = path / RECIPE if path.is_dir() else path
    recipe, root = read_recipe(path), path.absolute().parent
    expected = {row["id"]: row["level0_sha256"] for row in read_rows(root)}
    if not expected and out is None:
        raise ConfigError(f"{path}: there are no slides beside it to compare with; add --out DIR to keep what is made")
    here = package_versions()
    notes = tuple(
        f"{name} {here[name]} here, {recipe.versions.get(name)} in the recipe"
        for name in DECIDING
        if here[name] != recipe.versions.get(name)
    )
    found = {name: Path(place) for name, place in (places or {}).items()}
    found |= {name: root / name for name in (*recipe.models, *recipe.inputs) if name not in found and (root / name).exists()}
    _check_places(found, recipe, str(path))
    copies = {name: place for name, place in found.items() if name.startswith(f"{INPUTS}/")}
    execution = execution_of(settings, machine)
    if out is not None and Path(out).resolve() == root.resolve():
        raise ConfigError(f"--out {out}: is the cohort itself, whose slides are there; choose another folder")
    with ExitStack() as stack:
        place = Path(out if out is not None else stack.enter_context(TemporaryDirectory(prefix="wsigen-cohort-")))
        folder, made_here = CohortFolder(place), replace(recipe, versions=here)
        content = Portable(recipe.plan, copies, found)

        def begin() -> None:
            claim(folder, content, made_here)

        cohort = make_slides(
            folder, made_here, found, execution, runs, begin, progress=progress, watch=watch,
            only=lambda every: _chosen(every, slides, str(path)),
        )  # fmt: skip
        got = {name: folder.manifest(name).sha256["level0_tiles"] for name in cohort.made}
    return Regenerated(
        same=tuple(name for name, digest in got.items() if expected.get(name) == digest),
        other=tuple(name for name, digest in got.items() if name in expected and expected[name] != digest),
        unknown=tuple(name for name in got if name not in expected),
        failed=cohort.failed,
        notes=notes,
    )


def _check_places(places: Mapping[str, Path], recipe: Recipe, source: str) -> None:
    """Whether the recipe knows what is placed, and it is there; and whether what it does not find is placed (ConfigError)."""
    known = {*recipe.models, *recipe.inputs}
    for name, place in places.items():
        if name not in known:
            raise ConfigError(f"{source}: --place: there is no {name!r} in the recipe{suggest(name, known)}")
        if not place.exists():
            raise ConfigError(f"{source}: --place: {place} is missing; say where {name!r} lies")
    for name in sorted(recipe.models.keys() - places.keys()):
        try:
            find_bundle(name)
        except WsigenError as error:
            raise ConfigError(f"{source}: {error}; or say with --place {name}=FOLDER where it lies") from None


def _chosen(every: Sequence[CohortSlide], slides: int | str | Sequence[str] | None, source: str) -> Sequence[CohortSlide]:
    """The first so many, or those of some ids (ConfigError if there is no such slide)."""
    if slides is None:
        return every
    if isinstance(slides, int):
        if slides < 1:
            raise ConfigError(f"slides: {slides}; give at least one")
        return every[:slides]
    by_id = {slide.id: slide for slide in every}
    wanted = [slides] if isinstance(slides, str) else list(slides)
    for name in wanted:
        if name not in by_id:
            raise ConfigError(
                f"{source}: no slide {name!r}{suggest(name, by_id)}; {len(by_id)} slides, the first is {every[0].id}"
            )
    return [by_id[name] for name in dict.fromkeys(wanted)]
