"""`CohortPlan`: the file that describes a cohort, validated at the edge.

A plan has *parts*. A part draws its layouts by rule or by a mask model, so many slides of it; or it takes them from files
(layouts, references), each so many times with other seeds. What a part does not say is the plan's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from wsigen.base.errors import ConfigError, suggest
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.run.config import EXECUTION, MAX_SIDE_PX, MIN_SIDE_PX, RunConfig
from wsigen.run.typed_settings import Mode
from wsigen.slide.stain import Stain, parse_stain

SUM_ERROR = 1e-6
"""By how much shares may miss 1."""

MOST_SLIDES = 1_000_000

EXAMPLE = "configs/cohort-example.yaml shows one"

DRAWN_BY_PART = frozenset(
    "size seed reference grid layout subtype subtypes mask_model model mode stain".split()  # noqa: SIM905
)
"""Settings of a slide that a plan draws or names itself, not under ``settings``."""

OF_ONE_SLIDE = frozenset("region extend at extend_mpp resample regions margin_um edit_strength".split())  # noqa: SIM905
"""Settings that say something of one slide, grid or place."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _as_shares(value: Any) -> Any:
    """One thing alone is all of it."""
    return {value: 1.0} if isinstance(value, str) else value


def _add_up(value: dict[str, float] | None) -> dict[str, float] | None:
    if value is not None and abs(sum(value.values()) - 1) > SUM_ERROR:
        raise ValueError(
            f"shares add up to {sum(value.values()):g}, not to 1: {', '.join(f'{k} {v:g}' for k, v in value.items())}"
        )
    return value


Share = Annotated[float, Field(gt=0, le=1)]
Shares = Annotated[dict[str, Share], Field(min_length=1), BeforeValidator(_as_shares)]
Files = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class Author(Settings):
    """Who publishes a cohort."""

    name: str = Field(min_length=1)
    affiliation: str | None = None
    orcid: str | None = Field(default=None, pattern=r"^\d{4}-\d{4}-\d{4}-\d{3}[\dX]$")


class Choices(Settings):
    """What a slide is made with: one thing, or several with their shares.

    Attributes
    ----------
    model : dict of str to float
        Bundles: names, folders or hub ids.
    size : dict of str to float
        ``WIDTHxHEIGHT`` in px. Files have sizes of their own, unless their part says one.
    mode : dict of str to float
        Modes of sampling.
    stain : dict of str to float
        Stains by name, or YAML files of them.
    stain_spread : float
        By how much of itself the intensity of either stain varies from slide to slide, evenly, 0 to 0.5.
    settings : dict
        Any other setting of a slide (steps, guidance, compression, ...), the same for all.
    """

    model: Shares | None = None
    size: Shares | None = None
    mode: Shares | None = None
    stain: Shares | None = None
    stain_spread: float | None = Field(default=None, ge=0, le=0.5)
    settings: dict[str, Any] = Field(default={})

    @field_validator("model", "size", "mode", "stain")
    @classmethod
    def _shares(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        return _add_up(value)

    @field_validator("size")
    @classmethod
    def _sizes(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for text in value or ():
            parse_size(text)
        return value

    @field_validator("mode")
    @classmethod
    def _modes(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        known = Mode.__args__  # type: ignore[attr-defined]
        for name in value or ():
            if name not in known:
                raise ValueError(f"no mode {name!r}{suggest(name, known)}; known: {', '.join(known)}")
        return value

    @field_validator("settings")
    @classmethod
    def _recipe(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for key, content in value.items():
            name = "class_name" if key == "class" else str(key).replace("-", "_")
            if name in EXECUTION:
                raise ValueError(f"{key!r} says where or how a slide is made, not what: give it to 'wsigen cohort make'")
            if name in DRAWN_BY_PART:
                raise ValueError(f"{key!r} is drawn for each slide: it belongs beside 'settings', if anywhere")
            if name in OF_ONE_SLIDE:
                raise ValueError(f"{key!r} says something of one slide, and a plan is of many: leave it out")
            if name not in RunConfig.model_fields:
                known = sorted(RunConfig.model_fields.keys() - EXECUTION - DRAWN_BY_PART - OF_ONE_SLIDE)
                raise ValueError(f"unknown setting {key!r}{suggest(name, known)}; known: {', '.join(known)}")
            found[name] = content
        return found


class Part(Choices):
    """Slides whose layouts come from one source.

    Attributes
    ----------
    name : str
        Part of the ids of its slides; may be left out where a plan has one part.
    slides : int
        How many to draw; of files, ``times`` says it.
    subtypes : dict of str to float
        Kinds of slide to draw, with their shares. Of files: one name, for the table.
    subtypes_file, mask_model : str
        The user's own subtypes; the mask model that draws. By default the model's, or rules.
    layouts, references : list of str
        Files or globs: drawings, or images that the slides follow. A folder stands for its ``*.geojson``.
    times : int
        Slides from each file.
    split : str
        The split of all of them; by default it is drawn.
    """

    name: str = ""
    slides: int | None = Field(default=None, ge=1, le=MOST_SLIDES)
    subtypes: Shares | None = None
    subtypes_file: str | None = None
    mask_model: str | None = None
    layouts: Files | None = None
    references: Files | None = None
    times: int = Field(default=1, ge=1, le=MOST_SLIDES)
    split: str | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return value and plain_name(value)

    @field_validator("subtypes")
    @classmethod
    def _subtypes(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        return _add_up(value)

    @property
    def drawn(self) -> bool:
        """Whether wsigen draws the layouts."""
        return self.layouts is None and self.references is None

    @property
    def files(self) -> tuple[str, ...]:
        """Files of its layouts or, without layouts, of its references."""
        return self.layouts or self.references or ()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.layouts and self.references:
            raise ValueError("'layouts' and 'references' exclude each other: make two parts")
        if self.drawn and (self.slides is None or self.subtypes is None):
            missing = "slides" if self.slides is None else "subtypes"
            raise ValueError(
                f"'{missing}' is missing: 'slides' and 'subtypes' draw layouts; 'layouts' or 'references' name files"
            )
        if self.drawn and self.times != 1:
            raise ValueError("'times' belongs to 'layouts' and 'references'; 'slides' says how many are drawn")
        for name in () if self.drawn else ("slides", "subtypes_file", "mask_model"):
            if getattr(self, name) is not None:
                raise ValueError(f"'{name}' belongs to layouts that are drawn; of files 'times' says how many slides there are")
        if not self.drawn and len(self.subtypes or ()) > 1:
            raise ValueError("'subtypes' of files is one name, for the table: a drawing is of one kind")
        return self


class CohortPlan(Choices):
    """A cohort.

    Attributes
    ----------
    name : str
        First part of every id: letters, digits, ``-`` and ``_``.
    title, description : str
        For the card.
    authors : list of Author
        Who publishes it.
    licence : str
        SPDX identifier of the cohort's licence; by default that of its models, if they have one and the same.
    url : str
        Where it will lie.
    seed : int
        Other seeds give other slides.
    splits : dict of str to float
        Name -> share.
    parts : list of Part
        Where the layouts come from.
    root : Path
        Folder that relative paths count from; the file's own.
    """

    _places: dict[str, Path] = PrivateAttr({})
    """Where models and references lie that the plan knows by a name alone."""

    name: str
    title: str = ""
    description: str = ""
    authors: tuple[Author, ...] = ()
    licence: str | None = Field(default=None, min_length=1)
    url: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**53)
    model: Shares = Field(default={"default": 1.0})
    mode: Shares = Field(default={"shifted": 1.0})
    stain: Shares = Field(default={"model": 1.0})
    stain_spread: float = Field(default=0.0, ge=0, le=0.5)
    splits: Shares = Field(default={"train": 0.7, "validation": 0.15, "test": 0.15})
    parts: tuple[Part, ...] = Field(min_length=1)
    root: Path = Path()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return plain_name(value)

    @field_validator("splits")
    @classmethod
    def _split_names(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            plain_name(name)
        return _add_up(value) or {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [part.name.casefold() for part in self.parts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two parts are called {name!r}, so that ids of slides would be there twice: give each a name")
        for number, part in enumerate(self.parts):
            if part.split is not None and part.split not in self.splits:
                known = ", ".join(self.splits)
                raise ValueError(
                    f"parts.{number}.split: no split {part.split!r}{suggest(part.split, self.splits)}; known: {known}"
                )
            if part.drawn and not (part.size or self.size):
                raise ValueError(f"parts.{number}.size: a layout that is drawn has no size of its own: give WIDTHxHEIGHT")
        return self

    def place(self, name: str) -> Path:
        """The file or folder that the plan calls so."""
        return self._places.get(name, self.root / name)

    def choices(self, part: Part, name: str) -> dict[str, float] | None:
        """The shares of a part, or those of the plan."""
        found: dict[str, float] | None = getattr(part, name) or getattr(self, name)
        return found


def read_plan(path: str | Path) -> CohortPlan:
    """Read a plan from YAML; relative paths count from its folder.

    Raises
    ------
    ConfigError
        One line: which setting is wrong, and why; of an unknown one the nearest known.
    """
    path = Path(path)
    content = read_mapping(path, ConfigError, f"no such plan of a cohort; {EXAMPLE}", f"'setting: value' lines ({EXAMPLE})")
    return plan_of(content, str(path), path.parent)


def plan_of(content: Mapping[Any, Any], source: str, root: Path, places: Mapping[str, Path] | None = None) -> CohortPlan:
    """Check the content of a plan.

    Parameters
    ----------
    root : Path
        Folder that relative paths count from.
    places : mapping of str to Path, optional
        Where models and references lie that the plan calls by a name alone.

    Raises
    ------
    ConfigError
        One line that begins with ``source``.
    """
    plan = validated(CohortPlan, dict(content), source, ConfigError)
    plan = plan.model_copy(update={"root": root.absolute() / plan.root})
    plan._places.update(places or {})
    for number, part in enumerate((plan, *plan.parts)):
        where = f"parts.{number - 1}.stain" if number else "stain"
        for name in part.stain or ():
            try:
                find_stain(plan, name)
            except (ValueError, ConfigError) as error:
                raise ConfigError(f"{source}: setting '{where}': {error}") from None
    return plan


def find_stain(plan: CohortPlan, name: str) -> Stain:
    """A stain by name or file (ValueError, ConfigError)."""
    found = parse_stain(plan.place(name) if name.endswith((".yaml", ".yml")) else name)
    return found if isinstance(found, Stain) else Stain()


def find_files(plan: CohortPlan, part: Part, absent: bool = False) -> list[Path]:
    """The files of a part, sorted by what ids call them.

    Parameters
    ----------
    absent : bool
        The plan is a recipe's: it names files one by one, and they need not be there.

    Raises
    ------
    ConfigError
        If a pattern matches none, or two would give slides of one id.
    """
    found: dict[str, Path] = {}
    for text in part.files:
        for path in _matching(plan, text, absent, part.name):
            stem = file_id(path)
            if found.setdefault(stem, path) != path:
                raise ConfigError(f"{path} and {found[stem]} would give slides of one id, {stem!r}: rename one of them")
    return [found[stem] for stem in sorted(found)]


def _matching(plan: CohortPlan, text: str, absent: bool, part: str) -> list[Path]:
    """The files that a name or a pattern stands for (ConfigError if there are none)."""
    place = plan.place(text)
    wild = any(sign in text for sign in "*?[")
    if place.is_file() or absent:
        return [place]
    if place.is_dir() and (drawings := sorted(place.glob("*.geojson"))):
        return drawings
    base = Path(place.anchor) if Path(text).is_absolute() else plan.root  # brackets in the root are no pattern
    paths = sorted(path for path in base.glob(str(place.relative_to(base))) if path.is_file()) if wild else []
    if not paths:
        what = "holds no *.geojson; give a pattern, as FOLDER/*.png" if place.is_dir() else "no file matches"
        raise ConfigError(f"{place}: {what}; check 'layouts' or 'references' of part {part!r}")
    return paths


def file_id(path: Path) -> str:
    """What an id calls a file: its name without suffixes, in plain characters."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.partition(".")[0]).strip("-")[:64] or "file"


def find_model(plan: CohortPlan, name: str) -> str:
    """A bundle as `RunConfig` takes it: a folder relative to the plan becomes its path."""
    with suppress(OSError, ValueError):
        if plan.place(name).is_dir():
            return str(plan.place(name))
    return name


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` as numbers (ValueError)."""
    found = re.fullmatch(r"\s*(\d{1,7})\s*[x×]\s*(\d{1,7})\s*", text.lower())
    if not found or not all(MIN_SIDE_PX <= int(side) <= MAX_SIDE_PX for side in found.groups()):
        raise ValueError(f"{text!r} is not WIDTHxHEIGHT of {MIN_SIDE_PX} to {MAX_SIDE_PX:,} px a side, e.g. 4096x4096")
    return int(found[1]), int(found[2])


def plain_name(value: str) -> str:
    """A name that any file system and any table can hold (ValueError)."""
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r}: letters, digits, '-' and '_', at most 64, and no sign at the beginning")
    return value
