"""Pictures of the report: real and synthetic crops, slides, overviews, nearest training crops."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipelines.her2st.crops import joined
from pipelines.her2st.made_slides import picture_of
from pipelines.her2st.overviews import draw_window
from wsigen.evaluation import memorisation
from wsigen.models.bundle import find_bundle
from wsigen.models.model import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.her2st.made_slides import Slides
    from pipelines.her2st.sides import Batched, Sides
    from wsigen.dataset.dataset import Dataset


def draw(extractor: Batched, sides: Sides, dataset: Dataset, slides: Slides, docs: Path) -> None:
    """Pictures: crops side by side, the twin beside its section, one slide and overview per class, nearest crops."""
    chosen = np.random.default_rng(5).permutation(len(sides.held_out.images))[:6]
    rows = [np.concatenate(list(crops.images[chosen]), axis=1) for crops in (sides.held_out, sides.twin)]
    save(np.concatenate(rows), docs / "crops.jpg", 1800)
    (section,) = dataset.held_out
    real = Image.open(section.path)
    Image.MAX_IMAGE_PIXELS = None
    twin = Image.open(picture_of(slides.twin))
    pair = [np.asarray(im.convert("RGB").resize((900, 900 * real.height // real.width))) for im in (real, twin)]
    save(np.concatenate(pair, axis=1), docs / "twin.jpg", 1800)
    tissues = [(i, c.name) for i, c in enumerate(dataset.table) if not c.background]
    pictures = [np.asarray(Image.open(picture_of(slides.of(name))).convert("RGB").resize((512, 512))) for _, name in tissues]
    save(np.concatenate(pictures, axis=1), docs / "slides.jpg", 2048)
    model = load_model(find_bundle(slides.settings["model"]))
    windows = [draw_window(model, index, len(dataset.mpps) - 1, seed=index) for index, _ in tissues]
    save(np.concatenate(windows, axis=1), docs / "overviews.jpg", 2048)
    samples = joined([sides.twin, sides.classes]).some(8, seed=3).images
    _, nearest = memorisation.nearest_training(extractor.features(sides.training.images), extractor.features(samples))
    save(
        np.concatenate([np.concatenate(list(s), axis=1) for s in (samples, sides.training.images[nearest])]),
        docs / "nearest.jpg",
        2048,
    )


def save(picture: NDArray[np.uint8], path: Path, width: int) -> None:
    """Write a picture of the documents, ``width`` px wide."""
    height = picture.shape[0] * width // picture.shape[1]
    Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS).save(path, quality=85)
    print("drew", path, flush=True)
