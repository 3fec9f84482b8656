"""Tables of the report: fidelity, a linear probe, memorisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipelines.her2st.crops import Crops, joined
from wsigen.evaluation import memorisation
from wsigen.evaluation.fidelity import fidelity_numbers

if TYPE_CHECKING:
    from pipelines.her2st.sides import Batched, Sides
    from wsigen.dataset.dataset import Dataset

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
