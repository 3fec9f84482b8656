"""Bad input: one line that says what, where and what to do; exit code 2; nothing written over, nothing left behind."""

import json
import os
import shutil
import sys
from collections import namedtuple

import numpy as np
import pytest
from drawing import feature, square, tumor_in_stroma
from PIL import Image

from wsigen.cli import main

OUT = "out.ome.tiff"


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def run(tmp_path, bundle, monkeypatch, capsys):
    """Run the command line in ``tmp_path``; returns the error line, after checking its form and that nothing was left."""
    monkeypatch.chdir(tmp_path)
    tumor_in_stroma(tmp_path / "ok.geojson")

    def command(*args, model=bundle, expect_left=()):
        before = names(tmp_path) | set(expect_left)
        base = ["--model", str(model), "--steps", "2", "--workers", "1"] if args[0] == "generate" else []
        monkeypatch.setattr(sys, "argv", ["wsigen", *(str(a) for a in args), *base])
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2, lines
        assert len(lines) == 1, lines
        assert lines[0].startswith("wsigen: error: ")
        assert names(tmp_path) <= before
        return lines[0]

    return command


def layout_error(run, tmp_path, text, *more):
    (tmp_path / "bad.geojson").write_text(text)
    return run("generate", OUT, "--layout", "bad.geojson", *more)


def test_windows_is_refused_where_the_command_starts(run, monkeypatch):
    import wsigen.cli.app  # noqa: F401  # with the libraries it needs, made for the real platform

    monkeypatch.setattr(sys, "platform", "win32")
    assert "on Windows use WSL2" in run("generate", OUT, "--layout", "ok.geojson")


def test_not_geojson(run, tmp_path):
    assert "bad.geojson" in layout_error(run, tmp_path, "hello")
    assert "bad.geojson" in layout_error(run, tmp_path, '{"a": 1}')


def test_no_polygons(run, tmp_path):
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 9]}, "properties": {}}
    assert "polygon" in layout_error(run, tmp_path, json.dumps([point])).lower()


def collection(*features):
    return json.dumps({"type": "FeatureCollection", "features": list(features)})


def test_self_crossing(run, tmp_path):
    star = feature("Tumor", [[500, 0], [800, 900], [0, 350], [1000, 350], [200, 900]])  # is its middle inside?
    message = layout_error(run, tmp_path, collection(star)).lower()
    assert "cross" in message


def test_out_of_range(run, tmp_path):
    message = layout_error(run, tmp_path, collection(feature("Tumor", square(100, 100, 900))), "--size", "700x700")
    assert "700" in message


def test_unknown_class_suggests_the_nearest(run, tmp_path):
    message = layout_error(run, tmp_path, collection(feature("Tumour", square(0, 0, 900))))
    assert "'Tumor'" in message
    assert "Stroma" in message


def test_micrometres(run, tmp_path):
    message = layout_error(run, tmp_path, collection(feature("Tumor", square(10, 10, 200))))
    assert "--layout-mpp" in message


def test_empty_layout(run, tmp_path):
    layout_error(run, tmp_path, collection())
    layout_error(run, tmp_path, collection(feature("Tumor", [[1, 1], [600, 600], [900, 900]])))


def test_label_raster_of_wrong_size_or_values(run, tmp_path):
    labels = np.zeros((600, 700), np.uint8)
    labels[100:500, 100:600] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    assert "700" in run("generate", OUT, "--layout", "labels.png", "--size", "900x2000")
    labels[0, 0] = 77
    Image.fromarray(labels).save(tmp_path / "labels.png")
    assert "77" in run("generate", OUT, "--layout", "labels.png")


@pytest.mark.parametrize("size", ["100x100", "2000000x600", "12", "600xabc", "-5x600"])
def test_size(run, size):
    assert "size" in run("generate", OUT, "--class", "Tumor", f"--size={size}")


def test_reference(run, tmp_path):
    (tmp_path / "r.png").write_text("no image")
    assert "r.png" in run("generate", OUT, "--class", "Tumor", "--size", "600x600", "--reference", "r.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)).save(tmp_path / "t.jpg")
    (tmp_path / "t.jpg").write_bytes((tmp_path / "t.jpg").read_bytes()[:9000])
    assert "t.jpg" in run("generate", OUT, "--class", "Tumor", "--reference", "t.jpg")
    assert "gone.png" in run("generate", OUT, "--class", "Tumor", "--reference", "gone.png")


def test_bundles(run, tmp_path, bundle):
    args = ("generate", OUT, "--class", "Tumor", "--size", "600x600")
    assert "nowhere" in run(*args, model="nowhere")
    pickled = shutil.copytree(bundle, tmp_path / "pickled")
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    message = run(*args, model=pickled)
    assert "pickle" in message
    assert "safe_serialization" in message
    wrong = shutil.copytree(bundle, tmp_path / "wrong")
    config = json.loads((wrong / "unet" / "config.json").read_text())
    (wrong / "unet" / "config.json").write_text(json.dumps({**config, "in_channels": 3}))
    assert "channels" in run(*args, model=wrong)


def test_machine_too_small(run, monkeypatch):
    args = ("generate", OUT, "--class", "Tumor", "--size", "600x600")
    message = run(*args, "--memory-gb", "0.01")
    assert "projected memory" in message
    assert "10 MiB" in message
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    assert "disk" in run(*args)


def test_output(run, tmp_path):
    args = ("--class", "Tumor", "--size", "600x600")
    assert ".ome.tiff" in run("generate", "out.tiff", *args)
    assert "no such folder" in run("generate", "nowhere/out.ome.tiff", *args)
    (tmp_path / OUT).write_text("precious")
    assert "--overwrite" in run("generate", OUT, *args)
    assert (tmp_path / OUT).read_text() == "precious"


def test_unwritable_folder(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "not writable" in run("generate", OUT, "--class", "Tumor", "--size", "600x600")


def interrupted(tmp_path, bundle, **more):
    from wsigen.run.generate import generate

    def stop(stage):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / OUT, model=str(bundle), class_name="Tumor", size="600x600", steps=2, workers=1, watch=stop, **more)


def test_run_directory_of_another_configuration(run, tmp_path, bundle):
    interrupted(tmp_path, bundle)
    message = run("generate", OUT, "--class", "Tumor", "--size", "600x600", "--seed", "9")
    assert "seed" in message
    assert (tmp_path / "out.run" / "run.json").exists()


def test_run_directory_that_is_no_run(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("x")
    assert "thesis.txt" in run("generate", OUT, "--class", "Tumor", "--size", "600x600", "--run-dir", "data")
    assert names(tmp_path / "data") == {"thesis.txt"}
    assert "not a run" in run("resume", "data")
    assert "not a run" in run("info", "data")


def test_second_driver(run, tmp_path, bundle):
    from wsigen.run.spec import LOCK
    from wsigen.storage.opening import open_folder

    interrupted(tmp_path, bundle)
    with open_folder(tmp_path / "out.run").lock(LOCK):
        assert "another driver" in run("resume", "out.run")


def test_edited_run(run, tmp_path, bundle):
    interrupted(tmp_path, bundle)
    path = tmp_path / "out.run" / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert "edited" in run("resume", "out.run")


@pytest.mark.parametrize(
    ("option", "name"), [("--guidance", "guidance"), ("--mpp", "mpp"), ("--strength", "strength"), ("--memory-gb", "memory_gb")]
)
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_that_are_none(run, option, name, value):
    assert name in run("generate", OUT, "--class", "Tumor", "--size", "600x600", option, value)


def test_inputs_are_not_written_over(run, tmp_path):
    """With --overwrite, an input that has the name of an output would be destroyed."""
    args = ("generate", OUT, "--overwrite", "--size", "900x900")
    (tmp_path / "ok.geojson").rename(tmp_path / "out.geojson")
    drawn = (tmp_path / "out.geojson").read_bytes()
    assert "choose another name" in run(*args, "--layout", "out.geojson")
    assert (tmp_path / "out.geojson").read_bytes() == drawn
    Image.new("RGB", (900, 900), (200, 120, 170)).save(tmp_path / "out.jpg")
    assert "out.jpg" in run(*args, "--class", "Tumor", "--reference", "./out.jpg")


def test_dead_scheduler(run):
    args = ("generate", OUT, "--class", "Tumor", "--size", "600x600", "--scheduler", "tcp://127.0.0.1:9")
    assert "tcp://127.0.0.1:9" in run(*args)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gidance: 1", ["c.yaml", "gidance", "'guidance'"]),
        ("guidance: -3", ["guidance", "greater"]),
        ("a: [", ["c.yaml", "YAML"]),
        ("- a", ["c.yaml", "list"]),
        ("mode: magic", ["mode", "pathup"]),
    ],
)
def test_yaml(run, tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    message = run("generate", OUT, "--config", "c.yaml", "--size", "600x600")
    for word in words:
        assert word in message


def test_mpp_of_a_model_that_knows_its_own(run):
    assert "0.5 um/px" in run("generate", OUT, "--class", "Tumor", "--size", "600x600", "--mpp", "0.25")


@pytest.mark.parametrize(("part", "key"), [("unet", "conv_in.weight"), ("vae", "decoder.conv_in.weight")])
def test_missing_weights(run, tmp_path, bundle, part, key):
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(bundle, tmp_path / "cropped")
    file = model / part / "diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name != key}, file, metadata={"format": "pt"})
    assert key in run("generate", OUT, "--class", "Tumor", "--size", "600x600", model=model)


def test_contradictions(run):
    assert "exclude" in run("generate", OUT, "--class", "Tumor", "--layout", "ok.geojson")
    assert "size" in run("generate", OUT, "--class", "Tumor")
    assert "Tumor" in run("generate", OUT, "--class", "Tumoor", "--size", "600x600")
    assert "overlap" in run("generate", OUT, "--class", "Tumor", "--size", "600x600", "--overlap", "99")


def test_debug_shows_what_a_library_said(tmp_path, bundle, monkeypatch, capsys):
    (tmp_path / "bad.yaml").write_text("when: 2026-13-45\n")
    for place in (1, 3):
        words = ["wsigen", "estimate", "--config", str(tmp_path / "bad.yaml")]
        words.insert(place, "--debug")
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2
        assert lines[0].startswith("Traceback")
        assert "ValueError: month must be in 1..12" in lines
        assert lines[-1].startswith("wsigen: error: ")


@pytest.mark.parametrize("device", ["meta", "cpu:x", "cuda:", "gpu", "", "mkldnn", "cuda:0 "])
def test_devices_on_which_nothing_is_computed(run, device):
    assert f"setting 'device': {device!r} is no device; possible: cpu, cuda" in run("generate", OUT, "--device", device)


def test_released_weights_that_are_none(run, bundle, tmp_path):
    (tmp_path / "weights.ckpt").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    line = run("models", "import", "zoomldm", "weights.ckpt", "made")
    assert "could run code when read" in line
    assert "no such file" in run("models", "import", "zoomldm", "nothing.ckpt", "made")
    assert "exists already; name another folder, or add --overwrite" in run(
        "models", "import", "zoomldm", "weights.ckpt", bundle
    )
    assert "draws no tokens: it has no token_model" in run("models", "tiles", bundle, "tiles")
