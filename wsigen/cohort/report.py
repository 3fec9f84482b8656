"""``wsigen cohort report``: how good a cohort's slides are and how near to the training data, into its card.

The report with its pictures shows real crops, and paths. It lies outside the cohort, which gets the numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsigen.base.errors import ConfigError, WsigenError
from wsigen.cohort.figures import Figure, Figures, read_figures, write_figures
from wsigen.cohort.folder import SLIDES, CohortFolder
from wsigen.cohort.made import read_made
from wsigen.cohort.publish import write_cohort_files
from wsigen.evaluation.api import evaluate, evaluate_labels
from wsigen.evaluation.downstream.label_fidelity import LabelFidelity
from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.memorisation import COVERED_LEAST, TEST_SHARE
from wsigen.evaluation.report.report import count_line, extractor_line, rows
from wsigen.evaluation.sides.members import named_dataset
from wsigen.evaluation.sides.sides import open_side, shared_files
from wsigen.evaluation.slide_checks import SlideCheck, check_slides, pool

PRIVACY = ("authenticity", "authenticity_of_held_out", "c_t", "share_too_near", "nearer_than_held_out", "training_coverage")
"""Numbers of an evaluation that say how near slides are to the training data."""

LEAST_C_T = -3.0
"""Below it samples are nearer to the training data than unseen real data, by three deviations (Meehan et al. 2020)."""

MOST_TOO_NEAR = 2 * TEST_SHARE
"""Share of samples nearer than all but a few held-out crops: twice what unseen real crops have."""

EMBEDDED = "embedded"
"""The extractor that needs nothing else."""

Watch = Callable[[str, int, int], None]
"""Called with what is counted, how many are done and how many there are."""


@dataclass(frozen=True, slots=True)
class CohortReport:
    """What was measured of a cohort.

    Attributes
    ----------
    figures : Figures
        As they stand in the card.
    folder : Path or None
        Folder of the reports with pictures, if there is one.
    notes : tuple of str
        What could not be measured, and warnings.
    """

    figures: Figures
    folder: Path | None
    notes: tuple[str, ...]


@dataclass
class _Measured:
    """Figures as they come in."""

    evaluation: list[Figure] = field(default_factory=list)
    privacy: list[Figure] = field(default_factory=list)
    why_not: str = "there was no training data to measure it against; give a dataset as --real, or --training"
    notes: list[str] = field(default_factory=list)


def report_cohort(
    folder: str | Path,
    *,
    real: str | Path | None = None,
    training: str | Path | None = None,
    out: str | Path | None = None,
    features: str = EMBEDDED,
    crops: int = 2000,
    training_crops: int | None = None,
    label_crops: int = 1000,
    size: int = 256,
    mpp: float | None = None,
    layout_names: str | Mapping[str, str | None] | None = None,
    groups: str | None = None,
    folds: int = 5,
    seeds: int = 3,
    epochs: int = 10,
    seed: int = 0,
    device: str = "cpu",
    watch: Watch | None = None,
) -> CohortReport:
    """Measure a cohort, and write the figures into its card, ``figures.json`` and ``croissant.json``.

    Parameters
    ----------
    folder : str or Path
        The cohort.
    real : str or Path, optional
        Real slides that the model has not seen: a folder, or a dataset (FILE.yaml: its held-out part). Without it only what
        slides say of themselves is measured: seams and levels.
    training : str or Path, optional
        What the model was trained on; by default the training part of the dataset REAL.
    out : str or Path, optional
        Folder of the reports with pictures, which show real crops; by default ``DIR-report`` beside the cohort.
    features : str
        Extractor, as for `wsigen.evaluate`.
    crops, training_crops, size, mpp, layout_names
        Crops of a side, of the training data at most, their side (px) and um/px, renamed classes, as for `wsigen.evaluate`.
    label_crops, groups, folds, seeds, epochs
        Of the label fidelity, as for `wsigen.evaluate_labels`.
    seed : int
        Which crops are drawn.
    device : str
        Where networks run.
    watch : callable, optional
        Called with what is counted, how many are done and how many there are.

    Returns
    -------
    CohortReport
        The figures.

    Raises
    ------
    WsigenError
        If it is no cohort, or a side cannot be used.

    Examples
    --------
    >>> wsigen.report_cohort("cohort", real="dataset.yaml").figures.private
    """
    place = CohortFolder(Path(folder))
    count = len(read_made(place).slides)
    if real is None:
        own = None if features == EMBEDDED else features
        _demand_nothing(training=training, features=own, out=out, mpp=mpp, layout_names=layout_names, groups=groups)
    measured, reports = _Measured(), None
    if real is None:
        measured.evaluation += _of_slides(place, measured.notes)
    else:
        reports = Path(out) if out is not None else place.root.absolute().with_name(f"{place.root.absolute().name}-report")
        if reports.absolute().is_relative_to(place.root.absolute()):
            raise ConfigError(f"--out {reports}: reports show real crops and lie outside the cohort; choose another folder")
        found = evaluate(
            real, place.root / SLIDES, training=training or _training_of(real), features=features, crops=crops,
            training_crops=training_crops, size=size, mpp=mpp, layout_names=layout_names, seed=seed, report=reports,
            device=device, watch=watch,
        )  # fmt: skip
        _take(measured, found)
        try:
            read = evaluate_labels(
                real, place.root / SLIDES, folds=folds, seeds=seeds, epochs=epochs, crops=label_crops, size=size, mpp=mpp,
                groups=groups, layout_names=layout_names, seed=seed, device=device, out=reports, watch=watch,
            )  # fmt: skip
        except WsigenError as error:  # real slides without masks have no label fidelity; all else stands
            measured.notes.append(f"label fidelity was not measured: {error}")
        else:
            measured.evaluation += _labels(read)
            measured.notes += read.result.warnings
    figures = Figures(
        evaluation=tuple(measured.evaluation),
        privacy=tuple(measured.privacy),
        private=bool(measured.privacy) and not measured.why_not,
        why_not=measured.why_not,
        slides=count,
    )
    with place.held():
        made = read_made(place)  # others may have made slides meanwhile
        if real is None:
            figures = _beside(read_figures(place.root), figures)
        write_figures(place.root, figures)
        write_cohort_files(place, made)
    return CohortReport(figures, reports, tuple(dict.fromkeys(measured.notes)))


def privacy_of(numbers: Mapping[str, float]) -> tuple[bool, str]:
    """Whether the privacy of an evaluation counts as measured, and what is missing or out of bounds (nothing: empty).

    Measured are C_T, the share of crops that are too near, and a coverage of 90 % of the training tissue, or nothing is: a
    copy of what was not looked at is not seen.
    """
    if "c_t" not in numbers or "share_too_near" not in numbers:
        return False, "there was no training data to measure it against; give a dataset as --real, or --training"
    if not math.isfinite(numbers["c_t"]):
        return False, "C_T has no value: too few crops; give more images, more --crops or a smaller --size"
    covered = numbers.get("training_coverage", 0.0)
    if covered < COVERED_LEAST:
        return (
            False,
            f"crops covered {covered:.0%} of the training tissue, {COVERED_LEAST:.0%} are needed; raise --training-crops",
        )
    out = []
    if numbers["c_t"] < LEAST_C_T:
        out.append(f"C_T is {numbers['c_t']:.2f}, below {LEAST_C_T:g}")
    if numbers["share_too_near"] > MOST_TOO_NEAR:
        out.append(f"{numbers['share_too_near']:.1%} of the crops are too near to the training data, above {MOST_TOO_NEAR:.0%}")
    return True, "; ".join(out)


# -- inside ------------------------------------------------------------------------------------------------------------


def _beside(before: Figures, own: Figures) -> Figures:
    """What slides say of themselves, measured anew, beside what was measured against real ones."""
    if not before.evaluation:
        return own
    new = {figure.name for figure in own.evaluation}
    kept = [figure for figure in before.evaluation if figure.name not in new]
    return before.model_copy(update={"evaluation": (*kept, *own.evaluation)})


def _demand_nothing(**given: object) -> None:
    """Refuse what says how a cohort is compared with real slides, if there are none (ConfigError)."""
    for name, value in given.items():
        if value is not None:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option}: there is no --real beside it; give real slides that the model has not seen, too")


def _training_of(real: str | Path) -> str | None:
    """The training part of a dataset whose held-out part is REAL."""
    dataset = named_dataset(Path(real))
    return f"{dataset[0]}#training" if dataset is not None and dataset[1] == "held_out" else None


def _take(measured: _Measured, found: Evaluation) -> None:
    """The figures of an evaluation; privacy is whole or not measured."""
    lines = rows(found)
    measured.evaluation += [Figure(name=r.name, value=r.value, meaning=r.reading) for r in lines if r.key not in PRIVACY]
    measured.evaluation += _seams(found.slides)
    measured.evaluation.append(Figure(name="measured on", value=count_line(found), meaning=extractor_line(found)))
    whole, measured.why_not = privacy_of(found.numbers)
    if whole and (shared := shared_files(found.sides["real"], found.sides["training"])):
        whole, measured.why_not = False, f"{shared} files of REAL are training data; give slides that the model has not seen"
    if whole:
        measured.privacy += [Figure(name=r.name, value=r.value, meaning=r.reading) for r in lines if r.key in PRIVACY]
    measured.notes += found.warnings


def _of_slides(place: CohortFolder, notes: list[str]) -> list[Figure]:
    """What slides say of themselves: seams and levels."""
    checks, warnings = check_slides(open_side("synthetic", place.root / SLIDES))
    notes += warnings
    differences = [max(level.difference for level in check.levels) for check in checks if check.levels]
    levels = [
        Figure(
            name="agreement of levels",
            value=f"{max(differences):.2f}",
            meaning="largest mean difference of a coarser level to level 0, grey levels (0-255); JPEG alone gives 1 to 3",
        )
    ]
    return [*_seams(checks), *(levels if differences else [])]


def _seams(checks: list[SlideCheck]) -> list[Figure]:
    return [
        Figure(
            name=f"seams: {each.seam.name}",
            value=f"{each.seam.score:.3f} ± {each.seam.noise:.3f}",
            meaning=f"1: borders are as smooth as their surroundings; visible on {each.visible_on} of {each.slides} slides",
        )
        for each in pool(checks)
    ]


def _labels(read: LabelFidelity) -> Iterator[Figure]:
    """Label fidelity by class, beside what the networks reach on held-out real crops."""
    for each in (read.mean, *read.classes):
        yield Figure(
            name=f"label fidelity: {each.name}",
            value=f"Dice {each.dice}, IoU {each.iou}",
            meaning="networks trained on real slides read the class map, classes as frequent as on real ones; on held-out real "
            f"slides Dice {each.dice_of_real}, IoU {each.iou_of_real}",
        )
