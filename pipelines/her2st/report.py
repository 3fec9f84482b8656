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
from wsigen.grids.mean_colour import mean_colours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.her2st.crops import Batched, Sides
    from pipelines.her2st.made_slides import Slides
    from wsigen.dataset.dataset import Dataset

ROUND_TRIP = "held-out crops, encoded and decoded"
"""What no sample can be better than: the autoencoder's own loss."""

GRID_PX = 32
"""Side of the cells by which grids are compared, px: a crop has 16 x 16, and its architecture is in them."""

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
    said = []
    for base in ("training crops", ROUND_TRIP):
        ratios = [f"{name} {kid / kids[base]:.1f}" for name, kid in kids.items() if name != base]
        said += [f"KID over that of {base}: {', '.join(ratios)}.", ""]
    return [*lines, "", *said]


def probe_table(extractor: Batched, sides: Sides, dataset: Dataset) -> list[str]:
    """A linear probe trained on real training crops names the classes of held-out and of synthetic crops."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = sides.training.classes >= 0
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    probe.fit(extractor.features(sides.training.images)[known], sides.training.classes[known])
    trained = np.unique(sides.training.classes[known])
    lines = [
        "| class recognised by a linear probe | training crops | held-out crops | the twin's crops | one-class slides |",
        "|---|---|---|---|---|",
    ]
    for c in trained:
        cells = [f"{int((sides.training.classes == c).sum())}"]
        for crops in (sides.held_out, sides.twin, sides.classes):
            images = crops.images[crops.classes == c]
            share = (probe.predict(extractor.features(images)) == c).mean() if len(images) else float("nan")
            cells.append(f"{share:.2f} of {len(images)}")
        lines.append(f"| {dataset.table[int(c)].name} | {' | '.join(cells)} |")
    return [*lines, "", f"Chance is {1 / len(trained):.2f}.", ""]


def memorisation_table(extractor: Batched, sides: Sides) -> list[str]:
    """Whether samples copy: their pictures by the extractor's features, their grids by the mean colours of cells.

    Training crops do not overlap here: a crop that shows half of another one's tissue is its nearest neighbour, and held
    against such a distance whatever is drawn looks authentic.
    """
    samples = joined([sides.twin, sides.classes]).some(200)
    columns = []
    for features in (extractor.features, _grids):
        training, held_out, made = (features(crops.images) for crops in (sides.apart, sides.held_out, samples))
        below, pairs = memorisation.share_too_near(training, held_out, made)
        columns.append(
            [
                f"{memorisation.authenticity(training, made):.2f}",
                f"{memorisation.authenticity(training, held_out):.2f}",
                f"{memorisation.duplicates(training, held_out):.2f}",
                f"{below:.2f}",
                f"{pairs:.2f}",
                f"{memorisation.data_copying(training, held_out, made, 5, 0).score:.1f}",
            ]
        )
    names = [
        f"authenticity of {len(samples.images)} samples",
        "authenticity of held-out crops, as of fresh tissue",
        "training crops nearer to another one than all but the nearest 5 % of held-out crops: the data's own duplicates",
        "samples nearer to training than all but the nearest 5 % of held-out crops",
        "probability that a sample is nearer than a held-out crop",
        "C_T (below 0: copies)",
    ]
    return [
        f"| memorisation, against {len(sides.apart.images)} training crops that do not overlap | pictures | grids |",
        "|---|---|---|",
        *(f"| {name} | {' | '.join(values)} |" for name, *values in zip(names, *columns, strict=True)),
        "",
    ]


def _grids(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The mean colours of the cells of crops, float32 ``(n, d)``."""
    return mean_colours(images, GRID_PX).reshape(len(images), -1)


def draw(extractor: Batched, sides: Sides, others: Mapping[str, Crops], dataset: Dataset, slides: Slides, docs: Path) -> None:
    """Pictures: crops side by side (of the ``others``, too), the twin beside its section, slides of a class, nearest crops."""
    chosen = np.random.default_rng(5).permutation(len(sides.held_out.images))[:6]
    rows = [np.concatenate(list(crops.images[chosen]), axis=1) for crops in (sides.held_out, sides.twin, *others.values())]
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
