"""Slides of models that are told a grid by tokens: each crop its own window; what they cannot follow is one line."""

import numpy as np
import pytest
from runs import settings_of
from tiny_bundles import make_grid_token_bundle, tiny_card, write_card

from wsigen.base.errors import GridError
from wsigen.base.geometry import Box
from wsigen.grids.grid import GridFile
from wsigen.grids.wsz import new_grid
from wsigen.run.estimate.estimate import estimate
from wsigen.run.generate import generate, resume
from wsigen.run.tasks.context import RunContext

SIZE = (512, 512)
UM = (256.0, 256.0)  # at the tiny bundles' 0.5 um/px
SHAPE = (6, 16, 16)


def small(bundle, tmp_path, **more):
    settings = {"size": SIZE, "steps": 2, "levels": 1, "layout": None, "class_name": "Tumor"}
    return settings_of(bundle, tmp_path, **(settings | more))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_grid_token_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "p.png"
    rng = np.random.default_rng(0)
    pixels = np.clip(np.array([150, 80, 140]) + rng.normal(0, 25, (*SIZE[::-1], 1)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path, values=None, known=True, **about):
    about = {"encoder": "means", "cell_um": 16.0, "width_um": UM[0], "height_um": UM[1]} | about
    values = np.random.default_rng(0).normal(size=SHAPE) if values is None else values
    with new_grid(path, GridFile(**about), values.shape) as writer:
        writer.write(0, values, np.full(values.shape[1:], known))
        writer.overview(np.zeros((8, 8, 3), np.uint8))
    return path


def stop(stage):
    raise KeyboardInterrupt


def test_each_crop_is_told_the_parts_under_it_standardised(bundle, tmp_path):
    cells = np.random.default_rng(0).normal(size=SHAPE).astype(np.float16).astype(np.float32)
    file = write(tmp_path / "x.wsz", cells)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a.ome.tiff", grid=file, watch=stop, **small(bundle, tmp_path, levels=2))
    coarse, fine = RunContext(tmp_path / "a.run").passes
    window = fine.grid_window(Box(8, 12, 24, 28))  # 64 um a side from (32, 48) um: 4 x 4 whole cells
    under = cells[:, 2:6, 3:7]
    assert window[:-1] == pytest.approx((under - under.mean(0)) / under.std(0, ddof=1), abs=1e-5)
    assert (window[-1] == 1).all()
    window = coarse.grid_window(Box(0, 0, 16, 16))  # 256 um a side: each part has 4 x 4 cells
    under = cells[:, :16, :16].reshape(6, 4, 4, 4, 4).mean((2, 4))
    assert window[:-1] == pytest.approx((under - under.mean(0)) / under.std(0, ddof=1), abs=1e-4)


def test_another_grid_is_another_slide_and_an_unknown_one_is_none(tmp_path):
    bundle = make_grid_token_bundle(tmp_path / "bundle")
    grid = {"told": "tokens", "encoder": "means", "cell_um": 16.0, "dimension": 6, "parts": [4, 4]}
    write_card(bundle, tiny_card("class-map", grid=grid))  # not required
    settings = small(bundle, tmp_path)
    without = generate(tmp_path / "a.ome.tiff", **settings).level0_sha256
    unknown = generate(tmp_path / "b.ome.tiff", grid=write(tmp_path / "x.wsz", known=False), **settings).level0_sha256
    given = generate(tmp_path / "c.ome.tiff", grid=write(tmp_path / "y.wsz"), **settings).level0_sha256
    assert without == unknown != given


def test_a_run_with_tokens_goes_on_to_the_same_bits(bundle, tmp_path):
    settings = small(bundle, tmp_path)
    file = write(tmp_path / "x.wsz")
    whole = generate(tmp_path / "a.ome.tiff", grid=file, **settings).level0_sha256

    def stop_later(stage):
        if stage.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "b.ome.tiff", grid=file, watch=stop_later, **settings)
    assert resume(tmp_path / "b.run").level0_sha256 == whole


@pytest.mark.parametrize("how", [{"vq": True}, {"kind": "text"}], ids=["codes, factor 4", "prompts"])
def test_other_autoencoders_and_prompts(tmp_path, how):
    bundle = make_grid_token_bundle(tmp_path / "bundle", **how)
    slides = []
    for seed in (1, 2):
        file = write(tmp_path / f"{seed}.wsz", np.random.default_rng(seed).normal(size=SHAPE))
        settings = small(bundle, tmp_path, steps=1, guidance=0.0)
        slides.append(generate(tmp_path / f"{seed}.ome.tiff", grid=file, **settings).level0_sha256)
    assert slides[0] != slides[1]


def test_without_classes_guidance_takes_a_null_pass_for_the_grid(tmp_path):
    bundle = make_grid_token_bundle(tmp_path / "bundle", kind="none")
    settings = {k: v for k, v in small(bundle, tmp_path, batch=1).items() if k not in ("workers", "threads", "keep_run")}
    settings["grid"] = write(tmp_path / "x.wsz")
    guided, plain = (estimate(**settings | {"guidance": guidance}).calls for guidance in (1.0, 0.0))
    assert guided == 2 * plain > 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"encoder": "uni_v1"}, "is of encoder 'uni_v1'; the model follows 'means'"),
        ({"cell_um": 32.0, "values": np.zeros((6, 8, 8))}, "cells of 32 um; the model follows cells of 16 um"),
        ({"width_um": 500.0}, "is of a slide of 500x256 um"),
        ({"values": np.full(SHAPE, np.nan)}, "not finite"),
        ({"values": np.zeros((7, 16, 16))}, "7 numbers a cell, the model follows 6"),
    ],
)
def test_a_grid_that_cannot_be_followed_is_refused(bundle, tmp_path, what, message):
    with pytest.raises(GridError, match=message):
        generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "x.wsz", **what), **small(bundle, tmp_path))
    assert not (tmp_path / "a.run").exists()


def test_encoders_are_compared_by_the_hashes_of_their_weights(tmp_path):
    grid = {"told": "tokens", "encoder": "means", "cell_um": 16.0, "dimension": 6, "parts": [4, 4], "encoder_sha256": "ab" * 32}
    bundle = make_grid_token_bundle(tmp_path / "bundle", grid=grid)
    settings = small(bundle, tmp_path)
    message = r"is of encoder 'means' \(sha256 cdcdcdcdcdcd\); .* follows 'means' \(sha256 abababababab\)"
    with pytest.raises(GridError, match=message):
        generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "x.wsz", encoder_sha256="cd" * 32), **settings)
    generate(tmp_path / "a.ome.tiff", grid=write(tmp_path / "y.wsz", encoder="renamed", encoder_sha256="ab" * 32), **settings)


def test_a_model_that_needs_a_grid_says_so(bundle, tmp_path):
    with pytest.raises(GridError, match="'tiny-class-map' follows grids of encoder 'means' and draws none itself: give one"):
        generate(tmp_path / "a.ome.tiff", **small(bundle, tmp_path))


def test_a_reference_is_encoded_on_the_way(bundle, picture, tmp_path, monkeypatch):
    class Means:
        name, version, sha256, dimension, side_px = "means", "1", "ab" * 32, 6, 16

        def features(self, images):
            return np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1).astype(np.float32)

    settings = small(bundle, tmp_path)
    with pytest.raises(GridError, match=r"follows encoder 'means', not usable here \(.*no such extractor.* give --grid"):
        generate(tmp_path / "a.ome.tiff", reference=picture, **settings)
    monkeypatch.setattr("wsigen.grids.compress.open_extractor", lambda name, device: Means())
    generate(tmp_path / "b.ome.tiff", reference=picture, **settings)
    run = RunContext(tmp_path / "b.run")
    assert run.given_grid.values.shape == SHAPE
    assert run.given_grid.known[:].any()
