"""Figures of a cohort in its card, and the gate: privacy is measured whole, or it is not measured."""

import shutil

import pytest
from evaluation.downstream.downstream_making import dataset_of_slides
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import ConfigError, WsigenError
from wsigen.cohort.figures import Figures, read_figures, why_private_is_unknown
from wsigen.cohort.make import make_cohort
from wsigen.cohort.report import privacy_of, report_cohort
from wsigen.cohort.verify import verify_cohort

QUICK = {"crops": 50, "training_crops": 400, "label_crops": 120, "size": 64, "folds": 2, "seeds": 1, "epochs": 1}
COMPLETE = {"c_t": 0.0, "share_too_near": 0.05, "training_coverage": 0.95}


@pytest.fixture
def cohort(content, write, tmp_path):
    """Two small slides."""
    content["parts"] = [{**content["parts"][0], "slides": 2}]
    make_cohort(write(content), tmp_path / "cohort", workers=1)
    return tmp_path / "cohort"


@pytest.fixture
def real(tmp_path):
    """A dataset of real slides, some held out."""
    return dataset_of_slides(tmp_path)


def test_figures_stand_in_the_card(cohort, real, tmp_path, monkeypatch):
    for option in ({"features": "nonsense"}, {"training": "dataset.yaml"}, {"layout_names": "a=b"}):
        with pytest.raises(ConfigError, match="no --real beside it"):
            report_cohort(cohort, **option)
    alone = report_cohort(cohort)
    assert (alone.figures.privacy, alone.figures.private, alone.folder) == ((), False, None)
    card = (cohort / "README.md").read_text()
    assert "not measured (there was no training data" in card
    assert "| agreement of levels |" in card or "| seams" in card

    monkeypatch.setattr("wsigen.cohort.report.COVERED_LEAST", 0.8)  # so few crops reach 88 %
    found = report_cohort(cohort, real=real, **QUICK)
    names = [figure.name for figure in found.figures.evaluation]
    assert "KID x 1000" in names
    assert "label fidelity: Tumor" in names, found.notes
    assert "label fidelity: mean of the classes" in names
    assert {figure.name for figure in found.figures.privacy} >= {"C_T", "share nearer than held-out"}, found.figures.why_not
    card = (cohort / "README.md").read_text()
    assert card.count("label fidelity: ") == 3
    assert str(tmp_path) not in card + (cohort / "figures.json").read_text() + (cohort / "croissant.json").read_text()
    assert verify_cohort(cohort).good
    assert found.folder == tmp_path / "cohort-report"
    assert {"report.html", "labels.html"} <= {path.name for path in found.folder.iterdir()}

    again = report_cohort(cohort).figures  # measured anew is what the slides say of themselves; all else stands
    assert again.privacy == found.figures.privacy
    assert again.private == found.figures.private
    assert {figure.name for figure in again.evaluation} >= set(names)

    masks_gone = report_cohort(cohort, real=tmp_path / "real/s2.tiff", **{**QUICK, "training_crops": None})
    assert not masks_gone.figures.privacy
    assert any("label fidelity was not measured" in note for note in masks_gone.notes)
    with pytest.raises(WsigenError, match="lie outside the cohort"):
        report_cohort(cohort, real=real, out=cohort / "report")
    shutil.rmtree(found.folder)


@given(st.sampled_from(sorted(COMPLETE)), st.sampled_from(["gone", "nan", "bad"]))
def test_privacy_is_measured_whole_or_not_at_all(name, how):
    assert privacy_of(COMPLETE) == (True, "")
    numbers = dict(COMPLETE)
    if how == "gone":
        del numbers[name]
    else:
        bad = {"c_t": -9.0, "share_too_near": 0.5, "training_coverage": 0.5}[name]
        numbers[name] = bad if how == "bad" else float("nan") if name == "c_t" else bad
    whole, why_not = privacy_of(numbers)
    assert why_not
    assert whole == ((how == "bad" and name != "training_coverage") or (how == "nan" and name == "share_too_near"))


def test_what_was_measured_of_fewer_slides_is_not_published(tmp_path):
    assert read_figures(tmp_path) == Figures()
    assert "not measured" in why_private_is_unknown(Figures(), 4)
    assert "3 of its 4 slides" in why_private_is_unknown(Figures(private=True, slides=3), 4)
    assert why_private_is_unknown(Figures(private=True, slides=4), 4) is None
