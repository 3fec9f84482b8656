"""`Recipe`: ``recipe.yaml``, from which a cohort can be made again: the plan with every default, versions and hashes.

A plan names files and folders of somebody's machine. The recipe does not: layouts, tables and stains are copied into the cohort
(``inputs/``); models, mask models and references are known by name and SHA-256, and where they lie is said when they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wsigen.base.errors import ConfigError, RunError
from wsigen.base.version import __version__
from wsigen.base.yaml_file import read_mapping
from wsigen.cohort.check import Needs
from wsigen.cohort.folder import INPUTS, RECIPE, CohortFolder, lies_below
from wsigen.cohort.plan import CohortPlan, Part, find_files, plan_of
from wsigen.models.mask_bundle import mask_folder, mask_hash
from wsigen.run.spec import DECIDING, first_difference, package_versions
from wsigen.storage.files import sha256, write_atomic

FORMAT = 2

ABOUT = ("title", "description", "authors", "licence", "url")
"""What of a plan decides no slide, and may change."""

COUNTS = ("slides", "times", "layouts", "references")
"""What of a part may grow: more slides change none of those that are there."""

HEADER = f"""# How this cohort was made, with every default: 'wsigen cohort regenerate {RECIPE}' makes its slides again.
# Layouts, tables and stains lie in {INPUTS}/; models and references are known by name and SHA-256.
"""


@dataclass(frozen=True, slots=True)
class Portable:
    """A plan without places of the machine.

    Attributes
    ----------
    content : dict
        The plan as plain values.
    copies : dict of str to Path
        Name in the cohort's folder -> file to be copied there.
    places : dict of str to Path
        Name of a model or reference -> where it lies.
    """

    content: dict[str, Any]
    copies: dict[str, Path]
    places: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Recipe:
    """The content of ``recipe.yaml``.

    Attributes
    ----------
    plan : dict
        As plain values.
    models : dict of str to dict
        Name in the plan -> name, licence and SHA-256 of the bundle.
    inputs : dict of str to str
        SHA-256 of every file and every mask model that slides are made from, by name.
    versions : dict of str to str
        Of wsigen and the packages that may decide bits.
    """

    plan: dict[str, Any]
    models: dict[str, dict[str, str]]
    inputs: dict[str, str]
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Write it as YAML."""
        content = {
            "format": FORMAT,
            "wsigen": __version__,
            "versions": self.versions,
            "models": self.models,
            "inputs": self.inputs,
            "plan": self.plan,
        }
        write_atomic(path, (HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)).encode())


def read_recipe(path: Path) -> Recipe:
    """Read ``recipe.yaml`` (ConfigError if it is none)."""
    content = read_mapping(path, ConfigError, "no such recipe; give a cohort's folder or its recipe.yaml")
    if content.get("format") != FORMAT or not isinstance(content.get("plan"), dict):
        raise ConfigError(
            f"{path}: no recipe of a cohort that this version of wsigen reads (format {FORMAT}); use the version that made it"
        )
    parts = [content.get(name) or {} for name in ("plan", "models", "inputs", "versions")]
    if not all(isinstance(part, dict) for part in parts):
        raise ConfigError(f"{path}: 'models', 'inputs' and 'versions' should be mappings; it was edited: restore it")
    for name in (*parts[2], *parts[1]):
        if not lies_below(str(name)):
            raise ConfigError(f"{path}: names {name!r}, which lies outside the cohort; do not use this recipe")
    for name in _files_of(parts[0]):
        if name not in parts[2]:
            raise ConfigError(f"{path}: its plan names {name!r}, which is none of its 'inputs'; do not use this recipe")
    return Recipe(*parts)


def portable(plan: CohortPlan) -> Portable:
    """Name every file and folder of a plan without its place."""
    copies: dict[str, Path] = {}
    places: dict[str, Path] = {}
    content = plan.model_dump(mode="json", exclude={"root"}, exclude_none=True)
    content["parts"] = [
        _part(plan, part, values, copies, places) for part, values in zip(plan.parts, content["parts"], strict=True)
    ]
    _choices(plan, content, copies, places)
    return Portable(content, copies, places)


def make_recipe(found: Portable, needs: Needs) -> Recipe:
    """The recipe of a plan."""
    called = {place: name for name, place in found.places.items()}
    models = {
        called.get(model.folder, name): {"name": model.card.name, "licence": model.card.licence, "sha256": model.sha256}
        for name, model in needs.models.items()
    }
    masks = {part.get("mask_model") for part in found.content["parts"]}
    inputs = {**found.copies, **{name: path for name, path in found.places.items() if path.is_file() or name in masks}}
    return Recipe(found.content, models, {name: _digest(path) for name, path in sorted(inputs.items())}, package_versions())


def local_plan(recipe: Recipe, root: Path, places: Mapping[str, Path], source: str) -> CohortPlan:
    """The plan of a recipe, with what it calls by name at its places (ConfigError if something is missing or another one)."""
    plan = plan_of(recipe.plan, source, root, places)
    for name, digest in recipe.inputs.items():
        path = plan.place(name)
        if not path.exists():
            raise ConfigError(
                f"{source}: {name} is missing; put it there, or say with --place {Path(name).name}=PATH where it lies"
            )
        if _digest(path) != digest:
            raise ConfigError(f"{source}: {path} is not the {name} of the recipe (its SHA-256 differs); restore it")
    return plan


def claim(folder: CohortFolder, found: Portable, recipe: Recipe) -> None:
    """Begin a cohort in a folder, or make sure that the one there is this one, perhaps with fewer slides.

    The recipe that is there stays: one with more slides is written once nothing speaks against them.

    Raises
    ------
    RunError
        If the folder holds another cohort; the message names the first setting that differs.
    ConfigError
        If its recipe cannot be read.
    """
    path = folder.root / RECIPE
    if path.is_file():
        there = read_recipe(path)
        difference = _difference(recipe, there)
        if difference:
            raise RunError(f"{folder.root}: holds another cohort ({difference}); choose another folder, or restore the plan")
    elif folder.root.is_dir() and (foreign := sorted(p.name for p in folder.root.iterdir() if not p.name.startswith("."))):
        raise RunError(f"{folder.root}: is not empty and no cohort (it holds {foreign[0]!r}); choose another folder")
    else:
        recipe.write(path)  # first of all: whoever is interrupted here finds a cohort
    folder.make()
    for name, source in found.copies.items():
        target = folder.root / name
        if not target.is_file() or sha256(target) != recipe.inputs[name]:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, source.read_bytes())


# -- inside ------------------------------------------------------------------------------------------------------------


def _files_of(plan: Mapping[str, Any]) -> Iterator[str]:
    """All that the plan of a recipe reads from files: of a stranger's, too, before anything of it is checked."""
    if "root" in plan:
        yield str(plan["root"])
    parts = plan.get("parts")
    for each in (plan, *(parts if isinstance(parts, list) else ())):
        values: Mapping[str, Any] = each if isinstance(each, Mapping) else {}
        for key in ("layouts", "references", "subtypes_file", "mask_model"):
            found = values.get(key) or ()
            yield from map(str, [found] if isinstance(found, str) else found)
        yield from (name for name in map(str, values.get("stain") or ()) if name.endswith((".yaml", ".yml")))
        settings = values.get("settings")
        if isinstance(settings, Mapping) and isinstance(table := settings.get("layout_classes"), str):
            yield table


def _part(
    plan: CohortPlan, part: Part, values: dict[str, Any], copies: dict[str, Path], places: dict[str, Path]
) -> dict[str, Any]:
    folder = f"{INPUTS}/{part.name or 'slides'}"
    if part.layouts:
        values["layouts"] = [_copied(path, f"{folder}/{path.name}", copies) for path in find_files(plan, part)]
    if part.references:
        values["references"] = [_placed(path, places) for path in find_files(plan, part)]
    if part.subtypes_file:
        path = plan.place(part.subtypes_file)
        values["subtypes_file"] = _copied(path, f"{folder}/{path.name}", copies)
    if part.mask_model:
        values["mask_model"] = _placed(plan.place(part.mask_model), places)
    _choices(plan, values, copies, places)
    return values


def _choices(plan: CohortPlan, values: dict[str, Any], copies: dict[str, Path], places: dict[str, Path]) -> None:
    """The same for models, stains and class tables; the values are changed in place."""
    for name in values.get("model") or ():
        if plan.place(name).is_dir():
            values["model"] = {_placed(plan.place(k), places) if k == name else k: v for k, v in values["model"].items()}
    for name in values.get("stain") or ():
        if name.endswith((".yaml", ".yml")):
            new = _copied(plan.place(name), f"{INPUTS}/stains/{Path(name).name}", copies)
            values["stain"] = {new if k == name else k: v for k, v in values["stain"].items()}
    if isinstance(table := values["settings"].get("layout_classes"), str):
        values["settings"]["layout_classes"] = _copied(plan.place(table), f"{INPUTS}/tables/{Path(table).name}", copies)


def _copied(path: Path, name: str, copies: dict[str, Path]) -> str:
    if copies.setdefault(name, path) != path:
        raise ConfigError(f"{path} and {copies[name]} have one name: rename one of them")
    return name


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of what a mask model computes."""
    return sha256(path) if path.is_file() else mask_hash(mask_folder(path))


def _placed(path: Path, places: dict[str, Path]) -> str:
    if places.setdefault(path.name, path) != path:
        raise ConfigError(f"{path} and {places[path.name]} have one name: rename one of them")
    return path.name


def _difference(mine: Recipe, there: Recipe) -> str | None:
    """The first thing in which two recipes differ and that decides slides, for people."""
    parts, theirs = ({part.get("name", ""): part for part in recipe.plan.get("parts", ())} for recipe in (mine, there))
    found = first_difference(_deciding(mine.plan, "parts"), _deciding(there.plan, "parts"))
    for name, part in theirs.items():
        if name not in parts:
            return f"part {name!r} is missing here"
        found = found or first_difference(_deciding(parts[name]), _deciding(part), f"part {name or 0!r}")
        found = found or _shrunk(parts[name], part, name)
    found = found or first_difference(_common(mine.models, there.models), there.models, "models")
    found = found or first_difference(_common(mine.inputs, there.inputs), there.inputs, "inputs")
    here, before = ({name: recipe.versions.get(name) for name in DECIDING} for recipe in (mine, there))
    found = found or first_difference(here, before, "versions")
    return found and found.replace(" in the run", " in the folder")


def _deciding(plan: Mapping[str, Any], *more: str) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name not in (*ABOUT, *COUNTS, *more)}


def _common(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mine.items() if name in theirs}


def _shrunk(mine: Mapping[str, Any], theirs: Mapping[str, Any], part: str) -> str | None:
    """What there is less of here than in the folder."""
    for name in ("slides", "times"):
        if (mine.get(name) or 0) < (theirs.get(name) or 0):
            return f"part {part or 0!r}.{name}: {mine.get(name)} here, {theirs.get(name)} in the folder"
    for name in ("layouts", "references"):
        if gone := sorted(set(theirs.get(name) or ()) - set(mine.get(name) or ())):
            return f"part {part or 0!r}.{name}: {gone[0]} is missing here"
    return None
