"""Label fidelity: pictures that disobey their class maps are found out, however good they look."""

import json

import numpy as np
import pytest
from drawing import feature, square, write_layout
from evaluation.downstream.downstream_making import slides
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import wsigen
from wsigen.base.errors import EvaluationError
from wsigen.evaluation.downstream.label_fidelity import as_frequent, dice_and_iou, label_fidelity, rows
from wsigen.evaluation.downstream.results import FOLDS, READ, Downstream, Run


def test_pictures_that_disobey_their_class_maps_are_found_out(tmp_path):
    slides(tmp_path / "real", count=3)
    for path in sorted(slides(tmp_path / "other", count=2, seed=9).glob("*.geojson")):
        stroma = feature("Stroma", [[0, 0], [256, 0], [256, 512], [0, 512]])  # the picture shows tumour there
        write_layout(path, stroma, feature("Tumor", square(0, 0, 512)))
    found = wsigen.evaluate_labels(
        tmp_path / "real", tmp_path / "other", crops=48, folds=2, seeds=1, epochs=24, size=96, batch=8, groups=r"(s\d)",
        out=tmp_path / "out",
    )  # fmt: skip
    assert found.mean.dice_of_real.mean > 0.7
    assert found.mean.dice.mean < 0.3
    assert [row[-1].partition(" ")[0] for row in rows(found)] == ["Tumor", "Stroma", ""]
    assert all(run.arm == "real" for run in found.result.runs)
    said = json.loads((tmp_path / "out/labels.json").read_text())
    assert [each["name"] for each in said["classes"]] == ["Stroma", "Tumor"]
    assert "Confusions" in (tmp_path / "out/labels.html").read_text()


def test_fewer_than_two_folds_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="2 or more"):
        wsigen.evaluate_labels(tmp_path, tmp_path, folds=0)


@given(arrays(np.int64, (4, 4), elements=st.integers(0, 50)))
def test_dice_and_iou_are_those_of_sets(confusion):
    dice, iou = dice_and_iou(confusion)
    present = confusion.sum(axis=1) > 0
    assert np.array_equal(np.isnan(dice), ~present)
    assert np.allclose(dice[present], 2 * iou[present] / (1 + iou[present]))
    assert (iou[present] <= 1).all()
    assert np.allclose(dice_and_iou(np.diag(np.diag(confusion) + 1))[0], 1)


FREQUENCIES = st.lists(st.integers(1, 60), min_size=3, max_size=3)


@given(FREQUENCIES, FREQUENCIES, arrays(np.int64, (3, 3), elements=st.integers(1, 9)))
def test_networks_that_read_alike_have_equal_numbers_however_frequent_classes_are(synthetic, real, rates):
    """The same shares of each class are read as each class; only the composition of the crops differs."""
    whole = rates.sum(axis=1).prod() * rates // rates.sum(axis=1, keepdims=True)
    ours, theirs = (whole * np.array(counts)[:, None] for counts in (synthetic, real))
    runs = [Run("real", seed, 0, READ, None, ours) for seed in range(2)]
    result = Downstream(None, None, ["a", "b", "c"], {}, {}, readings=runs)
    result.runs += [Run("real", seed, fold, FOLDS, fold, theirs) for seed in range(2) for fold in range(2)]
    found = label_fidelity(result)
    for each in (*found.classes, found.mean):
        assert each.dice.mean == pytest.approx(each.dice_of_real.mean)
        assert each.iou.mean == pytest.approx(each.iou_of_real.mean)
    assert [each.share for each in found.classes] == pytest.approx(np.array(synthetic) / sum(synthetic))
    assert (found.confusion == 2 * ours).all()


def test_a_class_that_one_side_lacks_has_no_number():
    one, other = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]]), np.array([[4, 4, 2], [0, 0, 0], [3, 3, 4]])
    assert (as_frequent(one, other) == [[8, 2, 0], [0, 0, 0], [0, 0, 0]]).all()
    assert np.isnan(dice_and_iou(as_frequent(one, other))[0]).tolist() == [False, True, True]
