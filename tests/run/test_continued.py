"""Slides continued beyond their edges, and windows of slides in which places are made anew."""

import json

import numpy as np
import pytest
from runs import interrupt_in_the_middle, settings_of, work_of

from wsigen.base.errors import WsigenError
from wsigen.base.geometry import Box
from wsigen.run.config import RunConfig
from wsigen.run.generate import generate, resume
from wsigen.run.tasks.context import RunContext
from wsigen.sampling.known import NEVER
from wsigen.slide.reading import open_image

SIZE = (768, 640)
AT = (96, 40)


def pixels(path, box=None):
    image = open_image(path)
    return image.region(box or Box(0, 0, image.height, image.width), (image.height, image.width))


def square(path, x, y, side, name="Tumor"):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.fixture(scope="module")
def old(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    settings = settings_of(bundle, folder, compression="deflate", keep_run=False, background="Stroma")
    return generate(folder / "old.ome.tiff", **settings).slide


@pytest.fixture(scope="module")
def whole(bundle, old, tmp_path_factory):
    """SHA-256 of an undisturbed continued slide."""
    return generate(tmp_path_factory.mktemp("whole") / "whole.ome.tiff", **extension(bundle, old)).level0_sha256


def extension(bundle, old, **more):
    base = {"model": str(bundle), "extend": old, "at": AT, "size": SIZE, "class_name": "Stroma", "steps": 3, "seed": 1}
    return {**base, "chunk": 32, "workers": 1, "threads": 1, "batch": 2, "compression": "deflate", **more}


def editing(bundle, old, tmp_path, **more):
    regions = square(tmp_path / "regions.geojson", 240, 224, 120)
    base = {"regions": regions, "at": (0, 0), "size": (640, 584), "margin_um": 24.0, "class_name": None}
    return extension(bundle, old, **{**base, **more})


def test_a_continued_slide_keeps_the_old_ones_pixels_and_makes_the_rest(bundle, old, tmp_path):
    made = generate(tmp_path / "new.ome.tiff", **extension(bundle, old))
    new = pixels(made.slide)
    assert new.shape == (SIZE[1], SIZE[0], 3)
    x, y = AT
    was = pixels(old)
    np.testing.assert_array_equal(new[y : y + 584, x : x + 640], was)
    assert new[:, :90].std() > 0
    manifest = made.read_manifest()
    assert manifest["inputs"]["extend"]["name"] == old.name


def test_a_continued_slide_of_two_magnifications_keeps_the_old_ones_pixels(bundle, old, tmp_path):
    """The finer one is corrected to the coarser; what is known is not."""
    x, y = AT
    settings = extension(bundle, old, levels=2, steps=2, consistency="picture")
    new = pixels(generate(tmp_path / "new.ome.tiff", **settings).slide)
    np.testing.assert_array_equal(new[y : y + 584, x : x + 640], pixels(old))


@pytest.mark.parametrize("changed", [{"workers": 2}, {"workers": 2, "processes": True}])
def test_workers_do_not_decide_the_pixels(whole, bundle, old, tmp_path, changed):
    assert generate(tmp_path / "b.ome.tiff", **extension(bundle, old, **changed)).level0_sha256 == whole


def test_what_is_known_does_not_depend_on_chunks(bundle, old, tmp_path):
    found = []
    for chunk in (32, 64):
        generate(tmp_path / f"{chunk}.ome.tiff", **editing(bundle, old, tmp_path, chunk=chunk, steps=1, keep_run=True))
        run = RunContext(tmp_path / f"{chunk}.run")
        found.append(run.passes[0].known(run.passes[0].plan.grid.canvas))
    stay = (found[0].start > 0) & (found[0].x0 != 0).any(0) & (found[1].x0 != 0).any(0)
    np.testing.assert_array_equal(found[0].start, found[1].start)
    np.testing.assert_array_equal(found[0].x0[:, stay], found[1].x0[:, stay])


def test_outside_regions_and_margin_nothing_changes_and_inside_all_does(bundle, old, tmp_path):
    made = pixels(generate(tmp_path / "a.ome.tiff", **editing(bundle, old, tmp_path)).slide)
    was = pixels(old)
    near = np.zeros(was.shape[:2], bool)
    margin = 24 / 0.5 + 8
    near[int(224 - margin) : int(344 + margin), int(240 - margin) : int(360 + margin)] = True
    np.testing.assert_array_equal(made[~near], was[~near])
    changed = (made != was).any(-1)
    assert changed[232:336, 248:352].mean() > 0.9


def test_less_strength_changes_less(bundle, old, tmp_path):
    was = pixels(old).astype(int)
    far = []
    for strength in (0.2, 1.0):
        settings = editing(bundle, old, tmp_path, edit_strength=strength, steps=6)
        far.append(np.abs(pixels(generate(tmp_path / f"{strength}.ome.tiff", **settings).slide) - was).mean())
    assert 0 < far[0] < far[1]


@pytest.mark.parametrize(
    "sampling", [{"mode": "pathup"}, {"sampler": "dpm++", "eta": 0.0}, {"mode": "random-patch", "eta": 1.0}]
)
def test_every_mode_and_solver_knows_pixels(bundle, old, tmp_path, sampling):
    made = pixels(generate(tmp_path / "a.ome.tiff", **editing(bundle, old, tmp_path, **sampling)).slide)
    np.testing.assert_array_equal(made[:160], pixels(old)[:160])
    assert (made != pixels(old)).any()


def test_drawn_grids_are_continued_too(grid_bundle, old, tmp_path):
    out = tmp_path / "a.ome.tiff"
    made = generate(out, **editing(grid_bundle, old, tmp_path, keep_run=True))
    run = RunContext(tmp_path / "a.run")
    grids = [p for p in run.passes if p.plan.network == "grid"]
    assert grids
    for pass_ in grids:
        box = pass_.plan.grid.canvas
        known = pass_.known(box)
        stay = known.start == NEVER
        assert stay.any()
        cells, _ = pass_.read(pass_.plan.steps, box)
        factor = pass_.plan.cell_px
        means = pixels(old).astype(float)[: 584 // factor * factor, : 640 // factor * factor]
        means = means.reshape(584 // factor, factor, 640 // factor, factor, 3).mean((1, 3)) / 127.5 - 1
        mean, std = (np.array(v)[:, None, None] for v in ([0.2, 0.0, 0.3], [0.4, 0.3, 0.3]))
        wanted = (means.transpose(2, 0, 1) - mean) / std
        h, w = wanted.shape[1:]
        assert np.abs(cells[:, :h, :w] - wanted)[:, stay[:h, :w]].max() < 0.02
    np.testing.assert_array_equal(pixels(made.slide)[:160], pixels(old)[:160])


def test_glass_that_is_drawn_erases(bundle, old, tmp_path):
    regions = square(tmp_path / "glass.geojson", 240, 224, 120, "Glass")
    made = pixels(generate(tmp_path / "a.ome.tiff", **editing(bundle, old, tmp_path, regions=regions)).slide)
    assert (made[264:304, 280:320] == [235, 235, 240]).all()


def test_only_what_is_near_is_encoded_and_calls_the_model(bundle, old, tmp_path):
    regions = square(tmp_path / "far.geojson", 24, 24, 64)
    generate(tmp_path / "a.ome.tiff", **editing(bundle, old, tmp_path, regions=regions, keep_run=True, margin_um=0, chunk=16))
    run = RunContext(tmp_path / "a.run")
    activity = run.passes[0].state.activity
    assert activity[0, 0]
    assert activity.sum() <= 4
    assert not activity[-1, -1]


@pytest.mark.parametrize("after", [4, 40])
def test_a_killed_run_goes_on_with_known_pixels(whole, bundle, old, tmp_path, after):
    out = tmp_path / "killed.ome.tiff"
    interrupt_in_the_middle(out, extension(bundle, old), after)
    assert resume(tmp_path / "killed.run", workers=1).level0_sha256 == whole


KEYS = ["known/c/0/0/0/0", "starts/c/0/0", "classes/c/0/0", "activity/c/0/0"]


@pytest.mark.parametrize("keys", [*([key] for key in KEYS), KEYS])
def test_damaged_known_pixels_are_made_again(whole, bundle, old, tmp_path, keys):
    """Also all of them at once: one is made from another."""
    out = tmp_path / "killed.ome.tiff"
    interrupt_in_the_middle(out, extension(bundle, old), 40)
    for key in keys:
        file = work_of(tmp_path / "killed.run") / "state.zarr" / "pass-0" / key
        file.write_bytes(file.read_bytes()[:-3] + b"abc")
    assert resume(tmp_path / "killed.run", workers=1).level0_sha256 == whole


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"at": (5000, 0)}, "lies outside the new slide"),
        ({"extend_mpp": 0.25}, "add --resample"),
        ({"stain": "her2st"}, "exclude each other|stain"),
        ({"size": None}, "size"),
        ({"at": "3"}, "is not X,Y"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(bundle, old, tmp_path, settings, says):
    with pytest.raises(WsigenError, match=says) as refused:
        generate(tmp_path / "a.ome.tiff", **extension(bundle, old, **settings))
    assert "\n" not in str(refused.value)


def test_settings_of_a_slide_that_is_continued_need_one():
    with pytest.raises(WsigenError, match="give it with --extend"):
        RunConfig(size=(600, 600), at=(3, 4))


def test_a_slide_of_another_um_per_px_is_resampled_if_asked(bundle, old, tmp_path):
    settings = extension(bundle, old, extend_mpp=1.0, resample=True, size=(1400, 1250), at=(0, 0))
    made = generate(tmp_path / "a.ome.tiff", **settings)
    new, image = pixels(made.slide), open_image(old)
    np.testing.assert_array_equal(new[:1168, :1280], image.region(Box(0, 0, 1168, 1280), (1168, 1280)))
