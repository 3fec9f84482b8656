"""The settings of a grid that a network is told in training: what it is of, how it is told, worn and hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wsigen.base.yaml_file import Settings
from wsigen.models.card import Text
from wsigen.training.ranges import Count, NotNegative, Positive, Share


class GridTelling(Settings):
    """How a network is told a grid in training (`grids.told_grid`)."""

    noise: NotNegative = Field(
        default=0.1, description="largest deviation of noise on the standardised cells; each crop draws its own, from 0"
    )
    p_unknown: Share = Field(default=0.1, description="share of crops that are told no grid, so that it does without one, too")
    cell_sides: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(1,), description="sides of cells in latent px; each crop draws one. Larger ones are told by repeating them"
    )


class SummariserSettings(Settings):
    """The network that makes tokens of a window of a grid (`models.summariser`)."""

    kind: Literal["vit", "conv"] = Field(default="vit", description="ZoomLDM's released transformer, or convolutions")
    side: Annotated[int, Field(ge=1, le=128)] = Field(
        default=8, description="cells a side of the largest window, a power of two; larger windows are told by means of cells"
    )
    width: Count = Field(default=512, description="numbers of a token")
    layers: Count = Field(default=12, description="of the transformer")
    heads: Count = Field(default=8, description="of the transformer")
    mlp: Count = Field(default=2048, description="of the transformer")
    groups: Count = Field(default=32, description="of the convolutions' norms")
    out_side: Count = Field(default=8, description="tokens a side that convolutions make")

    @model_validator(mode="after")
    def _whole_parts(self) -> SummariserSettings:
        if self.side & (self.side - 1):
            raise ValueError(f"side {self.side} is no power of two")
        if self.kind == "vit" and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.kind == "conv" and (self.side % self.out_side or self.width % self.groups):
            raise ValueError("side must be a multiple of out_side, and width of groups")
        return self

    def config(self, dimension: int, levels: int) -> dict[str, Any]:
        """The config of the network for cells of ``dimension`` numbers."""
        common = {"dimension": dimension, "levels": levels, "side": self.side, "width": self.width}
        if self.kind == "vit":
            return {"_class_name": "ViTSummariser", **common, **self.model_dump(include={"layers", "heads", "mlp"})}
        return {"_class_name": "ConvSummariser", **common, **self.model_dump(include={"out_side", "groups"})}


class EncodedGrid(GridTelling):
    """The grid that a denoiser is told: mean colours of each latent px, or an encoder's cells."""

    encoder: Text | None = Field(default=None, description="an extractor of wsigen evaluate; mean colours by default")
    files: Path | None = Field(
        default=None, description="folder with a grid for each image: NAME.wsz, or NAME.h5 of TRIDENT; in place of an encoder"
    )
    cell_um: Positive | None = Field(default=None, description="side of an encoder's cells, um; by default its tile")
    encoder_mpp: Positive | None = Field(default=None, description="um/px that an encoder looks at; by default 0.5")
    told: Literal["channels", "tokens"] | None = Field(
        default=None, description="by default mean colours by channels beside the latents, other cells by tokens"
    )
    summariser: SummariserSettings | None = Field(default=None, description="of a grid that is told by tokens")

    @model_validator(mode="after")
    def _says_how(self) -> EncodedGrid:
        if self.files and (self.encoder or self.cell_um or self.encoder_mpp):
            raise ValueError("'files' say their encoder and their cells themselves: leave encoder, cell_um and encoder_mpp out")
        if not self.encoded and (self.cell_um or self.encoder_mpp or self.telling == "tokens"):
            raise ValueError("mean colours are told by channels, a cell for each latent px; choose another encoder")
        if self.summariser and self.telling == "channels":
            raise ValueError("'summariser' is of grids that are told by tokens")
        if self.encoded and self.cell_sides != (1,):
            raise ValueError("'cell_sides' is of mean colours")
        return self

    @property
    def encoded(self) -> bool:
        """Whether the cells are an encoder's, not mean colours."""
        return self.files is not None or self.encoder not in (None, "mean-colour")

    @property
    def telling(self) -> Literal["channels", "tokens"]:
        """How the denoiser is told."""
        return self.told or ("tokens" if self.encoded else "channels")

    @property
    def summariser_settings(self) -> SummariserSettings:
        """Those of the recipe, or the released network's."""
        return self.summariser or SummariserSettings()
