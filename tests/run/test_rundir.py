"""What lies in a run directory is believed as far as something else says the same."""

import json

import pytest

import wsigen
from wsigen.base.errors import RunError

PARTS = (".ome.tiff", ".geojson", ".json", ".jpg", ".overlay.jpg", ".groovy")


@pytest.fixture
def run(tmp_path):
    """A directory that looks like a run, with work in it."""
    folder = tmp_path / "slide.run"
    (folder / "work-0123456789ab").mkdir(parents=True)
    (folder / "work-0123456789ab" / "state").write_text("hours of work")
    (folder / "run.json").write_text("{}")
    return folder


def outcome(*files):
    return {"files": list(files), "level0_sha256": "x", "area_px": {}, "layout": None}


@pytest.mark.parametrize("names", [(), ("a",), ("/etc/hosts",) * 5, tuple(f"slide{part}" for part in PARTS)])
def test_work_is_not_deleted_on_the_word_of_a_file(run, tmp_path, names):
    for part in PARTS:
        (tmp_path / f"slide{part}").write_text("{}")
    (run / "finished.json").write_text(json.dumps(outcome(*(str(tmp_path / name) for name in names))))
    with pytest.raises(RunError):
        wsigen.resume(run)
    assert (run / "work-0123456789ab" / "state").read_text() == "hours of work"


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "", "\0", '{"format": 5}', "1" * 10_000])
def test_a_specification_that_is_none_is_one_line(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(RunError) as caught:
        wsigen.resume(run)
    assert "\n" not in str(caught.value)
