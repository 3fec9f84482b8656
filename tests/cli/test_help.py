"""Help pages: every setting once, in its group, with its default; examples that parse; light and quick."""

import shlex
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from wsigen.cli.app import app
from wsigen.run.config import RunConfig, about
from wsigen.run.typed_settings import ResumeSettings

ROOT = typer.main.get_command(app)
CONTEXT = typer.Context(ROOT)
LEAVES = {
    **{(name,): command for name, command in ROOT.commands.items() if name not in ("train", "cohort")},
    **{(group, name): command for group in ("train", "cohort") for name, command in ROOT.commands[group].commands.items()},
}


def options(name):
    return {param.name: param for param in ROOT.commands[name].get_params(CONTEXT)}


def page(*arguments):
    done = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["generate", "estimate"])
def test_there_is_an_option_for_every_setting(name):
    """Its description, group and default are those of the field."""
    found = options(name)
    for setting, field in RunConfig.model_fields.items():
        extra = about(setting)
        if extra["hidden"]:
            assert setting not in found
            continue
        option = found[setting]
        assert field.description.split("[")[0] in option.help
        assert option.rich_help_panel == extra["group"]
        assert str(extra["otherwise"] or ("" if field.default in (None, False) else field.default)) in option.help
    assert "--class" in found["class_name"].opts


def test_estimate_shows_what_decides_the_cost():
    hidden = {name for name, option in options("estimate").items() if getattr(option, "hidden", False)}
    assert hidden == {"overwrite", "keep_run", "quality"}
    assert "--overwrite" not in page("estimate")
    assert "--overwrite" in page("generate")


def test_resume_takes_what_changes_no_pixel():
    found = options("resume")
    assert set(found) - {"run_dir", "output", "machine", "log", "help"} == set(ResumeSettings.__annotations__)
    assert all(about(name)["execution"] for name in ResumeSettings.__annotations__)


VALUES = {
    "size": "700x600", "seed": 0, "reference": "r.png", "mpp": 0.5, "layout": "sample", "layout_mpp": None,
    "layout_names": None, "nuclei": None, "layout_classes": None, "class_name": None, "background": "Stroma",
    "subtype": "cores", "subtypes": "s.yaml", "mask_model": None, "model": "m",
    "levels": 2, "precision": "bf16", "mode": "random-patch", "steps": 7, "guidance": 0.0, "sampler": "dpm++", "eta": 0.0,
    "strength": 0.5, "consistency": "picture", "overlap": 0, "taper": "hann", "weighted_last": 1, "chunk": 64, "batch": 3,
    "compression": "deflate", "quality": 7, "overwrite": False, "run_dir": "s3://bucket/x", "keep_run": True,
    "device": "cuda:1", "workers": 2,
    "processes": True, "threads": 4, "tasks_at_once": 3, "window": 5, "memory_gb": 1.5, "scheduler": "tcp://a:1",
    "mixed_workers": "warn",
}  # fmt: skip
DRAWN = {
    "layout": "./sample", "layout_mpp": 0.25, "layout_classes": "t.csv", "layout_names": "Necrosis=Other,Region*=",
    "nuclei": "Tumor",
    "subtype": None, "subtypes": None,
}  # fmt: skip


@pytest.mark.parametrize("values", [VALUES, VALUES | DRAWN, {"class_name": "Tumor", "size": "700x600", "mask_model": None}])
def test_options_and_keywords_mean_the_same(values):
    given = {name: value for name, value in values.items() if value is not None}
    words = []
    for name, value in given.items():
        flag = "class" if name == "class_name" else name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    command = ROOT.commands["estimate"]
    context = command.make_context("estimate", words)
    command.callback, before = None, command.callback
    try:
        command.invoke(context)
    finally:
        command.callback = before
    assert RunConfig(**context.obj) == RunConfig(**given)
    assert set(context.obj) == set(given)


def test_the_command_that_goes_on_with_a_run_is_whole():
    from wsigen.cli.slides import _go_on

    given = {"seed": 3, "scheduler": "tcp://a:1", "processes": True, "overwrite": False, "keep_run": True, "device": "cuda"}
    assert _go_on("a b.run", "b.ome.tiff", None, given) == (
        "wsigen resume 'a b.run' --output b.ome.tiff --no-overwrite --processes --scheduler tcp://a:1"
    )
    assert _go_on("a.run", None, "m.yaml", {}) == "wsigen resume a.run --machine m.yaml"


def test_ranges_and_choices_are_shown():
    text = page("generate")
    for words in ("pathup|random-patch|shifted", "1 to 1000", "above 0 to 1", "[default: shifted]", "[default: the model's]"):
        assert words in text
    found = options("generate")["mode"].shell_complete(CONTEXT, "p")
    assert [item.value for item in found] == ["pathup"]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_an_example_that_parses(path):
    command = LEAVES[path]
    lines = [line.strip() for line in command.epilog.splitlines()[1:]]
    assert lines
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "wsigen"
        two = LEAVES.get(tuple(words[1:3])) or LEAVES.get((" ".join(words[1:3]),))
        leaf = two or LEAVES[(words[1],)]
        leaf.make_context(line, words[3 if two else 2 :])  # SystemExit or a usage error if it does not parse
    assert lines[0] in page(*path)


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["evaluate"], ["evaluate", "downstream"], ["resume"]])
def test_bare_commands_say_what_comes_next(command):
    done = CliRunner().invoke(app, command)
    assert done.exit_code in (0, 2)
    assert "Usage:" in done.output
    assert "Example" in done.output


def seconds_of(*arguments, expect):
    """CPU seconds of a command, which a busy machine does not stretch."""
    code = (
        "import sys, time; sys.argv = ['wsigen', *sys.argv[1:]]\n"
        "from wsigen.cli import main\n"
        "try:\n    main()\nfinally:\n    print('SECONDS', time.process_time(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == expect, done.stderr
    _, seconds, torch = done.stdout.splitlines()[-1].split()
    assert torch == "False"
    return float(seconds), done.stderr.strip().splitlines()


def demand_within(limit, *arguments, expect):
    """Run a command, up to three times, until it needs less than so many CPU seconds: cores that are shared run slower.

    Returns the lines of its stderr.
    """
    tries = []
    while not tries or (tries[-1] >= limit and len(tries) < 3):
        seconds, lines = seconds_of(*arguments, expect=expect)
        tries.append(seconds)
    assert tries[-1] < limit, tries
    return lines


def test_help_answers_at_once():
    demand_within(0.5, "--help", expect=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "a", "b"], "a: no such slide or folder"),
        (["evaluate", "downstream", "a", "b"], "a: no such slide or folder"),
        (["evaluate", ".", ".", "--mpp", "-1"], "--mpp"),
        (["evaluate", ".", ".", "--training-mpp", "1"], "--training"),
        (["train", "denoiser", "no.yaml", "--out", "x"], "no.yaml: no such recipe"),
        (["generate", "x.ome.tiff", "--mode", "magic"], "setting 'mode'"),
        (["generate", "x.ome.tiff", "--nonsense"], "--nonsense"),
        (["generat"], "'generate'"),
    ],
)
def test_what_is_wrong_is_said_at_once_in_one_line(arguments, words):
    lines = demand_within(1.0, *arguments, expect=2)
    assert len(lines) == 1
    assert lines[0].startswith("wsigen: error: ")
    assert words in lines[0]


def test_importing_is_instant():
    begin = "import time; begin = time.process_time(); import wsigen; print(time.process_time() - begin)"
    done = subprocess.run([sys.executable, "-c", begin], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < 0.1
    assert time.process_time() > 0
