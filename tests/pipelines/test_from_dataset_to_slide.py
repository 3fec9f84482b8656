"""From slides to a slide: dataset, autoencoder, denoiser, generate, as the pipelines and ``wsigen train`` run them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from dataset.dataset_making import CLASSES, annotated, slide
from drawing import feature, square, write_layout

import wsigen
from pipelines.steps import open_data, read_pipeline, train_models
from wsigen.base.errors import TrainingError
from wsigen.training.autoencoder import load_vae
from wsigen.training.make_denoiser import encoded, make_denoiser
from wsigen.training.recipes import DenoiserRecipe

LOOP = {"steps": 4, "batch": 2, "learning_rate": 1e-3, "sample_every": 0, "checkpoint_minutes": 0}
PLAN: dict[str, Any] = {
    "dataset": {
        "classes": CLASSES[1:],
        "levels": [{"name": "patch", "mpp": 0.5}],
        "patch_px": 128,
        "overlap_px": 32,
        "sources": [
            {"kind": "annotated", "images": "slides", "mpp": 0.5},
            {"kind": "unlabelled", "images": "plain", "mpp": 0.5},
        ],
        "held_out": ["h1"],
    },
    "autoencoder": {
        "crop_px": 64,
        "network": {"channels": [8, 8, 8, 8], "latent_channels": 4, "norm_groups": 4},
        "loop": LOOP,
    },
    "denoiser": {
        "network": {"channels": [8, 16], "layers": 1, "norm_groups": 4, "head_dim": 8},
        "quarter_share": 0.5,
        "latent_variants": 2,
        "loop": LOOP,
        "bundle": {"name": "tiny", "title": "A tiny model", "licence": "CC0-1.0", "not_for": "anything but tests", "steps": 2},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The folder of the slides, that of the pipeline, and the bundle."""
    torch.set_num_threads(1)
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    annotated(data / "slides")
    slide(data / "plain" / "u1.png", seed=5)
    slide(data / "plain" / "h1.png", seed=6)
    (out / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    plan = read_pipeline(out / "plan.yaml")
    return data, out, train_models(plan, open_data(plan, data, out), out, resume=False)


def test_the_bundle_makes_a_slide(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, out, bundle = trained
    wsigen.generate(tmp_path / "a.ome.tiff", model=str(bundle), class_name="Stroma", size=(512, 640), seed=1)
    image = tifffile.imread(tmp_path / "a.ome.tiff")
    assert image.shape == (640, 512, 3)
    assert image.std() > 1
    figures = yaml.safe_load((out / "autoencoder" / "figures.json").read_text())
    assert 3 < figures["psnr_db"] < 60
    assert f"autoencoder_psnr_db: {figures['psnr_db']:.5g}" in (bundle / "README.md").read_text()


def test_finished_steps_are_not_done_again(trained: tuple[Path, Path, Path]) -> None:
    data, out, bundle = trained
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name not in ("dataset.yaml", "plan.yaml")}
    plan = read_pipeline(out / "plan.yaml")
    assert train_models(plan, open_data(plan, data, out), out, resume=True) == bundle
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_changed_plan_is_not_taken_for_what_is_finished(trained: tuple[Path, Path, Path]) -> None:
    data, out, _ = trained
    plan = read_pipeline(out / "plan.yaml")
    dataset = open_data(plan, data, out)
    for part, name in (("autoencoder", "crop_px"), ("denoiser", "p_unc")):
        other = plan.model_copy(update={part: {**getattr(plan, part), name: {"crop_px": 128, "p_unc": 0.3}[name]}})
        with pytest.raises(TrainingError, match=f"{part}.*{name}"):
            train_models(other, dataset, out, resume=True)


def test_latents_of_a_start_keep_its_scale_in_the_stream_and_in_the_card(
    trained: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Going on from a bundle with other data: what the network learnt of is what its card says."""
    data, out, bundle = trained
    start = tmp_path / "start"
    shutil.copytree(bundle, start)
    card = yaml.safe_load((start / "wsigen.yaml").read_text())
    card["latent"] |= {"mean": [3.0] * 4, "std": [0.5] * 4}
    (start / "wsigen.yaml").write_text(yaml.safe_dump(card))
    plan = read_pipeline(out / "plan.yaml")
    dataset = open_data(plan, data, tmp_path)
    settings = {**plan.denoiser, "dataset": out, "autoencoder": out / "autoencoder"}
    vae = load_vae(out / "autoencoder")
    before = encoded(DenoiserRecipe.model_validate(settings), dataset, vae, tmp_path)
    after = encoded(DenoiserRecipe.model_validate({**settings, "start": start}), dataset, vae, tmp_path)
    np.testing.assert_allclose(after.mean, 3.0)
    np.testing.assert_allclose(after.std, 0.5)
    raw = before.stream.batch(0, 4).latents * before.std[:, None, None] + before.mean[:, None, None]
    np.testing.assert_allclose(after.stream.batch(0, 4).latents, (raw - 3.0) / 0.5, rtol=1e-3, atol=1e-3)


def test_an_autoencoder_may_be_kept_as_it_is(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, out, _ = trained
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | {"autoencoder": {"use": str(out / "autoencoder")}}))
    plan = read_pipeline(tmp_path / "plan.yaml")
    bundle = train_models(plan, open_data(plan, data, tmp_path), tmp_path, resume=False)
    assert not (tmp_path / "autoencoder").exists()
    stored, given = (f / "vae" / "diffusion_pytorch_model.safetensors" for f in (bundle, out / "autoencoder"))
    assert stored.stat().st_size == given.stat().st_size


def test_other_data_is_refused_and_the_latents_stay(trained: tuple[Path, Path, Path]) -> None:
    data, out, _ = trained
    plan = read_pipeline(out / "plan.yaml")
    other = plan.model_copy(update={"dataset": {**plan.dataset, "overlap_px": 0}})
    recipe = DenoiserRecipe.model_validate({**plan.denoiser, "dataset": out, "autoencoder": out / "autoencoder"})
    latents = {p: p.stat().st_mtime_ns for p in (out / "denoiser" / "latents").rglob("*") if p.is_file()}
    with pytest.raises(TrainingError, match="checkpoint"):
        make_denoiser(recipe, open_data(other, data, out / "other"), out / "denoiser", resume=True)
    assert {p: p.stat().st_mtime_ns for p in latents} == latents


def test_a_class_that_tokens_would_never_tell_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    """Every patch has more stroma than tumour."""
    slide(tmp_path / "data" / "s1.png", seed=5)
    slide(tmp_path / "data" / "s2.png", seed=6)
    for name in ("s1", "s2"):
        spots = [feature("Tumor", square(100 + 128 * i, 100 + 128 * j, 40)) for i in range(4) for j in range(3)]
        write_layout(tmp_path / "data" / f"{name}.geojson", feature("Stroma", square(0, 0, 600)), *spots)
    dataset = {**PLAN["dataset"], "sources": [{"kind": "annotated", "images": "", "mpp": 0.5}], "held_out": ["s2"]}
    denoiser = {**PLAN["denoiser"], "conditioning": {"kind": "class-tokens"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN | {"dataset": dataset, "denoiser": denoiser}))
    plan = read_pipeline(tmp_path / "plan.yaml")
    data = open_data(plan, tmp_path / "data", tmp_path)
    recipe = DenoiserRecipe.model_validate({**plan.denoiser, "dataset": tmp_path, "autoencoder": tmp_path / "none"})
    with pytest.raises(TrainingError, match=r"class 'Tumor' fills half of no patch.*use conditioning class-map"):
        make_denoiser(recipe, data, tmp_path / "denoiser")
