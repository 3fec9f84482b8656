"""The seam score: 1.00 where there is no border, flagged where one of 1 % is; and the borders of real plans."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from drawing import tumor_in_stroma
from hypothesis import given
from hypothesis import strategies as st
from metric_pictures import save, texture
from scipy import ndimage
from specs import manifest_of

from wsigen.base.errors import EvaluationError
from wsigen.evaluation.borders import Border, SeamScore, common, merged, periodic_borders, seam_scores
from wsigen.evaluation.report.report import seam_tables
from wsigen.evaluation.seams import FIXED, borders_of, periodic_seams, read_manifest, slide_seams
from wsigen.evaluation.slide_checks import SlideCheck, pool, worst_slides
from wsigen.sampling.passes import PassPlan
from wsigen.sampling.schedule import Schedule
from wsigen.slide.reading import open_image


def image(seed, side=1024):
    """Texture whose contrast changes over the picture, as cells and stroma do."""
    rng = np.random.default_rng(seed)
    slow = ndimage.zoom(rng.random((5, 5)), side / 5, order=1)[:side, :side, None]
    flat = texture(side, side, seed, contrast=14.0).astype(np.float64)
    return np.clip(np.rint(170 + (flat - 170) * (0.3 + slow)), 0, 255).astype(np.uint8)


def score(pixels, period=128):
    size = pixels.shape[:2]
    return seam_scores(lambda box: pixels[box.slices], size, {"x": periodic_borders(size, period)})[0]


def with_steps(pixels, period, step):
    """Add ``step`` grey levels to every second square of a lattice."""
    i, j = (np.arange(n) // period for n in pixels.shape[:2])
    odd = ((i[:, None] + j[None, :]) % 2)[..., None]
    return np.clip(pixels + step * odd, 0, 255).astype(np.uint8)


def test_an_untouched_image_scores_one_within_its_noise():
    found = [score(image(seed)) for seed in range(12)]
    z = [(s.score - 1) / s.noise for s in found]
    assert max(abs(v) for v in z) < 3
    assert 0.4 < np.std(z) < 1.7, "the stated noise is neither too small nor too large"
    assert max(s.noise for s in found) < 0.02
    assert not any(s.visible for s in found)


def test_a_step_of_one_per_cent_is_flagged():
    for seed in range(5):
        found = score(with_steps(image(seed), 128, 2.55))
        assert found.visible
        assert found.score > 1.02
        assert np.argmax(found.profile) == len(found.profile) // 2


def test_the_step_is_found_where_it_lies_only():
    assert not score(with_steps(image(3), 128, 2.55), period=144).visible


def test_jpeg_blocks_are_no_seams(tmp_path):
    """Borders on JPEG's grid are compared with places on that grid."""
    from PIL import Image

    Image.fromarray(image(1)).save(tmp_path / "a.jpg", quality=60, subsampling=2)
    pixels = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert abs(score(pixels).score - 1) < 3 * score(pixels).noise
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    across = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    assert across[7::8].mean() > 1.03 * np.delete(across, np.s_[7::8]).mean(), "else this test shows nothing"


def test_the_score_follows_its_formula():
    """A zigzag, whose gradient is 1 everywhere, with a jump of 5 at the border."""
    x = np.arange(512)
    line = np.abs(x % 200 - 100) + 6 * (x >= 256)
    pixels = line.astype(np.uint8)[None, :, None].repeat(512, 0).repeat(3, 2)
    found = seam_scores(lambda box: pixels[box.slices], (512, 512), {"x": [Border(1, 256, 0, 512)]})[0]
    assert found.score == pytest.approx(5, rel=1e-5)
    assert found.noise == pytest.approx(0, abs=1e-5)
    assert found.profile == pytest.approx([5 if k == 24 else 1 for k in range(49)], rel=1e-4)


def test_borders_at_a_period_of_any_image(tmp_path):
    save(tmp_path / "a.png", with_steps(image(4), 128, 2.55))
    reference = open_image(tmp_path / "a.png")
    assert periodic_seams(reference, 128)[0].visible
    assert not periodic_seams(reference, 144)[0].visible
    with pytest.raises(EvaluationError, match="no place to compare"):
        periodic_seams(reference, 16)


def test_borders_elsewhere_take_no_place_to_compare_with():
    """A slide of random windows has a border at nearly every line, each of them short."""
    pixels = image(6, 2048)
    length = 256
    borders = [Border(0, at, length * (k % 8), length * (k % 8) + length) for k, at in enumerate(range(64, 1984, 8))]
    found = seam_scores(lambda box: pixels[box.slices], (2048, 2048), {"x": borders})[0]
    assert (found.pieces, found.left_out) == (len(borders), 0)
    assert abs(found.score - 1) < 3 * found.noise


def test_borders_all_around_are_told():
    pixels = image(6)
    borders = [Border(0, at, 0, 1024) for at in range(64, 960, 8)]
    found = seam_scores(lambda box: pixels[box.slices], (1024, 1024), {"x": borders})[0]
    assert found.pieces + found.left_out == len(borders) * 4
    assert found.left_out > 0


def test_overlapping_borders_count_once():
    assert merged([Border(0, 8, 0, 10), Border(0, 8, 5, 20), Border(0, 8, 30, 40), Border(1, 8, 0, 5)]) == [
        Border(0, 8, 0, 20),
        Border(0, 8, 30, 40),
        Border(1, 8, 0, 5),
    ]


def test_blocks_do_not_show(monkeypatch):
    """The same score whatever the blocks, as every piece is read whole."""
    from wsigen.evaluation import borders as gradients

    pixels = image(5)
    whole = score(pixels)
    monkeypatch.setattr(gradients, "BLOCK_PX", 256)
    assert score(pixels).score == pytest.approx(whole.score, rel=1e-6)
    assert score(pixels).noise == pytest.approx(whole.noise, rel=1e-6)


def test_memory_does_not_grow_with_the_slide():
    peaks = []
    tile = image(0, 512)
    for n in (2, 8):
        size = (1024 * n, 1024)
        tracemalloc.start()
        seam_scores(lambda box: np.resize(tile, (*box.shape, 3)), size, {"x": periodic_borders(size, 256)})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def plan(mode, **changes):
    given = {
        "index": 0, "level": 0, "height": 128, "width": 160, "scale": 1, "factor": 8, "chunk": 64, "side": 32,
        "schedule": Schedule((999, 749, 499, 249), (0.0, 0.1, 0.4, 0.8, 1.0)),
        "start": "noise", "strength": 1.0, "mode": mode, "overlap": 8, "taper": "linear", "weighted_last": 0, "seed": 7,
    }  # fmt: skip
    return PassPlan(**{**given, **changes})


@pytest.mark.parametrize("mode", ["pathup", "shifted", "random-patch"])
def test_borders_are_those_of_the_plan(mode):
    p = plan(mode)
    size = (1024, 1280)
    groups = borders_of([p], size)
    fixed = {f"pass 1, {FIXED}"} & set(groups)
    assert set(groups) - fixed == {f"pass 1, windows of step {k} of 4" for k in (1, 2, 3, 4)} | {"pass 1, chunks"}
    assert bool(fixed) == (mode != "pathup")  # all borders of pathup are fixed: no group of their own
    from wsigen.base.geometry import Box

    edges = set()
    for crop in p.crop_plan().crops(3, Box(0, 0, 128, 160)):
        edges |= {(0, 8 * y) for y in (crop.box.y0, crop.box.y1) if 0 < y < 128}
        edges |= {(1, 8 * x) for x in (crop.box.x0, crop.box.x1) if 0 < x < 160}
    assert {(b.axis, b.at) for b in groups["pass 1, windows of step 4 of 4"]} == edges
    assert {(b.axis, b.at) for b in groups["pass 1, chunks"]} == {(0, 512), (1, 512), (1, 1024)}


def test_shifted_windows_leave_fixed_borders_one_window_off_the_edges():
    """Windows that would leave the canvas are snapped to its edges; everything else moves."""
    groups = borders_of([plan("shifted")], (1024, 1280))
    found = groups[f"pass 1, {FIXED}"]
    assert {(b.axis, b.at) for b in found} == {(0, 256), (0, 768), (1, 256), (1, 1024)}
    for b in found:
        assert b.stop - b.start == (1280, 1024)[b.axis]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 3), st.integers(0, 9), st.integers(1, 9))), min_size=1)
)
def test_common_borders_are_the_pixels_that_every_group_has(drawn):
    groups = [merged(Border(axis, at, a, a + n) for axis, at, a, n in group) for group in drawn]

    def pixels(borders):
        return {(b.axis, b.at, i) for b in borders for i in range(b.start, b.stop)}

    assert pixels(common(groups)) == set.intersection(*(pixels(g) for g in groups))


def test_borders_that_are_smoother_than_the_rest_are_found():
    """Blending blurs: such borders can be found as well as steps can."""
    for seed in range(3):
        pixels = image(seed).astype(np.float64)
        blurred = ndimage.uniform_filter(pixels, (5, 5, 0))
        at = np.arange(1024) % 128
        near = (np.minimum(at, 128 - at) < 3)[:, None, None] | (np.minimum(at, 128 - at) < 3)[None, :, None]
        found = score(np.where(near, blurred, pixels).astype(np.uint8))
        assert found.score < 0.8
        assert found.visible


def test_slides_are_pooled_by_their_pieces():
    profile = tuple([1.0] * 49)
    slides = [
        SlideCheck("a", [SeamScore("x", 1.0, 0.02, 300, 1, profile), SeamScore("y", float("nan"), float("nan"), 1, 0, ())]),
        SlideCheck("b", [SeamScore("x", 1.2, 0.04, 100, 2, profile)]),
        SlideCheck("c"),
    ]
    (found,) = pool(slides)
    assert (found.slides, found.visible_on, found.worst[0]) == (2, 1, "b")
    assert (found.seam.pieces, found.seam.left_out) == (400, 3)
    assert found.seam.score == pytest.approx(1.05)
    assert found.seam.noise == pytest.approx(np.hypot(300 * 0.02, 100 * 0.04) / 400)
    assert [s.path for s in worst_slides(slides, 5)] == ["b", "a"]
    assert [title for title, *_ in seam_tables(slides)] == ["All slides", "b", "a"]


def test_a_planted_seam_at_the_windows_is_found_by_its_step(tmp_path):
    p = plan("shifted")
    size = (1024, 1280)
    borders = borders_of([p], size)["pass 1, windows of step 4 of 4"]
    shift = np.zeros(size)
    for k, b in enumerate(borders):
        part = shift if b.axis == 0 else shift.T
        part[b.at :, b.start : b.stop] += 5.0 * (-1) ** k
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=size), 1.0) * 30
    pixels = np.clip(np.rint(160 + noise + shift), 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    save(tmp_path / "s.ome.tiff", pixels, mpp=0.5)
    manifest = manifest_of(1280, 1024, passes=(p,))
    found = {s.name: s for s in slide_seams(open_image(tmp_path / "s.ome.tiff"), manifest)}
    assert found["pass 1, windows of step 4 of 4"].visible
    assert not found["pass 1, chunks"].visible


def test_manifests(bundle, tmp_path):
    """That of a real run, none, a wrong one."""
    tumor_in_stroma(tmp_path / "layout.geojson")
    command = [sys.executable, "-m", "wsigen", "generate", "a.ome.tiff", "--layout", "layout.geojson", "--size", "640x600"]
    options = ["--model", str(bundle), "--steps", "2", "--chunk", "32", "--seed", "1"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    slide = tmp_path / "a.ome.tiff"
    manifest = read_manifest(slide)
    assert manifest.passes[-1].steps == 2
    scores = slide_seams(open_image(slide), manifest)
    assert {s.name for s in scores} >= {"pass 1, chunks", "pass 1, windows of step 2 of 2"}
    with pytest.raises(EvaluationError, match="another slide"):
        slide_seams(open_image(slide), manifest_of(999, 600))
    assert read_manifest(tmp_path / "b.tiff") is None
    (tmp_path / "b.json").write_text(json.dumps({"some": "file"}))
    assert read_manifest(tmp_path / "b.tiff") is None
    content = json.loads((tmp_path / "a.json").read_text())
    content["passes"][0]["overlap"] = "many"
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"b\.json: .*'passes\.0\.overlap'"):
        read_manifest(tmp_path / "b.tiff")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(EvaluationError, match="manifest"):
        read_manifest(tmp_path / "b.tiff")
