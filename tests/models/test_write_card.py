"""Cards for folders that have none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsigen.base.errors import BundleError, ConfigError
from wsigen.cli.app import app
from wsigen.layout.class_names import ClassNames
from wsigen.models.bundle import check_bundle
from wsigen.models.card import read_card
from wsigen.models.write_card import CardWishes, write_card


@pytest.fixture
def plain(plain_diffusers: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain_diffusers, tmp_path / "sd"))


@pytest.fixture
def tokens(token_bundle: Path, tmp_path: Path) -> Path:
    """Seven embeddings."""
    return Path(shutil.copytree(token_bundle, tmp_path / "tokens", ignore=shutil.ignore_patterns("wsigen.yaml")))


@pytest.fixture
def mapped(class_map_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(class_map_bundle, tmp_path / "mapped", ignore=shutil.ignore_patterns("wsigen.yaml")))


def test_what_is_said_is_written_and_the_bundle_can_be_used(plain: Path) -> None:
    before = read_card(plain)
    wishes = CardWishes(("Glass", "Tumor", "Odd"), None, (0.5, 2.0), licence="CC0-1.0", prompt="a {class}", name="mine")
    card, unknown = write_card(plain, wishes)
    assert check_bundle(plain) == card
    assert (card.name, card.licence, card.conditioning.prompt) == ("mine", "CC0-1.0", "a {class}")
    assert [c.background for c in card.classes] == [True, False, False]
    assert card.classes[1].color == (200, 0, 0)
    assert [level.mpp for level in card.levels] == [0.5, 2.0]
    assert card.latent == before.latent
    assert len(unknown) == 1
    assert "training_data" in unknown[0]


def test_what_nobody_said_is_told_and_stands_in_the_file(plain: Path) -> None:
    card, unknown = write_card(plain, CardWishes())
    said = " ".join(unknown)
    for word in ("um/px", "--classes", "--licence", "training_data"):
        assert word in said
        assert word in (plain / "wsigen.yaml").read_text()
    assert card.levels[0].mpp is None
    assert check_bundle(plain).licence == "unknown"


def test_tokens_get_as_many_stand_ins_as_there_are(tokens: Path) -> None:
    with pytest.raises(BundleError, match=r"need 3; if that was wrongly guessed, say it with 'wsigen models card .*tokens'"):
        check_bundle(tokens)
    card, unknown = write_card(tokens, CardWishes())
    assert card.table.names == [f"Class {i + 1}" for i in range(6)]
    assert any("last of 7 embeddings" in line for line in unknown)
    card, _ = write_card(tokens, CardWishes(tuple("ABC"), "a", (0.5, 2.0)), overwrite=True)
    assert card.table.background == 0


def test_class_maps_are_said_and_not_guessed(mapped: Path) -> None:
    with pytest.raises(BundleError, match=r"in_channels is 8, .* need 4"):
        write_card(mapped, CardWishes(mpp=(0.5, 2.0)))
    assert not (mapped / "wsigen.yaml").exists()
    card, _ = write_card(mapped, CardWishes(tuple("ABC"), None, (0.5, 2.0), "class-map"))
    assert card.input_channels == 8


def test_a_card_is_replaced_only_if_asked_and_never_by_a_wrong_one(plain: Path) -> None:
    write_card(plain, CardWishes())
    before = (plain / "wsigen.yaml").read_bytes()
    with pytest.raises(BundleError, match="exists already; edit it, or add --overwrite"):
        write_card(plain, CardWishes())
    with pytest.raises(BundleError, match="the background 'Wall' is not among the classes A, B"):
        write_card(plain, CardWishes(("A", "B"), "Wall"), overwrite=True)
    change = plain / "unet" / "config.json"
    change.write_text(json.dumps(json.loads(change.read_text()) | {"block_out_channels": [8, 32]}))
    with pytest.raises(BundleError, match="not of the same model"):
        write_card(plain, CardWishes(), overwrite=True)
    assert (plain / "wsigen.yaml").read_bytes() == before


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no vae/config\.json"):
        write_card(tmp_path, CardWishes())
    with pytest.raises(BundleError, match="no such folder"):
        write_card(tmp_path / "nothing", CardWishes())


def test_unknown_classes_of_a_derived_card_point_to_the_command(plain: Path) -> None:
    table = check_bundle(plain).table
    remedy = "name them with 'wsigen models card"
    with pytest.raises(ConfigError, match=rf"unknown class 'Tumor'.*known: Glass, Tissue; .*{remedy}"):
        table.index("Tumor")
    assert remedy in ClassNames(table).unknown({"Tumor": 2})
    write_card(plain, CardWishes())
    assert remedy not in ClassNames(check_bundle(plain).table).unknown({"Tumor": 2})


def test_the_command(plain: Path) -> None:
    made = CliRunner().invoke(app, ["models", "card", str(plain), "--classes", "Glass, Tumor", "--mpp", "0.5"])
    assert made.exit_code == 0, made.output
    for line in ("classes:       Glass (background), Tumor", "levels:        patch 0.5 um/px", "not known:     the licence"):
        assert line in made.output
    assert "--class 'Tumor' --size 2048x2048\n" in made.output
