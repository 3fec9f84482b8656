"""Subtypes of sampled layouts: which share of the tissue each class takes, and what the pieces look like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, LayoutError, suggest
from wsigen.base.yaml_file import Settings, read_mapping, validated

EMBEDDED = Path(__file__).parent / "subtypes.yaml"
"""The subtypes of the package."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class SectionShape(Settings):
    """What the tissue of a slide looks like; lengths are um on the slide.

    Attributes
    ----------
    tissue : float
        Share of the slide that is tissue, in (0, 0.9].
    pieces : int
        Pieces side by side along the slide's longer side (biopsy cores: 3 to 6), 1 to 12.
    slimness : float
        Width of a piece over what its place on the slide allows, in (0, 1].
    roughness : float
        How far the outline leaves an ellipse, as a share of the piece's radius.
    holes, hole_um : float
        Share of the pieces that is holes (lumina, fat, tears), and their size.
    cracks : float
        Share of the pieces that is thin splits.
    region_um, region_share : float
        Size of the regions of a class that takes half the tissue, and the most of the slide's shorter side it may
        be, so that a small slide, too, holds every class.
    mixing, mixing_um : float
        How much the classes intermingle at their borders (0: smooth borders, 1: as many islands as regions), and how
        finely.
    """

    tissue: Annotated[float, Field(gt=0, le=0.9)] = 0.55
    pieces: Annotated[int, Field(ge=1, le=12)] = 1
    slimness: Annotated[float, Field(gt=0, le=1)] = 1.0
    roughness: Annotated[float, Field(ge=0, le=1)] = 0.3
    holes: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    hole_um: Positive = 250.0
    cracks: Annotated[float, Field(ge=0, le=0.2)] = 0.01
    region_um: Positive = 2500.0
    region_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    mixing: Share = 0.2
    mixing_um: Positive = 200.0


class Subtype(Settings):
    """One kind of slide.

    Attributes
    ----------
    title : str
        For people.
    shares : dict of str to float
        Class name -> weight of its area in the tissue; the weights need not add up to 1.
    rest : float
        Weight of every class of the model that ``shares`` does not name.
    within : dict of str to str
        Class -> the class inside whose regions it lies (necrosis within tumour).
    shape : SectionShape
        What the pieces look like.
    """

    title: str = ""
    shares: dict[str, Positive] = Field(default_factory=dict)
    rest: Annotated[float, Field(ge=0)] = 0.0
    within: dict[str, str] = Field(default_factory=dict)
    shape: SectionShape = SectionShape()

    @model_validator(mode="after")
    def _has_classes(self) -> Subtype:
        if not self.shares and not self.rest:
            raise ValueError("no class has a share: give 'shares', or 'rest: 1' for all classes alike")
        return self

    def fits(self, table: ClassTable) -> bool:
        """Whether the model knows every class that is named."""
        known = {c.name.casefold() for c in table if not c.background}
        return {name.casefold() for name in (*self.shares, *self.within, *self.within.values())} <= known


@dataclass(frozen=True, slots=True)
class Mixture:
    """A subtype's classes for one class table.

    Attributes
    ----------
    shares : dict of int to float
        Class index -> share of the tissue's area; they add up to 1.
    within : dict of int to int
        Class index -> index of the class it lies in; free of cycles.
    """

    shares: dict[int, float]
    within: dict[int, int]


def mixture_of(name: str, subtype: Subtype, table: ClassTable) -> Mixture:
    """Translate the names of a subtype into indices of ``table``.

    Raises
    ------
    LayoutError
        If a class is unknown, bare glass, lies within a class without a share, or within itself.
    """
    weights = {_tissue(name, key, table): float(value) for key, value in subtype.shares.items()}
    if subtype.rest:
        weights |= {i: subtype.rest for i, c in enumerate(table) if not c.background and i not in weights}
    if not weights:
        raise LayoutError(f"subtype {name!r}: the model has no tissue class; give one in its class table")
    within = {_tissue(name, child, table): _tissue(name, outer, table) for child, outer in subtype.within.items()}
    for child, outer in within.items():
        for index in (child, outer):
            if index not in weights:
                raise LayoutError(f"subtype {name!r}: 'within' names {table[index].name!r}, which has no share; give it one")
        above, steps = outer, 0
        while above in within and steps <= len(within):
            above, steps = within[above], steps + 1
        if child == outer or steps > len(within):
            raise LayoutError(f"subtype {name!r}: 'within' puts {table[child].name!r} inside itself; break the circle")
    total = sum(weights.values())
    return Mixture({i: weights[i] / total for i in sorted(weights)}, within)


def read_subtypes(path: Path) -> dict[str, Subtype]:
    """Read a YAML file ``name: {title, shares, rest, within, shape}``.

    Raises
    ------
    ConfigError
        One line with the path of the wrong field.
    """
    entries = "'name: {shares: ...}' entries; see docs/sampled-layouts.md"
    content = read_mapping(path, ConfigError, "no such file of subtypes; check the path given to --subtypes", entries)
    if not content:
        raise ConfigError(f"{path}: expected {entries}")
    return validated(dict[str, Subtype], content, str(path), ConfigError)


def known_subtypes(table: ClassTable, own: Path | None = None) -> dict[str, Subtype]:
    """The package's subtypes whose classes the model has, and all of the user's own file, which come first."""
    embedded = {name: s for name, s in read_subtypes(EMBEDDED).items() if s.fits(table)}
    return {**(read_subtypes(own) if own else {}), **{k: v for k, v in embedded.items() if not own}}


def choose_subtype(name: str, known: dict[str, Any], where: str) -> Any:
    """The entry of a name; an unknown one is refused with the known names and the nearest (ConfigError)."""
    for key, value in known.items():
        if key.casefold() == name.strip().casefold():
            return value
    raise ConfigError(f"unknown subtype {name!r}{suggest(name, known)}; {where}: {', '.join(known)}")


def _tissue(subtype: str, name: str, table: ClassTable) -> int:
    try:
        index = table.index(name)
    except ConfigError as error:
        raise LayoutError(f"subtype {subtype!r}: {error}") from None
    if table[index].background:
        raise LayoutError(f"subtype {subtype!r}: class {name!r} is bare glass; its area is 1 - shape.tissue")
    return index
