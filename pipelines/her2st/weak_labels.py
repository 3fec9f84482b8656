"""Dense class maps from sparse weak labels: classified local features, smoothed, unknown where unsure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipelines.her2st.features import LATENT_PX
from pipelines.her2st.sections import Section
from pipelines.her2st.seeds import GLASS, TUMOR, UNKNOWN, Labels
from pipelines.her2st.tissue import F32, U8, area_mean

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

CLASS_COLOURS = ((235, 235, 240), (200, 0, 0), (150, 200, 150), (160, 90, 160), (255, 200, 0), (0, 0, 0))


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
