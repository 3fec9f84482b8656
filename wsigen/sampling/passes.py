"""The passes of a run: which magnification levels are generated, coarse to fine, and how each one starts.

PathUp generates an overview, resizes it to the next magnification, re-noises it to strength t and denoises it window by
window; larger slides repeat this per level. A run without a cascade is the same with one pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from wsigen.base.geometry import ChunkGrid
from wsigen.sampling.pathup import PathUpPlan
from wsigen.sampling.plan import TAPERS, CropPlan
from wsigen.sampling.random_patch import RandomPatchPlan
from wsigen.sampling.schedule import Schedule
from wsigen.sampling.shifted import ShiftedPlan

Start = Literal["noise", "reference", "previous"]
Network = Literal["image", "grid"]
GridFrom = Literal["none", "given", "previous"]
Consistency = Literal["none", "picture"]

MODES = ("pathup", "random-patch", "shifted")

_FAR = 1_000_000
"""No side of a slide is longer, px."""


MOST_CHUNKS = 2**22
"""Of a pass; a slide of 1,000,000 px a side has 60,000."""


MOST_CHUNK_PX = 2**27
"""Of a chunk and half a crop around it: 11,585 latent px squared; with crops of 64 px a chunk has 512 px a side."""


@dataclass(frozen=True, slots=True)
class PassPlan:
    """One pass: a latent canvas, where it starts from and how its crops lie.

    Attributes
    ----------
    index : int
        Position in the run, 0 = coarsest.
    level : int
        Index of the magnification in the bundle's card (0 = finest).
    height, width : int
        Canvas, latent px.
    scale : int
        Slide px per image px of this pass (1 at full resolution).
    factor : int
        Image px per latent px (f of the autoencoder).
    chunk, side : int
        Sides of the chunks of the canvas and of the crops the model denoises, latent px.
    schedule : Schedule
        Timesteps and noise levels.
    start : {"noise", "reference", "previous"}
        Noise, the user's reference image, or the previous pass.
    strength : float
        Noise strength of the start in (0, 1]; 1 for noise.
    mode : {"pathup", "random-patch", "shifted"}
        How crops lie.
    overlap : int
        Of crops on a lattice, latent px.
    taper : str
        How crops are weighted, a name in `plan.TAPERS`.
    weighted_last : int
        See `random_patch.RandomPatchPlan`.
    seed : int
        Of the run; it decides where crops lie.
    align : int
        Crops begin at multiples of it, latent px: the side of the squares that the network sees as one px (`BundleCard.patch`).
        A window that lies otherwise cuts its pixels into other squares, and estimates that disagree average to haze. Only
        crops that would leave the canvas may begin elsewhere, if its sides are no multiples.
    network : {"image", "grid"}
        Which of the bundle's networks denoises: that of latents, or the one that draws grids, whose canvas is one of cells.
    grid_from : {"none", "given", "previous"}
        The grid that the network is told: none, the user's, or that of the last grid pass before.
    consistency : {"none", "picture"}
        Whether decoded pixels are corrected towards the picture of the pass before, from which this one then starts.

    Raises
    ------
    ValueError
        If a number is out of range: plans are read from files that other people wrote.
    """

    index: int
    level: int
    height: int
    width: int
    scale: int
    factor: int
    chunk: int
    side: int
    schedule: Schedule
    start: Start
    strength: float
    mode: str
    overlap: int
    taper: str
    weighted_last: int
    seed: int
    align: int = 1
    network: Network = "image"
    grid_from: GridFrom = "none"
    consistency: Consistency = "none"

    def __post_init__(self) -> None:
        ranges = {
            "index": (0, 99), "level": (0, 99), "height": (1, _FAR), "width": (1, _FAR), "scale": (1, _FAR),
            "factor": (1, 1024), "side": (1, 4096), "chunk": (1, _FAR), "strength": (0.0, 1.0), "overlap": (0, self.side - 1),
            "weighted_last": (0, _FAR), "align": (1, max(1, self.side // 2)), "seed": (0, 2**64 - 1),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is not in {least} .. {most}")
        if self.grid.rows * self.grid.columns > MOST_CHUNKS:
            raise ValueError(f"chunk of {self.chunk} cuts the canvas into more than {MOST_CHUNKS:,}")
        if (self.chunk + self.side) ** 2 > MOST_CHUNK_PX:
            raise ValueError(f"chunk of {self.chunk} holds more than {MOST_CHUNK_PX:,} latent px")
        if self.consistency != "none" and (self.start != "previous" or self.index == 0):
            raise ValueError("consistency is with a pass before that this one does not start from")
        for name, words in (("mode", MODES), ("taper", TAPERS)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is none of {', '.join(words)}")

    @property
    def steps(self) -> int:
        """Number of transitions."""
        return self.schedule.steps

    @property
    def grid(self) -> ChunkGrid:
        """Chunks of the latent canvas."""
        return ChunkGrid(self.height, self.width, self.chunk)

    @property
    def cell_px(self) -> int:
        """Slide pixels a latent pixel covers."""
        return self.scale * self.factor

    def crop_plan(self) -> CropPlan:
        """The crops of this pass."""
        h, w, p, align = self.height, self.width, self.side, self.align
        overlap = p - max(align, (p - self.overlap) // align * align)
        if self.mode == "pathup":
            return PathUpPlan(h, w, p, overlap, self.taper)
        if self.mode == "random-patch":
            return RandomPatchPlan(h, w, self.seed, self.index, p, self.steps, self.weighted_last, self.taper, align)
        return ShiftedPlan(h, w, self.seed, self.index, p, overlap, self.taper, align)


DEFAULT_TAPER = "linear"
"""A tent: of all weights it leaves the faintest seams (docs/quality.md); the paper's own (``pathup``) leave some that can be
found."""


def default_overlap(mode: str, side: int) -> int:
    """Overlap of the crops of a mode, latent px: PathUp's half a side; an eighth where they shift (docs/quality.md)."""
    return {"pathup": side // 2, "random-patch": 0, "shifted": side // 8}[mode]


def cascade_scales(
    mpps: list[float | None], finest: float | None, levels: int, width: int, height: int, crop_px: int
) -> list[tuple[int, int]]:
    """Choose the levels of a cascade.

    A level needs a scale that is a whole multiple of the finer one's and a canvas of at least one crop; others are left out.

    Parameters
    ----------
    mpps : list of float or None
        um/px of the model's levels, fine to coarse.
    finest : float or None
        um/px of scale 1; the first level is always used, whatever its scale.
    levels : int
        How many of them may be used, from the finest.
    width, height, crop_px : int
        Of the slide and of a crop, px.

    Returns
    -------
    list of (int, int)
        (level index, scale), coarse to fine.
    """
    chosen: list[tuple[int, int]] = []
    for level, mpp in enumerate(mpps[:levels]):
        ratio = 1.0 if mpp is None or finest is None else mpp / finest
        scale = round(ratio)
        fits = math.ceil(width / scale) >= crop_px and math.ceil(height / scale) >= crop_px
        if level == 0 or (abs(ratio - scale) < 0.02 * ratio and scale > chosen[-1][1] and fits and scale % chosen[-1][1] == 0):
            chosen.append((level, scale))
    return chosen[::-1]


def default_chunk(height: int, width: int, side: int, workers: int) -> int:
    """Chunk side for a canvas: a power-of-two multiple of the side, small enough that every worker has chunks.

    Not below 4 sides, as small chunks fill their last batches badly; but a canvas of a single chunk is cut at 2 sides, so that
    the cores of a laptop share it.
    """
    chunk = 8 * side
    while chunk > 4 * side and math.ceil(height / chunk) * math.ceil(width / chunk) < 2 * workers:
        chunk //= 2
    return 2 * side if chunk >= max(height, width) > 2 * side else chunk
