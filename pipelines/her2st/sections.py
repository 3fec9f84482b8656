"""Sections of the HER2-ST data: read, resampled to an exact um/px, cut to the tissue, glass cleaned.

The scans have lilac glass with a printed array of spots, fiducials and dust. Every pixel is divided by the local colour of the
glass (flat-field correction), and what is then nearly transparent is painted with one constant colour, so that a model trained
on the result never learns to paint an array.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

COARSE = 16
"""px of the image per px of the coarse view in which tissue is looked for."""
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


def area_mean(image: NDArray[np.generic], factor: int) -> F32:
    """Average blocks of ``factor`` x ``factor`` pixels; a remainder at the far border is cut off.

    Parameters
    ----------
    image : (H, W) or (H, W, C)
    factor : block side in px
    """
    height, width = (side // factor * factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32), dtype=np.float32)


def smoothstep(low: float, high: float, value: F32) -> F32:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def glass_colour(coarse: F32, tissue: Mask, sigma: float = 24.0) -> F32:
    """Interpolate the colour of the glass under the tissue from the glass around it.

    Parameters
    ----------
    coarse : (h, w, 3) coarse RGB, 0-255
    tissue : (h, w) True where glass must not be read
    sigma : reach of the interpolation in coarse px

    Returns
    -------
    (h, w, 3) the local glass colour, by normalised convolution towards the global median
    """
    glass = ~tissue
    typical = np.median(coarse[glass], axis=0) if glass.any() else np.full(3, 255.0)
    weight = ndimage.gaussian_filter(glass.astype(np.float32), sigma) + 1e-3
    colour = [
        typical[c] + ndimage.gaussian_filter(np.where(glass, coarse[..., c] - typical[c], 0.0), sigma) / weight
        for c in range(3)
    ]
    return np.asarray(np.stack(colour, axis=-1), dtype=np.float32)


def coarse_tissue(coarse: F32, threshold: float = 0.12) -> Mask:
    """Find the tissue in a coarse view: clearly darker than glass, in large pieces, holes filled.

    Returns
    -------
    (h, w) True on tissue and the holes it encloses
    """
    typical = np.median(coarse.reshape(-1, 3), axis=0)
    absorbance = 1.0 - (coarse / typical).min(axis=-1)
    # Dust out of focus is grey; tissue is coloured. An opening removes the array spots.
    saturation = (coarse.max(axis=-1) - coarse.min(axis=-1)) / np.maximum(coarse.max(axis=-1), 1.0)
    mask = ndimage.binary_closing((absorbance > threshold) & (saturation > 0.1), iterations=3)
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=2))
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.zeros(mask.shape, dtype=bool)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = 1 + np.flatnonzero(sizes >= 0.05 * sizes.max())
    return np.asarray(np.isin(pieces, kept))


def bounding_box(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns that hold the True pixels of ``mask``."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("No tissue found: expected an image with pixels clearly darker than the glass.")
    return found[0][0], found[0][1]


def enlarge(coarse: NDArray[np.generic], shape: tuple[int, int]) -> F32:
    """Enlarge a coarse field ``(h, w)`` or ``(h, w, C)`` bilinearly to ``shape`` px (H, W), pixel centres aligned."""
    planes = np.moveaxis(np.atleast_3d(coarse).astype(np.float32), -1, 0)
    large = [np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(large, axis=-1) if coarse.ndim == 3 else large[0]


def clean_glass(image: U8, glass: F32, inside: F32, glass_rgb: tuple[int, int, int]) -> tuple[U8, F32]:
    """Divide by the glass colour and paint what is transparent with constant glass, feathered.

    Parameters
    ----------
    image : (H, W, 3) RGB, 0-255
    glass : (H, W, 3) local glass colour, 0-255
    inside : (H, W) 0 far from tissue to 1 on it; array spots outside tissue are removed by it
    glass_rgb : the constant colour

    Returns
    -------
    cleaned : (H, W, 3) uint8
    opacity : (H, W) 0 = painted glass, 1 = the corrected image
    """
    transmittance = np.minimum(image / glass, 1.0).astype(np.float32)
    absorbance = 1.0 - ndimage.gaussian_filter(transmittance.min(axis=-1), 1.5)
    opacity = smoothstep(0.05, 0.13, absorbance) * inside
    white = np.asarray(glass_rgb, dtype=np.float32)
    blended = white * (1.0 - opacity[..., None] * (1.0 - transmittance))
    return np.rint(blended).astype(np.uint8), opacity.astype(np.float32)
