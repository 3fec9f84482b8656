"""`DatasetSettings`: the file that describes a dataset, validated at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import ConfigError, DatasetError
from wsigen.base.yaml_file import read_mapping, validated
from wsigen.dataset.batch import CELL_PX
from wsigen.models.card import CardClass, Level

Mpp = Annotated[float, Field(gt=0.01, lt=100)]
Paths = Annotated[tuple[str, ...], Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Images(_Part):
    """Images of one kind: files, folders or globs; ``mpp`` is um/px (one, or by image) where the files are silent or wrong.

    ``glass``: what lies outside the tissue found and has no label is of the background class, instead of unknown. Not by
    default: a patch half of which is glass would count as glass for tokens and prompts, whatever the rest of it is.
    """

    images: Paths
    mpp: Mpp | dict[str, Mpp] | None = None
    glass: bool = False

    @field_validator("images", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class TileSource(_Part):
    """Folders of tiles, one a class: ``folder/NAME/*.png``; ``names`` maps a folder's name to a class's where they differ."""

    kind: Literal["tiles"]
    folder: str
    mpp: Mpp | None = None
    names: dict[str, str] = Field(default_factory=dict)


class AnnotatedSource(_Images):
    """Slides with QuPath GeoJSON.

    Attributes
    ----------
    annotations:
        Folder of ``STEM.geojson``; by default they lie beside the images.
    background:
        Class outside every polygon; without it nobody knows what is there (sparse annotation).
    names:
        Classification in QuPath -> class, or null: as if it were not drawn. An empty name stands for annotations without
        a classification; other classifications must be names of classes.
    """

    kind: Literal["annotated"]
    annotations: str | None = None
    background: str | None = None
    names: dict[str, str | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_outside(self) -> AnnotatedSource:
        if self.background and self.glass:
            raise ValueError("background says what is outside every polygon, glass what is outside the tissue: give one")
        return self


class Columns(_Part):
    """The names of a CSV's columns; ``x`` and ``y`` are px of the image's full resolution."""

    image: str = "image"
    x: str = "x"
    y: str = "y"
    label: str = "class"


class PointSource(_Images):
    """Slides with labelled points or spots.

    Attributes
    ----------
    csv, columns:
        One row a point.
    image_pattern:
        Regular expression on the image's name; its first group is what the CSV calls the image. Without it the CSV
        gives the name, the file name or the stem.
    radius_px, radius_um:
        Radius of the labelled disc, one of the two.
    names:
        Label of the CSV -> class, or null: leave such points out. Other labels must be names of classes.
    """

    kind: Literal["points"]
    csv: str
    columns: Columns = Columns()
    image_pattern: str | None = None
    radius_px: Annotated[float, Field(gt=0)] | None = None
    radius_um: Annotated[float, Field(gt=0)] | None = None
    names: dict[str, str | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_radius(self) -> PointSource:
        if (self.radius_px is None) == (self.radius_um is None):
            raise ValueError("give either radius_px or radius_um")
        return self


class UnlabelledSource(_Images):
    """Slides about which nobody said anything."""

    kind: Literal["unlabelled"]


Source = Annotated[TileSource | AnnotatedSource | PointSource | UnlabelledSource, Field(discriminator="kind")]


class Groups(_Part):
    """Which patient (or slide) an image is of: the first group of ``pattern`` in its name, or a CSV."""

    pattern: str | None = None
    csv: str | None = None
    image: str = "image"
    group: str = "group"

    @model_validator(mode="after")
    def _one_way(self) -> Groups:
        if (self.pattern is None) == (self.csv is None):
            raise ValueError("give either a pattern or a csv")
        return self


class Subtypes(_Part):
    """A CSV that names the subtype of every labelled slide (tiles are no slides), for the mask model."""

    csv: str
    image: str = "image"
    subtype: str = "subtype"


class DatasetSettings(_Part):
    """A dataset.

    Attributes
    ----------
    root:
        Folder relative paths and the images' names count from; the file's own by default.
    levels:
        Magnifications, finest first, each with its um/px. PathUp's overview is a level of 4x the um/px.
    patch_px, overlap_px:
        Side and overlap of the lattice's patches in px of the level, multiples of 8.
    min_tissue:
        Least share of tissue in a patch without labels.
    most_upsampling:
        An image is left out on levels for which it would be enlarged more than so many times: enlarging shows no detail,
        and a model would learn the blur as the look of the level.
    most_per_class:
        Most patches of a class, on each level and in each split (6000: PathUp).
    most_unlabelled:
        The same for patches without any label; None: all.
    held_out, held_out_share:
        Groups that training never sees: their names, or their share of all groups.
    """

    classes: Annotated[tuple[CardClass, ...], Field(min_length=1)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    root: Path = Path()
    patch_px: Annotated[int, Field(ge=64, multiple_of=CELL_PX)] = 512
    overlap_px: Annotated[int, Field(ge=0, multiple_of=CELL_PX)] = 64
    min_tissue: Annotated[float, Field(gt=0, le=1)] = 0.25
    most_upsampling: Annotated[float, Field(ge=1)] = 1.5
    most_per_class: Annotated[int, Field(ge=1)] = 6000
    most_unlabelled: Annotated[int, Field(ge=1)] | None = None
    groups: Groups | None = None
    held_out: tuple[str, ...] = ()
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    subtypes: Subtypes | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSettings:
        mpps = [level.mpp for level in self.levels]
        if any(m is None for m in mpps):
            raise ValueError("every level needs its mpp (um/px)")
        if mpps != sorted(set(mpps), key=float):  # type: ignore[arg-type]  # none is None
            raise ValueError("levels go from fine to coarse: their mpp must rise")
        if self.overlap_px >= self.patch_px:
            raise ValueError(f"overlap_px {self.overlap_px} must be less than patch_px {self.patch_px}")
        if self.held_out and self.held_out_share:
            raise ValueError("held_out and held_out_share exclude each other")
        self._check_names()
        return self

    def _check_names(self) -> None:
        """Refuse classes twice, names that lead to no class, and glass without a class for it."""
        try:
            table = self.table
            for source in self.sources:
                for name in getattr(source, "names", {}).values():
                    _ = name is None or table.index(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        glass = [k for k, source in enumerate(self.sources) if getattr(source, "glass", False)]
        if glass and table.background is None:
            raise ValueError(f"source {glass[0]} has 'glass: true', but no class says 'background: true'; give one")

    def too_coarse(self, mpp: float, level: Level) -> bool:
        """Whether an image of so many um/px would be enlarged too much for a level."""
        return mpp > self.most_upsampling * float(level.mpp or 0) * (1 + 1e-9)

    @property
    def table(self) -> ClassTable:
        """The classes as a table."""
        return ClassTable(tuple(TissueClass(c.name, c.color, c.background) for c in self.classes))


def read_settings(path: str | Path) -> DatasetSettings:
    """Read a dataset's YAML; its relative paths count from its folder.

    Raises
    ------
    DatasetError
        One line: which field is wrong, and why.
    """
    path = Path(path)
    example = "configs/dataset-example.yaml shows one"
    content = read_mapping(path, DatasetError, f"no such dataset file; {example}", f"'setting: value' lines ({example})")
    settings = validated(DatasetSettings, content, str(path), DatasetError)
    return settings.model_copy(update={"root": (path.parent / settings.root).resolve()})


def cache_of(path: str | Path) -> Path:
    """Where a dataset's index and copies lie unless somebody says otherwise: one place for all commands, beside its YAML."""
    return Path(path).with_suffix(".cache")
