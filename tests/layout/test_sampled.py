"""The procedural sampler: pure in its box, the asked shares, glass along the edge, any class table, subtypes' errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.classes import ClassTable, TissueClass
from wsigen.base.errors import ConfigError, LayoutError
from wsigen.base.geometry import Box
from wsigen.layout.sampled import sample_layout
from wsigen.layout.subtypes import EMBEDDED, Subtype, choose_subtype, known_subtypes, read_subtypes

NAMES = ["Glass", "Tumor", "Stroma", "Immune cells", "Other"]
TABLE = ClassTable(tuple(TissueClass(name, (10 * k, 0, 0), k == 0) for k, name in enumerate(NAMES)))
H, W, CELL = 4000, 6000, 16


def draw(subtype, seed=1, size=(H, W), table=TABLE, glass=0):
    return sample_layout(seed, size, table, glass, "test", subtype, 0.7)


def whole(layout, cell=CELL):
    return layout.class_map(Box(0, 0, -(-layout.height // cell), -(-layout.width // cell)), cell)


LAYOUT = draw(known_subtypes(TABLE)["infiltrating"])
WHOLE = whole(LAYOUT)


@given(st.integers(-5, 249), st.integers(-5, 374), st.integers(1, 40), st.integers(1, 40))
def test_a_box_drawn_alone_equals_the_whole(y, x, h, w):
    rows = np.clip(np.arange(y, y + h), 0, WHOLE.shape[0] - 1)
    columns = np.clip(np.arange(x, x + w), 0, WHOLE.shape[1] - 1)
    assert np.array_equal(LAYOUT.class_map(Box(y, x, y + h, x + w), CELL), WHOLE[np.ix_(rows, columns)])


def test_strips_do_not_show(monkeypatch):
    monkeypatch.setattr("wsigen.layout.sampled.SampledLayout.strip_cells", 1000)
    assert np.array_equal(whole(LAYOUT), WHOLE)


def test_a_cell_is_the_class_at_its_centre_at_any_cell_size():
    fine = LAYOUT.class_map(Box(600, 900, 660, 960), 4)
    coarse = LAYOUT.class_map(Box(200, 300, 220, 320), 12)
    assert np.array_equal(coarse, fine[1::3, 1::3])


def test_equal_input_gives_an_equal_layout_and_another_seed_another_one():
    subtype = known_subtypes(TABLE)["infiltrating"]
    assert np.array_equal(whole(draw(subtype)), WHOLE)
    other = whole(draw(subtype, seed=2))
    assert np.mean(other != WHOLE) > 0.2


@pytest.mark.parametrize("name", list(read_subtypes(EMBEDDED)))
@pytest.mark.parametrize("size", [(H, W), (1024, 1024)])
def test_areas_are_as_asked(name, size):
    subtype = known_subtypes(TABLE)[name]
    cells = whole(draw(subtype, seed=7, size=size), 8)
    tissue = cells != 0
    assert tissue.mean() == pytest.approx(subtype.shape.tissue, abs=0.01)
    weights = {**dict.fromkeys(NAMES[1:], subtype.rest), **subtype.shares}
    for k, class_name in enumerate(NAMES[1:], 1):
        assert np.mean(cells[tissue] == k) == pytest.approx(weights[class_name] / sum(weights.values()), abs=0.015)


def test_glass_lies_along_the_edge():
    for seed in range(5):
        cells = whole(draw(known_subtypes(TABLE)["solid"], seed=seed))
        border = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
        assert np.mean(border != 0) < 0.02


def test_any_class_table_and_any_glass():
    table = ClassTable((TissueClass("A", (1, 2, 3)), TissueClass("B", (3, 2, 1)), TissueClass("Void", (0, 0, 0), True)))
    cells = whole(draw(Subtype(rest=1.0), table=table, glass=2))
    assert np.mean(cells == 0) == pytest.approx(np.mean(cells == 1), rel=0.06)
    assert set(known_subtypes(table)) == {"balanced", "cores", "fragments"}
    one = ClassTable((TissueClass("Tissue", (1, 2, 3)), TissueClass("Void", (0, 0, 0), True)))
    assert set(np.unique(whole(draw(Subtype(rest=1.0), table=one, glass=1)))) == {0, 1}


def test_a_class_within_another_touches_that_one_alone():
    subtype = Subtype(shares={"Tumor": 0.5, "Stroma": 0.4, "Other": 0.1}, within={"Other": "Tumor"}, shape={"mixing": 0.0})
    cells = whole(draw(subtype, seed=4), 8)
    other = cells == 4
    assert other[cells != 0].mean() == pytest.approx(0.1, abs=0.015)
    beside = np.concatenate([cells[:, 1:][other[:, :-1]], cells[:, :-1][other[:, 1:]]])
    into = {k: int(np.sum(beside == k)) for k in (1, 2, 3)}
    assert into[1] > 5 * into[2] > 0 or into[2] == 0
    assert into[3] == 0


def test_mixing_makes_borders_longer():
    def border(mixing):
        cells = whole(draw(Subtype(rest=1.0, shape={"mixing": mixing, "mixing_um": 80})))
        return np.mean(cells[:, 1:] != cells[:, :-1])

    assert border(0.8) > 1.5 * border(0.0)


def test_a_slide_of_100000_px_is_read_box_by_box():
    layout = draw(known_subtypes(TABLE)["solid"], size=(100_000, 100_000))
    assert layout.class_map(Box(6000, 6000, 6100, 6100), 8).shape == (100, 100)
    overview = whole(layout, 500)
    assert np.mean(overview != 0) == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {shares: {Tumor: 1}, shap: {}}", ["a.shap", "'shape'"]),
        ("a: {rest: 1, shape: {hole: 0.1}}", ["a.shape.hole", "'holes'"]),
        ("a: {rest: 1, shape: {tissue: 2}}", ["a.shape.tissue", "0.9"]),
        ("a: {title: x}", ["no class has a share"]),
        ("a: {shares: {Tumor: -1}}", ["a.shares.Tumor", "greater"]),
        ("- a", ["docs/sampled-layouts.md"]),
        ("a: [", ["YAML"]),
    ],
)
def test_a_file_of_subtypes_that_is_wrong(tmp_path, text, words):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_subtypes(tmp_path / "s.yaml")
    for word in ["s.yaml", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("subtype", "word"),
    [
        (Subtype(shares={"Tumour": 1.0}), "'Tumor'"),
        (Subtype(shares={"Glass": 1.0}), "bare glass"),
        (Subtype(shares={"Tumor": 1.0}, within={"Stroma": "Tumor"}), "no share"),
        (Subtype(rest=1.0, within={"Stroma": "Tumor", "Tumor": "Stroma"}), "inside itself"),
    ],
)
def test_a_subtype_that_does_not_fit_the_model(subtype, word):
    with pytest.raises(LayoutError, match=word):
        draw(subtype)


def test_an_unknown_subtype_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'cores'.*balanced, cores"):
        choose_subtype("core", known_subtypes(TABLE), "known")
