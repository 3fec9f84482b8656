"""The parts of a downstream evaluation: scores, folds, batches, networks, masks."""

import numpy as np
import pytest
import torch
from drawing import feature, square, write_layout
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from metric_pictures import save, texture
from sklearn.metrics import balanced_accuracy_score, f1_score

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import EvaluationError
from wsigen.base.geometry import Box
from wsigen.evaluation.downstream.fitting import Batches
from wsigen.evaluation.downstream.networks import Classifier, Encoder, Segmenter, open_network
from wsigen.evaluation.downstream.report import HEAD, rows
from wsigen.evaluation.downstream.results import FOLDS, Downstream, Run, scores, spread
from wsigen.evaluation.downstream.samples import Samples, Scratch, split
from wsigen.evaluation.sides.sides import Crop, open_side

CONFUSIONS = arrays(np.int64, (3, 3), elements=st.integers(0, 5)).filter(lambda c: c.sum(1).all())


@given(CONFUSIONS)
def test_scores_are_those_of_the_single_samples(confusion):
    true, predicted = (np.repeat(i.ravel(), confusion.ravel()) for i in np.indices(confusion.shape))
    found = scores(confusion)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, predicted))
    assert found.f1 == pytest.approx(f1_score(true, predicted, average="macro", labels=[0, 1, 2], zero_division=0))
    assert np.mean(found.recall) == pytest.approx(found.balanced_accuracy)


def test_a_class_the_test_set_lacks_does_not_count():
    found = scores(np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]]))
    assert found.balanced_accuracy == pytest.approx(0.65)
    assert np.isnan(found.recall[2])
    assert spread([1.0, float("nan"), 0.5]).mean == 0.75
    assert str(spread([0.5])) == "0.500"


def samples(labels, classes=2):
    return Samples(None, [None] * len(labels), np.eye(classes)[labels], np.arange(len(labels)))


@given(st.lists(st.integers(0, 7), min_size=40, max_size=80), st.integers(0, 3))
def test_folds_share_no_group_and_test_every_crop_once(numbers, seed):
    labels = np.arange(len(numbers)) % 2
    groups = [f"g{n}" for n in numbers]
    try:
        folds = split(samples(labels), groups, ["a", "b"], 3, seed)
    except EvaluationError:
        assert min(len({g for g, k in zip(groups, labels, strict=True) if k == c}) for c in (0, 1)) < 3
        return
    assert sorted(i for f in folds for i in f.test) == list(range(len(labels)))
    for fold in folds:
        assert not {groups[i] for i in fold.training} & {groups[i] for i in fold.test}
        assert set(labels[fold.training]) == {0, 1}


def test_a_class_of_one_patient_cannot_be_folded():
    with pytest.raises(EvaluationError, match="class b is in one patient or slide only"):
        split(samples(np.array([0, 0, 0, 1])), ["p", "q", "r", "p"], ["a", "b"], 2, 0)


def test_batches_are_balanced_and_a_function_of_seed_and_step(tmp_path):
    labels = np.array([0] * 45 + [1] * 5)
    with Scratch(tmp_path, 32, masks=False) as scratch:
        for k in labels:
            scratch.add(np.full((32, 32, 3), 60 + 120 * k, np.uint8), None)
        scratch.flush()
        assert not list(tmp_path.iterdir())  # it has no name
        parts = [(samples(labels), np.arange(len(labels)))]
        batches = Batches(scratch, parts, 16, seed=3)
        seen = [batches.batch(step) for step in range(20)]
        assert 0.4 < np.mean([t.mean() for _, t in seen]) < 0.6
        assert all(((images.mean((1, 2, 3)) > 110) == targets).all() for images, targets in seen)
        again, other = (Batches(scratch, parts, 16, seed).batch(4) for seed in (3, 4))
        assert (seen[4][0] == again[0]).all()
        assert not (again[0] == other[0]).all()


def test_masks_turn_with_their_crops(tmp_path):
    mask = (np.arange(32)[:, None] * np.ones(32) > 20).astype(np.uint8)
    image = np.repeat((80 + 100 * mask)[..., None], 3, axis=2).astype(np.uint8)
    with Scratch(tmp_path, 32, masks=True) as scratch:
        scratch.add(image, mask)
        scratch.flush()
        batches = Batches(scratch, [(samples(np.array([0])), np.array([0]))], 8, 0)
        images, targets = batches.batch(0)
    assert ((images.mean(-1) > 130) == (targets == 1)).all()
    assert len({t.tobytes() for t in targets}) > 1


@pytest.mark.parametrize("size", [64, 100])
def test_small_networks_are_small_and_keep_the_size_of_masks(size):
    x = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    classifier, segmenter = (open_network("small", task, 3) for task in ("classification", "segmentation"))
    assert classifier(x).shape == (2, 3)
    assert segmenter(x).shape == (2, 3, size, size)
    assert max(classifier.parameter_count, segmenter.parameter_count) < 1_000_000
    assert isinstance(classifier.network, Classifier)


def test_a_decoder_takes_any_encoder():
    class Coarse(Encoder):
        def forward(self, x):
            return super().forward(x)[1:]

    assert Segmenter(Coarse(), (24, 48, 96, 160), 4, 5)(torch.zeros(1, 3, 70, 64)).shape == (1, 5, 70, 64)


def test_timm_networks():
    timm = pytest.importorskip("timm")
    x = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    assert open_network("timm:resnet18@random", "classification", 3)(x).shape == (2, 3)
    assert open_network("timm:resnet18@random", "segmentation", 3)(x).shape == (2, 3, 64, 64)
    with pytest.raises(EvaluationError, match="cannot be loaded"):
        open_network("timm:no_such_network", "classification", 3)
    assert timm.__version__


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_masks_follow_the_annotations_at_any_um_per_px(tmp_path, scale):
    slide = save(tmp_path / "s.tiff", texture(480, 480, 0), 0.5)
    write_layout(tmp_path / "s.geojson", feature("Tumor", square(96, 48, 192)), feature("Stroma", square(300, 0, 120)))
    opened, side = open_side("real", slide), 480 // scale
    mask = opened.mask(Crop(0, Box(0, 0, side, side), (side, side)), ["tumor", "Fat"])
    y, x = ((np.arange(side) + 0.5) * scale for _ in range(2))
    truth = ((y >= 48) & (y < 240))[:, None] & ((x >= 96) & (x < 288))
    assert (mask == np.where(truth, 0, UNKNOWN)).all()
    part = opened.mask(Crop(0, Box(10, 20, 60, 90), (side, side)), ["tumor", "Fat"])
    assert (part == mask[10:60, 20:90]).all()
    assert opened.shares(Crop(0, Box(48, 96, 240, 288), (480, 480))) == {"Tumor": 1.0}


def test_folds_are_pooled_before_the_deviation_over_seeds_is_taken():
    """Two seeds, three folds of unlike difficulty: folds differ much, seeds hardly."""
    rng = np.random.default_rng(0)
    found = Downstream(None, None, ["a", "b"], {}, {})
    for arm, more in (("real", 0), ("both", 3)):
        for seed in range(2):
            for fold, right in enumerate((10, 40, 25)):
                hit = right + more + int(rng.integers(2))
                confusion = np.array([[hit, 50 - hit], [50 - hit, hit]], np.int64)
                found.runs.append(Run(arm, seed, fold, FOLDS, fold, confusion))
    sums = [sum(r.confusion for r in found.of("real", FOLDS) if r.seed == seed) for seed in range(2)]
    expected = [scores(s).balanced_accuracy for s in sums]
    own = found.score("real", FOLDS, "balanced_accuracy")
    assert (own.mean, own.deviation) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)))
    assert own.deviation < 0.02
    assert own.runs == 2
    assert found.fold_spread("real", FOLDS, "balanced_accuracy") > 0.25
    gains = [scores(sum(r.confusion for r in found.of("both", FOLDS) if r.seed == k)).f1 - scores(sums[k]).f1 for k in range(2)]
    assert found.gain("both", FOLDS, "f1").mean == pytest.approx(np.mean(gains))
    assert found.gain("real", FOLDS, "f1").mean == 0
    row = dict(zip(HEAD, rows(found, FOLDS)[0], strict=False))
    assert row["balanced accuracy"] == str(own)
    assert row["fold spread"] == f"{found.fold_spread('real', FOLDS, 'balanced_accuracy'):.3f}"
