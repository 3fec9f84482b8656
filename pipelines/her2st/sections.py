"""Sections of the HER2-ST data: read, resampled to an exact um/px, cut to the tissue, glass cleaned."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.her2st.tissue import (
    COARSE,
    U8,
    area_mean,
    bounding_box,
    clean_glass,
    coarse_tissue,
    enlarge,
    glass_colour,
)

PATCH_MPP = 0.7
"""um/px of the cleaned sections; the originals have 0.67 to 0.70."""
GLASS_RGB = (243, 241, 244)
"""What glass is painted with."""
MARGIN_PX = 512
"""Glass kept around the tissue's bounding box, at `PATCH_MPP`."""


@dataclass(frozen=True)
class SectionFile:
    """One image of the data folder."""

    name: str
    path: Path
    mpp: float  # um/px


@dataclass(frozen=True)
class Section:
    """A cleaned section at the resolution of level "patch".

    Attributes
    ----------
    rgb : (H, W, 3) uint8; H and W are multiples of 32 px
    tissue : (H/8, W/8) bool, one value per latent: on tissue or a hole it encloses
    origin_px : (x, y) of the first pixel in the resampled image
    scale : resampled px per px of the original image
    """

    name: str
    rgb: U8
    tissue: NDArray[np.bool_]
    origin_px: tuple[int, int]
    scale: float

    def save(self, folder: Path) -> None:
        """Write the section as one uncompressed ``.npz`` file."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / f"{self.name}.npz",
            rgb=self.rgb,
            tissue=self.tissue,
            origin=self.origin_px,
            scale=self.scale,
        )

    @staticmethod
    def load(folder: Path, name: str) -> Section:
        """Read what `save` wrote."""
        with np.load(folder / f"{name}.npz") as stored:
            x, y = (int(v) for v in stored["origin"])
            return Section(name, stored["rgb"], stored["tissue"], (x, y), float(stored["scale"]))


def read_index(data: Path) -> list[SectionFile]:
    """List the section images that ``index.csv`` in the data folder names."""
    with (data / "index.csv").open(newline="") as file:
        return [SectionFile(row["section"], data / row["file"], float(row["mpp"])) for row in csv.DictReader(file)]


def read_resampled(source: SectionFile, mpp: float) -> U8:
    """Read an image and resample it to exactly ``mpp`` um/px."""
    import pyvips

    image = pyvips.Image.new_from_file(str(source.path), access="sequential")
    return np.asarray(image.resize(source.mpp / mpp).numpy(), dtype=np.uint8)[..., :3]


def prepare_section(source: SectionFile) -> Section:
    """Read one section, find its tissue, and clean its glass."""
    image = read_resampled(source, PATCH_MPP)
    coarse = area_mean(image, COARSE)
    tissue = coarse_tissue(coarse)
    glass = glass_colour(coarse, ndimage.binary_dilation(tissue, iterations=8))
    rows, cols = _grow(bounding_box(tissue), MARGIN_PX // COARSE, tissue.shape)
    near = ndimage.gaussian_filter(ndimage.binary_dilation(tissue, iterations=2).astype(np.float32), 1.0)
    y, x, height, width = (COARSE * v for v in (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start))
    rgb, _ = clean_glass(
        image[y : y + height, x : x + width],
        enlarge(glass[rows, cols], (height, width)),
        enlarge(near[rows, cols], (height, width)),
        GLASS_RGB,
    )
    latent_tissue = np.kron(tissue[rows, cols], np.ones((COARSE // 8, COARSE // 8), dtype=bool))
    return Section(source.name, rgb, latent_tissue, (x, y), source.mpp / PATCH_MPP)


def _grow(box: tuple[slice, slice], margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Grow a coarse box by a margin inside the image; its sides become even, so px sides divide by 32."""
    grown = []
    for side, limit in zip(box, shape, strict=True):
        start, stop = max(side.start - margin, 0), min(side.stop + margin, limit)
        grown.append(slice(start, stop - (stop - start) % 2))
    return grown[0], grown[1]
