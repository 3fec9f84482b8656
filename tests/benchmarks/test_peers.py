"""The loops wsigen is compared with do what their authors describe, with the same network."""

import numpy as np
import pytest
import torch

from benchmarks.bundles import make_bundle
from benchmarks.peers import FULL, QUICK, board
from benchmarks.peers.loops import STRIDE, Network, OneCrop, Panorama
from benchmarks.peers.rows import StepTimes
from wsigen.base.geometry import Box
from wsigen.models.conditioning import NULL, Condition
from wsigen.models.model import load_model
from wsigen.run.engine.stage import Stage
from wsigen.run.tasks.predict import StepSettings, View, estimate_crops
from wsigen.sampling.pathup import PathUpPlan
from wsigen.sampling.schedule import ddim_step, make_schedule

STEPS = 4  # divides the training's 1000: diffusers counts back by whole quotients, elsewhere it is off by one
SIDE, EXTENT, GUIDANCE = 16, 40, 0.7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), widths=(8, 8), decoder_width=4, crop=SIDE)


@pytest.fixture(scope="module")
def classes():
    """Two labels in every crop."""
    ys, xs = np.mgrid[:EXTENT, :EXTENT]
    return (1 + (ys // 8 + xs // 8) % 2).astype(np.int64)


def through(loop):
    """Run a loop to its end; its windows."""
    with torch.inference_mode():
        return list(loop.run())


def test_the_network_is_the_one_that_wsigen_calls(bundle):
    network, model = Network(bundle, STEPS), load_model(bundle)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 4, SIDE, SIDE)).astype(np.float32)
    classes = rng.integers(0, 3, (SIDE, SIDE))
    own = model.predict(latents, 500, [Condition(class_map=classes.astype(np.uint8)), NULL], 0)
    maps = np.stack([classes, np.full_like(classes, network.unknown)])
    with torch.inference_mode():
        theirs = network.predict(torch.from_numpy(latents), 500, torch.from_numpy(maps)).numpy()
        picture = network.decode(torch.from_numpy(latents[:1]))
    np.testing.assert_allclose(theirs, own, atol=1e-5)
    assert np.abs(picture - model.autoencoder.decode(latents[0])).max() <= 0.5 + 1e-3


def test_the_panorama_is_wsigens_lattice_with_its_stride_and_flat_weights(bundle, classes):
    """Averaging stepped windows equals stepping the average of their estimates, as a step is affine in the estimate."""
    network, model = Network(bundle, STEPS), load_model(bundle)
    noise = network.start(EXTENT, EXTENT, seed=1)
    loop = Panorama(network, noise, torch.from_numpy(classes), GUIDANCE)
    windows = through(loop)
    plan = PathUpPlan(EXTENT, EXTENT, SIDE, SIDE - STRIDE, "flat")
    schedule = make_schedule(model.abar, STEPS)
    y = noise[0].numpy()
    for step in range(STEPS):
        crops = plan.crops(step, Box(0, 0, EXTENT, EXTENT))
        settings = StepSettings(schedule.timesteps[step], schedule.abar[step], GUIDANCE, 0, 2)
        views = [View(y[(slice(None), *c.box.slices)], classes[c.box.slices].astype(np.uint8)) for c in crops]
        total = np.zeros_like(y)
        for crop, x0 in zip(crops, estimate_crops(model, settings, views), strict=True):
            total[(slice(None), *crop.box.slices)] += crop.weight * x0
        y = ddim_step(y, total, schedule.abar[step], schedule.abar[step + 1])
    np.testing.assert_allclose(loop.latents[0].numpy(), y, atol=1e-4)
    assert len(windows) == STEPS * len(crops)
    assert sum(w.share for w in windows) == pytest.approx(STEPS)


def test_the_one_crop_loop_covers_the_canvas_and_asks_once_per_label(bundle, classes):
    network = Network(bundle, STEPS)
    loop = OneCrop(network, network.start(EXTENT, EXTENT, seed=1), torch.from_numpy(classes), GUIDANCE, seed=2)
    windows = through(loop)
    covered = np.zeros((EXTENT, EXTENT), dtype=bool)
    for crop in loop.crops:
        assert not covered[crop.slices].all()  # its centre was free
        covered[crop.slices] = True
    assert covered.all()
    assert {w.rows for w in windows} == {3}  # two labels and the null condition
    assert sum(w.share for w in windows) == pytest.approx(STEPS)
    assert torch.isfinite(loop.latents).all()


def test_on_a_canvas_of_one_crop_both_loops_are_the_sampler(bundle):
    network = Network(bundle, STEPS)
    classes, noise = torch.ones(SIDE, SIDE, dtype=torch.int64), network.start(SIDE, SIDE, seed=3)
    loops = Panorama(network, noise, classes, GUIDANCE), OneCrop(network, noise, classes, GUIDANCE, seed=0)
    for loop in loops:
        through(loop)
    torch.testing.assert_close(loops[0].latents, loops[1].latents, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(loops[0].latents, noise, atol=0.1)


def test_the_steps_of_a_run_are_told_apart():
    """Two chunks, two steps: five half-steps of each."""
    times = StepTimes(2)
    for done in range(11):
        times(Stage("denoise", 10, done, calls=8 * (done >= 4) + 8 * (done >= 8)))
    assert [turn.rows for turn in times.turns] == [8, 8]


@pytest.mark.parametrize("scale", [FULL, QUICK])
def test_boards_end_where_their_slides_end(scale):
    for size in (scale.size, scale.seam_size):
        squares = board(["a", "b"], size)
        assert max(x + side for _, x, _, side in squares) == max(y + side for _, _, y, side in squares) == size
