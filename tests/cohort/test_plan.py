import copy
import shutil
from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsigen.base.errors import WsigenError
from wsigen.cohort.check import check_slides, demand_licences, demand_one_licence
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


@given(st.floats(0, 1, exclude_max=True))
def test_neither_the_order_of_shares_nor_a_folder_counts(u):
    """A recipe calls files and models otherwise than the plan, and its slides are those that the plan shows."""
    plan, recipe = {"z/a.yaml": 0.3, "../model": 0.7}, {"model": 0.7, "inputs/stains/a.yaml": 0.3}
    assert pick(plan, u).rpartition("/")[2] == pick(recipe, u).rpartition("/")[2]


def test_a_drawing_in_two_parts_is_in_one_split(content, tmp_path):
    again = {**content["parts"][1], "name": "again", "mode": "pathup"}
    for seed in range(8):
        made = [s for s in slides(content | {"seed": seed, "parts": [*content["parts"], again]}, tmp_path) if s.source]
        assert len(made) == 2
        assert len({(slide.split, slide.group) for slide in made}) == 1
    parts = [content["parts"][1] | {"split": "train"}, again | {"split": "test"}]
    with pytest.raises(WsigenError, match=r"layout\.geojson is in part 'drawn' \(split train\) and in part 'again'"):
        slides(content | {"parts": parts}, tmp_path)


def test_a_folder_stands_for_its_drawings(content, tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.geojson", "b.geojson", "notes.txt"):
        (tmp_path / "more" / name).write_bytes((tmp_path / "layout.geojson").read_bytes())
    parts = [content["parts"][1] | {"layouts": "more"}]
    assert [slide.group for slide in slides(content | {"parts": parts}, tmp_path)] == ["a", "b"]
    (tmp_path / "more").rename(tmp_path / "case[1]")
    parts = [content["parts"][1] | {"layouts": "case[1]"}]
    assert [slide.group for slide in slides(content | {"parts": parts}, tmp_path)] == ["a", "b"]
    for path in (tmp_path / "case[1]").glob("*.geojson"):
        path.unlink()
    with pytest.raises(WsigenError, match=r"holds no \*.geojson; give a pattern"):
        slides(content | {"parts": parts}, tmp_path)


def test_a_recipe_holds_no_patterns(content, tmp_path):
    """A file of a name with brackets is made, and found by what reads the recipe alone."""
    parts = [content["parts"][1] | {"layouts": "case[1].geojson"}]
    (tmp_path / "case[1].geojson").write_bytes((tmp_path / "layout.geojson").read_bytes())
    plan = plan_of(content | {"parts": parts}, "plan", tmp_path)
    elsewhere = plan_of(content | {"parts": parts}, "plan", tmp_path / "elsewhere")
    assert [slide.id for slide in slides_of(plan)] == [slide.id for slide in slides_of(elsewhere, absent=True)]


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
        (lambda c: c["parts"][1].update(size=None, settings={"layout_mpp": 1e-4}), "layout.geojson"),
        (lambda c: c["parts"][1].update(settings={"mpp": 2.0}), "setting 'mpp': 2.0, but bundle"),
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
    plan = plan_of(content, "plan", tmp_path)
    made = slides_of(plan)
    needs = check_slides(made, "plan")
    with pytest.raises(WsigenError, match="cannot be published"):
        demand_licences(plan, made, needs)


def _with_card(bundle, folder, **changes):
    """A copy of a bundle whose card says something else."""
    shutil.copytree(bundle, folder)
    card = yaml.safe_load((folder / "wsigen.yaml").read_text())
    (folder / "wsigen.yaml").write_text(yaml.safe_dump(card | changes))
    return folder


def test_all_parts_have_one_um_per_px(content, bundle, tmp_path):
    levels = [{"name": "any"}, {"name": "coarse"}]
    content["model"] = str(_with_card(bundle, tmp_path / "unsized", levels=levels))
    for part, mpp in zip(content["parts"], (0.5, 1.0), strict=True):
        part["settings"] = {"mpp": mpp}
    with pytest.raises(WsigenError, match=r"part 'sampled' have 0.5 um/px, those of part 'drawn' by model .* 1; make two"):
        check_slides(slides(content, tmp_path), "plan")


def test_a_licence_that_no_card_says_is_asked_for(content, bundle, tmp_path):
    other = _with_card(bundle, tmp_path / "other", licence="CC-BY-NC-SA-4.0")
    two = content | {"model": {str(bundle): 0.5, str(other): 0.5}}
    plan = plan_of(two, "plan", tmp_path)
    needs = check_slides(slides_of(plan), "plan")
    with pytest.raises(WsigenError, match="its models have different licences"):
        demand_one_licence(plan, needs, "plan")
    demand_one_licence(plan_of(two | {"licence": "CC-BY-NC-SA-4.0"}, "plan", tmp_path), needs, "plan")

    Image.new("RGB", (512, 512), (200, 120, 180)).save(tmp_path / "seen.tif", dpi=(12700, 12700))
    followed = content | {"parts": [{"references": "seen.tif"}]}
    plan = plan_of(followed, "plan", tmp_path)
    made = slides_of(plan)
    with pytest.raises(WsigenError, match="its references say no licence"):
        demand_licences(plan, made, check_slides(made, "plan"))
