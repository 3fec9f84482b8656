"""Where a run is done is said by its user: on the command line, in a file of their own, in one they name; nowhere else."""

import json

import pytest
import yaml
from specs import spec_of

import wsigen
from wsigen.base.errors import ConfigError, RunError
from wsigen.run.config import EXECUTION, RunConfig, refuse_execution
from wsigen.run.machine_file import TRUSTED, user_file, with_machine
from wsigen.run.spec import RunSpec, json_hash
from wsigen.storage.local import LocalFolder

VALUES = {
    "overwrite": True, "run_dir": "elsewhere", "keep_run": True, "device": "cuda", "workers": 3, "processes": True,
    "threads": 2, "tasks_at_once": 2, "window": 3, "memory_gb": 1.5, "scheduler": "tcp://127.0.0.1:9",
}  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own file, which does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "wsigen").mkdir(parents=True)
    return tmp_path / "config" / "wsigen" / "machine.yaml"


def write(path, **settings):
    path.write_text(yaml.safe_dump(settings))
    return path


def test_every_execution_setting_has_a_value_here():
    assert set(VALUES) == EXECUTION
    assert {"overwrite"} == EXECUTION - TRUSTED


@pytest.mark.parametrize("name", VALUES)
def test_a_recipe_names_no_place(tmp_path, name):
    """In one line that says the way out, in either spelling; a keyword beside it changes nothing."""
    file = write(tmp_path / "c.yaml", **{"size": "700x600", name.replace("_", "-"): VALUES[name]})
    for more in ({}, {name: VALUES[name]}):
        with pytest.raises(ConfigError) as error:
            RunConfig.read(file, **more)
        assert f"c.yaml: setting '{name}'" in str(error.value)
        assert f"--{name.replace('_', '-')}" in str(error.value)
        assert ("--machine FILE" in str(error.value)) == (name in TRUSTED)
    with pytest.raises(ConfigError, match=f"slides: setting '{name}'"):
        refuse_execution({name: VALUES[name]}, "slides")


@pytest.mark.parametrize("name", VALUES)
def test_a_run_directory_names_no_place(tmp_path, name):
    """Whoever makes the hashes fit: the form has no such field."""
    folder, spec = LocalFolder(tmp_path), spec_of()
    assert not EXECUTION & set(spec.model_dump()["settings"])
    content = spec.model_dump(mode="json")
    content["settings"][name] = VALUES[name]
    folder.write("run.json", json.dumps({**content, "run_id": spec.run_id, "hash": json_hash(content)}).encode())
    with pytest.raises(RunError, match=f"field 'settings': '{name}' says where"):
        RunSpec.load(folder)


def test_a_specification_keeps_the_recipe_alone():
    config = RunConfig(size="700x600", class_name="Tumor", **{**VALUES, "run_dir": None})
    kept = spec_of(settings=config).settings
    assert kept == RunConfig(size="700x600", class_name="Tumor")
    assert kept.model_fields_set == {"size", "class_name"}


def test_option_before_named_file_before_own_file_before_default(tmp_path, own):
    write(own, workers=5, threads=4, window=7)
    named = write(tmp_path / "m.yaml", threads=2, window=8)
    config = with_machine(RunConfig(size="700x600", window=9), named)
    assert (config.window, config.threads, config.workers, config.processes) == (9, 2, 5, False)
    assert with_machine(config) == config


def test_nothing_is_taken_from_a_file_that_is_not_there(own):
    assert user_file() is None
    assert with_machine(RunConfig(size="700x600")) == RunConfig(size="700x600")
    with pytest.raises(ConfigError, match="nowhere"):
        with_machine(RunConfig(size="700x600"), "nowhere.yaml")


def test_a_relative_folder_of_configuration_does_not_count(tmp_path, monkeypatch):
    """It would lead into whatever folder one is in, a stranger's among them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", ".")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "wsigen").mkdir()
    write(tmp_path / "wsigen" / "machine.yaml", scheduler="tcp://127.0.0.1:9")
    assert user_file() is None


def test_places_in_a_file_count_from_its_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "slurm.yaml").write_text("queue: slurm\n")
    named = write(tmp_path / "deep" / "m.yaml", scheduler="slurm.yaml", run_dir="state")
    config = with_machine(RunConfig(size="700x600"), named)
    assert config.scheduler == str(tmp_path / "deep" / "slurm.yaml")
    assert config.run_dir == tmp_path / "deep" / "state"


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b"])
def test_what_can_be_no_path_is_one_line(tmp_path, text):
    """Whether it is a file beside the file of settings is asked first."""
    for name, read in (("scheduler", lambda file: with_machine(RunConfig(size="700x600"), file)), ("model", RunConfig.read)):
        file = write(tmp_path / "m.yaml", **{name: text}, **({} if name == "scheduler" else {"size": "700x600"}))
        if "\0" in text:
            with pytest.raises(ConfigError, match="NUL"):
                read(file)
        else:
            assert getattr(read(file), name) == text


def test_the_word_local_goes_before_a_scheduler_of_a_file(own):
    write(own, scheduler="tcp://127.0.0.1:9")
    assert with_machine(RunConfig(size="700x600")).scheduler == "tcp://127.0.0.1:9"
    assert with_machine(RunConfig(size="700x600", scheduler="local")).scheduler is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 3}, "'seed' decides what is made"),
        ({"overwrite": True}, "'overwrite' is given with each command"),
        ({"workrs": 3}, "did you mean 'workers'"),
        ({"workers": "many"}, "setting 'workers'"),
        ({"threads": 3}, "setting 'threads'"),
    ],
)
def test_what_does_not_belong_into_a_machine_file_is_one_line(tmp_path, settings, words):
    file = write(tmp_path / "m.yaml", **settings)
    for call in (
        lambda: with_machine(RunConfig(size="700x600"), file),
        lambda: wsigen.generate(tmp_path / "a.ome.tiff", machine=file, size="700x600"),
        lambda: wsigen.estimate(machine=file, size="700x600"),
    ):
        with pytest.raises(ConfigError) as error:
            call()
        assert str(error.value).startswith(str(file))
        assert words in str(error.value)


WEB = ["http://127.0.0.1:9/a.run", "HTTPS://example.org/x", "simplecache::http://127.0.0.1:9/x", "zip://x::s3://b/c"]


@pytest.mark.parametrize("place", WEB)
def test_web_servers_keep_no_runs(tmp_path, place):
    commands = {
        "generate": lambda: wsigen.generate(tmp_path / "a.ome.tiff", size="700x600", class_name="Tumor", run_dir=place),
        "estimate": lambda: wsigen.estimate(size="700x600", class_name="Tumor", run_dir=place),
        "resume": lambda: wsigen.resume(place),
        "inspect": lambda: wsigen.inspect(place),
        "worker-check": lambda: check(place),
    }
    for call in commands.values():
        with pytest.raises(ConfigError, match="no place for a run"):
            call()


def check(place):
    from wsigen.run.check_workers import check_workers

    check_workers("tcp://127.0.0.1:9", run_dir=place)
