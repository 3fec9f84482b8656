"""The card of a bundle: ``wsigen.yaml``, what a person and the engine must know about a model.

Whatever differs between families of models (scale of the latents, image range, how a class becomes a condition) is said here,
so that no code has to know a family. A diffusers folder without a card gets one derived from its configs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from wsigen.base.classes import UNKNOWN, ClassTable, TissueClass
from wsigen.base.errors import BundleError
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.models.derived_card import card_command, derived_content

CARD_NAME = "wsigen.yaml"

Count = Annotated[int, Field(ge=0)]
Byte = Annotated[int, Field(ge=0, le=255)]
Rgb = tuple[Byte, Byte, Byte]
Text = Annotated[str, Field(min_length=1)]
Names = TypeVar("Names", bound=Sequence[str])
Kind = Literal["class-map", "class-tokens", "text", "none"]


def unique_names(names: Names) -> Names:
    """Refuse names that differ in case alone, or not at all (ValueError, for pydantic)."""
    folded = [name.casefold() for name in names]
    for name in folded:
        if folded.count(name) > 1:
            raise ValueError(f"the name {name!r} appears twice; every entry needs its own name")
    return names


class DataSource(Settings):
    """A data set the model was trained on; at least one of ``url`` and ``doi``."""

    name: Text
    url: str | None = None
    doi: str | None = None
    licence: Text
    attribution: Text

    @model_validator(mode="after")
    def _can_be_found(self) -> DataSource:
        if not (self.url or self.doi):
            raise ValueError("a data source needs a 'url' or a 'doi'")
        return self


class CardClass(Settings):
    """A tissue class: its name in QuPath, its RGB colour (0-255), whether it is bare glass."""

    name: Text
    color: Rgb
    background: bool = False


class Level(Settings):
    """A magnification the model knows; ``mpp`` in um/px of the image (not of the latent), null if unknown."""

    name: Text
    mpp: Annotated[float, Field(gt=0)] | None = None


class Conditioning(Settings):
    """How classes become conditions.

    Attributes
    ----------
    kind : {"class-map", "class-tokens", "text", "none"}
        ``class-map``: one-hot channels ``[classes..., unknown]`` beside the latents. ``class-tokens``: one embedding per
        (level, class) and a last one for "no condition". ``text``: prompts through CLIP or T5. ``none``: nothing.
    prompt, negative_prompt : str
        ``text`` only; ``{class}`` and ``{level}`` stand for the names. The negative prompt is the null condition.
    """

    kind: Kind
    prompt: str = "{class}, {level}"
    negative_prompt: str = ""


class Latent(Settings):
    """The latent space: ``z = (encode(x) - mean) / std`` per channel, x an image scaled to ``image_range``.

    ``mean`` and ``std`` may be written as one number; here they always have ``channels`` values. One latent px covers
    ``factor x factor`` image px.
    """

    channels: Annotated[int, Field(ge=1, le=1024)]
    factor: Annotated[int, Field(ge=1, le=1024)]
    mean: tuple[float, ...] = Field(default=(0.0,), validate_default=True)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), validate_default=True)
    image_range: tuple[float, float] = (-1.0, 1.0)

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _per_channel(cls, value: Any, info: ValidationInfo) -> Any:
        channels = info.data.get("channels", 1)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise ValueError(f"{len(values)} values for {channels} latent channels; give one number, or one each")
        return values

    @field_validator("image_range")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"[{value[0]}, {value[1]}] is empty; [-1, 1] and [0, 1] are usual")
        return value


Patch = Annotated[int, Field(ge=1, le=8)]
Sampler = Literal["ddim", "dpm++"]


def fine_to_coarse(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return ``levels`` if their um/px increase (ValueError)."""
    known = [level.mpp for level in levels if level.mpp is not None]
    if any(a >= b for a, b in pairwise(known)):
        raise ValueError(f"um/px {known} must increase: levels are listed from fine to coarse")
    return levels


class GridNetwork(Settings):
    """The network in ``grid/`` of a bundle, which draws grids from class maps: how its passes run.

    Attributes
    ----------
    levels : tuple of Level
        um/px of images whose latent px its cells are, fine to coarse; the finest a whole multiple of the model's own. The
        coarsest is drawn first; each finer one is told the one before.
    crops : tuple of int
        Sides of the windows it knows, cells, falling: a pass takes the first that fits into its canvas.
    patch, guidance, steps, sampler, eta
        As those of the card.
    coarse_steps : int or None
        Of all levels but the finest; None: as many. Architecture takes form there, in few windows: many steps cost little.
    noise : float
        Deviation of the noise on a drawn grid that the next finer one is told, of standardised cells. What a network draws is
        softer than what it was told in training; noise hides that, and it draws detail of its own (conditioning augmentation,
        Ho et al. 2022, "Cascaded diffusion models", section 4). What is known of a slide that is edited or continued is told so
        as well.
    """

    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    crops: Annotated[tuple[Annotated[int, Field(ge=8, multiple_of=2)], ...], Field(min_length=1)] = (64, 32)
    patch: Patch = 1
    guidance: Annotated[float, Field(ge=0, le=50)] = 0.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    coarse_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0

    @field_validator("levels")
    @classmethod
    def _fine_to_coarse(cls, value: tuple[Level, ...]) -> tuple[Level, ...]:
        return fine_to_coarse(value)

    @field_validator("crops")
    @classmethod
    def _falling(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(a <= b for a, b in pairwise(value)):
            raise ValueError(f"{list(value)} must fall: the largest windows come first")
        return value


class GridCondition(Settings):
    """The grid that a denoiser is told.

    Attributes
    ----------
    told : {"channels", "tokens"}
        ``channels``: beside the latents, one cell per latent px, and a last channel, "known". ``tokens``: a window of cells
        through the bundle's summariser (`models.summariser`), to which the denoiser attends.
    encoder, encoder_sha256 : str
        What the numbers of a cell are: ``mean-colour`` (`grids.mean_colour`) or the name of an extractor, and the hash of its
        weights, empty where it is not known.
    cell_um, encoder_mpp : float or None
        Side of the encoder's cells, and the um/px that it looks at; None: cells of any size will do, as mean colours.
    mean, std : tuple of float
        ``channels``: the network is told ``(cell - mean) / std``. With ``tokens`` each cell is standardised over its numbers.
    dimension : int or None
        ``tokens``: numbers of a cell.
    parts : tuple of int
        ``tokens``: for each level of the card, the parts a side of a crop's window; each is the mean of the cells under it.
    cell_sides : tuple of int
        ``channels``: sides of the cells that it was told in training, latent px.
    required : bool
        Whether the denoiser makes nothing useful without a grid: it was never trained so.
    network : GridNetwork or None
        How the bundle draws grids; None: it needs one, from a reference or a file, or does without.
    """

    told: Literal["channels", "tokens"] = "channels"
    encoder: Text = "mean-colour"
    encoder_sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    cell_um: Annotated[float, Field(gt=0)] | None = None
    encoder_mpp: Annotated[float, Field(gt=0)] | None = None
    cell_sides: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    dimension: Annotated[int, Field(ge=2, le=8192)] | None = None
    parts: tuple[Annotated[int, Field(ge=1, le=256)], ...] = ()
    required: bool = False
    network: GridNetwork | None = None

    @model_validator(mode="after")
    def _says_what_it_needs(self) -> GridCondition:
        if self.told == "channels":
            if not self.mean or len(self.mean) != len(self.std) or self.dimension or self.parts:
                raise ValueError("told by channels, a grid has a mean and a std for each number of a cell, and no parts")
        elif self.mean or self.std or not self.dimension or not self.parts or not self.cell_um:
            raise ValueError("told by tokens, a grid has dimension, cell_um and parts, and neither mean nor std")
        elif self.network:
            raise ValueError("a grid that is told by tokens cannot be drawn: leave network out")
        return self

    @property
    def numbers(self) -> int:
        """Numbers of a cell."""
        return self.dimension or len(self.mean)

    @property
    def channels(self) -> int:
        """Channels of the network's input: those of a cell, and "known"; none where it is told by tokens."""
        return len(self.mean) + 1 if self.told == "channels" else 0


class ClassCount(Settings):
    """How many patches of how many images held a class."""

    patches: Count
    images: Count


class TrainedOn(Settings):
    """The data that a training saw, counted.

    Attributes
    ----------
    dataset : str
        Hash of the dataset: its settings, images and labels (`Dataset.key`).
    images, groups : int
        Of the training split; groups are patients or whatever the dataset splits by, 0 if it names none.
    held_out_groups : int
        Never seen.
    levels : dict of str to dict of str to ClassCount
        By level and class; "(not labelled)" is patches without any label.
    """

    dataset: Text
    images: Count
    groups: Count
    held_out_groups: Count
    levels: dict[str, dict[str, ClassCount]]


class BundleCard(Settings):
    """What ``wsigen.yaml`` holds.

    Attributes
    ----------
    not_for : str
        What the model must not be used for.
    trained_on : TrainedOn or None
        Written by ``wsigen train``.
    classes : tuple of CardClass
        Position = index in class maps.
    levels : tuple of Level
        Magnifications, fine to coarse; position = level index.
    grid : GridCondition or None
        The grid that the denoiser is told besides its class conditions.
    crop_latent : int
        Side of the windows the model denoises, latent px.
    patch : int
        Side of the squares of latent px that its network sees as one px of as many more channels (`denoisers.folded`).
    guidance : float
        Default w of ``(1 + w) eps(c) - w eps(null)``.
    steps : int
        Default number of transitions.
    sampler : {"ddim", "dpm++"}
        Default solver; DPM-Solver++ (2M) needs fewer steps of a network that is told much.
    eta : float
        Default noise of DDIM's steps, 0 .. 1.
    glass_rgb : (int, int, int) or None
        Colour of bare glass, if the model's own glass shall be replaced by it.
    """

    format: Literal[1]
    name: Text
    title: Text
    licence: Text
    not_for: Text
    training_data: tuple[DataSource, ...] = ()
    trained_on: TrainedOn | None = None
    classes: Annotated[tuple[CardClass, ...], Field(min_length=1, max_length=UNKNOWN - 1)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=100)]
    conditioning: Conditioning
    grid: GridCondition | None = None
    latent: Latent
    crop_latent: Annotated[int, Field(ge=8, le=4096)]
    patch: Patch = 1
    guidance: Annotated[float, Field(ge=0, le=50)] = 0.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    glass_rgb: Rgb | None = None
    _remedy: str = PrivateAttr("")

    @field_validator("classes", "levels")
    @classmethod
    def _own_names(cls, value: tuple[CardClass | Level, ...]) -> tuple[CardClass | Level, ...]:
        unique_names([v.name for v in value])
        return value

    @field_validator("classes")
    @classmethod
    def _one_background(cls, value: tuple[CardClass, ...]) -> tuple[CardClass, ...]:
        names = [v.name for v in value if v.background]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} are both background; one class stands for bare glass")
        return value

    @field_validator("levels")
    @classmethod
    def _fine_to_coarse(cls, value: tuple[Level, ...]) -> tuple[Level, ...]:
        return fine_to_coarse(value)

    @model_validator(mode="after")
    def _parts_of_each_level(self) -> BundleCard:
        if self.grid is not None and self.grid.parts and len(self.grid.parts) != len(self.levels):
            raise ValueError(f"grid.parts {list(self.grid.parts)}: give one number for each of {len(self.levels)} levels")
        return self

    @model_validator(mode="after")
    def _cells_of_whole_latent_px(self) -> BundleCard:
        if self.grid is None or self.grid.network is None:
            return self
        cells, finest = self.grid.network.levels[0].mpp, self.levels[0].mpp
        ratio = cells / finest if cells and finest else 1.0
        if abs(ratio - max(1, round(ratio))) > 0.02 * ratio:
            raise ValueError(
                f"grid.network.levels: the finest, {cells} um/px, must be a whole multiple of the model's {finest}"
            )
        return self

    @property
    def attends(self) -> bool:
        """Whether the network attends to tokens beside its input: of prompts, or of a grid."""
        return self.conditioning.kind == "text" or (self.grid is not None and self.grid.told == "tokens")

    @property
    def table(self) -> ClassTable:
        """The classes as layouts and annotations know them."""
        return ClassTable(tuple(TissueClass(c.name, c.color, c.background) for c in self.classes), self._remedy)

    @property
    def input_channels(self) -> int:
        """Channels of the network's sample: latents, ``[classes..., unknown]`` of class maps, and the grid's."""
        mapped = len(self.classes) + 1 if self.conditioning.kind == "class-map" else 0
        return self.latent.channels + mapped + (self.grid.channels if self.grid else 0)

    @property
    def drawing(self) -> BundleCard | None:
        """The card of the network that draws grids, as if it were a denoiser of its own; None if there is none.

        Its latents are the cells, standardised, and it is told the next coarser grid as channels.
        """
        if self.grid is None or self.grid.network is None:
            return None
        network = self.grid.network
        latent = Latent(channels=len(self.grid.mean), factor=self.latent.factor, mean=self.grid.mean, std=self.grid.std)
        own = {"levels": network.levels, "latent": latent, "crop_latent": network.crops[0], "patch": network.patch}
        own |= {"guidance": network.guidance, "steps": network.steps, "sampler": network.sampler, "eta": network.eta}
        return self.model_copy(update={**own, "grid": self.grid.model_copy(update={"network": None})})


def read_card(folder: Path) -> BundleCard:
    """Read ``wsigen.yaml`` of a bundle, or derive a card from the diffusers configs of a folder without one.

    Raises
    ------
    BundleError
        One line with the path of the wrong field and, for an unknown key, the nearest known one.
    """
    file = folder / CARD_NAME
    if not file.is_file():
        card = make_card(derived_content(folder), f"{folder} (card derived from its configs)")
        card._remedy = f"; the model's own are not known: name them with {card_command(folder)}"
        return card
    return make_card(read_mapping(file, BundleError, expected="'key: value' lines"), str(file))


def make_card(content: dict[str, Any], source: str) -> BundleCard:
    """Validate a card; ``source`` begins the message of a ``BundleError``."""
    return validated(BundleCard, content, source, BundleError)
