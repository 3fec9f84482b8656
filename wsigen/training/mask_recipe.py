"""The recipe of ``wsigen train mask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from wsigen.training.recipes import Count, LoopSettings, Positive, Settings


class MaskNetworkSettings(Settings):
    """A U-Net from scratch, attention at its two coarsest levels."""

    channels: Annotated[tuple[Count, ...], Field(min_length=2)] = (32, 64, 128)
    layers: Count = 2
    norm_groups: Count = 8
    head_dim: Count = 32


class MaskSampling(Settings):
    """How layouts are drawn and cleaned later; see `MaskCard`."""

    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 50
    smallest: Count = 4


class MaskRecipe(Settings):
    """``wsigen train mask``.

    Attributes
    ----------
    side, cell_um:
        Cells per side of the maps, and um of a cell; by default 64 px of the dataset's finest level (DiffInfinite's
        1/64). Slides larger than ``side * cell_um`` are cut at random, so that a model of whole slides needs cells of
        at least a slide's extent over ``side``.
    subtypes:
        Names the model learns, in this order; by default all of the dataset.
    least_slides:
        Fewer labelled slides are refused: of a few, a model learns nothing but to repeat them.
    padding:
        What smaller slides are padded with: the background class (if the dataset names one), or ``unknown``, for
        images that are cut out of the tissue.
    p_unc:
        Share of maps whose subtype is taken away, the paper's p_unc.
    """

    dataset: Path
    seed: Annotated[int, Field(ge=0)] = 0
    side: Annotated[int, Field(ge=8, le=1024)] = 64
    cell_um: Positive | None = None
    subtypes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    least_slides: Count = 10
    padding: Literal["background", "unknown"] = "background"
    p_unc: Annotated[float, Field(ge=0, lt=1)] = 0.5
    network: MaskNetworkSettings = MaskNetworkSettings()
    sampling: MaskSampling = MaskSampling()
    loop: LoopSettings = LoopSettings()

    @model_validator(mode="after")
    def _fits(self) -> MaskRecipe:
        channels, groups, head = self.network.channels, self.network.norm_groups, self.network.head_dim
        multiple = 2 ** (len(channels) - 1)
        if self.side % multiple:
            raise ValueError(f"side {self.side} is no multiple of {multiple}, which {len(channels)} levels need")
        if any(c % groups for c in channels) or any(c % head for c in channels[-2:]):
            raise ValueError(f"channels {channels} must be multiples of norm_groups, the last two of head_dim, too")
        return self
