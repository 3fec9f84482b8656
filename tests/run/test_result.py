"""What ``wsigen.generate`` hands back: readers that read, a picture that stands alone; and how it shows its progress."""

import base64
import re
import subprocess
import sys
import warnings
from io import BytesIO

import numpy as np
import pytest
from drawing import tumor_in_stroma
from PIL import Image

import wsigen


@pytest.fixture(scope="module")
def result(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    tumor_in_stroma(folder / "layout.geojson", size=600)
    return wsigen.generate(
        folder / "a.ome.tiff", layout=folder / "layout.geojson", size=(640, 600), model=str(bundle), steps=1, workers=1
    )


def test_readers(result):
    with result.open() as slide:
        assert slide.dimensions == (640, 600)
    names = {feature["properties"]["classification"]["name"] for feature in result.read_annotations()}
    assert names == {"Tumor", "Stroma"} == {name for name, area in result.area_px.items() if area}
    assert result.read_manifest()["sha256"]["level0_tiles"] == result.level0_sha256
    assert result.read_thumbnail().mode == "RGB"


def test_a_short_repr(result):
    assert len(repr(result)) < 200
    for word in ("a.ome.tiff", "Tumor", result.level0_sha256[:12]):
        assert word in repr(result)


def test_a_notebook_shows_the_classes_over_the_slide(result):
    html = result._repr_html_()
    assert "Tumor" in html
    assert "http" not in html
    assert str(result.thumbnail) not in html  # it is in there
    picture = Image.open(BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]))).convert("RGB")
    plain = result.read_thumbnail().resize(picture.size)
    difference = np.abs(np.asarray(picture, np.int16) - np.asarray(plain, np.int16)).mean(axis=2)
    assert difference[picture.height // 2, picture.width // 2] > 8  # tissue is veiled
    assert difference[2, 2] < 8  # glass is not


def test_keywords_override_a_configuration(bundle, tmp_path):
    config = wsigen.RunConfig(model=str(bundle), class_name="Tumor", size="600x600", steps=1, workers=1)
    digests = {
        seed: wsigen.generate(tmp_path / f"{seed}.ome.tiff", config, seed=seed).read_manifest()["sampling"]["seed"]
        for seed in (3, 4)
    }
    assert digests == {3: 3, 4: 4}


def test_progress_and_a_watcher_of_ones_own(bundle, tmp_path, capsys):
    seen = set()
    settings = {"model": str(bundle), "class_name": "Tumor", "size": "600x600", "steps": 1, "workers": 1}
    wsigen.generate(tmp_path / "a.ome.tiff", progress=True, watch=lambda stage: seen.add(stage.name), **settings)
    shown = capsys.readouterr().err
    assert seen == {"denoise (0.5 um/px)", "calibrate decoder", "decode", "write slide"}
    assert all(f"{name}: 100 %" in shown for name in seen)


@pytest.mark.parametrize("told", ["warned", "watched", "shown"])
def test_what_is_to_be_known_of_a_layout_is_told_once_and_kept(bundle, tmp_path, capsys, told):
    layout = tumor_in_stroma(tmp_path / "layout.geojson", size=600)
    notes = []
    how = {"warned": {}, "watched": {"watch": lambda stage: notes.append(stage.note)}, "shown": {"progress": True}}[told]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        made = wsigen.generate(tmp_path / "a.ome.tiff", layout=layout, model=str(bundle), steps=1, workers=1, **how)
    (note,) = made.notes
    assert "568x600 px are guessed" in note
    assert [str(w.message) for w in warned if w.filename == __file__] == [note] * (told == "warned")
    assert notes.count(note) == (told == "watched")
    assert capsys.readouterr().err.count("are guessed") == (told == "shown")


@pytest.mark.parametrize("guarded", [False, True])
def test_processes_need_a_main_guard(bundle, tmp_path, guarded):
    call = f"wsigen.generate('a.ome.tiff', model={str(bundle)!r}, class_name='Tumor', size='512x512', steps=1, **more)"
    body = ["if __name__ == '__main__':", f"    {call}"] if guarded else [call]
    lines = ["import wsigen", "more = dict(processes=True, workers=1)", *body]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    if guarded:
        assert done.returncode == 0, done.stderr
        return
    last = done.stderr.splitlines()[-1]
    assert "script.py, line 3" in last
    assert 'if __name__ == "__main__"' in last
    assert done.stderr.count("Traceback") == 1  # of the error itself, which a script may catch
    assert not (tmp_path / "a.run").exists()
