"""`generate --layout sample`: the slide, its record, resume, and what is refused."""

import json
import sys

import numpy as np
import pytest
import tifffile

from wsigen.base.errors import ConfigError, RunError
from wsigen.cli import main
from wsigen.models.card import read_card
from wsigen.run.choose_layout import choose_layout
from wsigen.run.config import make_config
from wsigen.run.generate import generate, resume

SETTINGS = {"layout": "sample", "subtype": "mine", "size": "760x640", "steps": 1, "workers": 1, "seed": 5, "chunk": 32}
OWN = "mine: {shares: {Tumor: 3, Stroma: 1}, shape: {tissue: 0.4, roughness: 0.2, holes: 0.03}}\n"


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    return path


def digest(result):
    return json.loads(result.manifest.read_text())["sha256"]["level0_tiles"]


def test_the_slide_has_the_areas_of_its_subtype_and_says_what_drew_it(bundle, tmp_path, own):
    result = generate(tmp_path / "a.ome.tiff", model=str(bundle), subtypes=own, **SETTINGS)
    tissue = sum(result.area_px.values())
    assert tissue / (760 * 640) == pytest.approx(0.4, abs=0.03)
    assert result.area_px["Tumor"] / tissue == pytest.approx(0.75, abs=0.03)
    assert result.layout == "sampled by the procedural sampler, subtype 'mine'"
    record = json.loads(result.manifest.read_text())
    assert record["drawn_layout"]["shares"] == {"Tumor": 3.0, "Stroma": 1.0}
    assert record["layout"] == result.layout
    names = {f["properties"]["classification"]["name"] for f in json.loads(result.annotations.read_text())["features"]}
    assert names == {"Tumor", "Stroma"}
    with tifffile.TiffFile(result.slide) as tiff:
        assert "procedural sampler" in tiff.pages[0].tags["ImageDescription"].value


def test_resume_goes_on_with_the_same_layout(bundle, tmp_path, own):
    def stop(stage):
        if stage.name.startswith("denoise"):
            raise KeyboardInterrupt

    settings = {"model": str(bundle), "subtypes": own, **SETTINGS}
    whole = digest(generate(tmp_path / "a.ome.tiff", **settings))
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "b.ome.tiff", watch=stop, **settings)
    with pytest.raises(RunError, match="seed"):
        generate(tmp_path / "b.ome.tiff", **{**settings, "seed": 6})
    own.unlink()
    assert digest(resume(tmp_path / "b.run")) == whole


def test_another_mixture_of_the_same_name_is_another_run(bundle, tmp_path, own):
    settings = {"model": str(bundle), "subtypes": own, **SETTINGS}

    def stop(stage):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "a.ome.tiff", watch=stop, **settings)
    own.write_text(OWN.replace("Tumor: 3", "Tumor: 2"))
    with pytest.raises(RunError, match=r"drawn_layout\.shares\.Tumor|subtypes"):
        generate(tmp_path / "a.ome.tiff", **settings)


def test_a_sampled_layout_takes_the_size_of_a_reference(bundle, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((620, 700, 3), 200, np.uint8)).save(tmp_path / "r.png")
    config = make_config({"layout": "sample", "subtype": "balanced", "reference": tmp_path / "r.png"})
    layout = choose_layout(config, bundle, read_card(bundle).table, 0.5).layout
    assert (layout.height, layout.width) == (620, 700)


def test_yaml_and_files_named_sample(tmp_path):
    (tmp_path / "c.yaml").write_text("layout: sample\nsubtype: solid\nsubtypes: own.yaml\nsize: 600x600\n")
    config = make_config({}, tmp_path / "c.yaml")
    assert config.sampled
    assert config.layout_file is None
    assert config.subtypes == tmp_path / "own.yaml"
    again = make_config(config.model_dump(mode="json", exclude_none=True))
    assert again == config
    assert not make_config({"layout": "./sample"}).sampled


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--layout", "sample", "--subtype", "balancd", "--size", "600x600"], ["'balanced'", "cores"]),
        (["--layout", "sample", "--subtype", "solid", "--size", "600x600"], ["unknown subtype 'solid'", "balanced"]),
        (["--subtype", "balanced", "--class", "Tumor", "--size", "600x600"], ["'subtype'", "--layout sample"]),
        (["--subtypes", "own.yaml", "--class", "Tumor", "--size", "600x600"], ["'subtypes'", "--layout sample"]),
        (["--layout", "sample", "--subtype", "balanced"], ["--size"]),
        (["--layout", "sample", "--size", "600x600"], ["--subtype"]),
        (["--layout", "sample", "--subtype", "balanced", "--size", "100x100"], ["512"]),
        (["--layout", "sample", "--subtype", "balanced", "--class", "Tumor", "--size", "600x600"], ["exclude"]),
        (["--layout", "sample", "--subtype", "x", "--subtypes", "no.yaml", "--size", "600x600"], ["no.yaml", "--subtypes"]),
        (["--layout", "sample", "--subtype", "x", "--subtypes", "own.yaml", "--size", "600x600"], ["own.yaml", "mine"]),
        (["--layout", "sample", "--subtype", "balanced", "--layout-mpp", "1", "--size", "600x600"], ["layout_mpp"]),
    ],
)
def test_bad_input(bundle, tmp_path, own, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsigen", "generate", "a.ome.tiff", *args, "--model", str(bundle)])
    with pytest.raises(SystemExit) as stop:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1, lines
    for word in words:
        assert word in lines[0]
    assert {p.name for p in tmp_path.iterdir()} == {"own.yaml"}


def test_inputs_are_not_written_over(bundle, tmp_path, own):
    """A file of subtypes that has the name of an output, written over with --overwrite, would be lost."""
    path = own.rename(tmp_path / "a.json")
    with pytest.raises(Exception, match="is an input"):
        generate(tmp_path / "a.ome.tiff", model=str(bundle), subtypes=path, overwrite=True, **SETTINGS)


def test_no_glass_in_the_model(bundle):
    from wsigen.base.classes import ClassTable, TissueClass

    table = ClassTable((TissueClass("Tumor", (1, 1, 1)),))
    config = make_config({"layout": "sample", "subtype": "balanced", "size": "600x600"})
    with pytest.raises(ConfigError, match="--background"):
        choose_layout(config, bundle, table, 0.5)
