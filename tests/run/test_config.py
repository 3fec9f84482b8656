"""Settings: whoever gives them, the same is refused with the same line; keywords, options and fields are one list."""

import inspect
import typing

import pytest
import yaml

import wsigen
from wsigen.base.errors import ConfigError
from wsigen.run.config import EXECUTION, RunConfig, about, make_config
from wsigen.run.typed_settings import ResumeSettings, RunSettings

SIZE = {"size": (700, 600)}


def test_zero_and_false_are_settings_and_none_is_not():
    values = {**SIZE, "guidance": 0.0, "seed": 0, "overlap": 0, "keep_run": False, "steps": None}
    assert make_config(values).model_fields_set == set(values) - {"steps"}


def test_keywords_override_yaml_and_its_paths_count_from_its_folder(tmp_path):
    file = tmp_path / "deep" / "c.yaml"
    file.parent.mkdir()
    file.write_text("layout: drawn.geojson\nsize: 700x600\nguidance: 2\n")
    config = RunConfig.read(file, guidance=0.0)
    assert config.layout == file.parent / "drawn.geojson"
    assert config.guidance == 0.0
    assert config.size == (700, 600)


def test_execution_settings_are_no_part_of_the_identity():
    base = {"size": "700x600", "class_name": "Tumor"}
    one = make_config(base).identity()
    assert one == make_config({**base, "workers": 3, "threads": 2, "window": 9, "keep_run": True}).identity()
    assert one != make_config({**base, "seed": 1}).identity()
    assert not EXECUTION & set(one)


@pytest.mark.parametrize("threads", [0, 3, 8])
def test_thread_counts_that_change_bits_are_refused(threads):
    with pytest.raises(ConfigError, match="threads"):
        make_config({"size": "700x600", "threads": threads})


WRONG = {
    "unknown": ({**SIZE, "gidance": 1}, "did you mean 'guidance'"),
    "range": ({**SIZE, "guidance": -3}, "setting 'guidance'"),
    "type": ({**SIZE, "steps": "many"}, "setting 'steps'"),
    "choice": ({**SIZE, "mode": "magic"}, "setting 'mode'"),
    "small": ({"size": "9x9"}, "setting 'size'"),
    "nothing": ({}, "size is not known"),
    "both": ({"layout": "a.geojson", "class_name": "Tumor"}, "exclude each other"),
    "no raster": ({**SIZE, "layout_classes": "t.csv"}, "'layout_classes'"),
    "no subtype": ({**SIZE, "layout": "sample"}, "--subtype"),
    "no sample": ({**SIZE, "subtype": "cores"}, "'subtype'"),
    "sampler": ({**SIZE, "sampler": "dpm++", "eta": 0.5}, "'eta'"),
    "mode": ({**SIZE, "weighted_last": 2}, "'weighted_last'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_all_ways_in_refuse_the_same_with_the_same_line(tmp_path, name):
    settings, words = WRONG[name]
    said = {}

    def refused(way, call):
        with pytest.raises(ConfigError) as error:
            call()
        said[way] = str(error.value)

    file = tmp_path / "c.yaml"
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    file.write_text(yaml.safe_dump(plain).replace("a.geojson", "./a.geojson"))
    refused("config", lambda: RunConfig(**settings))
    refused("keywords", lambda: wsigen.generate(tmp_path / "a.ome.tiff", **settings))
    refused("estimate", lambda: wsigen.estimate(**settings))
    refused("merged", lambda: RunConfig(size=(600, 600)).merged(**{"size": None, **settings}))
    refused("yaml", lambda: RunConfig.read(file))
    said["yaml"] = said["yaml"].removeprefix(f"{file}: ")
    assert len(set(said.values())) == 1, said
    assert words in said["config"]
    assert "\n" not in said["config"]


def test_of_yaml_and_keywords_the_one_that_is_wrong_is_named(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("size: 700x600\nsteps: 3\n")
    with pytest.raises(ConfigError, match=r"^setting 'seed'"):
        RunConfig.read(file, seed=-1)
    file.write_text("size: 700x600\nsteps: -3\n")
    with pytest.raises(ConfigError, match=r"c\.yaml: setting 'steps'"):
        RunConfig.read(file, seed=1)


def test_keywords_are_merged_over_a_configuration_and_checked_again():
    config = RunConfig(size="700x600", seed=1, workers=2)
    merged = config.merged(seed=5, class_name="Tumor", workers=None)
    assert (merged.seed, merged.class_name, merged.size, merged.workers) == (5, "Tumor", (700, 600), None)
    with pytest.raises(ConfigError, match="exclude"):
        merged.merged(layout="a.geojson")


def accepts(kind):
    """The types in an annotation."""
    return {part for choice in typing.get_args(kind) or (kind,) for part in (typing.get_args(choice) or (choice,))}


def test_typed_keywords_are_the_fields():
    hints = typing.get_type_hints(RunSettings)
    assert set(hints) == set(RunConfig.model_fields)
    for name, field in RunConfig.model_fields.items():
        assert accepts(field.annotation) - {"sample"} <= accepts(hints[name]), name
    assert set(ResumeSettings.__annotations__) == EXECUTION - {"run_dir"}


@pytest.mark.parametrize("function", [wsigen.generate, wsigen.estimate])
def test_signatures_spell_the_settings_out(function):
    """What a notebook completes."""
    parameters = inspect.signature(function).parameters
    assert set(RunConfig.model_fields) <= set(parameters)
    assert all(parameters[name].default == field.default for name, field in RunConfig.model_fields.items())


def test_every_setting_is_described():
    for name, field in RunConfig.model_fields.items():
        extra = about(name)
        assert field.description, name
        assert extra["group"] in ("Slide", "Layout", "Model", "Sampling", "Output", "Machine")
        optional = type(None) in typing.get_args(field.annotation)
        assert optional or field.default is not None


def test_resume_refuses_what_would_change_pixels(tmp_path):
    with pytest.raises(ConfigError, match="'seed'"):
        wsigen.resume(tmp_path, seed=3)


@pytest.mark.parametrize("config", ["settings.yaml", {"size": (512, 512)}, 5])
def test_a_config_of_another_kind_is_refused(config):
    for function in (lambda: wsigen.generate("a.ome.tiff", config), lambda: wsigen.estimate(config)):
        with pytest.raises(ConfigError, match=r"give a RunConfig, of a file RunConfig\.read"):
            function()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 512}, "'size': 512 is not WIDTHxHEIGHT"),
        ({"size": "512x512", "class_name": ""}, "'class_name'"),
        ({"size": "512x512", "background": ""}, "'background'"),
        ({"size": "512x512", "run_dir": ""}, "'run_dir': an empty path"),
        ({"layout": 5}, "setting 'layout': "),
    ],
)
def test_what_says_nothing_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig(**settings)


def test_two_spellings_of_one_setting_are_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("size: 512x512\nclass: Tumor\nclass_name: Stroma\n")
    with pytest.raises(ConfigError, match="two spellings"):
        RunConfig.read(tmp_path / "s.yaml")
