"""Bags told apart by gated attention, in folds by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_bundles import make_grid_token_bundle

from pipelines.bags import BagMaker, Columns, Row, read_rows
from pipelines.mil import GatedAttention, MilSettings, area, group_folds, mil_table
from wsigen.base.errors import ConfigError, EvaluationError
from wsigen.models.extractors.extractors import open_extractor


def rows(count: int = 18, groups: int = 6) -> list[Row]:
    return [Row(Path(f"{i}.wsz"), "tumour" if i % 2 else "normal", f"P{i % groups // 2}{i % groups}") for i in range(count)]


def bags(slides: list[Row], signal: float) -> list[dict[str, np.ndarray]]:
    """A third of the instances of one label are moved."""
    rng = np.random.default_rng(0)
    made = []
    for row in slides:
        bag = rng.standard_normal((int(rng.integers(6, 12)), 5)).astype(np.float32)
        bag[::3, 0] += signal * (row.label == "tumour")
        made.append({"grid": bag, "means": rng.permutation(bag), "tokens": rng.standard_normal((4, 3)).astype(np.float32)})
    return made


def test_what_a_bag_holds_is_found_and_what_it_does_not_hold_is_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    slides = rows()
    lines = mil_table(slides, bags(slides, 8.0), MilSettings(folds=2, epochs=20, seeds=1), tmp_path)
    found = {line.split("|")[1].strip(): float(line.split("|")[4].split("±")[0]) for line in lines[4:]}
    assert found["grid"] > 0.85
    assert found["means"] > 0.85
    assert 0.2 < found["tokens"] < 0.8
    assert (tmp_path / "mil.md").read_text().splitlines() == lines
    assert lines[0].startswith("18 slides: normal 9 of 3 groups, tumour 9 of 3 groups. 2 folds by group")


def test_a_bag_has_no_order() -> None:
    torch.manual_seed(0)
    network, bag = GatedAttention(5, 3).eval(), torch.randn(7, 5)
    torch.testing.assert_close(network(bag), network(bag[torch.randperm(7)]))


def test_no_group_is_in_two_folds() -> None:
    slides = rows()
    y = np.array([row.label == "tumour" for row in slides]).astype(np.int64)
    groups = np.array([row.group for row in slides])
    folds = group_folds(y, groups.tolist(), 3)
    assert sorted(np.concatenate(folds)) == list(range(len(slides)))
    assert sum(len(set(groups[fold])) for fold in folds) == len(set(groups))
    for count in (1, 8):
        with pytest.raises(ConfigError, match=f"6 groups cannot be dealt out to {count} folds; give --folds of 2 to 6"):
            group_folds(y, groups.tolist(), count)
    with pytest.raises(ConfigError, match="all slides are of one group"):
        group_folds(y, ["one"] * len(y), 1)
    with pytest.raises(ConfigError, match=r"4 folds: .* give fewer --folds"):
        group_folds(y[:6], list("abcdef"), 4)


def test_grids_need_no_encoder_and_those_of_another_slide_are_made_anew(tmp_path: Path) -> None:
    """The encoder of the bundle is nowhere to be had."""
    bundle, slide = make_grid_token_bundle(tmp_path / "bundle"), tmp_path / "s.png"
    maker = BagMaker(bundle)
    assert maker.grid_of(tmp_path / "x.wsz", tmp_path) == tmp_path / "x.wsz"
    Image.new("RGB", (600, 512), (150, 80, 140)).save(slide)
    with pytest.raises(EvaluationError, match="no such extractor"):
        maker.grid_of(slide, tmp_path)
    maker = BagMaker(bundle, open_extractor("embedded"))
    first = maker.grid_of(slide, tmp_path, 0.5)
    assert maker.grid_of(slide, tmp_path, 0.5) == first
    Image.new("RGB", (640, 512), (150, 80, 140)).save(slide)
    assert maker.grid_of(slide, tmp_path, 0.5) != first


def test_area_of_two_classes_and_of_more() -> None:
    y = np.array([0, 0, 1, 1])
    assert area(y, np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.7, 0.3]])) == 0.75
    assert area(np.array([0, 1, 2]), np.eye(3)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,label\na.png,x\n", "has no column 'group'; it has slide, label"),
        ("slide,label,group\na.png,x,1\n", "holds fewer than two labels"),
        ("slide,label,group\na.png,x,1\nb.png,y,2\n", "a.png is not there; paths count from"),
    ],
)
def test_a_table_that_will_not_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_rows(tmp_path / "t.csv", Columns(), tmp_path)
