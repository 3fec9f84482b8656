"""The report's tables (fidelity, a linear probe, memorisation) and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipelines.her2st.crops import Crops, joined
from pipelines.her2st.made_slides import picture_of
from wsigen.evaluation import memorisation
from wsigen.evaluation.fidelity import fidelity_numbers
from wsigen.models.bundle import find_bundle
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.model import load_model
from wsigen.sampling.schedule import ddim_step, make_schedule, predict_x0

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.her2st.crops import Batched, Sides
    from pipelines.her2st.made_slides import Slides
    from wsigen.dataset.dataset import Dataset
    from wsigen.models.model import Model

SHOWN = ("kid", "fid", "precision", "recall", "density", "coverage")


def fidelity_table(extractor: Batched, sides: Sides, others: Mapping[str, Crops]) -> list[str]:
    """Held-out crops against the twin's at the same places; against as many training crops, as the measure's floor."""
    real = extractor.features(sides.held_out.images)
    rows = {"training crops": sides.training.some(len(real)), "this model": sides.twin, **others}
    found = {name: fidelity_numbers(real, extractor.features(crops.images), 0) for name, crops in rows.items()}
    lines = [
        "| against held-out crops | KID x 1000 | FID | precision | recall | density | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, numbers in found.items():
        cells = [f"{1000 * numbers['kid']:.1f}", *(f"{numbers[key]:.2f}" for key in SHOWN[1:])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    kids = {name: numbers["kid"] for name, numbers in found.items()}
    said = [f"{name} {kid / kids['training crops']:.1f}" for name, kid in kids.items() if name != "training crops"]
    return [*lines, "", f"KID over that of training crops: {', '.join(said)}.", ""]


def probe_table(extractor: Batched, sides: Sides, dataset: Dataset) -> list[str]:
    """A linear probe trained on real training crops names the classes of held-out and of synthetic crops."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = sides.training.classes >= 0
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    probe.fit(extractor.features(sides.training.images)[known], sides.training.classes[known])
    trained = np.unique(sides.training.classes[known])
    lines = ["| class recognised by a linear probe | training crops | held-out crops | one-class slides |", "|---|---|---|---|"]
    for c in trained:
        cells = [f"{int((sides.training.classes == c).sum())}"]
        for crops in (sides.held_out, sides.classes):
            images = crops.images[crops.classes == c]
            share = (probe.predict(extractor.features(images)) == c).mean() if len(images) else float("nan")
            cells.append(f"{share:.2f} of {len(images)}")
        lines.append(f"| {dataset.table[int(c)].name} | {' | '.join(cells)} |")
    return [*lines, "", f"Chance is {1 / len(trained):.2f}.", ""]


def memorisation_table(extractor: Batched, sides: Sides) -> list[str]:
    """Authenticity of 200 samples beside that of held-out crops, and the data's own near duplicates.

    Training crops do not overlap here: a crop that shows half of another one's tissue is its nearest neighbour, and held
    against such a distance whatever is drawn looks authentic.
    """
    training = extractor.features(sides.apart.images)
    held_out = extractor.features(sides.held_out.images)
    samples = extractor.features(joined([sides.twin, sides.classes]).some(200).images)
    below, pairs = memorisation.share_too_near(training, held_out, samples)
    copying = memorisation.data_copying(training, held_out, samples, 5, 0)
    return [
        f"| memorisation, against {len(training)} training crops that do not overlap | value |",
        "|---|---|",
        f"| authenticity of 200 samples | {memorisation.authenticity(training, samples):.2f} |",
        f"| authenticity of held-out crops, as of fresh tissue | {memorisation.authenticity(training, held_out):.2f} |",
        "| training crops nearer to another one than all but the nearest 5 % of held-out crops: the data's own duplicates | "
        f"{memorisation.duplicates(training, held_out):.2f} |",
        f"| samples nearer to training than all but the nearest 5 % of held-out crops | {below:.2f} |",
        f"| probability that a sample is nearer than a held-out crop | {pairs:.2f} |",
        f"| C_T (below 0: copies) | {copying.score:.1f} |",
        "",
    ]


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


def draw_window(model: Model, label: int, level: int, seed: int) -> NDArray[np.uint8]:
    """Draw a window of one class by DDIM with the steps, guidance and noise of the bundle, which is told class maps.

    Parameters
    ----------
    label:
        Index of the class in the card.
    level:
        Index of the magnification in the card.

    Returns
    -------
    uint8 ``[p f, p f, 3]``, p the card's ``crop_latent`` and f its factor
    """
    card = model.card
    side, w = card.crop_latent, card.guidance
    schedule = make_schedule(model.abar, card.steps)
    source, shape = np.random.default_rng(seed), (card.latent.channels, side, side)
    y = source.standard_normal(shape, dtype=np.float32)
    condition = Condition(class_map=np.full((side, side), label, np.uint8))
    for step, timestep in enumerate(schedule.timesteps):
        own, null = model.predict(np.stack([y, y]), timestep, [condition, NULL], level)
        abar, following = schedule.abar[step : step + 2]
        x0 = predict_x0((1 + w) * own - w * null, y, abar, model.prediction_type, model.clip)
        y = ddim_step(y, x0, abar, following, card.eta, source.standard_normal(shape, dtype=np.float32))
    return model.autoencoder.decode(y).round().astype(np.uint8)
