"""What a user calls to evaluate: folders or slides in, numbers and reports out. Paths are checked before torch is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wsigen.base.errors import EvaluationError

if TYPE_CHECKING:
    from wsigen.evaluation.downstream.label_fidelity import LabelFidelity
    from wsigen.evaluation.downstream.results import Downstream
    from wsigen.evaluation.evaluate import Evaluation

Watch = Callable[[str, int, int], None]
"""Called with what is counted, how many are done and how many there are."""


def evaluate(
    real: str | Path,
    synthetic: str | Path,
    *,
    training: str | Path | None = None,
    features: str = "embedded",
    crops: int = 2000,
    training_crops: int | None = None,
    turned: bool = False,
    size: int = 256,
    mpp: float | None = None,
    real_mpp: float | None = None,
    synthetic_mpp: float | None = None,
    training_mpp: float | None = None,
    layout_names: str | Mapping[str, str | None] | None = None,
    seed: int = 0,
    seam_period: int | None = None,
    report: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Evaluation:
    """Say how good synthetic slides are: fidelity, memorisation, seams, consistency.

    Parameters
    ----------
    real : str or Path
        A slide, a folder of slides or tiles, or a dataset (FILE.yaml[#training]).
    synthetic : str or Path
        The same, of what was generated.
    training : str or Path, optional
        What the model saw; REAL is then held out.
    features : str
        Extractor: embedded, imagenet, inception[:FILE], timm:NAME[@FILE] or transformers:NAME.
    crops : int
        Random crops of REAL and of SYNTHETIC.
    training_crops : int, optional
        Crops of the training data at most (10,000 by default); copies of what they do not cover are not seen.
    turned : bool
        Also look for turned and mirrored copies; takes eight times as long for SYNTHETIC (and REAL beside training data).
    size : int
        Side of a crop, px.
    mpp : float, optional
        um/px at which crops are compared; by default that of the sides.
    real_mpp, synthetic_mpp, training_mpp : float, optional
        um/px of that side, if its files do not say it.
    layout_names : str or mapping, optional
        Renames classes of annotations and of folders of tiles, NAME=CLASS,...; 'NAME=' leaves NAME out.
    seed : int
        Which crops are drawn.
    seam_period : int, optional
        Also look for borders every so many px.
    report : str or Path, optional
        Folder of report.html and report.json.
    cache : str or Path, optional
        Folder of feature files; REPORT/features by default.
    device : str
        Where the extractor runs: cpu, cuda ...
    watch : callable, optional
        Called with what is counted, how many are done and how many there are.

    Returns
    -------
    Evaluation
        Every number with its counts and warnings.

    Raises
    ------
    EvaluationError
        If a side cannot be used: nothing readable, no tissue, too few crops, different um/px without saying so.
    """
    _demand_paths(real, synthetic, training)
    _demand_numbers(seed, mpp=mpp, real_mpp=real_mpp, synthetic_mpp=synthetic_mpp, training_mpp=training_mpp)
    if training is None and (training_crops, training_mpp) != (None, None):
        option = "--training-crops" if training_mpp is None else "--training-mpp"
        raise EvaluationError(f"{option}: there is no --training that it speaks of; give that, or leave this out")
    names = _names(layout_names, real, synthetic, *([training] if training else []))
    from wsigen.evaluation.evaluate import TRAINING_CROPS, Settings
    from wsigen.evaluation.evaluate import evaluate as run
    from wsigen.evaluation.report.report import write_report
    from wsigen.models.extractors.extractors import open_extractor

    report, cache = _folder(report, "--report"), _folder(cache, "--cache")
    stated = (mpp, real_mpp, synthetic_mpp, training_mpp)
    settings = Settings(
        Path(real), Path(synthetic), Path(training) if training else None, crops, size, *stated,
        seed=seed, cache=cache or (report / "features" if report else None), seam_period=seam_period,
        training_crops=TRAINING_CROPS if training_crops is None else training_crops, turned=turned, layout_names=names,
    )  # fmt: skip
    result = run(settings, open_extractor(features, device), watch)
    if report:
        write_report(result, report)
    return result


def evaluate_downstream(
    real: str | Path,
    synthetic: str | Path,
    *,
    test: Sequence[str | Path] = (),
    task: Literal["classification", "segmentation"] = "classification",
    network: str = "small",
    folds: int = 5,
    ratio: float = 1.0,
    seeds: int = 3,
    epochs: int = 10,
    crops: int = 1000,
    size: int = 256,
    mpp: float | None = None,
    real_mpp: float | None = None,
    synthetic_mpp: float | None = None,
    test_mpp: float | None = None,
    groups: str | None = None,
    layout_names: str | Mapping[str, str | None] | None = None,
    batch: int = 32,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    watch: Watch | None = None,
) -> Downstream:
    """Train a task on real crops, on synthetic ones and on both; test on real crops of other patients.

    Parameters
    ----------
    real : str or Path
        A folder of tiles by class, annotated slides, or a dataset (FILE.yaml[#training]).
    synthetic : str or Path
        The same, of what was generated.
    test : sequence of str or Path
        Other real sides to test on (may be repeated).
    task : str
        What is learnt.
    network : str
        small, or timm:NAME[@FILE].
    folds : int
        Parts of REAL, by patient or slide, each tested once; 0: test on --test alone.
    ratio : float
        Synthetic crops per real training crop.
    seeds : int
        Repetitions.
    epochs : int
        Passes over the real crops; all arms take the same steps.
    crops : int
        Labelled crops of each side at most.
    size : int
        Side of a crop, px.
    mpp : float, optional
        um/px at which crops are compared; by default that of the sides.
    real_mpp, synthetic_mpp, test_mpp : float, optional
        um/px of that side, if its files do not say it.
    groups : str, optional
        Regular expression that finds the patient in a tile's path below REAL.
    layout_names : str or mapping, optional
        Renames classes of annotations and of folders of tiles, NAME=CLASS,...; 'NAME=' leaves NAME out.
    batch : int
        Crops of a training step.
    seed : int
        Of crops, folds and the first repetition.
    device : str
        Where networks are trained: cpu, cuda ...
    out : str or Path, optional
        Folder of downstream.html and downstream.json.
    watch : callable, optional
        Called with what is counted, how many are done and how many there are.

    Returns
    -------
    Downstream
        Scores of each arm on each test side, with their spread.

    Raises
    ------
    EvaluationError
        If a side cannot be used: nothing readable, too few crops, no common classes, no masks, no groups.
    """
    test = [test] if isinstance(test, str | Path) else test
    _demand_paths(real, synthetic, *test)
    _demand_numbers(seed, mpp=mpp, real_mpp=real_mpp, synthetic_mpp=synthetic_mpp, test_mpp=test_mpp)
    names = _names(layout_names, real, synthetic, *test)
    from wsigen.evaluation.downstream.experiment import run_downstream
    from wsigen.evaluation.downstream.report import write_downstream
    from wsigen.evaluation.downstream.results import Settings

    out = _folder(out, "--out")
    stated: dict[str, Any] = {"mpp": mpp, "real_mpp": real_mpp, "synthetic_mpp": synthetic_mpp, "test_mpp": test_mpp}
    settings = Settings(
        Path(real), Path(synthetic), tuple(map(Path, test)), task, network, folds, ratio, seeds, epochs, crops, size, **stated,
        groups=groups, batch=batch, seed=seed, device=device, scratch=out, layout_names=names,
    )  # fmt: skip
    result = run_downstream(settings, watch)
    if out:
        write_downstream(result, out)
    return result


def evaluate_labels(
    real: str | Path,
    synthetic: str | Path,
    *,
    network: str = "small",
    folds: int = 5,
    seeds: int = 3,
    epochs: int = 10,
    crops: int = 1000,
    size: int = 256,
    mpp: float | None = None,
    real_mpp: float | None = None,
    synthetic_mpp: float | None = None,
    groups: str | None = None,
    layout_names: str | Mapping[str, str | None] | None = None,
    batch: int = 32,
    seed: int = 0,
    device: str = "cpu",
    out: str | Path | None = None,
    watch: Watch | None = None,
) -> LabelFidelity:
    """Say whether synthetic slides show what their class maps say: networks trained on real crops read them.

    Parameters
    ----------
    real : str or Path
        Annotated slides or a dataset with masks (FILE.yaml[#training]).
    synthetic : str or Path
        Slides with their annotations, e.g. the slides of a cohort.
    network : str
        small, or timm:NAME[@FILE].
    folds : int
        Parts of REAL, by patient or slide; each is read by networks trained on the others.
    seeds : int
        Repetitions.
    epochs : int
        Passes over the real crops.
    crops : int
        Labelled crops of each side at most.
    size : int
        Side of a crop, px.
    mpp : float, optional
        um/px at which crops are compared; by default that of the sides.
    real_mpp, synthetic_mpp : float, optional
        um/px of that side, if its files do not say it.
    groups : str, optional
        Regular expression that finds the patient in an image's path below REAL.
    layout_names : str or mapping, optional
        Renames classes of annotations, NAME=CLASS,...; 'NAME=' leaves NAME out.
    batch : int
        Crops of a training step.
    seed : int
        Of crops, folds and the first repetition.
    device : str
        Where networks are trained: cpu, cuda ...
    out : str or Path, optional
        Folder of labels.html and labels.json.
    watch : callable, optional
        Called with what is counted, how many are done and how many there are.

    Returns
    -------
    LabelFidelity
        Dice, IoU and confusion of each class, beside those of held-out real crops.

    Raises
    ------
    EvaluationError
        If a side cannot be used: nothing readable, too few crops, no common classes, no masks, no groups.
    """
    if folds < 2:
        raise EvaluationError(f"--folds {folds}: 2 or more; networks are compared with what they read of other patients")
    _demand_paths(real, synthetic)
    _demand_numbers(seed, mpp=mpp, real_mpp=real_mpp, synthetic_mpp=synthetic_mpp)
    names = _names(layout_names, real, synthetic)
    from wsigen.evaluation.downstream.experiment import run_downstream
    from wsigen.evaluation.downstream.label_fidelity import label_fidelity, write_label_fidelity
    from wsigen.evaluation.downstream.results import Settings

    out = _folder(out, "--out")
    settings = Settings(
        Path(real), Path(synthetic), task="segmentation", network=network, folds=folds, seeds=seeds, epochs=epochs, crops=crops,
        size_px=size, mpp=mpp, real_mpp=real_mpp, synthetic_mpp=synthetic_mpp, groups=groups, batch=batch, seed=seed,
        device=device, scratch=out, layout_names=names, arms=("real",),
    )  # fmt: skip
    result = label_fidelity(run_downstream(settings, watch))
    if result is None:
        raise EvaluationError(f"{synthetic}: nothing was read of it; give slides with annotations")
    if out:
        write_label_fidelity(result, out)
    return result


def _demand_paths(*paths: str | Path | None) -> None:
    """Refuse a side that is not there (EvaluationError)."""
    for path in paths:
        if path is not None and not any(Path(name).exists() for name in (str(path), str(path).rpartition("#")[0] or ".none")):
            raise EvaluationError(f"{path}: no such slide or folder")


def _demand_numbers(seed: int, **mpp: float | None) -> None:
    """Refuse um/px that are none, and a seed below 0 (EvaluationError)."""
    for name, value in mpp.items():
        if value is not None and not 0 < value < math.inf:
            raise EvaluationError(f"--{name.replace('_', '-')} {value:g}: um/px are above 0")
    if seed < 0:
        raise EvaluationError(f"--seed {seed}: 0 or more")


def _names(given: str | Mapping[str, str | None] | None, *paths: str | Path) -> dict[str, str | None]:
    """The renamed classes; some side must have classes to rename (EvaluationError)."""
    from wsigen.evaluation.sides.members import named_dataset
    from wsigen.layout.class_names import parse_names

    try:
        names = dict(parse_names(given) or {})
    except ValueError as error:
        raise EvaluationError(f"--layout-names: {error}") from None
    if names and all(named_dataset(Path(path)) for path in paths):
        raise EvaluationError("--layout-names: every side is a dataset; rename with 'names' in its sources instead")
    return names


def _folder(path: str | Path | None, option: str) -> Path | None:
    """A folder to write to, which is made and tried."""
    from wsigen.evaluation.report.page import check_folder

    if path is not None:
        check_folder(Path(path), option)
    return Path(path) if path is not None else None
