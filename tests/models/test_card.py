"""Cards: what is accepted, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles

from wsigen.base.errors import BundleError
from wsigen.models.card import make_card, read_card


def test_card_gives_the_class_table_in_file_order() -> None:
    card = make_card(tiny_bundles.tiny_card("class-map"), "card")
    assert card.table.names == ["Glass", "Tumor", "Stroma"]
    assert card.table.background == 0
    assert card.table[1].color == (200, 0, 0)


def test_one_number_stands_for_every_channel() -> None:
    latent = {"channels": 3, "factor": 8, "mean": 0.25, "std": 2}
    card = make_card(tiny_bundles.tiny_card("none", latent=latent), "card")
    assert card.latent.mean == (0.25, 0.25, 0.25)
    assert card.latent.std == (2.0, 2.0, 2.0)
    assert card.latent.image_range == (-1.0, 1.0)


def test_unknown_um_per_px_is_null() -> None:
    card = make_card(tiny_bundles.tiny_card("none", levels=[{"name": "patch", "mpp": None}]), "card")
    assert card.levels[0].mpp is None


LATENT = {"channels": 4, "factor": 8}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": 3}, ["stepz", "did you mean 'steps'"]),
        ({"latent": {**LATENT, "facto": 1}}, ["latent.facto", "did you mean 'factor'"]),
        ({"latent": {**LATENT, "std": [1.0, 2.0]}}, ["latent.std", "2 values for 4 latent channels"]),
        ({"latent": {**LATENT, "std": 0.0}}, ["latent.std"]),
        ({"latent": {**LATENT, "image_range": [1.0, 0.0]}}, ["latent.image_range", "empty"]),
        ({"latent": {"channels": "many", "factor": 8}}, ["latent.channels"]),
        ({"conditioning": {"kind": "class-maps"}}, ["conditioning.kind", "class-map"]),
        ({"classes": [{"name": "A", "color": [0, 0, 256]}]}, ["classes.0.color.2", "255"]),
        ({"classes": [{"name": "A", "color": [0, 0, 0], "colour": 1}]}, ["classes.0.colour", "'color'"]),
        ({"classes": [{"name": n, "color": [0, 0, 0]} for n in "aA"]}, ["classes", "twice"]),
        (
            {"classes": [{"name": n, "color": [0, 0, 0], "background": True} for n in "ab"]},
            ["classes", "a and b are both background"],
        ),
        ({"levels": [{"name": "a", "mpp": 2.0}, {"name": "b", "mpp": 1.0}]}, ["levels", "fine to coarse"]),
        ({"levels": []}, ["levels"]),
        ({"training_data": [{"name": "n", "licence": "l", "attribution": "a"}]}, ["training_data.0", "doi"]),
        ({"format": 2}, ["format"]),
        ({"guidance": -1}, ["guidance"]),
    ],
)
def test_wrong_field_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BundleError) as error:
        make_card(tiny_bundles.tiny_card("class-map", **changes), "some/wsigen.yaml")
    for word in ["some/wsigen.yaml", *words]:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_field_is_named() -> None:
    card = tiny_bundles.tiny_card("class-map")
    del card["licence"]
    with pytest.raises(BundleError, match="licence"):
        make_card(card, "card")


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "just words"])
def test_not_a_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "wsigen.yaml").write_text(text)
    with pytest.raises(BundleError, match=r"wsigen\.yaml"):
        read_card(tmp_path)


def test_card_derived_from_stable_diffusion_layout(plain_diffusers: Path) -> None:
    card = read_card(plain_diffusers)
    assert card.name == "tiny-sd"
    assert card.conditioning.kind == "text"
    assert card.latent.std == pytest.approx([1 / 0.18215] * 4)
    assert (card.latent.factor, card.crop_latent) == (8, 16)
    assert card.levels[0].mpp is None
    assert card.table.names == ["Glass", "Tissue"]


def test_no_card_and_no_diffusers_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no vae/config\.json"):
        read_card(tmp_path)


def test_importing_the_model_module_does_not_import_torch() -> None:
    code = "import sys, wsigen.models.model, wsigen.models.bundle; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
