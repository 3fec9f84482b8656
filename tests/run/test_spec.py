"""``run.json`` and ``OUT.json``: typed to the last field, and nothing private in what is handed on."""

import getpass
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import settings_of
from specs import spec_of

from wsigen.base.errors import RunError
from wsigen.run.config import make_config
from wsigen.run.generate import generate
from wsigen.run.manifest import Manifest
from wsigen.run.spec import RunSpec, first_difference
from wsigen.storage.local import LocalFolder


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(tmp_path)


def leaves(content, path=()):
    """Path of every value of nested JSON, containers too."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def altered(content, path, value):
    """A copy with another value at a path."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def content_of(spec, folder):
    spec.save(folder)
    return json.loads(folder.read("run.json"))


def test_what_is_saved_is_loaded(folder):
    spec = spec_of()
    spec.save(folder)
    loaded = RunSpec.load(folder)
    assert loaded == spec
    assert (loaded.hash, loaded.work, loaded.run_id) == (spec.hash, spec.work, spec.run_id)


def test_a_wrong_type_in_any_field_is_one_line_that_names_it(folder):
    content = content_of(spec_of(), folder)
    fields = [path for path in leaves(content) if path[0] not in ("hash", "run_id")]
    assert len(fields) > 80
    for path in fields:
        folder.write("run.json", json.dumps(altered(content, path, [{"no": "such"}])).encode())
        with pytest.raises(RunError) as error:
            RunSpec.load(folder)
        assert "\n" not in str(error.value)
        name = next(str(key) for key in reversed(path) if isinstance(key, str))
        assert name in str(error.value), path


def test_nothing_is_coerced(folder):
    content = content_of(spec_of(), folder)
    numbers = [p for p in leaves(content) if isinstance(value_at(content, p), int | float) and p != ("format",)]
    for path in numbers:
        folder.write("run.json", json.dumps(altered(content, path, str(value_at(content, path)))).encode())
        with pytest.raises(RunError, match=r"field|setting"):
            RunSpec.load(folder)


def value_at(content, path):
    for key in path:
        content = content[key]
    return content


@pytest.mark.parametrize("where", [(), ("sampling",), ("passes", 0), ("passes", 0, "schedule"), ("slide",), ("settings",)])
def test_missing_and_unknown_fields_are_named(folder, where):
    content = content_of(spec_of(), folder)
    inside = value_at(content, where)
    folder.write("run.json", json.dumps(altered(content, (*where, "surprise"), 1)).encode())
    with pytest.raises(RunError, match="surprise"):
        RunSpec.load(folder)
    needed = {(): "sampling", ("sampling",): "seed", ("slide",): "width"}.get(where, next(iter(inside)))
    if where != ("settings",):
        del inside[needed]
        folder.write("run.json", json.dumps(content).encode())
        with pytest.raises(RunError, match=needed):
            RunSpec.load(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"format": "5"}', '{"format": 5}', '{"format": 3}'])
def test_what_is_no_specification_is_one_line(folder, text):
    folder.write("run.json", text.encode())
    with pytest.raises(RunError, match=r"run\.json") as error:
        RunSpec.load(folder)
    assert "\n" not in str(error.value)


def test_an_edited_value_is_refused(folder):
    content = content_of(spec_of(), folder)
    content["sampling"]["seed"] += 1
    folder.write("run.json", json.dumps(content).encode())
    with pytest.raises(RunError, match="edited"):
        RunSpec.load(folder)


def test_runs_that_differ_name_the_setting_or_the_choice():
    spec = spec_of()
    assert spec.difference(spec_of(output="elsewhere.ome.tiff", model="/another/place")) is None
    sampling = spec.sampling.model_copy(update={"seed": 6})
    assert spec.difference(spec.changed(sampling=sampling)) == "sampling.seed: 5 here, 6 in the run"
    settings = spec.settings.model_copy(update={"seed": 6, "workers": 3})
    assert spec.difference(spec.changed(sampling=sampling, settings=settings)) == "seed: 5 here, 6 in the run"
    assert "inputs.layout" in spec.difference(spec.changed(inputs=spec.inputs.model_copy(update={"layout": "1"})))


def test_a_run_of_another_region_is_another_run():
    def of(region):
        given = {} if region is None else {"region": region}
        return spec_of(settings=make_config({"grid": "x.wsz", "mpp": 0.5, **given}))

    here, elsewhere, whole = of((0, 0, 600, 600)), of((600, 0, 600, 600)), of(None)
    assert len({spec.run_id for spec in (here, elsewhere, whole)}) == len({spec.work for spec in (here, elsewhere, whole)}) == 3
    assert here.difference(elsewhere) == "region.0: 0 here, 600 in the run"
    assert here.difference(whole)
    assert "region" not in whole.identity  # run directories of slides without one keep their names


def test_a_changed_specification_has_its_own_hashes():
    spec = spec_of()
    before = (spec.hash, spec.work, spec.run_id)
    other = spec.changed(precision="bf16")
    assert all(mine != theirs for mine, theirs in zip(before, (other.hash, other.work, other.run_id), strict=True))


nested = st.recursive(
    st.integers(0, 2), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner)
)


@given(nested, nested)
def test_a_difference_is_named_if_and_only_if_there_is_one(mine, theirs):
    assert (first_difference(mine, theirs) is None) == (mine == theirs)


def test_nothing_private_is_in_a_manifest(bundle, tmp_path):
    """No folder of this machine, nor who uses it; what was used is named, with its hash."""
    from PIL import Image

    (tmp_path / "secret").mkdir()
    Image.new("RGB", (600, 600), (200, 150, 190)).save(tmp_path / "secret" / "reference.png")
    settings = settings_of(
        bundle, tmp_path / "secret", steps=2, reference=tmp_path / "secret" / "reference.png", keep_run=False
    )
    result = generate(tmp_path / "a.ome.tiff", run_dir=tmp_path / "secret" / "state", **settings)
    text = result.manifest.read_text()
    for private in (str(tmp_path), "secret", str(Path.home()), str(bundle), f'"{getpass.getuser()}'):
        assert private not in text, private
    manifest = Manifest.model_validate_json(text)
    assert {name: given.name for name, given in manifest.inputs.items()} == {
        "layout": "layout.geojson",
        "reference": "reference.png",
    }
    assert manifest.layout == "layout.geojson"
    assert manifest.sampling.seed == settings["seed"]
