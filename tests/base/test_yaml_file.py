"""YAML files of settings: one line for each mistake, and the nearest known name wherever in the file the misspelt one is."""

import re
from pathlib import Path
from time import process_time
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field

from wsigen.base.errors import ConfigError, DatasetError
from wsigen.base.yaml_file import Settings, read_mapping, validated


class Part(Settings):
    radius: float = 1.0


class Points(Part):
    kind: Literal["points"]
    columns: Part = Part()


class Plain(Part):
    kind: Literal["plain"]
    image: str = ""


class Whole(Part):
    sources: tuple[Annotated[Points | Plain, Field(discriminator="kind")], ...] = ()
    parts: dict[str, Part | None] | None = None
    pairs: tuple[tuple[int, Part], ...] = ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"radus": 1}, "unknown setting 'radus' (did you mean 'radius'?); known: radius, sources, parts, pairs"),
        ({"sources": [{"kind": "plain"}, {"kind": "points", "colums": {}}]}, "points.colums' (did you mean 'columns'?)"),
        ({"sources": [{"kind": "plain", "images": ""}]}, "(did you mean 'image'?); known: radius, kind, image"),
        ({"sources": [{"kind": "points", "columns": {"radios": 1}}]}, "points.columns.radios' (did you mean 'radius'?)"),
        ({"parts": {"a": {"radios": 1}}}, "'parts.a.radios' (did you mean 'radius'?); known: radius"),
        ({"pairs": [[1, {"radios": 1}]]}, "(did you mean 'radius'?); known: radius"),
        ({"radius": "x", "soures": []}, "unknown setting 'soures' (did you mean 'sources'?)"),
        ({"parts": {"a": {"radius": "x"}}}, "setting 'parts.a.radius': Input should be a valid number"),
        ({1: 2}, "setting '1': Keys should be strings"),
    ],
)  # fmt: skip
def test_the_fault_is_named(content, words):
    with pytest.raises(ConfigError) as caught:
        validated(Whole, content, "file.yaml", ConfigError)
    assert str(caught.value).startswith("file.yaml: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- 1", "expected 'setting: value' lines, got list"),
        ("", "expected 'setting: value' lines, got nothing"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path, text, words):
    path = tmp_path / "f.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError) as caught:
        read_mapping(path, DatasetError)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mapping(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: {b: 1}\n")
    assert read_mapping(path, ConfigError) == {"a": {"b": 1}}
    path.write_text("# nothing yet\n")
    assert read_mapping(path, ConfigError, may_be_empty=True) == {}


def test_a_name_given_twice_is_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("seed: 1\nsteps: 3\nseed: 2\n")
    with pytest.raises(ConfigError, match="'seed' is given twice"):
        read_mapping(path, ConfigError)


def test_aliases_are_read_while_they_stand_for_few_values(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: &a {b: [1, 2]}\nc: *a\nd: [*a, *a]\n")
    assert read_mapping(path, ConfigError)["d"] == [{"b": [1, 2]}] * 2
    eights = (f"y{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 8)}]\n" for i in range(1, 9))
    path.write_text("x: &x0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(eights))
    with pytest.raises(ConfigError, match="stands for more than"):
        read_mapping(path, ConfigError)
    path.write_text("a: &a [*a]\n")
    with pytest.raises(ConfigError, match="nothing that is complete"):
        read_mapping(path, ConfigError)


class Numbers(Settings):
    count: int = 0
    share: float | None = None
    size: tuple[int, int] | None = None
    on: bool = False
    either: bool | int = 0
    file: Path | None = None


@pytest.mark.parametrize("values", [{"count": True}, {"share": False}, {"size": [True, 2]}])
def test_true_is_no_number(values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"file: setting '{name}': true and false are no values here"):
        validated(Numbers, values, "file", ConfigError)
    assert validated(Numbers, {"on": True, "either": True}, "file", ConfigError).on


@pytest.mark.parametrize("value", ["a\0b", Path("a\0b")])
def test_no_path_holds_nul(value):
    with pytest.raises(ConfigError, match="file: setting 'file': holds a NUL character"):
        validated(Numbers, {"file": value}, "file", ConfigError)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a/" * 5000])
def test_a_path_that_no_system_takes_is_one_line(tmp_path, name):
    with pytest.raises(ConfigError):
        read_mapping(tmp_path / name, ConfigError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: " + "1:" * 300_000 + "1", "line 1: a number of 600001 characters"),
        ("mpp: " + "1:" * 300_000 + "1.5", "line 1: a number of 600003 characters"),
        ("seed: 0x" + "f" * 10**6, "line 1: a number of 1000002 characters"),
        ("".join(f"k{i}: 1\n" for i in range(50_000)) + "k7: 2", "line 1: 'k7' is given twice"),
    ],
)
def test_what_would_take_minutes_is_refused_at_once(tmp_path, text, words):
    """Numbers in base 60, and names that are compared with each other."""
    file = tmp_path / "a.yaml"
    file.write_text(text)
    began = process_time()
    with pytest.raises(ConfigError, match=words):
        read_mapping(file, ConfigError)
    assert process_time() - began < 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[2]", "setting '0': a name is expected here, and what stands there is read as a number; put it in quotes"),
        ("[007]", "is read as a number; put it in quotes, as it stands in the file"),
        ("[1_000]", "is read as a number; put it in quotes, as it stands in the file"),
        ("[no]", "is read as false or true; put it in quotes"),
        ("[2024-01-31]", "is read as a day"),
        ("[[a]]", "setting '0': Input should be a valid string"),
    ],
)
def test_names_that_yaml_takes_for_something_else(text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        validated(tuple[str, ...], yaml.safe_load(text), "file.yaml", ConfigError)


class Named(Settings):
    name: str | None = None
    names: tuple[str, ...] = ()
    either: str | int = ""


@pytest.mark.parametrize("text", ["name: no", "names: [a, no]"])
def test_a_setting_that_is_a_name_is_not_true(text):
    with pytest.raises(ConfigError, match=r"setting 'names?(\.1)?': a name is expected here.* is read as false or true"):
        validated(Named, yaml.safe_load(text), "file.yaml", ConfigError)
    with pytest.raises(ConfigError, match="setting 'either': true and false are no values here"):
        validated(Named, {"either": True}, "file.yaml", ConfigError)
