"""Bundles: finding, refusing, identifying."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import DryRunError, LocalEntryNotFoundError

from wsigen.base.errors import BundleError
from wsigen.models import bundle
from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle, list_bundles
from wsigen.models.model import load_model
from wsigen.models.weights import choose_weights


@pytest.fixture
def copied(class_map_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(class_map_bundle, tmp_path / "bundle"))


@pytest.fixture
def copied_tokens(token_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(token_bundle, tmp_path / "bundle"))


@pytest.fixture
def copied_text(text_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(text_bundle, tmp_path / "bundle"))


def change(file: Path, **values: Any) -> None:
    """Replace top-level values of a JSON or YAML file."""
    content = yaml.safe_load(file.read_text())
    text = json.dumps(content | values) if file.suffix == ".json" else yaml.safe_dump(content | values)
    file.write_text(text)


def test_bundles_of_every_kind_are_accepted(
    class_map_bundle: Path, token_bundle: Path, text_bundle: Path, plain_diffusers: Path
) -> None:
    kinds = [check_bundle(p).conditioning.kind for p in (class_map_bundle, token_bundle, text_bundle, plain_diffusers)]
    assert kinds == ["class-map", "class-tokens", "text", "text"]


@pytest.mark.parametrize("part", ["vae", "unet"])
def test_pickles_are_refused(copied: Path, part: str) -> None:
    weights = copied / part / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BundleError, match=r"model\.bin is a pickle.*safe_serialization=True"):
        check_bundle(copied)
    with pytest.raises(BundleError, match="pickle"):
        load_model(copied)


def test_missing_weights(copied: Path) -> None:
    (copied / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"unet: no \*\.safetensors"):
        check_bundle(copied)


@pytest.mark.parametrize("part", ["vae", "unet", "scheduler"])
def test_missing_part(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(BundleError, match=f"no {part}/"):
        check_bundle(copied)


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_missing_text_part(copied_text: Path, part: str) -> None:
    shutil.rmtree(copied_text / part)
    with pytest.raises(BundleError, match=f"no {part}"):
        check_bundle(copied_text)


def test_class_map_channels_disagree(copied: Path) -> None:
    content = yaml.safe_load((copied / "wsigen.yaml").read_text())
    change(copied / "wsigen.yaml", classes=content["classes"][:2])
    with pytest.raises(BundleError, match=r"unet in_channels is 8, but 4 latent .* 2 classes .* need 7"):
        check_bundle(copied)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("vae/config.json", {"latent_channels": 8}, r"vae latent_channels is 8, .* is 4"),
        ("vae/config.json", {"block_out_channels": [8, 8]}, r"factor is 2, .* is 8"),
        ("vae/config.json", {"out_channels": 4}, "vae out_channels is 4"),
        ("vae/config.json", {"_class_name": "VAE2"}, "VAE2; possible: AutoencoderKL, AutoencoderTiny, VQModel"),
        ("unet/config.json", {"out_channels": 8}, "unet out_channels is 8, .* is 4"),
        ("unet/config.json", {"num_class_embeds": 5}, r"num_class_embeds is 5, .* levels is 2"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "'class-map' needs a UNet2DModel"),
        ("unet/config.json", {"_class_name": "Evil"}, "the unet is a Evil"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchX"}, "flow matching"),
        ("scheduler/scheduler_config.json", {"prediction_type": "velocity"}, "'velocity'; possible"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
            "pure noise",
        ),
        ("wsigen.yaml", {"crop_latent": 17}, "crop_latent is 17"),
    ],
)
def test_disagreements(copied: Path, file: str, values: dict[str, Any], message: str) -> None:
    change(copied / file, **values)
    with pytest.raises(BundleError, match=message):
        check_bundle(copied)


def test_tokens_and_levels_disagree(copied_tokens: Path) -> None:
    change(copied_tokens / "wsigen.yaml", levels=[{"name": "patch", "mpp": 0.5}])
    with pytest.raises(BundleError, match=r"num_class_embeds is 7, but 1 levels of 3 classes .* need 4"):
        check_bundle(copied_tokens)


def test_text_width_disagrees(copied_text: Path) -> None:
    change(copied_text / "text_encoder" / "config.json", hidden_size=32)
    with pytest.raises(BundleError, match=r"cross_attention_dim is 16, .* hidden_size is 32"):
        check_bundle(copied_text)


def test_damaged_weights_are_a_bundle_error(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"safetensors: cannot be read: .*; copy the bundle again"):
        load_model(copied)


def test_damaged_config_is_a_bundle_error(copied: Path) -> None:
    (copied / "vae" / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"vae/config\.json: cannot be read"):
        check_bundle(copied)


def test_fp16_variant_is_found(copied: Path) -> None:
    for part in ("vae", "unet"):
        weights = copied / part / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert load_model(copied).card.name == "tiny-class-map"


@pytest.mark.parametrize("named", ["ema", "non_ema", "fp16.non_ema", "odd"])
def test_weights_of_any_one_variant_are_found(copied: Path, named: str) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name(f"diffusion_pytorch_model.{named}.safetensors"))
    assert load_model(copied).card.name == "tiny-class-map"


@pytest.mark.parametrize(
    "in_order",
    [
        ["ema", "ema.fp16", "", "fp16", "non_ema", "non_ema.fp16"],
        ["", "fp16", "bf16", "non_ema", "fp16.non_ema", "odd"],
        ["fp32", "fp16", "odd", "other"],
    ],
)
def test_variants_are_chosen_in_the_stated_order(tmp_path: Path, in_order: list[str]) -> None:
    for name in reversed(in_order):
        (tmp_path / f"diffusion_pytorch_model{'.' * bool(name)}{name}.safetensors").touch()
    for name in in_order:
        if name in ("odd", "other"):
            break
        found = choose_weights(tmp_path)
        assert (found.variant or "") == name
        assert len(found.files) == 1
        found.files[0].unlink()


def test_shards_are_one_variant(tmp_path: Path) -> None:
    for shard in ("00001-of-00002", "00002-of-00002"):
        (tmp_path / f"diffusion_pytorch_model-{shard}.safetensors").touch()
        (tmp_path / f"diffusion_pytorch_model.fp16-{shard}.safetensors").touch()
    found = choose_weights(tmp_path)
    assert (found.variant, len(found.files)) == (None, 2)
    for file in found.files:
        file.unlink()
    assert (choose_weights(tmp_path).variant, len(choose_weights(tmp_path).files)) == ("fp16", 2)


def test_unknown_variants_beside_each_other_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"diffusion_pytorch_model.{name}.safetensors").touch()
    with pytest.raises(BundleError, match="variants one, two, none of which is known"):
        choose_weights(tmp_path)


def test_hash_is_of_the_content(copied: Path, class_map_bundle: Path) -> None:
    before = bundle_hash(copied)
    assert before == bundle_hash(class_map_bundle)
    assert len(before) == 64
    (copied / "README.md").write_text("words")
    (copied / "vae" / ".cache").write_text("not of the bundle")
    assert bundle_hash(copied) == before
    change(copied / "wsigen.yaml", guidance=1.0)
    changed = bundle_hash(copied)
    assert changed != before
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert bundle_hash(copied) != changed


def test_find_a_folder(class_map_bundle: Path) -> None:
    assert find_bundle(str(class_map_bundle)) == class_map_bundle


def test_find_the_embedded_bundle(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "DEFAULT_FOLDER", copied)
    assert find_bundle("default") == find_bundle("tiny-class-map") == copied
    assert [card.name for card in list_bundles()] == ["tiny-class-map"]
    with pytest.raises(BundleError, match=r"did you mean 'tiny-class-map'\?.*known: default, tiny-class-map"):
        find_bundle("tiny-clas-map")


def test_without_an_embedded_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "DEFAULT_FOLDER", tmp_path / "nothing")
    assert list_bundles() == []
    with pytest.raises(BundleError, match="no default model"):
        find_bundle("default")


@pytest.mark.parametrize("name", ["./not/here", "/not/here", "defautl", "a/b/c"])
def test_no_such_bundle(name: str) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        find_bundle(name)


def test_a_file_is_no_bundle(class_map_bundle: Path) -> None:
    with pytest.raises(BundleError, match="is a folder"):
        find_bundle(str(class_map_bundle / "wsigen.yaml"))


def test_hub_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BundleError, match=r"owner/name: .*hub cannot be reached"):
        find_bundle("owner/name")


def test_hub_fails_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise OSError("disk\nfull")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(BundleError, match=r"owner/name: cannot be downloaded \(OSError: disk full\)"):
        find_bundle("owner/name")


class Hub:
    """Stands in for `huggingface_hub.snapshot_download`."""

    def __init__(self, names: list[str], folder: Path) -> None:
        self.names, self.folder, self.fetched = names, folder, list[str]()

    def __call__(self, hub_id: str, allow_patterns: list[str], dry_run: bool = False, revision: str | None = None) -> Any:
        found = [name for name in self.names if any(fnmatch(name, pattern) for pattern in allow_patterns)]
        if dry_run:
            return [SimpleNamespace(filename=name, commit_hash="c0ffee") for name in found]
        assert revision == "c0ffee"
        self.fetched = found
        return str(self.folder)


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        (["", "fp16", "non_ema", "ema"], ".ema"),
        (["fp16", "non_ema"], ".fp16"),
        (["non_ema"], ".non_ema"),
        (["", "fp16"], ""),
    ],
)
def test_of_a_repository_only_what_is_used_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variants: list[str], chosen: str
) -> None:
    stem = "unet/diffusion_pytorch_model"
    weights = [f"{stem}{'.' * bool(v)}{v}.safetensors" for v in variants]
    small = ["model_index.json", "unet/config.json", "vae/config.json", "tokenizer/merges.txt", "tokenizer/spiece.model"]
    vae = ["vae/model-00001-of-00002.fp16.safetensors", "vae/model-00002-of-00002.fp16.safetensors"]
    hub = Hub(
        [*small, *vae, *weights, f"{stem}.bin", "README.md", "v1-5.safetensors", "safety_checker/model.safetensors"], tmp_path
    )
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert find_bundle("owner/name") == tmp_path
    assert sorted(hub.fetched) == sorted([*small, *vae, f"{stem}{chosen}.safetensors"])


def test_what_was_fetched_before_serves_without_a_hub(class_map_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(hub_id: str, dry_run: bool = False, local_files_only: bool = False, **_: object) -> str:
        if dry_run:
            raise DryRunError("no connection")
        assert local_files_only  # the hub may be back: half a bundle would be fetched
        return str(class_map_bundle)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    assert find_bundle("owner/name") == class_map_bundle


def test_a_repository_with_several_unknown_variants_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", Hub(["vae/m.odd.safetensors", "vae/m.other.safetensors"], tmp_path)
    )
    with pytest.raises(BundleError, match="owner/name/vae: weights in the variants odd, other, none of which is known"):
        find_bundle("owner/name")
