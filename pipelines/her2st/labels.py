"""Weak class maps of sections, from sparse labels and local features, and sections written with them as a dataset's images.

Seeds on the latent grid, strongest first:

* spots named after their gene-expression cluster: cancer -> Tumor; immune "B/plasma cells, APC" and
  "APC, B-cell, T-cell" -> Immune cells; immune "B/plasma cells, endothelium" lies on fibrous bands -> Stroma;
* the pathologist's spots of section C1, carried to C2 and C3 by the aligned coordinates;
* rules, since labelled stroma and fat are few: eosin-rich with few nuclei -> Stroma;
  mostly empty inside tissue -> Other.

A classifier that learns of the seeds of all sections (local features: stain densities, nuclei, texture, at several scales) then
labels every latent; its probabilities are smoothed, and unknown where unsure.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.her2st.sections import F32, PATCH_MPP, U8, Section, area_mean
from wsigen.base.classes import UNKNOWN as NOBODY_KNOWS
from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.geometry import Box
from wsigen.slide.sidecars import write_annotations
from wsigen.storage.files import atomic_path

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

GLASS, TUMOR, STROMA, IMMUNE, OTHER, UNKNOWN = range(6)
CLASS_NAMES = ("Glass", "Tumor", "Stroma", "Immune cells", "Other")

Labels = NDArray[np.uint8]

_CLUSTERS = {
    "cancer": TUMOR,
    "immune : B/plasma cells, APC": IMMUNE,
    "immune : APC, B-cell, T-cell": IMMUNE,
    "immune : B/plasma cells, endothelium": STROMA,
}
_PATHOLOGIST = {
    "invasive cancer": TUMOR,
    "connective tissue": STROMA,
    "adipose tissue": OTHER,
    "undetermined": OTHER,
}
_NEIGHBOURS_OF_C1 = ("C2", "C3")
SPOT_RADIUS_PX = 60.0  # in the original image; a spot is about 145 px across

CLASS_COLOURS = ((235, 235, 240), (200, 0, 0), (150, 200, 150), (160, 90, 160), (255, 200, 0), (0, 0, 0))

LATENT_PX = 8
TILE_PX = 512
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


# -- seeds --------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def spot_labels(data: Path, section: str) -> list[tuple[float, float, int]]:
    """List (x, y, class) of a section's spots in px of its original image; pathologist's spots come first."""
    spots = [row for row in _rows(data / "spots.csv") if row["section"] == section]
    found: list[tuple[float, float, int]] = []
    if section in _NEIGHBOURS_OF_C1 and spots:
        aligned = np.array([[float(r["aligned_x_px"]), float(r["aligned_y_px"]), 1.0] for r in spots])
        pixels = np.array([[float(r["x_px"]), float(r["y_px"])] for r in spots])
        to_pixels, *_ = np.linalg.lstsq(aligned, pixels, rcond=None)
        for row in _rows(data / "c1_pathologist_spots.csv"):
            x, y = np.array([float(row["aligned_x_px"]), float(row["aligned_y_px"]), 1.0]) @ to_pixels
            found.append((float(x), float(y), _PATHOLOGIST[row["pathologist_label"]]))
    for row in spots:
        label = TUMOR if row["coarse_class"] == "cancer" else _CLUSTERS.get(row["annotated_as"])
        if label is not None:
            found.append((float(row["x_px"]), float(row["y_px"]), label))
    return found


def paint_spots(section: Section, spots: list[tuple[float, float, int]]) -> Labels:
    """Paint spots as discs on the latent grid, UNKNOWN elsewhere; later spots cover earlier ones."""
    height, width = section.tissue.shape
    labels = np.full((height, width), UNKNOWN, dtype=np.uint8)
    radius = SPOT_RADIUS_PX * section.scale / 8
    rows, cols = np.arange(height)[:, None], np.arange(width)[None, :]
    for x, y, label in spots:
        col = (x * section.scale - section.origin_px[0]) / 8 - 0.5
        row = (y * section.scale - section.origin_px[1]) / 8 - 0.5
        labels[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = label
    return labels


def feature(features: F32, name: str, scale: float) -> F32:
    """Pick one feature at one scale (latents) out of what `features.multiscale` returned."""
    return features[..., SCALES.index(scale) * len(NAMES) + NAMES.index(name)]


def weed_and_add(labels: Labels, features: F32, tissue: NDArray[np.bool_]) -> Labels:
    """Drop spot labels that the picture contradicts, and add the rules' labels.

    Parameters
    ----------
    labels : (h, w) from `paint_spots`
    features : (h, w, F) multiscale
    tissue : (h, w)
    """
    nuclei = feature(features, "nuclear_share", 4.0)
    eosin, opacity = feature(features, "eosin", 4.0), feature(features, "opacity", 4.0)
    few, some, many = np.quantile(nuclei[tissue], [0.3, 0.45, 0.6])
    pink = eosin > np.quantile(eosin[tissue], 0.6)
    result = labels.copy()
    result[(labels == TUMOR) & (nuclei < some)] = UNKNOWN
    result[(labels == IMMUNE) & (nuclei < few)] = UNKNOWN
    result[(labels == STROMA) & (nuclei > many)] = UNKNOWN
    thinned = np.zeros(labels.shape, dtype=bool)
    thinned[::3, ::3] = True  # rules must not outnumber the spots
    result[(result == UNKNOWN) & tissue & pink & (nuclei < few) & (opacity > 0.8) & thinned] = STROMA
    result[(result == UNKNOWN) & tissue & (opacity < 0.45) & (nuclei < some) & thinned] = OTHER
    result[~tissue] = UNKNOWN
    return result


# -- features -----------------------------------------------------------------------------------------------------------


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


# -- dense labels -------------------------------------------------------------------------------------------------------


def opacity_map(rgb: U8) -> F32:
    """Share of each latent's pixels that are darker than glass: (h, w)."""
    return area_mean((rgb.mean(axis=-1, dtype=np.float32) < 0.93 * 255.0).astype(np.float32), LATENT_PX)


def fit_classifier(
    features: Sequence[F32], seeds: Sequence[Labels], seed: int = 0, per_class: int = 6000
) -> HistGradientBoostingClassifier:
    """Fit the classifier on all seeded latents of all sections, at most ``per_class`` of each class."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.concatenate([f[s != UNKNOWN] for f, s in zip(features, seeds, strict=True)])
    y = np.concatenate([s[s != UNKNOWN] for s in seeds])
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(y == label))[:per_class] for label in np.unique(y)])
    model = HistGradientBoostingClassifier(
        max_iter=120, max_leaf_nodes=15, learning_rate=0.1, min_samples_leaf=60, l2_regularization=1.0,
        class_weight="balanced", early_stopping=False, random_state=seed,
    )  # fmt: skip
    return model.fit(x[chosen], y[chosen])


def glass_map(section: Section, opacity: F32) -> NDArray[np.bool_]:
    """Find glass: outside the tissue, and empty places inside it from about 100 um; smaller holes are tissue.

    Parameters
    ----------
    opacity : (h, w) share of each latent's pixels that are not glass
    """
    empty = ndimage.gaussian_filter(opacity, 1.0) < 0.15
    return np.asarray(ndimage.binary_opening(empty, iterations=6) | (empty & ~section.tissue))


def dense_labels(
    section: Section,
    features: F32,
    opacity: F32,
    classifier: HistGradientBoostingClassifier,
    sure: float = 0.5,
    smooth: float = 3.0,
) -> Labels:
    """Classify every latent, smooth the probabilities, and leave the unsure ones unknown.

    Parameters
    ----------
    sure : probability below which a latent is unknown
    smooth : Gaussian sigma of the smoothing, in latents

    Returns
    -------
    (h, w) class indices, UNKNOWN = 5
    """
    probability = np.zeros((*section.tissue.shape, UNKNOWN), dtype=np.float32)
    rows, cols = np.nonzero(section.tissue)
    for part in np.array_split(np.arange(len(rows)), 8):
        at = rows[part], cols[part]
        probability[at[0][:, None], at[1][:, None], classifier.classes_[None, :]] = classifier.predict_proba(features[at])
    weight = ndimage.gaussian_filter(section.tissue.astype(np.float32), smooth)[..., None] + 1e-6
    probability = ndimage.gaussian_filter(probability, (smooth, smooth, 0)) / weight
    labels = probability.argmax(axis=-1).astype(np.uint8)
    labels[probability.max(axis=-1) < sure] = UNKNOWN
    labels = _drop_specks(labels)
    labels[~section.tissue] = UNKNOWN  # crumbs; what is empty becomes glass below
    labels[glass_map(section, opacity)] = GLASS
    return labels


def _drop_specks(labels: Labels, smallest: int = 40) -> Labels:
    """Make pieces of a tissue class of fewer than ``smallest`` latents unknown."""
    result = labels.copy()
    for label in range(TUMOR, UNKNOWN):
        pieces, count = ndimage.label(labels == label)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        small = sizes < smallest
        small[0] = False
        result[small[pieces]] = UNKNOWN
    return result


def picture(rgb: U8, labels: Labels) -> Image.Image:
    """Draw image and class map side by side, one px per latent."""
    height, width = labels.shape
    image = Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX)
    colours = np.array(CLASS_COLOURS, dtype=np.uint8)[labels]
    return Image.fromarray(np.concatenate([np.asarray(image), colours], axis=1))


# -- as images of a dataset --------------------------------------------------------------------------------------------


def write_section(section: Section, labels: Labels, folder: Path) -> Path:
    """Write ``folder/NAME.tif`` (lossless) and ``folder/NAME.geojson``; where the label is unknown there is no annotation.

    Parameters
    ----------
    labels : (H/8, W/8), values of `seeds`
    """
    import tifffile

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{section.name}.tif"
    per_cm = 10_000 / PATCH_MPP
    with atomic_path(path) as beside:
        tifffile.imwrite(
            beside, section.rgb, tile=(TILE_PX, TILE_PX), photometric="rgb", compression="deflate", predictor=True,
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None,
        )  # fmt: skip
    classes = np.where(labels == UNKNOWN, np.uint8(NOBODY_KNOWS), labels)
    write_annotations(
        path.with_suffix(".geojson"),
        lambda box: _cut(classes, box),
        (classes.shape[0], classes.shape[1]),
        LATENT_PX,
        (section.rgb.shape[0], section.rgb.shape[1]),
        drawn_table(),
        0,
        PATCH_MPP,
    )
    return path


def drawn_table() -> ClassTable:
    """The classes; glass is drawn as well, since what is outside every polygon is unknown."""
    pairs = zip(CLASS_NAMES, CLASS_COLOURS, strict=False)
    return ClassTable(tuple(replace(TissueClass(name, colour), background=False) for name, colour in pairs))


def _cut(classes: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    return classes[box.y0 : box.y1, box.x0 : box.x1]
