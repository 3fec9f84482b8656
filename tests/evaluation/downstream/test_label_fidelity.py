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
from wsigen.evaluation.downstream.label_fidelity import dice_and_iou, rows


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
