"""The command line as a person uses it: real processes, every mode, kills and interrupts."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawing import tumor_in_stroma
from hypothesis import given
from hypothesis import strategies as st

from wsigen.cli.log import JsonLines

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def wsigen(*args, cwd, timeout=110):
    command = [sys.executable, "-m", "wsigen", *(str(a) for a in args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT)


def options(bundle, **more):
    given = {"layout": "layout.geojson", "size": "640x600", "model": bundle, "steps": 4, "seed": 3, "chunk": 32, **more}
    return [part for key, value in given.items() for part in ([f"--{key}"] if value is True else [f"--{key}", value])]


def digest(folder, name):
    return json.loads((folder / f"{name}.json").read_text())["sha256"]["level0_tiles"]


@pytest.mark.parametrize("mode", ["pathup", "random-patch", "shifted"])
def test_generate_in_every_mode(bundle, tmp_path, mode):
    tumor_in_stroma(tmp_path / "layout.geojson")
    done = wsigen("generate", "a.ome.tiff", *options(bundle, mode=mode, steps=2), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {"a.ome.tiff", "a.geojson", "a.json", "a.jpg", "a.overlay.jpg", "a.groovy", "layout.geojson"}
    assert {path.name for path in tmp_path.iterdir()} == names | {"wsigen-edit.groovy"}
    for name in names - {"layout.geojson"}:
        assert name in done.stdout
    assert re.search(r"denoise.*: 100 %", done.stderr)


def test_a_log_for_programs(bundle, tmp_path):
    """Every line of progress is an object with the run's id, and so is the error that ends a run."""
    tumor_in_stroma(tmp_path / "layout.geojson")
    done = wsigen("generate", "a.ome.tiff", *options(bundle, steps=1), "--log", "json", "--keep-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    run_id = json.loads((tmp_path / "a.run" / "run.json").read_text())["run_id"]
    assert {line["run"] for line in lines} == {run_id}
    ended = {line["name"]: line for line in lines if line["finished"]}
    assert ended["write slide"]["done"] == ended["write slide"]["total"]
    assert all(0 < line["seconds"] < 110 for line in ended.values())
    assert any(name.startswith("denoise") and line["calls"] > 0 for name, line in ended.items())
    done = wsigen("resume", "nowhere", "--log", "json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stderr)["error"] == "RunError"
    for wrong, word in ((["--size", "9x9"], "size"), (["--config", "none.yaml"], "none.yaml"), (["--nonsense"], "nonsense")):
        done = wsigen("generate", "b.ome.tiff", *wrong, "--log=json", cwd=tmp_path)
        assert done.returncode == 2
        assert word in " ".join(json.loads(line)["message"] for line in done.stderr.splitlines())
    done = wsigen("resume", "nowhere", "--log", "xml", cwd=tmp_path)
    assert done.returncode == 2
    assert "'text', 'json'" in done.stderr


def test_the_slide_opens_everywhere_and_areas_come_back(bundle, tmp_path):
    import openslide
    import pyvips
    import tifffile
    import tiffslide

    tumor_in_stroma(tmp_path / "layout.geojson", size=1700)
    settings = options(bundle, size="1800x1750", steps=1, chunk=64)
    assert wsigen("generate", "a.ome.tiff", *settings, cwd=tmp_path).returncode == 0
    path = str(tmp_path / "a.ome.tiff")
    with tifffile.TiffFile(path) as tiff:
        levels = [level.shape[1::-1] for level in tiff.series[0].levels]
        assert b"synthetic" in tiff.pages[0].tags["ImageDescription"].value.encode()
    assert levels[0] == (1800, 1750)
    for slide in (tiffslide.TiffSlide(path), openslide.OpenSlide(path)):
        assert list(slide.level_dimensions) == levels
        assert float(slide.properties[f"{type(slide).__module__.split('.')[0]}.mpp-x"]) == pytest.approx(0.5)
    assert (pyvips.Image.new_from_file(path).width, pyvips.Image.new_from_file(path).height) == levels[0]
    asked, drawn = areas(tmp_path / "layout.geojson"), areas(tmp_path / "a.geojson")
    assert set(drawn) == {"Tumor", "Stroma"}
    asked["Stroma"] -= asked["Tumor"]
    for name, area in drawn.items():
        assert area == pytest.approx(asked[name], rel=0.02)


def areas(path):
    from shapely.geometry import shape

    found = {}
    for feature in json.loads(path.read_text())["features"]:
        name = feature["properties"]["classification"]["name"]
        found[name] = found.get(name, 0) + shape(feature["geometry"]).area
    return found


def test_label_raster_in_and_the_same_areas_out(bundle, tmp_path):
    """A raster of any values with its class table; a pixel of it is 4 um here, a slide's 0.5 um."""
    import numpy as np
    from PIL import Image

    labels = np.full((80, 88), 9, np.uint8)
    labels[10:70, 8:80] = 40
    labels[30:50, 30:60] = 200
    Image.fromarray(labels).save(tmp_path / "labels.png")
    (tmp_path / "classes.csv").write_text("value,name\n9,Glass\n40,Stroma\n200,Tumor\n")
    layout = {"layout": "labels.png", "layout-classes": "classes.csv", "layout-mpp": 4.0}
    given = [part for key, value in layout.items() for part in (f"--{key}", value)]
    done = wsigen("generate", "a.ome.tiff", *given, "--model", bundle, "--steps", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = areas(tmp_path / "a.geojson")
    assert drawn == {"Stroma": pytest.approx((60 * 72 - 20 * 30) * 64), "Tumor": pytest.approx(20 * 30 * 64)}


def test_the_demo_layout(bundle, tmp_path):
    """What `make demo` does, on a model of the test's own with the classes of the default one."""
    from tiny_bundles import make_class_map_bundle

    layout = Path(__file__).parents[2] / "examples" / "demo.geojson"
    drawn = {f["properties"]["classification"]["name"] for f in json.loads(layout.read_text())["features"]}
    tissue = [{"name": name, "color": [i, 9, 9]} for i, name in enumerate(sorted(drawn))]
    glass = {"name": "Glass", "color": [240, 240, 240], "background": True}
    model = make_class_map_bundle(tmp_path / "model", classes=[glass, *tissue], crop_latent=64)
    done = wsigen("generate", "demo.ome.tiff", "--layout", layout, "--model", model, "--steps", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked, made = areas(layout), areas(tmp_path / "demo.geojson")
    assert set(made) == drawn
    assert 0.9 * max(asked.values()) <= sum(made.values()) <= sum(asked.values()) * 1.01


def test_estimate_info_models_version(bundle, tmp_path):
    tumor_in_stroma(tmp_path / "layout.geojson")
    text = wsigen("estimate", *options(bundle), cwd=tmp_path).stdout
    assert "model calls" in text
    assert "memory" in text
    assert wsigen("generate", "a.ome.tiff", *options(bundle), "--keep-run", cwd=tmp_path).returncode == 0
    text = wsigen("info", "a.run", cwd=tmp_path).stdout
    assert "100 %" in text
    assert (tmp_path / "a.run" / "timesteps.png").stat().st_size > 100
    text = wsigen("info", "a.ome.tiff", "--thumbnail", "small.png", cwd=tmp_path).stdout
    assert all(part in text for part in ("tifffile, OME-TIFF", "um/px:", "OME-XML"))
    assert (tmp_path / "small.png").stat().st_size > 100
    assert wsigen("--version", cwd=tmp_path).stdout.strip()
    assert "Tumor" in wsigen("models", cwd=tmp_path).stdout
    assert wsigen("generate", "x.ome.tiff", "--nonsense", cwd=tmp_path).returncode == 2


def start(bundle, folder, *more):
    command = [sys.executable, "-m", "wsigen", "generate", "cut.ome.tiff", *(str(o) for o in options(bundle)), *more]
    return subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_state(folder, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not list(folder.glob("cut.run/work-*/state.zarr/pass-0/latents/c/*")):
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--processes", "--workers", "2")], ids=["threads", "processes"])
def test_killed_driver_goes_on_to_the_same_slide(bundle, tmp_path, how):
    tumor_in_stroma(tmp_path / "layout.geojson")
    assert wsigen("generate", "whole.ome.tiff", *options(bundle), cwd=tmp_path).returncode == 0
    rng = random.Random(1)
    process = start(bundle, tmp_path, *how)
    wait_for_state(tmp_path, process)
    time.sleep(rng.uniform(0, 1.0))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = wsigen("resume", "cut.run", *how, cwd=tmp_path) if (tmp_path / "cut.run").exists() else process
    assert done.returncode in (0, -signal.SIGKILL)
    assert digest(tmp_path, "cut") == digest(tmp_path, "whole")
    assert not (tmp_path / "cut.run").exists()


@pytest.mark.slow
def test_killed_worker_loses_nothing(bundle, tmp_path):
    import psutil

    tumor_in_stroma(tmp_path / "layout.geojson")
    assert wsigen("generate", "whole.ome.tiff", *options(bundle), cwd=tmp_path).returncode == 0
    process = start(bundle, tmp_path, "--processes", "--workers", "2")
    wait_for_state(tmp_path, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    assert workers
    workers[0].kill()
    _, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert digest(tmp_path, "cut") == digest(tmp_path, "whole")


@pytest.mark.slow
@pytest.mark.parametrize("log", ["text", "json"])
def test_interrupt_prints_how_to_go_on(bundle, tmp_path, log):
    tumor_in_stroma(tmp_path / "layout.geojson")
    process = start(bundle, tmp_path, "--steps", "40", "--log", log)
    wait_for_state(tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "wsigen resume" in err
    assert "Traceback" not in err
    run_id = json.loads((tmp_path / "cut.run" / "run.json").read_text())["run_id"]
    last = err.splitlines()[-1]
    if log == "text":
        assert last == f"wsigen: interrupted [run {run_id}]"
    else:
        assert (json.loads(last)["message"], json.loads(last)["run"]) == ("interrupted", run_id)


@given(st.lists(st.one_of(st.text(), st.dictionaries(st.text(), st.integers()).map(json.dumps)), max_size=9))
def test_whatever_is_written_comes_out_as_objects(pieces):
    """Cut anywhere; words that are no object are kept as messages, in order."""
    out = io.StringIO()
    lines = JsonLines(out)
    for piece in pieces:
        lines.write(piece)
    lines.flush()
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(isinstance(entry, dict) for entry in found)
    written = [line for line in "".join(pieces).split("\n") if line.strip()]
    assert len(found) == len(written)
    for entry, line in zip(found, written, strict=True):
        assert entry.get("message") == line.strip() or entry == json.loads(line)
