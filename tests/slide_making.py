"""Tissue-like pixels, and slides made of them, for the tests of `wsigen.slide`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from wsigen.slide.ome import ome_xml
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.spool import Spool
from wsigen.slide.tiles import encode_block
from wsigen.slide.writer import write_slide


def smooth_field(height: int, width: int, step: int, seed: int) -> NDArray[np.float64]:
    """A smooth random field of unit variance and a correlation length of about ``step``."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((height // step + 4, width // step + 4)), 1.0)
    return zoom(field / field.std(), step, order=1)[:height, :width]


def tissue(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pink and purple, uint8 ``[height, width, 3]``, with detail at three scales."""
    scales = ((64, 25), (16, 15), (6, 8))
    detail = sum(smooth_field(height, width, step, seed + step) * gain for step, gain in scales)
    pixels = np.array([205.0, 150.0, 190.0]) + detail[..., None] * np.array([0.9, 1.2, 0.6])
    return np.clip(pixels, 5, 250).astype(np.uint8)


def fill(spool: Spool, spec: PyramidSpec, rgb: NDArray[np.uint8], backwards: bool = False) -> None:
    """Encode every block of ``rgb`` into the spool."""
    for ij in sorted(spec.grid, reverse=backwards):
        spool.write(ij, encode_block(spec, ij, rgb[spec.grid.box(ij).slices]))


def make_slide(folder: Path, spec: PyramidSpec, rgb: NDArray[np.uint8], backwards: bool = False) -> Path:
    """Write ``folder/x.ome.tiff``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spool").mkdir(exist_ok=True)
    spool = Spool(folder / "spool")
    fill(spool, spec, rgb, backwards)
    path = folder / "x.ome.tiff"
    write_slide(path, spec, spool, ome_xml(spec, "x", {"seed": "7"}))
    return path


def exact_mean(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.float64]:
    """Area means over whole ``factor x factor`` boxes, in floating point."""
    h, w = (n // factor for n in rgb.shape[:2])
    whole = rgb[: h * factor, : w * factor].astype(np.float32)
    return whole.reshape(h, factor, w, factor, 3).mean((1, 3))
