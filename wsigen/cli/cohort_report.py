"""``wsigen cohort report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from wsigen.cli.cohort import Folder
from wsigen.cli.evaluate import Progress

EXAMPLES = ("wsigen cohort report cohort", "wsigen cohort report cohort --real dataset.yaml --training-crops 50000")


def report(
    folder: Folder,
    real: Annotated[
        Path | None, typer.Option("--real", help="real slides the model has not seen: a folder, or a dataset's held-out part")
    ] = None,
    training: Annotated[
        Path | None, typer.Option("--training", help="what the model was trained on; by default the dataset's training part")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="reports with real crops; by default DIR-report beside the cohort"),
    ] = None,
    features: Annotated[str, typer.Option("--features", help="extractor, as for wsigen evaluate")] = "embedded",
    crops: Annotated[int, typer.Option("--crops", help="crops of a side")] = 2000,
    training_crops: Annotated[
        int | None, typer.Option("--training-crops", help="of the training data; 10,000 by default")
    ] = None,
    label_crops: Annotated[int, typer.Option("--label-crops", help="labelled crops of a side, for the label fidelity")] = 1000,
    size: Annotated[int, typer.Option("--size", help="side of a crop, px")] = 256,
    mpp: Annotated[float | None, typer.Option("--mpp", help="um/px at which crops are compared")] = None,
    layout_names: Annotated[
        str | None, typer.Option("--layout-names", metavar="NAME=CLASS,...", help="renames classes")
    ] = None,
    groups: Annotated[str | None, typer.Option("--groups", help="regular expression that finds the patient in a path")] = None,
    folds: Annotated[int, typer.Option("--folds", help="of the real slides, for the label fidelity")] = 5,
    seeds: Annotated[int, typer.Option("--seeds", help="repetitions of the label fidelity")] = 3,
    epochs: Annotated[int, typer.Option("--epochs", help="of the label fidelity")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="which crops are drawn")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda ...")] = "cpu",
) -> None:
    """Measure a cohort and write the figures into its card."""
    from wsigen.cohort.report import report_cohort

    found = report_cohort(
        folder, real=real, training=training, out=out, features=features, crops=crops, training_crops=training_crops,
        label_crops=label_crops, size=size, mpp=mpp, layout_names=layout_names, groups=groups, folds=folds, seeds=seeds,
        epochs=epochs, seed=seed, device=device, watch=Progress(),
    )  # fmt: skip
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    figures = found.figures
    for figure in (*figures.evaluation, *figures.privacy):
        print(f"{figure.name}: {figure.value}")
    said = "measured, within bounds" if figures.private else "out of bounds: " if figures.privacy else "not measured: "
    print(f"{'privacy:':15}{said}{'' if figures.private else figures.why_not}")
    print(f"{'card:':15}{folder / 'README.md'}")
    if found.folder is not None:
        print(f"{'reports:':15}{found.folder} (they show real crops: not for publication)")
    print(f"{'next:':15}wsigen cohort verify {shlex.quote(str(folder))}")
