"""Sparse, weak labels of a section on its latent grid, from the data's spots and from two rules.

Where they come from, strongest first:

* spots named after their gene-expression cluster: cancer -> Tumor; immune "B/plasma cells, APC" and
  "APC, B-cell, T-cell" -> Immune cells; immune "B/plasma cells, endothelium" lies on fibrous bands -> Stroma;
* the pathologist's spots of section C1, carried to C2 and C3 by the aligned coordinates;
* rules, since labelled stroma and fat are few: eosin-rich with few nuclei -> Stroma;
  mostly empty inside tissue -> Other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.her2st.features import NAMES, SCALES
from pipelines.her2st.sections import Section
from pipelines.her2st.tissue import F32

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
