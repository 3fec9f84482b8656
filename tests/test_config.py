import pytest

from wsigen.base.errors import ConfigError
from wsigen.cli.app import _settings
from wsigen.run.config import make_config


def test_zeros_on_the_command_line_are_settings():
    values = {"guidance": 0.0, "seed": 0, "overlap": 0, "eta": 0.0, "keep_run": False, "steps": None, "config": None}
    assert _settings(values) == ({"guidance": 0.0, "seed": 0, "overlap": 0, "eta": 0.0, "keep_run": False}, None)


def test_options_override_yaml_and_its_paths_count_from_its_folder(tmp_path):
    file = tmp_path / "deep" / "c.yaml"
    file.parent.mkdir()
    file.write_text("layout: drawn.geojson\nsize: 700x600\nguidance: 2\n")
    config = make_config({"guidance": 0.0}, file)
    assert config.layout == file.parent / "drawn.geojson"
    assert config.guidance == 0.0
    assert config.size == (700, 600)


def test_execution_settings_are_no_part_of_the_identity():
    base = {"size": "700x600", "class_name": "Tumor"}
    one = make_config(base).identity()
    assert one == make_config({**base, "workers": 3, "threads": 2, "window": 9, "keep_run": True}).identity()
    assert one != make_config({**base, "seed": 1}).identity()


@pytest.mark.parametrize("threads", [0, 3, 8])
def test_thread_counts_that_change_bits_are_refused(threads):
    with pytest.raises(ConfigError, match="threads"):
        make_config({"size": "700x600", "threads": threads})
