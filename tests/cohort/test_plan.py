import copy
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsigen.base.errors import WsigenError
from wsigen.cohort.check import check_slides, demand_licences
from wsigen.cohort.plan import plan_of, read_plan
from wsigen.cohort.slides import pick, slides_of


def slides(content, root="."):
    from pathlib import Path

    return slides_of(plan_of(content, "plan", Path(root)))


def drawn(**more):
    return {"name": "x", "size": "512x512", "parts": [{"slides": 40, "subtypes": {"a": 0.75, "b": 0.25}, **more}]}


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2**53 - 1))
def test_more_slides_change_none_of_the_earlier_ones(count, more, seed):
    few, many = (slides(drawn(slides=n) | {"seed": seed}) for n in (count, count + more))
    assert many[:count] == few


def test_another_part_or_file_changes_none_of_the_others(content, tmp_path):
    before = slides(content, tmp_path)
    more = copy.deepcopy(content)
    (tmp_path / "another.geojson").write_bytes((tmp_path / "layout.geojson").read_bytes())
    more["parts"] = [{"name": "new", "slides": 2, "subtypes": "half"}, *more["parts"]]
    more["parts"][-1]["times"] = 2
    after = {slide.id: slide for slide in slides(more, tmp_path)}
    assert all(after[slide.id] == slide for slide in before)
    assert len(after) == 3 + 2 + 2 * 2


@settings(max_examples=8)
@given(st.integers(0, 2**53 - 1))
def test_shares_come_out_and_splits_are_stratified(seed):
    made = slides(drawn(slides=100) | {"seed": seed})
    subtypes = Counter(slide.subtype for slide in made)
    assert abs(subtypes["a"] - 75) <= 2
    for subtype, count in subtypes.items():
        splits = Counter(slide.split for slide in made if slide.subtype == subtype)
        for split, share in {"train": 0.7, "validation": 0.15, "test": 0.15}.items():
            assert abs(splits[split] - share * count) <= 3


def test_slides_differ_and_a_drawing_is_in_one_split(content, tmp_path):
    content["parts"][1]["times"] = 20
    made = slides(content, tmp_path)
    assert len({slide.config.seed for slide in made}) == len(made)
    assert len({slide.split for slide in made if slide.part == "drawn"}) == 1


def test_the_order_of_shares_does_not_count():
    assert [pick({"a": 0.3, "b": 0.7}, u) for u in (0.1, 0.9)] == [pick({"b": 0.7, "a": 0.3}, u) for u in (0.1, 0.9)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sise": "512x512"}, "unknown setting 'sise' (did you mean 'size'?)"),
        ({"parts": [{"slides": 1, "subtypes": "a", "sizes": 1}]}, "unknown setting 'parts.0.sizes' (did you mean 'size'?)"),
        ({"splits": {"train": 0.7, "test": 0.2}}, "setting 'splits': shares add up to 0.9, not to 1"),
        ({"parts": [{"slides": 1, "subtypes": {"a": 0.6, "b": 0.6}}]}, "setting 'parts.0.subtypes': shares add up to 1.2"),
        ({"parts": [{"slides": 1, "subtypes": "a"}] * 2}, "so that ids of slides would be there twice"),
        (
            {"parts": [{"slides": 1, "subtypes": "a", "settings": {"stepz": 1}}]},
            "unknown setting 'stepz' (did you mean 'steps'?)",
        ),
        ({"settings": {"workers": 3}}, "'workers' says where or how"),
        ({"settings": {"seed": 3}}, "'seed' is drawn for each slide"),
        ({"settings": {"steps": 0}}, "part 0: setting 'steps'"),
        ({"stain": "pael"}, "setting 'stain': no stain 'pael' (did you mean 'pale'?)"),
        ({"mode": "shiftd"}, "no mode 'shiftd' (did you mean 'shifted'?)"),
        ({"size": "12"}, "is not WIDTHxHEIGHT"),
        ({"name": "a b"}, "letters, digits"),
        ({"parts": [{"subtypes": "a"}]}, "'slides' is missing"),
        ({"parts": [{"slides": 2, "layouts": "a.geojson"}]}, "'slides' belongs to layouts that are drawn"),
        ({"parts": [{"layouts": "missing.geojson"}]}, "missing.geojson: no file matches"),
        ({"parts": [{"slides": 1, "subtypes": "a", "split": "tset"}]}, "no split 'tset' (did you mean 'test'?)"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_in_one_line(change, words, write):
    path = write(drawn() | change)
    with pytest.raises(WsigenError) as told:
        slides_of(read_plan(path), str(path))
    assert words in str(told.value)
    assert str(told.value).startswith(str(path)) or "missing.geojson" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["parts"][0].update(subtypes="hlaf"), "part 'sampled': unknown subtype 'hlaf' (did you mean 'half'?)"),
        (lambda c: c["parts"][1].update(settings={"layout_mpp": 50.0}), "layout.geojson"),
        (lambda c: c.update(model={c["model"]: 0.5, "default": 0.5}), "have other classes; make two cohorts"),
        (lambda c: c.update(model="nowhere/at-all-x"), "nowhere"),
    ],
)
def test_what_no_model_can_make_is_refused(change, words, content, write, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    change(content)
    with pytest.raises(WsigenError) as told:
        check_slides(slides_of(read_plan(write(content))), "plan.yaml")
    assert words in str(told.value)


def test_files_of_one_name_are_refused(content, tmp_path):
    (tmp_path / "layout.json").write_bytes((tmp_path / "layout.geojson").read_bytes())
    content["parts"][1]["layouts"] = ["layout.geojson", "layout.json"]
    with pytest.raises(WsigenError, match="would give slides of one id, 'layout'"):
        slides(content, tmp_path)


def test_a_model_without_a_licence_is_not_published(content, tmp_path):
    from tiny_bundles import make_class_map_bundle

    content["model"] = str(make_class_map_bundle(tmp_path / "unlicensed", licence="unknown"))
    needs = check_slides(slides(content, tmp_path), "plan")
    with pytest.raises(WsigenError, match="cannot be published"):
        demand_licences(needs.models)
