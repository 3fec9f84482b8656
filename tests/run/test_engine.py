"""The engine against the equations written down for whole arrays, and the same bits whatever happens."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from drawing import tumor_in_stroma
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from runs import interrupt_in_the_middle, settings_of, work_of
from tiny_bundles import LEVELS, make_grid_bundle

from wsigen.base.errors import OutputError, RunError
from wsigen.base.geometry import Box
from wsigen.base.noise import Stream, normal_field
from wsigen.run.config import make_config
from wsigen.run.generate import generate, resume
from wsigen.run.prepare import prepare
from wsigen.run.spec import package_versions
from wsigen.run.tasks import context
from wsigen.run.tasks.context import RunContext
from wsigen.run.tasks.decode import decode_region, full_windows
from wsigen.run.tasks.denoise import rounded
from wsigen.run.tasks.guide import encode_guide, guide_pixels

MODES = ["pathup", "random-patch", "shifted"]


def reference(run, steps, index=-1, grid=None):
    """Whole-array DDIM with merged windows: the equations and nothing else (no chunks, no store, no batches).

    ``grid`` is what a pass is told besides its class map, on the whole canvas.
    """
    pass_ = run.passes[index]
    model, glass_value = pass_.denoiser, pass_.glass
    plan, schedule = pass_.plan, pass_.plan.schedule
    canvas = Box(0, 0, plan.height, plan.width)
    classes = pass_.state.read_classes(canvas)
    glass = classes == run.spec.glass.index
    seed, w, eta = run.spec.sampling.seed, pass_.sampling.guidance, pass_.sampling.eta
    noise = normal_field(seed, Stream.START, canvas, model.card.latent.channels, level=plan.index)
    y, previous = noise, None
    for s in range(steps):
        abar, nxt = schedule.abar[s], schedule.abar[s + 1]
        y = np.where(glass, np.sqrt(abar) * glass_value + np.sqrt(1 - abar) * noise, y).astype(np.float32)
        x0 = np.zeros_like(y)
        for crop in pass_.crop_plan.crops(s, canvas):
            window = (slice(None), *crop.box.slices)
            told = None if grid is None else grid[window]
            call = (classes[crop.box.slices], told, schedule.timesteps[s], plan.level, w, abar)
            x0[window] += crop.weight * predict(model, y[window], *call)
        x0 = np.where(glass, glass_value, x0)
        if pass_.sampling.sampler == "dpm++":
            x0, previous = second_order(x0, previous, schedule.abar[max(0, s - 1)], abar, nxt), x0
        eps = (y - np.sqrt(abar) * x0) / np.sqrt(1 - abar)
        sigma = eta * np.sqrt((1 - nxt) / (1 - abar) * (1 - abar / nxt))
        y = np.sqrt(nxt) * x0 + np.sqrt(max(0, 1 - nxt - sigma**2)) * eps
        if sigma:
            y = y + sigma * normal_field(seed, Stream.STEP, canvas, y.shape[0], level=plan.index, step=s)
    return y


def second_order(x0, previous, before, abar, nxt):
    if previous is None or nxt == 1:
        return x0
    lambdas = [np.log(np.sqrt(a / (1 - a))) for a in (before, abar, nxt)]
    r = (lambdas[1] - lambdas[0]) / (lambdas[2] - lambdas[1])
    return x0 + (x0 - previous) / (2 * r)


def predict(model, y, classes, grid, timestep, level, w, abar):
    from wsigen.models.conditioning import Condition, conditions_of

    null = model.predict(y[None], timestep, [Condition(grid=grid)], level)[0]  # told by channels, it stays
    out = np.zeros_like(y)
    for condition, mask in conditions_of(model.card, classes, grid):
        own = model.predict(y[None], timestep, [condition], level)[0]
        label = (1 + w) * own - w * null
        out = label if mask is None else np.where(mask, label, out)
    if model.prediction_type == "v_prediction":
        x0 = np.sqrt(abar) * y - np.sqrt(1 - abar) * out
    else:
        x0 = (y - np.sqrt(1 - abar) * out) / np.sqrt(abar)
    return x0 if model.clip is None else np.clip(x0, -model.clip, model.clip)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampler", [{"eta": 0.0}, {"eta": 1.0}, {"sampler": "dpm++", "steps": 5}])
def test_equals_the_whole_array_reference(bundle, tmp_path, mode, sampler):
    generate(tmp_path / "a.ome.tiff", **settings_of(bundle, tmp_path, mode=mode, levels=1, **sampler))
    run = RunContext(tmp_path / "a.run")
    pass_ = run.passes[-1]
    expected = reference(run, pass_.plan.steps)
    tissue = pass_.state.read_classes(pass_.plan.grid.canvas) != run.spec.glass.index
    got = pass_.state.read_latents(pass_.plan.steps, pass_.plan.grid.canvas)
    assert tissue.any()
    assert np.allclose(got[:, tissue], expected[:, tissue], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("sampler", "noise", "coarse"), [("ddim", 0.0, False), ("dpm++", 0.3, False), ("ddim", 0.0, True)])
def test_grids_are_drawn_coarse_to_fine_and_told(tmp_path, sampler, noise, coarse):
    """Each pass equals the reference that is told the pass before: its final cells, each repeated under the finer ones.

    The solver of grids is theirs alone: latents have another one here. Networks of grids are told noise besides. Cells of a
    grid that is ``coarse`` alone are four latent px wide.
    """
    bundle = make_grid_bundle(tmp_path / "bundle", levels=LEVELS[coarse:])
    card = yaml.safe_load((bundle / "wsigen.yaml").read_text())
    card["grid"]["network"] |= {"sampler": sampler, "noise": noise}
    (bundle / "wsigen.yaml").write_text(yaml.safe_dump(card))
    other = {"sampler": "ddim" if sampler == "dpm++" else "dpm++"}
    generate(tmp_path / "a.ome.tiff", **settings_of(bundle, tmp_path, levels=1, size=(768, 640), **other))
    run = RunContext(tmp_path / "a.run")
    assert [(p.plan.network, p.plan.scale, p.plan.grid_from) for p in run.passes] == [
        ("grid", 4, "none"), *[("grid", 1, "previous")] * (not coarse), ("image", 1, "previous"),
    ]  # fmt: skip
    assert [p.plan.align for p in run.passes[1:]] == ([4] if coarse else [4, 1])  # windows begin where told cells do
    told = None
    for pass_ in run.passes:
        canvas = pass_.plan.grid.canvas
        if told is None:
            told = np.zeros((4, *canvas.shape), dtype=np.float32)
        tissue = pass_.state.read_classes(canvas) != run.spec.glass.index
        got, _ = pass_.read(pass_.plan.steps, canvas)
        expected = reference(run, pass_.plan.steps, pass_.plan.index, told)
        assert np.allclose(got[:, tissue], expected[:, tissue], atol=2e-3, rtol=1e-3)
        assert np.allclose(got[:, ~tissue], pass_.glass[:, 0])
        if pass_.plan.network == "grid":
            finer = run.passes[pass_.plan.index + 1].plan
            ratio = pass_.plan.scale // finer.scale
            cells = np.repeat(np.repeat(got, ratio, axis=1), ratio, axis=2)[:, : finer.height, : finer.width]
            if run.passes[pass_.plan.index + 1].plan.network == "grid":
                box = Box(0, 0, *cells.shape[1:])
                cells = cells + noise * normal_field(run.spec.sampling.seed, Stream.TOLD, box, 3, pass_.plan.index + 1)
            told = np.concatenate([cells, np.ones((1, *cells.shape[1:]), np.float32)])


def test_a_chunk_as_set_may_be_smaller_than_the_windows_of_a_grid(grid_bundle, tmp_path):
    """It is the slide's: passes of the grid take chunks that hold their windows."""
    bundle = shutil.copytree(grid_bundle, tmp_path / "bundle")
    card = yaml.safe_load((bundle / "wsigen.yaml").read_text())
    card["grid"]["network"]["crops"] = [32, 8]
    (bundle / "wsigen.yaml").write_text(yaml.safe_dump(card))
    found = []
    for chunk in (16, 64):
        generate(tmp_path / f"{chunk}.ome.tiff", **settings_of(bundle, tmp_path, levels=1, chunk=chunk))
        passes = RunContext(tmp_path / f"{chunk}.run").passes
        latents, _ = passes[-1].read(passes[-1].plan.steps, passes[-1].plan.grid.canvas)
        found.append(([p.plan.chunk for p in passes], latents))
    assert [chunks for chunks, _ in found] == [[16, 32, 16], [64, 64, 64]]  # the coarse pass is too narrow for large windows
    assert np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "shifted", "sampler": "dpm++", "eta": 0.0},
        {"mode": "random-patch", "eta": 1.0, "weighted_last": 1},
        {"mode": "pathup", "size": (1200, 1100), "strength": 0.4},
        {"levels": 1, "reference": "old.png", "strength": 0.5},
        {"grids": True},
        {"grids": True, "extend": "old.ome.tiff", "at": (64, 96), "size": (800, 760)},
    ],
    ids=["shifted", "random-patch", "cascade", "reference", "grid", "extend"],
)
def test_chunks_do_not_decide_the_pixels(bundle, grid_bundle, tmp_path, how):
    """Sums of crops, what a picture is encoded to, the decoder's statistics: nothing knows how the canvas is cut."""
    how = dict(how)
    model = grid_bundle if how.pop("grids", False) else bundle
    if "reference" in how:
        noise = np.random.default_rng(3).integers(0, 256, (37, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((640, 584)).save(tmp_path / "old.png")
        how["reference"] = tmp_path / "old.png"
    if "extend" in how:
        how["extend"] = Path(generate(tmp_path / "old.ome.tiff", **settings_of(bundle, tmp_path, keep_run=False)).slide)
    shas = [
        generate(tmp_path / f"{chunk}.ome.tiff", **settings_of(model, tmp_path, **{**how, "chunk": chunk})).level0_sha256
        for chunk in (20, 160)
    ]
    assert len(set(shas)) == 1


@given(st.permutations(range(9)), st.integers(0, 9))
def test_sums_of_crops_are_the_same_in_any_order(order, seed):
    crops = rounded(np.random.default_rng(seed).normal(0, 20, (9, 50)).astype(np.float32))
    assert np.abs(crops.sum(0)).max() < 256
    assert np.array_equal(reduce(np.add, crops), reduce(np.add, crops[list(order)]))
    assert np.abs(rounded(np.float32([0.1, -3.7])) - np.float32([0.1, -3.7])).max() <= 2**-17


def test_statistics_are_of_the_fullest_windows(bundle, tmp_path):
    """Tissue fills one window off the lattice of whole crops, and no other one for the most part."""
    square = [[320, 64], [448, 64], [448, 192], [320, 192], [320, 64]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}, "properties": {}}
    feature["properties"]["classification"] = {"name": "Tumor"}
    (tmp_path / "square.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    settings = settings_of(bundle, tmp_path, layout=tmp_path / "square.geojson", background="Glass", levels=1)
    generate(tmp_path / "a.ome.tiff", **settings)
    pass_ = RunContext(tmp_path / "a.run").passes[-1]
    windows = full_windows(pass_)
    assert 0 < len(windows) <= 8
    assert Box(8, 40, 24, 56) in windows
    for window in windows:
        tissue = pass_.starts(window) == 0
        assert tissue.mean() >= 0.5


def test_equals_the_reference_with_a_pass_per_label(token_bundle, tmp_path):
    generate(tmp_path / "a.ome.tiff", **settings_of(token_bundle, tmp_path, mode="random-patch", levels=1))
    run = RunContext(tmp_path / "a.run")
    pass_ = run.passes[-1]
    tissue = pass_.state.read_classes(pass_.plan.grid.canvas) != run.spec.glass.index
    got = pass_.state.read_latents(pass_.plan.steps, pass_.plan.grid.canvas)
    assert np.allclose(got[:, tissue], reference(run, pass_.plan.steps)[:, tissue], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("model", "mode"), [("bundle", "random-patch"), ("grid_bundle", "shifted")])
def test_same_pixels_for_any_workers_processes_and_window(request, tmp_path, model, mode):
    bundle, digests = request.getfixturevalue(model), set()
    for number, how in enumerate(
        [
            {"workers": 1},
            {"workers": 3, "window": 1},
            {"workers": 2, "window": 5},
            {"workers": 2, "processes": True},
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        result = generate(folder / "a.ome.tiff", **settings_of(bundle, tmp_path, mode=mode, **how))
        digests.add(result.level0_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("model", "mode", "sampler"),
    [*(("bundle", mode, "ddim") for mode in MODES), ("bundle", "shifted", "dpm++"), ("grid_bundle", "shifted", "ddim")],
)
def test_interrupted_anywhere_gives_the_same_slide(request, tmp_path, model, mode, sampler):
    settings = settings_of(request.getfixturevalue(model), tmp_path, mode=mode, sampler=sampler)
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    stop_after = iter([1, 4, 9, 3, 11, 25, 2, 10**6])

    def interrupting():
        left = next(stop_after)

        def watch(stage):
            nonlocal left
            left -= 1
            if left <= 0:
                raise KeyboardInterrupt

        return watch

    out = tmp_path / "cut.ome.tiff"
    result = None
    try:
        result = generate(out, watch=interrupting(), **settings)
    except KeyboardInterrupt:
        while result is None:
            try:
                result = resume(tmp_path / "cut.run", watch=interrupting())
            except KeyboardInterrupt:
                assert not out.exists() or not (tmp_path / "cut.json").exists()
    assert result.level0_sha256 == whole


def test_glass_never_reaches_the_model_and_is_exactly_glass(bundle, tmp_path):
    stages = {}
    layout = tumor_in_stroma(tmp_path / "l.geojson")
    settings = {"model": str(bundle), "steps": 2, "chunk": 32, "layout": layout, "size": (4096, 4096), "levels": 1}
    generate(tmp_path / "a.ome.tiff", watch=lambda s: stages.__setitem__(s.name, s.calls), keep_run=True, **settings)
    run = RunContext(tmp_path / "a.run")
    assert run.passes[-1].state.activity.mean() < 0.2
    few = max(stages.values())
    full = generate_calls(bundle, tmp_path)
    assert few < 0.1 * full
    with tifffile.TiffFile(tmp_path / "a.ome.tiff") as tiff:
        corner = tiff.series[0].levels[0].asarray()[2048:, 2048:]
    assert np.abs(corner.astype(int) - run.spec.glass.rgb).max() <= 2


def generate_calls(bundle, tmp_path):
    """Model rows of a fully covered slide of 4096 px, by the plan."""
    from wsigen.run.estimate.estimate import count_pass

    config = make_config({"model": str(bundle), "steps": 2, "chunk": 32, "size": (4096, 4096), "class_name": "Tumor"})
    prepared = prepare(config, tmp_path / "b.ome.tiff")
    return count_pass(prepared, prepared.spec.passes[-1]).rows


def test_cascade_starts_from_the_coarser_pass(bundle, tmp_path):
    """The first state of a fine chunk is the decoded coarse pass, enlarged, encoded and noised: nothing else."""
    settings = settings_of(bundle, tmp_path, mode="pathup", size=(1200, 1100), strength=0.4, steps=5)
    coarse, fine = interrupt_in_pass(1, tmp_path / "a.ome.tiff", settings).passes
    assert (coarse.plan.start, fine.plan.start) == ("noise", "previous")
    assert (coarse.plan.scale, fine.plan.scale, fine.plan.steps) == (4, 1, 2)
    ij = next(ij for ij, steps in fine.state.record().items() if 0 in steps)
    box = fine.plan.grid.box(ij)
    rgb = enlarged(decode_region(coarse, coarse.plan.grid.canvas), 4)[box.scale(8).slices].astype(float)
    guide = guide_pixels(fine, box.scale(8)).astype(float)
    assert rgb.std() > 5
    assert np.abs(guide - rgb).mean() < 0.2 * rgb.std()
    x0 = encode_guide(fine, box)
    noise, abar = fine.start_noise(box), fine.plan.schedule.abar[0]
    np.testing.assert_allclose(fine.state.read_latents(0, box), np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "asked", "sampler", "eta"),
    [
        ("eta: 0.7", {}, "ddim", 0.7),
        ("eta: 0.7", {"eta": 0.0}, "ddim", 0.0),
        ("eta: 0.7", {"eta": 0.2}, "ddim", 0.2),
        ("eta: 0.7", {"sampler": "dpm++"}, "dpm++", 0.0),
        ("{sampler: dpm++, eta: 0.7}", {}, "dpm++", 0.0),
        ("{sampler: dpm++, eta: 0.7}", {"sampler": "ddim"}, "ddim", 0.7),
        ("{sampler: dpm++, eta: 0.7}", {"eta": 0.2}, "ddim", 0.2),
    ],
)
def test_the_bundle_says_how_it_is_sampled_unless_that_is_set(bundle, tmp_path, said, asked, sampler, eta):
    noisy = shutil.copytree(bundle, tmp_path / "noisy")
    card = yaml.safe_load((noisy / "wsigen.yaml").read_text()) | yaml.safe_load(said)
    (noisy / "wsigen.yaml").write_text(yaml.safe_dump(card))
    config = make_config({"model": str(noisy), "size": "640x640", "class_name": "Tumor", **asked})
    sampling = prepare(config, tmp_path / "a.ome.tiff").spec.sampling
    assert (sampling.sampler, sampling.eta) == (sampler, eta)


def interrupt_in_pass(index, out, settings):
    """Stop a run as soon as a chunk of pass ``index`` has its first state; the run as it lies there."""
    run_dir = out.parent / "a.run"

    def watch(stage):
        with suppress(Exception):  # not prepared yet
            if any(0 in steps for steps in RunContext(run_dir).passes[index].state.record().values()):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(out, watch=watch, **settings)
    return RunContext(run_dir)


def enlarged(rgb, ratio):
    """Cubic enlargement by PIL, pixel centres on pixel centres."""
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).resize((rgb.shape[1] * ratio, rgb.shape[0] * ratio), Image.Resampling.BICUBIC))


def test_reference_decides_the_structure(tmp_path):
    """The embedded model with little noise: what differs between two references differs between their slides."""
    from PIL import Image

    ramp = np.linspace((120, 60, 150), (235, 170, 205), 576).round().astype(np.uint8)[None].repeat(512, 0)
    references, slides = {"across": ramp, "back": ramp[:, ::-1]}, {}
    for name, rgb in references.items():
        Image.fromarray(np.ascontiguousarray(rgb)).save(tmp_path / f"{name}.png")
        settings = {"model": "default", "reference": tmp_path / f"{name}.png", "strength": 0.2, "steps": 5, "seed": 5}
        generate(tmp_path / f"{name}-slide.ome.tiff", size=(576, 512), **settings)
        slides[name] = tifffile.imread(tmp_path / f"{name}-slide.ome.tiff").astype(float)
    found, expected = (pictures["across"] - pictures["back"].astype(float) for pictures in (slides, references))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.7


def test_changed_reference_is_refused_on_resume(bundle, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((600, 700, 3), 200, np.uint8)).save(tmp_path / "ref.png")
    settings = {"model": str(bundle), "reference": tmp_path / "ref.png", "steps": 5, "size": (700, 600), "chunk": 32}
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=3)
    Image.fromarray(np.full((600, 700, 3), 100, np.uint8)).save(tmp_path / "ref.png")
    with pytest.raises(RunError, match="reference"):
        resume(tmp_path / "cut.run")


def test_coarser_pass_is_enlarged_in_place(bundle, tmp_path):
    """Pixel (y, x) of the fine canvas reads the coarse picture at (y / 4, x / 4), also where canvases are padded."""
    from wsigen.run.tasks.decode import decode_region
    from wsigen.run.tasks.guide import guide_pixels

    settings = settings_of(bundle, tmp_path, mode="pathup", size=(1250, 1100), strength=0.4, steps=2, levels=2)
    settings = {**settings, "layout": None, "class_name": "Tumor"}
    generate(tmp_path / "a.ome.tiff", **settings)
    run = RunContext(tmp_path / "a.run")
    coarse = decode_region(run.passes[0], run.passes[0].plan.grid.canvas).astype(int)
    fine = guide_pixels(run.passes[1], Box(1000, 1096, 1096, 1240)).astype(int)
    small = fine.reshape(24, 4, 36, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - coarse[250:274, 274:310]).mean() < np.abs(small - coarse[252:276, 276:312]).mean()


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "delete"])
def test_damaged_chunk_is_made_again_where_its_inputs_exist(bundle, tmp_path, harm):
    settings = settings_of(bundle, tmp_path, mode="shifted")
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    out = tmp_path / "cut.ome.tiff"
    interrupt_in_the_middle(out, settings, after=22)
    damage_newest(tmp_path / "cut.run", harm)
    assert resume(tmp_path / "cut.run").level0_sha256 == whole


@pytest.mark.parametrize("harm", ["flip", "delete"])
def test_damaged_history_is_made_again(bundle, tmp_path, harm):
    settings = settings_of(bundle, tmp_path, mode="shifted", sampler="dpm++", steps=5)
    whole = generate(tmp_path / "whole.ome.tiff", **settings)
    assert not list((work_of(tmp_path / "whole.run") / "state.zarr" / "pass-0" / "history" / "c").glob("[01]/*/*/*"))
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=30)
    damage_newest(tmp_path / "cut.run", harm, array="history")
    assert resume(tmp_path / "cut.run").level0_sha256 == whole.level0_sha256


def test_damaged_last_state_is_made_again_at_decoding(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, mode="shifted")
    whole = generate(tmp_path / "whole.ome.tiff", **settings)
    run_dir = tmp_path / "whole.run"
    for block in (work_of(run_dir) / "spool").iterdir():
        block.unlink()
    pass_ = RunContext(run_dir).passes[-1]
    path = work_of(run_dir) / "state.zarr" / f"pass-{pass_.plan.index}" / pass_.state.key(2 * pass_.plan.steps, (1, 1))
    data = bytearray(path.read_bytes())
    data[99] ^= 1
    path.write_bytes(bytes(data))
    assert resume(run_dir).level0_sha256 == whole.level0_sha256


@pytest.mark.parametrize("name", ["classes/c/0/1", "activity/c/0/0", "activity/zarr.json", "norm/c/0"])
@pytest.mark.parametrize("harm", ["flip", "empty", "truncate"])
def test_what_is_made_once_is_made_again(bundle, tmp_path, name, harm):
    settings = settings_of(bundle, tmp_path, mode="shifted", steps=1, chunk=16)
    whole = generate(tmp_path / "whole.ome.tiff", **settings)
    run_dir = tmp_path / "whole.run"
    for block in (work_of(run_dir) / "spool").iterdir():
        block.unlink()
    path = work_of(run_dir) / "state.zarr" / "pass-0" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes({"flip": bytes(data), "truncate": bytes(data[: len(data) // 2]), "empty": b""}[harm])
    context._contexts.clear()  # as in a process of its own
    assert resume(run_dir).level0_sha256 == whole.level0_sha256


def test_damaged_block_is_decoded_again(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, mode="shifted")
    whole = generate(tmp_path / "whole.ome.tiff", **settings)
    block = next((work_of(tmp_path / "whole.run") / "spool").glob("*.blk"))
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(bytes(data))
    stages = []
    again = resume(tmp_path / "whole.run", watch=lambda stage: stages.append(replace(stage)))
    assert again.level0_sha256 == whole.level0_sha256
    assert sum("made again" in stage.note for stage in stages) == 1
    written = [stage for stage in stages if stage.name == "write slide" and not stage.note]
    assert written[-1].finished
    assert written[-1].done == written[-1].total >= 1


def test_what_a_killed_writer_left_is_swept(bundle, tmp_path):
    """A driver killed while it writes leaves the file it wrote beside the slide; the next one removes it, and only it."""
    settings = settings_of(bundle, tmp_path, mode="shifted", steps=1)
    generate(tmp_path / "whole.ome.tiff", **settings)
    half, other = tmp_path / ".0123456789ab.whole.ome.tiff", tmp_path / ".0123456789ab.another.ome.tiff"
    half.write_bytes(b"half a slide")
    other.write_bytes(b"somebody else's")
    resume(tmp_path / "whole.run", keep_run=False)
    assert not half.exists()
    assert other.exists()
    assert not (tmp_path / "whole.run").exists()


def test_other_files_in_the_run_directory_survive(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, mode="shifted", run_dir=tmp_path / "work", keep_run=False, steps=1)
    generate(tmp_path / "a.ome.tiff", **settings)
    assert not (tmp_path / "work").exists()
    with pytest.raises(OutputError, match="inside its run directory"):
        generate(tmp_path / "b" / "a.ome.tiff", **{**settings, "run_dir": (tmp_path / "b")} | made(tmp_path / "b"))


def made(folder):
    folder.mkdir()
    return {}


def damage_newest(run_dir, harm, array="state"):
    """Harm the key of the highest half-step of some chunk, or its newest history."""
    pass_ = RunContext(run_dir).passes[0]
    record = pass_.state.record()
    ij = max(record, key=lambda c: max(record[c]))
    path = work_of(run_dir) / "state.zarr" / "pass-0" / pass_.state.key(max(record[ij]), ij)
    if array == "history":  # of a chunk whose next denoise is to come
        h, (i, j) = max((max(steps), c) for c, steps in record.items() if max(steps) % 2 == 0)
        path = work_of(run_dir) / "state.zarr" / "pass-0" / "history" / "c" / f"{h // 2 - 1}" / "0" / f"{i}" / f"{j}"
    data = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
        return
    data[len(data) // 2] ^= 16
    path.write_bytes({"flip": bytes(data), "truncate": bytes(data[:100]), "empty": b""}[harm])


def test_late_duplicate_rewrites_equal_bytes(bundle, tmp_path):
    from wsigen.run.tasks.perform import Task, perform

    settings = settings_of(bundle, tmp_path, mode="random-patch")
    whole = generate(tmp_path / "whole.ome.tiff", **settings).level0_sha256
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=22)
    run_dir = tmp_path / "cut.run"
    run = RunContext(run_dir)
    record = run.passes[0].state.record()
    repeated = 0
    for ij, steps in record.items():
        h = max(steps)
        if h % 2 == 0:
            continue
        path = work_of(run_dir) / "state.zarr" / "pass-0" / run.passes[0].state.key(h, ij)
        before = path.read_bytes()
        perform(str(run_dir.absolute()), run.spec.hash, 1, Task("denoise", 0, ij, h // 2))
        assert path.read_bytes() == before
        repeated += 1
    assert repeated
    assert resume(run_dir).level0_sha256 == whole


def test_manifest_says_it_is_synthetic_and_repeats(bundle, tmp_path):
    settings = settings_of(bundle, tmp_path, mode="shifted", keep_run=False)
    first = generate(tmp_path / "a.ome.tiff", **settings)
    record = json.loads(first.manifest.read_text())
    assert record["synthetic"] is True
    assert record["sha256"]["level0_tiles"] == first.level0_sha256
    assert not (tmp_path / "a.run").exists()
    (tmp_path / "again").mkdir()
    shutil.copy(tmp_path / "layout.geojson", tmp_path / "again" / "layout.geojson")
    again = generate(tmp_path / "again" / "a.ome.tiff", **{**settings, "layout": tmp_path / "again" / "layout.geojson"})
    assert again.slide.read_bytes() == first.slide.read_bytes()
    assert again.annotations.read_bytes() == first.annotations.read_bytes()


def test_a_replaced_model_is_seen(bundle, tmp_path):
    """In the same process: new weights in the same folder make another slide, and a run begun with the old ones stops."""
    from tiny_bundles import make_class_map_bundle

    model = shutil.copytree(bundle, tmp_path / "model")
    settings = settings_of(model, tmp_path, mode="shifted", steps=2)
    first = generate(tmp_path / "a.ome.tiff", **settings).level0_sha256
    interrupt_in_the_middle(tmp_path / "c.ome.tiff", settings, after=9)
    shutil.rmtree(model)
    make_class_map_bundle(model, seed=1)
    assert generate(tmp_path / "b.ome.tiff", **settings).level0_sha256 != first
    with pytest.raises(RunError, match="model"):
        resume(tmp_path / "c.run")


def test_nothing_listens_outside_loopback(bundle, tmp_path):
    import psutil

    heard = set()

    def listen(stage):
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        heard.update(c.laddr.ip for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN)

    for number, processes in enumerate([False, True]):
        settings = settings_of(bundle, tmp_path, mode="shifted", steps=1, processes=processes)
        generate(tmp_path / f"{number}.ome.tiff", watch=listen, **settings)
    assert heard <= {"127.0.0.1", "::1"}


def test_files_that_appear_meanwhile_are_not_written_over(bundle, tmp_path):
    out = tmp_path / "cut.ome.tiff"
    interrupt_in_the_middle(out, settings_of(bundle, tmp_path, mode="shifted"), after=22)
    out.write_bytes(b"precious")
    with pytest.raises(OutputError, match="move it away"):
        resume(tmp_path / "cut.run")
    assert out.read_bytes() == b"precious"
    out.unlink()
    assert resume(tmp_path / "cut.run").slide.stat().st_size > 1000


def test_other_versions_are_refused_by_generate_too(bundle, tmp_path, monkeypatch):
    settings = settings_of(bundle, tmp_path, mode="shifted")
    interrupt_in_the_middle(tmp_path / "cut.ome.tiff", settings, after=9)
    monkeypatch.setattr("wsigen.run.rundir.package_versions", lambda: package_versions() | {"wsigen": "0"})
    with pytest.raises(RunError, match=r"here is wsigen 0 .* in the run\)"):
        generate(tmp_path / "cut.ome.tiff", **settings)


@pytest.mark.parametrize(
    ("name", "value", "words", "told"),
    [
        ("package_versions", lambda: package_versions() | {"torch": "1.0"}, r"torch 1\.0", "torch 1.0"),
        ("has_device", lambda device: False, "no cpu on ", "its CPU helps"),
    ],
)
def test_workers_of_another_kind_are_refused_or_help(bundle, tmp_path, monkeypatch, name, value, words, told):
    settings = settings_of(bundle, tmp_path, mode="shifted", steps=1)
    monkeypatch.setattr(f"wsigen.run.tasks.context.{name}", value)
    with pytest.raises(RunError, match=rf"{words}.*--mixed-workers warn"):
        generate(tmp_path / "a.ome.tiff", **settings)
    stages = []
    generate(tmp_path / "b.ome.tiff", watch=lambda s: stages.append(s.note), mixed_workers="warn", **settings)
    (note,) = filter(None, stages)
    assert told in note
    assert json.loads((tmp_path / "b.json").read_text())["mixed_workers"] == "warn"


def test_what_ended_the_run_is_told_though_a_task_goes_on():
    """Closing the workers gives up before a long task ends; that must not take the place of the error."""
    import time

    from wsigen.run.engine.workers import Workers, open_cluster

    def fail():
        with open_cluster(Workers(1, False)) as cluster:
            cluster.submit("long", time.sleep, 14)
            time.sleep(1)
            raise RunError("the real reason")

    with pytest.raises(RunError, match="the real reason"):
        fail()


@pytest.mark.parametrize("processes", [False, True])
def test_workers_do_not_watch_themselves(processes):
    """dask's sampling of its workers takes a few per cent of a core."""
    import dask

    from wsigen.run.engine.workers import Workers, open_cluster

    with open_cluster(Workers(1, processes)) as cluster:
        (answer,) = cluster.ask_all(dask.config.get, "distributed.worker.profile.enabled").values()
    assert answer is False
