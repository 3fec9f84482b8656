import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from wsigen.sampling.schedule import add_noise, ddim_step, extrapolate, guided, make_schedule, predict_x0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [5, 20, 50])
def test_equals_diffusers_ddim_with_trailing_spacing(kind, steps):
    theirs = DDIMScheduler(
        beta_schedule="scaled_linear" if kind == "epsilon" else "squaredcos_cap_v2",
        prediction_type=kind,
        clip_sample=False,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )
    theirs.set_timesteps(steps)
    ours = make_schedule(theirs.alphas_cumprod.double().numpy(), steps)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    rng = np.random.default_rng(0)
    y = rng.standard_normal((4, 8, 8)).astype(np.float32)
    mine, other = y, torch.from_numpy(y)
    for s, t in enumerate(theirs.timesteps):
        prediction = np.tanh(mine).astype(np.float32)
        x0 = predict_x0(prediction, mine, ours.abar[s], kind)
        mine = ddim_step(mine, x0, ours.abar[s], ours.abar[s + 1])
        other = theirs.step(torch.tanh(other), t, other).prev_sample
    assert np.allclose(mine, other.numpy(), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 10, 25])
def test_equals_diffusers_dpm_solver(kind, steps):
    """DPM-Solver++ (2M) of diffusers, in double precision where our step's constants are too."""
    theirs = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        prediction_type=kind,
        algorithm_type="dpmsolver++",
        solver_order=2,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    theirs.set_timesteps(steps)
    ours = make_schedule(theirs.alphas_cumprod.double().numpy(), steps)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    y = np.random.default_rng(0).standard_normal((4, 8, 8)).astype(np.float32)
    mine, other, previous = y, torch.from_numpy(y), None
    for s, t in enumerate(theirs.timesteps):
        x0 = predict_x0(np.tanh(mine).astype(np.float32), mine, ours.abar[s], kind)
        target = x0 if previous is None else extrapolate(x0, previous, *ours.abar[s - 1 : s + 2])
        mine, previous = ddim_step(mine, target, ours.abar[s], ours.abar[s + 1]), x0
        other = theirs.step(torch.tanh(other), t, other).prev_sample
    scale = np.abs(other.numpy()).max()
    assert np.allclose(mine / scale, other.numpy() / scale, atol=1e-5)


def test_last_state_has_no_noise():
    schedule = make_schedule(np.linspace(0.999, 0.001, 100), 7, 0.5)
    assert schedule.abar[-1] == 1.0
    assert schedule.steps == 4
    assert schedule.timesteps[0] == 49
    x0 = np.full((1, 2, 2), 3, np.float32)
    assert np.array_equal(ddim_step(np.zeros_like(x0), x0, 0.5, 1.0, eta=1.0), x0)


def test_forward_noise_keeps_unit_variance():
    rng = np.random.default_rng(1)
    x0, eps = rng.standard_normal((2, 4, 100, 100)).astype(np.float32)
    for abar in (0.1, 0.5, 0.9):
        assert add_noise(x0, eps, abar).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_step_keeps_the_marginal_variance(eta):
    rng = np.random.default_rng(2)
    x0, eps, noise = rng.standard_normal((3, 4, 200, 200)).astype(np.float32)
    y = add_noise(x0, eps, 0.3)
    out = ddim_step(y, x0, 0.3, 0.6, eta, noise)
    assert (out - np.float32(np.sqrt(0.6)) * x0).std() == pytest.approx(np.sqrt(0.4), abs=0.01)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_x0_is_recovered_from_a_perfect_prediction(kind):
    rng = np.random.default_rng(3)
    x0, eps = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    a, s = np.sqrt(0.4), np.sqrt(0.6)
    perfect = {"epsilon": eps, "v_prediction": a * eps - s * x0, "sample": x0}[kind].astype(np.float32)
    assert np.allclose(predict_x0(perfect, add_noise(x0, eps, 0.4), 0.4, kind), x0, atol=1e-5)


@pytest.mark.parametrize(("steps", "strength"), [(0, 1.0), (10, 0.0), (10, 1.5), (200, 1.0)])
def test_impossible_schedules_are_refused(steps, strength):
    with pytest.raises(ValueError, match=r"steps|strength"):
        make_schedule(np.linspace(0.99, 0.01, 100), steps, strength)


# -- guidance: DiffInfinite's equation 2, per pixel ------------------------------------------------------------------------


def constant(value: float) -> np.ndarray:
    return np.full((2, 4, 4), value, np.float32)


def test_one_label_is_pushed_away_from_null() -> None:
    out = guided([(constant(3.0), None)], constant(1.0), 0.5)
    assert out.dtype == np.float32
    assert np.allclose(out, 1.5 * 3.0 - 0.5 * 1.0)


@pytest.mark.parametrize(("null", "w"), [(None, 0.5), (constant(1.0), 0.0)])
def test_without_guidance_it_is_the_labels_own(null: np.ndarray | None, w: float) -> None:
    assert np.array_equal(guided([(constant(3.0), None)], null, w), constant(3.0))


def test_every_pixel_takes_its_own_label() -> None:
    top = np.zeros((4, 4), bool)
    top[:2] = True
    left = np.zeros((4, 4), bool)
    left[2:, :2] = True
    right = ~(top | left)
    out = guided([(constant(1.0), top), (constant(2.0), left), (constant(3.0), right)], constant(1.0), 1.0)
    assert np.array_equal(out[0, :2], np.full((2, 4), 1.0))
    assert np.array_equal(out[1, 2:, :2], np.full((2, 2), 3.0))
    assert np.array_equal(out[1, 2:, 2:], np.full((2, 2), 5.0))


def test_null_pixels_stay_null() -> None:
    null = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    assert np.allclose(guided([(null, None)], null, 3.0), null, atol=1e-5)


def test_inputs_are_not_changed() -> None:
    a, b = constant(1.0), constant(2.0)
    mask = np.eye(4, dtype=bool)
    guided([(a, mask), (b, ~mask)], constant(0.5), 2.0)
    assert np.array_equal(a, constant(1.0))
    assert np.array_equal(b, constant(2.0))


def test_no_prediction() -> None:
    with pytest.raises(ValueError, match="at least one"):
        guided([], None, 0.0)
