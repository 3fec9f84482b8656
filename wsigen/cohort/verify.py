"""``wsigen cohort verify``: every file against its checksum, every manifest against the plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import OutputError
from wsigen.cohort.folder import INPUTS, LABELS, RECIPE, CohortFolder, lies_below
from wsigen.cohort.plan import plan_of
from wsigen.cohort.publish import SUMS, summed_files
from wsigen.cohort.recipe import Recipe, read_recipe
from wsigen.cohort.slides import CohortSlide, slides_of
from wsigen.run.manifest import Manifest
from wsigen.storage.files import sha256

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

Watch = Callable[[int, int], None]
"""Called with how many files were read, and how many there are."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes
    ----------
    files, slides : int
        Files whose checksum is right, and slides that are as the plan says.
    missing : tuple of str
        Ids of slides of the plan that are not there.
    problems : tuple of str
        All that is wrong, a line each.
    """

    files: int
    slides: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether all is there and right."""
        return not (self.missing or self.problems)


def verify_cohort(folder: str | Path, *, watch: Watch | None = None) -> Verification:
    """Check a cohort: every file against ``SHA256SUMS``, every manifest against the plan in ``recipe.yaml``.

    Parameters
    ----------
    folder : str or Path
        The cohort.
    watch : callable, optional
        Called with how many files were read, and how many there are.

    Raises
    ------
    WsigenError
        If it is no cohort.

    Examples
    --------
    >>> wsigen.verify_cohort("cohort").good
    """
    place = CohortFolder(Path(folder))
    recipe = read_recipe(place.root / RECIPE)
    sums, problems = _read_sums(place)
    right = 0
    for count, (name, digest) in enumerate(sums.items()):
        path = place.root / name
        if not path.is_file():
            problems.append(f"{name}: is missing")
        elif sha256(path) != digest:
            problems.append(f"{name}: is altered (its SHA-256 is not that of {SUMS})")
        else:
            right += 1
        if watch is not None:
            watch(count + 1, len(sums))
    if sums:
        listed = (path.relative_to(place.root).as_posix() for path in summed_files(place))
        problems += [f"{name}: is not in {SUMS}" for name in listed if name not in sums]
    every = slides_of(plan_of(recipe.plan, str(place.root / RECIPE), place.root), str(place.root / RECIPE), absent=True)
    missing = tuple(slide.id for slide in every if not place.done(slide.id, slide.config.drawn))
    good = 0
    for slide in every:
        if place.done(slide.id, slide.config.drawn):
            found = list(_differences(place, slide, recipe, sums))
            problems += found
            good += not found
    return Verification(right, good, missing, tuple(problems))


def _read_sums(place: CohortFolder) -> tuple[dict[str, str], list[str]]:
    path = place.root / SUMS
    if not path.is_file():
        return {}, [f"{SUMS}: is missing; the cohort is not finished: make it again"]
    sums, problems = {}, []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None or not lies_below(found[2]):
            problems.append(f"{SUMS}, line {number}: no checksum of a file of this cohort")
        else:
            sums[found[2]] = found[1]
    return sums, problems


def _differences(place: CohortFolder, slide: CohortSlide, recipe: Recipe, sums: dict[str, str]) -> Iterator[str]:
    """What of a slide's manifest is not as the plan says, or not as its files are."""
    try:
        manifest = place.manifest(slide.id)
    except OutputError as error:
        yield str(error)
        return
    name = place.files(slide.id).manifest.relative_to(place.root).as_posix()
    for what, there, planned in _compared(manifest, slide, recipe):
        if there != planned:
            yield f"{name}: {what} is {there}, but the plan says {planned}"
    files = place.files(slide.id)
    for path, key in ((files.slide, files.slide.name), (files.annotations, files.annotations.name), (files.labels, LABELS)):
        digest = sums.get(path.relative_to(place.root).as_posix())
        if digest is not None and manifest.sha256.get(key) != digest:
            yield f"{name}: the SHA-256 of {path.name} is not that of {SUMS}"


def _compared(manifest: Manifest, slide: CohortSlide, recipe: Recipe) -> Iterator[tuple[str, object, object]]:
    config = slide.config
    yield "seed", manifest.sampling.seed, config.seed
    if config.size is not None:
        yield "size", (manifest.slide.width, manifest.slide.height), config.size
    yield "mode", manifest.passes[-1].mode, slide.mode
    yield "stain", manifest.stain, config.stain
    if config.steps is not None:
        yield "steps", manifest.passes[-1].steps, config.steps
    yield "model", manifest.model.sha256, recipe.models.get(slide.model, {}).get("sha256")
    if slide.source is None and manifest.drawn_layout is not None:
        yield "subtype", str(manifest.drawn_layout.get("subtype")).casefold(), slide.subtype.casefold()
    if config.mask_model is not None:
        yield "mask model", (manifest.drawn_layout or {}).get("mask_model"), recipe.inputs.get(config.mask_model.name)
    if config.reference is not None and "reference" in manifest.inputs:
        yield "reference", manifest.inputs["reference"].sha256, recipe.inputs.get(config.reference.name)
    if config.layout_file is not None and "layout" in manifest.inputs and slide.source is not None:
        name = f"{INPUTS}/{slide.part or 'slides'}/{slide.source.name}"
        yield "layout", manifest.inputs["layout"].sha256, recipe.inputs.get(name)
