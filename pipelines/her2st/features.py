"""Local features of H&E tissue on the latent grid: stain densities, nuclei, texture, at several scales."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipelines.her2st.sections import Section
from pipelines.her2st.tissue import F32, U8, area_mean

LATENT_PX = 8
SCALES = (1.5, 4.0, 9.0)  # Gaussian sigmas in latents (one latent = 5.6 um at 0.7 um/px)

# Ruifrok & Johnston 2001: optical density of haematoxylin, eosin and what is left, in R, G, B.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], dtype=np.float32)

NAMES = (
    "haematoxylin",
    "eosin",
    "brightness",
    "opacity",
    "nuclear_share",
    "small_nuclei",
    "large_nuclei",
    "gradient_energy",
    "coherence",
)


def stain_densities(rgb: U8, glass_rgb: tuple[int, int, int]) -> tuple[F32, F32]:
    """Separate haematoxylin and eosin by colour deconvolution.

    Parameters
    ----------
    rgb : (H, W, 3)
    glass_rgb : colour of density 0

    Returns
    -------
    haematoxylin, eosin : (H, W) optical densities, never negative
    """
    white = np.asarray(glass_rgb, dtype=np.float32) + 1.0
    table = -np.log((np.arange(256, dtype=np.float32)[:, None] + 1.0) / white)
    stains = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    unmix = np.linalg.inv(stains)
    amounts = [sum(table[rgb[..., c], c] * unmix[c, stain] for c in range(3)) for stain in (0, 1)]
    return np.maximum(amounts[0], 0.0), np.maximum(amounts[1], 0.0)


def _pooled(image: F32) -> F32:
    return area_mean(image, LATENT_PX)


def _blobs(haematoxylin: F32, sigma_px: float) -> F32:
    """Strength of round dark blobs of radius about 1.4 sigma (Laplacian of Gaussian), pooled."""
    response = -(sigma_px**2) * ndimage.gaussian_laplace(haematoxylin, sigma_px)
    return _pooled(np.maximum(response, 0.0))


def _coherence(density: F32) -> F32:
    """How much the texture runs one way, 0 to 1, from the structure tensor at 40 px."""
    smooth = ndimage.gaussian_filter(density, 1.5)
    gy, gx = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    xx, yy, xy = (ndimage.gaussian_filter(_pooled(p), 4.0) for p in (gx * gx, gy * gy, gx * gy))
    return np.asarray(np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-4), dtype=np.float32)


def base_features(rgb: U8, glass_rgb: tuple[int, int, int]) -> F32:
    """Compute the features in `NAMES` on the latent grid.

    Parameters
    ----------
    rgb : (H, W, 3) cleaned section

    Returns
    -------
    (H/8, W/8, len(NAMES))
    """
    haematoxylin, eosin = stain_densities(rgb, glass_rgb)
    grey = rgb.mean(axis=-1, dtype=np.float32) / 255.0
    energy = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    maps = [
        _pooled(haematoxylin),
        _pooled(eosin),
        _pooled(grey),
        _pooled((grey < 0.93).astype(np.float32)),
        _pooled((haematoxylin > 0.6).astype(np.float32)),
        _blobs(haematoxylin, 2.5),
        _blobs(haematoxylin, 5.0),
        _pooled(energy),
        _coherence(haematoxylin + eosin),
    ]
    return np.stack(maps, axis=-1)


def multiscale(base: F32) -> F32:
    """Append each feature's Gaussian mean at every scale, as (h, w, F * (len(SCALES)))."""
    return np.concatenate([ndimage.gaussian_filter(base, (s, s, 0)) for s in SCALES], axis=-1)


def section_features(section: Section, glass_rgb: tuple[int, int, int]) -> F32:
    """Compute a section's features, each scaled by its spread on this section's tissue: stain differs.

    Returns
    -------
    (h, w, F) on the latent grid
    """
    base = base_features(section.rgb, glass_rgb)
    on_tissue = base[section.tissue]
    scaled = (base - np.median(on_tissue, axis=0)) / (on_tissue.std(axis=0) + 1e-6)
    share = NAMES.index("opacity")
    scaled[..., share] = base[..., share]  # it means the same on every section
    return multiscale(scaled.astype(np.float32))
