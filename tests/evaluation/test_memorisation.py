"""C_T and authenticity on data whose answer is known: copies, half copies, fresh samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import EvaluationError
from wsigen.evaluation import memorisation


@pytest.fixture(scope="module")
def data():
    """Training, held-out and fresh points of one mixture of three normals."""
    rng = np.random.default_rng(0)

    def draw(n):
        return rng.normal(size=(n, 6)) + 8 * rng.integers(0, 3, n)[:, None]

    return draw(900), draw(900), draw(900)


def copies(training, share, fresh):
    """``share`` of the samples are training points with rounding errors, the rest is fresh."""
    count = int(share * len(fresh))
    return np.concatenate([training[:count], fresh[count:]])


def slow_authenticity(training, samples):
    count = 0
    for s in samples:
        to_training = np.linalg.norm(training - s, axis=1)
        i = to_training.argmin()
        others = np.delete(np.linalg.norm(training - training[i], axis=1), i)
        count += to_training[i] > others.min()
    return count / len(samples)


def test_authenticity(data):
    training, _, fresh = data
    honest = slow_authenticity(training, fresh)
    assert 0.4 < honest < 1
    assert memorisation.authenticity(training, fresh) == honest
    assert memorisation.authenticity(training, training) == 0
    half = copies(training, 0.5, fresh)
    assert memorisation.authenticity(training, half) == slow_authenticity(training, half)
    assert memorisation.authenticity(training, half) == pytest.approx(honest / 2, abs=0.04)


def test_data_copying(data):
    training, held_out, fresh = data
    exact = memorisation.data_copying(training, held_out, training, cells=5)
    half = memorisation.data_copying(training, held_out, copies(training, 0.5, fresh), cells=5)
    none = memorisation.data_copying(training, held_out, fresh, cells=5)
    far = memorisation.data_copying(training, held_out, fresh + 2 * np.sign(fresh), cells=5)
    assert exact.score < half.score < -3
    assert abs(none.score) < 2
    assert far.score > 3
    assert none.used == none.cells == 5


def test_data_copying_equals_the_formula(data):
    """One cell: the z-score of scipy's Mann-Whitney test."""
    from scipy.stats import mannwhitneyu

    training, held_out, fresh = data

    def to_training(points):
        return np.array([np.linalg.norm(training - p, axis=1).min() for p in points])

    p, q = to_training(held_out), to_training(fresh[:500])
    u = mannwhitneyu(q, p).statistic
    z = (u - len(p) * len(q) / 2) / np.sqrt(len(p) * len(q) * (len(p) + len(q) + 1) / 12)
    assert memorisation.data_copying(training, held_out, fresh[:500], cells=1).score == pytest.approx(z, rel=1e-9)


def test_fresh_samples_have_scores_about_zero_on_average():
    scores = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, p, q = (rng.normal(size=(150, 4)) for _ in range(3))
        scores.append(memorisation.data_copying(x, p, q, cells=3, seed=seed).score)
    assert abs(np.mean(scores)) < 0.6
    assert np.std(scores) < 1.2


def test_share_too_near(data):
    training, held_out, fresh = data
    below, pairs = memorisation.share_too_near(training, held_out, fresh)
    assert below == pytest.approx(0.05, abs=0.03)
    assert pairs == pytest.approx(0.5, abs=0.05)
    assert memorisation.share_too_near(training, held_out, training) == (1.0, 1.0)
    below, pairs = memorisation.share_too_near(training, held_out, copies(training, 0.5, fresh))
    assert below == pytest.approx(0.525, abs=0.03)


def test_nearest_training_crop(data):
    training, _, fresh = data
    distance, index = memorisation.nearest_training(training, fresh[:20])
    slow = [np.linalg.norm(training - s, axis=1) for s in fresh[:20]]
    assert index.tolist() == [int(d.argmin()) for d in slow]
    assert distance == pytest.approx([d.min() for d in slow])


@given(st.integers(1, 8), st.integers(0, 9))
def test_a_sample_is_taken_in_the_orientation_nearest_to_the_training_data(turns, seed):
    rng = np.random.default_rng(seed)
    training, views = rng.normal(size=(9, 3)), rng.normal(size=(turns, 7, 3)).astype(np.float32)
    found = memorisation.nearest_views(training, views)
    distances = np.array([memorisation.nearest_training(training, view)[0] for view in views])
    assert memorisation.nearest_training(training, found)[0] == pytest.approx(distances.min(axis=0))
    assert all(any((sample == view[i]).all() for view in views) for i, sample in enumerate(found))


def test_without_enough_samples_no_score_is_made_up(data):
    training, held_out, fresh = data
    found = memorisation.data_copying(training, held_out[:10], fresh[:10])
    assert found.used == 0
    assert np.isnan(found.score)
    with pytest.raises(EvaluationError, match="cells"):
        memorisation.data_copying(training[:4], held_out, fresh)
    with pytest.raises(EvaluationError, match="two"):
        memorisation.authenticity(training[:1], fresh)


def test_duplicates_of_the_data_are_counted_as_samples_too_near_are(data):
    training, held_out, _ = data
    assert 0.02 < memorisation.duplicates(training, held_out) < 0.09, "independent points: the share of the threshold itself"
    twice = np.concatenate([training[:300], training[:100] + 1e-6])
    assert memorisation.duplicates(twice, held_out) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(EvaluationError, match="1 training crops"):
        memorisation.duplicates(training[:1], held_out)
