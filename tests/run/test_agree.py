"""Finer levels that keep to the coarser ones: how near they come, borders, glass."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import settings_of
from specs import PASS

from wsigen.base.geometry import Box
from wsigen.models import attention as lattice
from wsigen.run.generate import generate
from wsigen.run.tasks.agree import Agreement
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.decode import decode_region


def means_of(rgb, ratio):
    """Area means over all whole coarser px."""
    height, width = (extent // ratio for extent in rgb.shape[:2])
    return rgb[: height * ratio, : width * ratio].reshape(height, ratio, width, ratio, 3).mean(axis=(1, 3))


sides = st.integers(1, 9)


@given(st.integers(2, 5), st.sampled_from([4, 8]), sides, sides, st.tuples(sides, sides, sides, sides), st.integers(0, 99))
def test_what_is_corrected_and_what_is_left_whatever_the_window(ratio, f, height, width, corners, seed):
    """Also where the ratio divides neither canvas nor latent px: an offset goes; where glass is shown, nothing changes."""
    fine = replace(PASS, height=height, width=width, factor=f)
    coarse = replace(PASS, height=-(-height // ratio), width=-(-width // ratio), factor=f, scale=ratio)
    rng, canvas = np.random.default_rng(seed), fine.grid.canvas
    rgb = rng.uniform(120, 135, (height * f, width * f, 3)).astype(np.float32)
    rows, columns = (-(-extent * f // ratio) for extent in (height, width))
    picture = rng.uniform(120, 135, (rows, columns, 3)).astype(np.float32)

    def corrected(window, picture, shown):
        agreement = Agreement(fine, coarse, window)
        part = rgb[agreement.around.scale(f).slices]
        return agreement.corrected(part, agreement.around, picture[agreement.below.slices], shown[agreement.below.slices])

    shown = np.ones((rows, columns), bool)
    beyond = ((0, rows * ratio - height * f), (0, columns * ratio - width * f), (0, 0))
    lighter = corrected(canvas, means_of(np.pad(rgb, beyond, mode="edge"), ratio) + 7, shown)
    np.testing.assert_allclose(lighter, rgb + 7, atol=0.01)
    np.testing.assert_array_equal(corrected(canvas, picture, ~shown), rgb)
    whole, (ys, xs) = corrected(canvas, picture, shown), (corners[:2], corners[2:])
    window = Box(min(ys) - 1, min(xs) - 1, max(ys), max(xs)).intersect(canvas)
    if not window.empty:
        np.testing.assert_allclose(corrected(window, picture, shown), whole[window.scale(f).slices], atol=0.01)


def decoded(pass_):
    return decode_region(pass_, pass_.plan.grid.canvas)


def run_of(bundle, folder, consistency, **more):
    given = {"layout": None, "class_name": "Tumor", "levels": 2, "steps": 2, "consistency": consistency, **more}
    generate(folder / f"{consistency}.ome.tiff", **settings_of(bundle, folder, **given))
    return RunContext(folder / f"{consistency}.run")


@pytest.fixture(scope="module", params=["local", "middle", "more", "thirds"])
def runs(request, tmp_path_factory):
    """A run of either kind: without attention, with some in the decoder's middle or elsewhere; and of a ratio of 3."""
    from diffusers import AutoencoderKL
    from tiny_bundles import make_class_map_bundle, tiny_kl

    levels = {"levels": [{"name": "fine", "mpp": 0.5}, {"name": "coarse", "mpp": 1.5}]} if request.param == "thirds" else {}
    folder = make_class_map_bundle(tmp_path_factory.mktemp("bundle") / request.param, **levels)
    if request.param in ("middle", "more"):
        vae = tiny_kl(attention=True)
        if request.param == "more":
            blocks = ("AttnUpDecoderBlock2D", *("UpDecoderBlock2D",) * 3)
            vae = AutoencoderKL.from_config(vae.config, up_block_types=blocks)
        vae.save_pretrained(folder / "vae")
    return {word: run_of(folder, folder.parent, word) for word in ("none", "picture")}


@pytest.fixture
def small_windows(monkeypatch):
    for name, px in {"SIDE": 32, "OVERLAP": 8, "CELL": 8, "PART": 32}.items():
        monkeypatch.setattr(lattice, name, px)
    monkeypatch.setattr("wsigen.run.tasks.decode.PART", 32)
    monkeypatch.setattr("wsigen.run.tasks.decode.WINDOW", 32)
    monkeypatch.setattr("wsigen.run.tasks.decode.BLEND_OVERLAP", 8)
    lattice._axis.cache_clear()
    yield
    lattice._axis.cache_clear()


def test_a_finer_level_comes_near_the_coarser_one(runs, small_windows):
    """Random weights draw noise: of what changes from one coarser px to the next, cubic interpolation leaves a part."""
    apart = {}
    for consistency, run in runs.items():
        coarse, fine = run.passes
        assert fine.plan.consistency == consistency
        means = means_of(decoded(fine).astype(np.float32), coarse.plan.scale)
        apart[consistency] = np.abs(means - decoded(coarse)[: means.shape[0], : means.shape[1]]).mean()
    assert apart["picture"] < 0.6 * apart["none"]


def test_any_box_shows_what_the_whole_slide_shows(runs, small_windows):
    fine = runs["picture"].passes[-1]
    whole = decoded(fine).astype(int)
    for box in (Box(0, 0, 9, 9), Box(3, 20, 30, 41), Box(31, 15, 33, 73)):
        assert np.abs(decode_region(fine, box) - whole[box.scale(8).slices]).max() <= 1


def test_glass_stays_glass(bundle, tmp_path):
    """Plain where it was plain; and what is decoded near it, as large px of the coarser level show it, is not glass."""
    from drawing import tumor_in_stroma

    made = {}
    for consistency in ("none", "picture"):
        layout = tumor_in_stroma(tmp_path / "layout.geojson")
        run = run_of(bundle, tmp_path, consistency, layout=layout, class_name=None)
        made[consistency] = decoded(run.passes[-1])
    plain = {word: (rgb == [235, 235, 240]).all(axis=-1) for word, rgb in made.items()}
    assert plain["none"].any()
    assert plain["picture"][:32, :32].all()
    assert plain["picture"].mean() == pytest.approx(plain["none"].mean(), abs=0.01)
    assert (made["none"] != made["picture"]).mean() > 0.3


def test_pixels_are_those_of_one_worker_and_two(bundle, tmp_path):
    shas = set()
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        settings = settings_of(bundle, tmp_path, levels=2, steps=2, consistency="picture", workers=workers, size=(2100, 600))
        settings |= {"layout": None, "class_name": "Tumor", "guidance": 0.0, "batch": 8}
        shas.add(generate(tmp_path / str(workers) / "a.ome.tiff", **settings).level0_sha256)
    assert len(shas) == 1
