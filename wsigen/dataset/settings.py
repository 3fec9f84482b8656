"""`DatasetSettings`: the file that describes a dataset, validated at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import ConfigError, DatasetError, LayoutError
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.layout.class_names import Names
from wsigen.layout.raster import Unlisted, value_table
from wsigen.models.card import CardClass, Level

CELL_PX = 8
"""Side in px of a level of the cells that an index counts and patches lie on.

Trainings read class maps in cells of their latent px, whatever these measure: `Member.class_map`."""


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Mpp = Annotated[float, Field(gt=0.01, lt=100)]
Positive = Annotated[float, Field(gt=0)]
Paths = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_one_or_many)]

Origin = Literal["scanned", "whole"]
"""Where coordinates count from on a slide that was scanned in part: the corner of that part, or of the whole slide."""

_ORIGIN = "where x and y count from on slides that were scanned in part (MRXS, SCN): 'scanned', the corner of that part, as "
_ORIGIN += "QuPath counts, or 'whole'"


class _Part(Settings):
    """A part of the file."""

    def _one_of(self, *names: str) -> None:
        """Refuse none or several of some fields."""
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(f"give either {' or '.join(names)}")


class TileSource(_Part):
    """Folders of tiles, one a class: ``folder/NAME/*.png``."""

    kind: Literal["tiles"]
    folder: str
    mpp: Mpp | None = Field(default=None, description="um/px, where the files are silent or wrong")
    names: Names = Field(default={}, description="name of a folder -> class, where they differ, or null: leave the folder out")


class _Images(_Part):
    """Images of one kind."""

    images: Paths = Field(description="files, folders or globs")
    mpp: Mpp | dict[str, Mpp] | None = Field(
        default=None, description="um/px where the files are silent or wrong: one, or one by image"
    )
    glass: bool = Field(
        default=False,
        description="what lies outside the tissue and has no label is of the background class, not unknown. A patch half of "
        "which is glass then counts as glass for tokens and prompts, whatever the rest of it is",
    )


class AnnotatedSource(_Images):
    """Slides with QuPath GeoJSON."""

    kind: Literal["annotated"]
    annotations: str | None = Field(default=None, description="folder of STEM.geojson; by default they lie beside the images")
    background: str | None = Field(default=None, description="class outside every polygon; by default it is unknown")
    origin: Origin = Field(default="scanned", description=_ORIGIN)
    nuclei: str | None = Field(
        default=None, description="class of the nuclei of QuPath's cells, on top of everything; by default they are left out"
    )
    names: Names = Field(
        default={},
        description="classification in QuPath -> class, or null: as if it were not drawn. An empty name stands for annotations "
        "without a classification; other classifications must be names of classes",
    )

    @model_validator(mode="after")
    def _one_outside(self) -> AnnotatedSource:
        if self.background and self.glass:
            raise ValueError("background says what is outside every polygon, glass what is outside the tissue: give one")
        return self


class Columns(_Part):
    """The names of a CSV's columns."""

    image: str = "image"
    x: str = "x"
    y: str = "y"
    label: str = "class"


class PointSource(_Images):
    """Slides with labelled points or spots."""

    kind: Literal["points"]
    csv: str = Field(description="one row a point")
    columns: Columns = Columns()
    unit: Literal["px", "um"] | None = Field(
        default=None,
        description="of x and y: px of the image's full resolution, or um from its corner; needed where the columns' names do "
        "not say it, as 'x_px' and 'Centroid X µm' do",
    )
    origin: Origin | None = Field(default=None, description=f"{_ORIGIN}; needed for such slides")
    image_pattern: str | None = Field(
        default=None,
        description="regular expression on the image's name; its first group is what the CSV calls the image, which by default "
        "is the name, the file name or the stem",
    )
    radius_px: Positive | None = Field(default=None, description="radius of the labelled disc, px")
    radius_um: Positive | None = Field(default=None, description="the same, um")
    names: Names = Field(
        default={}, description="label of the CSV -> class, or null: leave such points out. Others must be names of classes"
    )

    @model_validator(mode="after")
    def _one_radius(self) -> PointSource:
        self._one_of("radius_px", "radius_um")
        return self


class MaskSource(_Images):
    """Slides or images with a label image each."""

    kind: Literal["masks"]
    masks: str = Field(
        description="folder of the label images, called as the images are (IMAGE.png), or a pattern in which * stands for the "
        "image's name, such as labels/*_mask.png; one that begins with ./ or ../ counts from each image's folder"
    )
    values: str | dict[int | str, int | str | None] = Field(
        description="value or colour -> class, or null: nobody labelled it; or the file of such a table"
    )
    unlisted: Unlisted | None = Field(
        default=None,
        description="values that 'values' does not list: refuse, ignore (nobody labelled them), or nearest. By default refuse; "
        "a JPEG with two values is read by the threshold between them",
    )
    origin: Origin | None = Field(
        default=None,
        description="what masks show of slides that were scanned in part (MRXS, SCN): 'scanned', that part, as QuPath writes "
        "them, or 'whole'; needed where a mask may show either",
    )
    mask_mpp: Mpp | None = Field(
        default=None,
        description="um/px of the masks, from the left upper corner of what they show; by default a mask shows it all, pixel "
        "by pixel or coarser",
    )
    names: Names = Field(default={}, description="name in 'values' -> class, where they differ, or null: nobody labelled it")

    @field_validator("masks")
    @classmethod
    def _check_masks(cls, value: str) -> str:
        folder, _, name = value.replace("\\", "/").rpartition("/")
        if any(c in folder for c in "*?[") or name.count("*") > 1 or any(c in name for c in "?["):
            raise ValueError(f"{value!r}: give a folder, or a file's name with one * for the image's, as in labels/*_mask.png")
        return value

    @field_validator("values")
    @classmethod
    def _check_values(cls, value: Any) -> Any:
        if not isinstance(value, str):
            try:
                value_table(value, "values")
            except LayoutError as error:
                raise ValueError(str(error)) from None
        return value


class UnlabelledSource(_Images):
    """Slides about which nobody said anything."""

    kind: Literal["unlabelled"]


Source = Annotated[TileSource | AnnotatedSource | PointSource | MaskSource | UnlabelledSource, Field(discriminator="kind")]


class Groups(_Part):
    """Which patient (or slide) an image is of: the first group of ``pattern`` in its name, or a CSV."""

    pattern: str | None = None
    csv: str | None = None
    image: str = "image"
    group: str = "group"

    @model_validator(mode="after")
    def _one_way(self) -> Groups:
        self._one_of("pattern", "csv")
        return self


class Subtypes(_Part):
    """A CSV that names the subtype of every labelled slide (tiles are no slides), for the mask model."""

    csv: str
    image: str = "image"
    subtype: str = "subtype"


class DatasetSettings(_Part):
    """A dataset."""

    classes: tuple[CardClass, ...] = Field(min_length=1)
    levels: tuple[Level, ...] = Field(
        min_length=1,
        description="magnifications, finest first, each with its um/px. PathUp's overview is a level of 4x the um/px",
    )
    sources: tuple[Source, ...] = Field(min_length=1)
    root: Path = Field(default=Path(), description="folder that paths and images' names count from; the file's own by default")
    patch_px: int = Field(default=512, ge=64, multiple_of=CELL_PX, description="side of a patch, px of the level")
    overlap_px: int = Field(
        default=64, ge=0, multiple_of=CELL_PX, description="overlap of the lattice's patches, px of the level"
    )
    min_tissue: float = Field(default=0.25, gt=0, le=1, description="least share of tissue in a patch without labels")
    most_upsampling: float = Field(
        default=1.5,
        ge=1,
        description="an image is left out on levels for which it would be enlarged more than so many times: a model would "
        "learn the blur as the look of the level",
    )
    most_per_class: int = Field(
        default=6000, ge=1, description="most patches of a class on each level and in each split (PathUp: 6000)"
    )
    most_unlabelled: int | None = Field(
        default=None, ge=1, description="the same for patches without any label; by default all"
    )
    groups: Groups | None = None
    held_out: tuple[str, ...] = Field(default=(), description="groups that training never sees")
    held_out_share: float = Field(default=0.0, ge=0, lt=1, description="share of all groups that training never sees, instead")
    subtypes: Subtypes | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSettings:
        mpps = [level.mpp for level in self.levels if level.mpp is not None]
        if len(mpps) < len(self.levels):
            raise ValueError("every level needs its mpp (um/px)")
        if mpps != sorted(set(mpps)):
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
                single = (getattr(source, one, None) for one in ("background", "nuclei"))
                for name in [*getattr(source, "names", {}).values(), *single]:
                    _ = name is None or table.index(name)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        glass = [k for k, source in enumerate(self.sources) if getattr(source, "glass", False)]
        if glass and table.background is None:
            raise ValueError(f"source {glass[0]} has 'glass: true', but no class says 'background: true'; give one")

    def too_coarse(self, mpp: float, level: Level) -> bool:
        """Whether an image of so many um/px would be enlarged too much for a level."""
        return mpp > self.most_upsampling * float(level.mpp or 0) * (1 + 1e-9)

    def class_index(self, label: str, where: str) -> int:
        """Return the position of a class by name, case aside.

        Raises
        ------
        DatasetError
            If the dataset does not name it; the message begins with ``where``.
        """
        try:
            return self.table.index(label)
        except ConfigError as error:
            raise DatasetError(f"{where} has an {error}; add it to 'classes' or map it with 'names'") from None

    @property
    def table(self) -> ClassTable:
        """The classes as a table."""
        return ClassTable(tuple(TissueClass(c.name, c.color, c.background) for c in self.classes))

    @property
    def mpps(self) -> list[float]:
        """um/px of the levels."""
        return [float(level.mpp or 0) for level in self.levels]


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
