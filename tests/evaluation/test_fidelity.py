"""Fidelity against the definitions in plain loops, and against other people's code where it is installed."""

import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import EvaluationError
from wsigen.evaluation import fidelity, neighbours


@pytest.fixture(params=[(60, 45, 8), (30, 50, 40)], ids=["tall", "fewer samples than dimensions"])
def sides(request):
    n, m, d = request.param
    rng = np.random.default_rng(n)
    real = rng.normal(size=(n, d)).astype(np.float32)
    return real, (0.8 * rng.normal(size=(m, d)) + 0.3).astype(np.float32)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles even for few samples: the borders between tiles must not show."""
    monkeypatch.setattr(neighbours, "TILE", 17)


def distance(a, b):
    return math.sqrt(sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True)))


def radius(points, i, k):
    return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]


def slow_frechet(x, y):
    """Heusel's formula with the matrix square root itself."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(a @ b + 1e-14 * np.eye(len(a)))
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root.real)


def slow_mmd(x, y):
    def kernel(a, b):
        return (sum(float(u) * float(v) for u, v in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own + other - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_frechet_distance(sides):
    assert fidelity.frechet_distance(*sides) == pytest.approx(slow_frechet(*sides), rel=1e-4)


def test_frechet_distance_of_known_normals():
    """Diagonal covariances have a closed form: |dm|^2 + sum (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(500, 4))
    base = (base - base.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(base.T))).T
    s1, s2, shift = np.array([1, 2, 3, 4.0]), np.array([2, 2, 1, 5.0]), np.array([1, 0, -2, 0.5])
    assert fidelity.frechet_distance(base * s1, base * s2 + shift) == pytest.approx(5.25 + 6.0, rel=1e-9)
    assert fidelity.frechet_distance(base, base) == pytest.approx(0, abs=1e-9)


def test_kernel_distance(sides, small_tiles):
    expected = slow_mmd(*sides)
    assert fidelity.squared_mmd(*sides) == pytest.approx(expected, rel=1e-6)


def test_kid_is_the_mean_over_subsets(sides):
    real, synthetic = sides
    mean, deviation = fidelity.kernel_distance(real, synthetic, seed=3, subsets=12, size=20)
    rng = np.random.default_rng(3)
    values = []
    for _ in range(12):
        i, j = rng.choice(len(real), 20, replace=False), rng.choice(len(synthetic), 20, replace=False)
        values.append(slow_mmd(real[i], synthetic[j]))
    assert mean == pytest.approx(np.mean(values), rel=1e-6)
    assert deviation == pytest.approx(np.std(values), rel=1e-6)
    assert deviation > 0


def test_kid_is_unbiased():
    """Equal distributions: the mean over many draws is 0 within its error; the biased estimate is far from it."""
    rng = np.random.default_rng(5)
    found = [fidelity.squared_mmd(rng.normal(size=(40, 6)), rng.normal(size=(40, 6))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(400)


def test_precision_and_recall(sides, small_tiles):
    real, synthetic = sides
    r, s = [radius(real, i, 3) for i in range(len(real))], [radius(synthetic, i, 3) for i in range(len(synthetic))]
    precision = np.mean([any(distance(f, real[i]) <= r[i] for i in range(len(real))) for f in synthetic])
    recall = np.mean([any(distance(x, synthetic[i]) <= s[i] for i in range(len(synthetic))) for x in real])
    assert fidelity.precision_recall(real, synthetic) == pytest.approx((precision, recall), rel=1e-6)
    assert 0 < precision <= 1


def test_density_and_coverage(sides, small_tiles):
    real, synthetic = sides
    r = [radius(real, i, 5) for i in range(len(real))]
    density = sum(distance(f, real[i]) <= r[i] for f in synthetic for i in range(len(real))) / (5 * len(synthetic))
    coverage = np.mean([min(distance(real[i], f) for f in synthetic) <= r[i] for i in range(len(real))])
    assert fidelity.density_coverage(real, synthetic) == pytest.approx((density, coverage), rel=1e-6)


@pytest.mark.parametrize("few", [60, 200])
def test_a_perfect_generator_reaches_all_of_the_real_side_however_few_its_samples(few):
    """And few real samples are no reason to see it outside of them."""
    rng = np.random.default_rng(few)
    many, less = (rng.normal(size=(n, 16)).astype(np.float32) for n in (900, few))
    assert fidelity.density_coverage(many, less)[1] < 0.75
    for pair in ((many, less), (less, many)):
        found = fidelity.fidelity_numbers(*pair, seed=0)
        assert found["coverage"] > 0.85
        assert found["precision"] == pytest.approx(found["recall"], abs=0.2)
        again, other = (fidelity.fidelity_numbers(*pair, seed)["density"] for seed in (0, 1))
        assert found["density"] == again != other


@given(st.integers(2, 30), st.integers(2, 30), st.integers(0, 9))
def test_equal_numbers_are_drawn_without_repetition(n, m, seed):
    sides = [np.arange(k, dtype=np.float32)[:, None] for k in (n, m)]
    for side, drawn in zip(sides, fidelity.equal_numbers(*sides, seed), strict=True):
        assert len(drawn) == min(n, m)
        assert (np.diff(drawn[:, 0]) > 0).all()
        assert np.isin(drawn, side).all()
    assert fidelity.equal_numbers(sides[0], sides[0], seed)[1] is sides[0]


def test_inception_score():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.full(5, 0.3), size=40)
    parts = np.array_split(p, 4)
    slow = [
        math.exp(np.mean([sum(v * math.log(v / w) for v, w in zip(row, part.mean(0), strict=True)) for row in part]))
        for part in parts
    ]
    assert fidelity.inception_score(p, 4) == pytest.approx((np.mean(slow), np.std(slow)), rel=1e-9)
    assert fidelity.inception_score(np.eye(5)[np.arange(50) % 5], 1)[0] == pytest.approx(5)


def test_exact_copies_have_distance_zero():
    x = np.random.default_rng(2).normal(size=(50, 30)) + 1000
    found, index = neighbours.nearest(x, x[::-1])
    assert (found == 0).all()
    assert (index == np.arange(50)[::-1]).all()


def test_memory_does_not_grow_with_the_pairs(monkeypatch):
    import tracemalloc

    monkeypatch.setattr(neighbours, "TILE", 128)
    peaks = []
    for n in (512, 4096):
        x = np.random.default_rng(0).normal(size=(n, 4))
        tracemalloc.start()
        neighbours.kth_distance(x, 3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_too_few_or_other_dimensions_are_refused():
    x = np.zeros((3, 4))
    with pytest.raises(EvaluationError, match="too few"):
        fidelity.precision_recall(x, x)
    with pytest.raises(EvaluationError, match="one extractor"):
        fidelity.frechet_distance(x, np.zeros((3, 5)))


def test_prdc_agrees(sides):
    prdc = pytest.importorskip("prdc")
    real, synthetic = (side.astype(np.float64) for side in sides)
    for k in (3, 5):
        other = prdc.compute_prdc(real, synthetic, nearest_k=k)
        ours = (*fidelity.precision_recall(real, synthetic, k), *fidelity.density_coverage(real, synthetic, k))
        assert ours == pytest.approx([other[n] for n in ("precision", "recall", "density", "coverage")], rel=1e-6)


def test_torchmetrics_agrees(sides):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = (torch.from_numpy(side).double() for side in sides)
    moments = [v for side in (x, y) for v in (side.mean(0), side.T.cov())]
    assert fidelity.frechet_distance(*sides) == pytest.approx(float(fid._compute_fid(*moments)), rel=1e-4)
    n = min(len(x), len(y))
    other = float(kid.poly_mmd(x[:n], y[:n]))
    assert fidelity.squared_mmd(x[:n].numpy(), y[:n].numpy()) == pytest.approx(other, rel=1e-6)
