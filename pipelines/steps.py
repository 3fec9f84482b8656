"""What the pipelines of the papers share: one YAML with all settings, the data, the two trainings, the evaluation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import field_validator

import wsigen
from wsigen.base.errors import ConfigError
from wsigen.base.yaml_file import Settings, read_mapping, validated
from wsigen.dataset.dataset import Dataset, open_dataset
from wsigen.dataset.settings import DatasetSettings
from wsigen.models.mask_bundle import FOLDER as MASK
from wsigen.run.config import refuse_execution
from wsigen.run.typed_settings import Mode
from wsigen.storage.files import atomic_path
from wsigen.training.autoencoder import load_vae
from wsigen.training.autoencoder_task import identity as autoencoder_identity
from wsigen.training.autoencoder_task import make_autoencoder
from wsigen.training.loop import CHECKPOINT, check_folder
from wsigen.training.make_denoiser import data_key, make_denoiser
from wsigen.training.make_denoiser import identity as denoiser_identity
from wsigen.training.make_grid import identity as grid_identity
from wsigen.training.make_grid import make_grid
from wsigen.training.make_tokens import identity as token_identity
from wsigen.training.make_tokens import make_tokens
from wsigen.training.mask_data import read_maps
from wsigen.training.mask_task import fit_mask
from wsigen.training.mask_task import identity as mask_identity
from wsigen.training.recipes import AutoencoderRecipe, DenoiserRecipe, GridRecipe, MaskRecipe, TokenRecipe
from wsigen.training.snapshot import Identity


class SlideSettings(Settings):
    """The slides: one per class, per layout (GeoJSON, beside the YAML), and per subtype of which the mask model draws a layout.

    ``settings`` go to ``wsigen.generate``.
    """

    classes: tuple[str, ...] = ()
    layouts: tuple[Path, ...] = ()
    subtypes: tuple[str, ...] = ()
    settings: dict[str, Any]

    @field_validator("settings")
    @classmethod
    def _recipe(cls, value: dict[str, Any]) -> dict[str, Any]:
        refuse_execution(value, "slides")
        return value


class EvaluationSettings(Settings):
    """Crops of each side, their side in px, and the extractor (``wsigen evaluate --help``)."""

    crops: int = 500
    size_px: int = 128
    features: str = "embedded"


class KeptAutoencoder(Settings):
    """An autoencoder that is used as it is: a diffusers ``AutoencoderKL``'s folder, or a bundle (beside the YAML)."""

    use: Path


class PipelineSettings(Settings):
    """A pipeline from data to figures: recipes as ``wsigen train`` reads them, without their dataset.

    ``autoencoder`` may be ``{use: FOLDER}`` (`KeptAutoencoder`); without ``grid`` no network of grids is trained, without
    ``tokens`` none that draws tokens, without ``mask`` no model of layouts. ``grid_dataset`` says what of ``dataset`` is
    otherwise for the network of grids, such as levels and overlap.
    """

    dataset: dict[str, Any]
    autoencoder: dict[str, Any]
    denoiser: dict[str, Any]
    grid: dict[str, Any] | None = None
    grid_dataset: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    mask: dict[str, Any] | None = None
    slides: SlideSettings = SlideSettings(settings={})
    evaluation: EvaluationSettings = EvaluationSettings()


def read_arguments(description: str) -> argparse.Namespace:
    """Read the command line of a pipeline: ``config``, ``data``, ``out``, ``resume``, ``skip_bad``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the pipeline's YAML, e.g. configs/*-small.yaml or configs/*-paper.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder that the dataset's sources count from")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    parser.add_argument("--skip-bad", action="store_true", help="leave out images, and places of them, that cannot be read")
    return parser.parse_args()


def read_pipeline(file: Path) -> PipelineSettings:
    """Read and check a pipeline's YAML; layouts count from its folder (ConfigError)."""
    plan = validated(PipelineSettings, read_mapping(file, ConfigError), str(file), ConfigError)
    validated(DatasetSettings, plan.dataset, f"{file}: dataset", ConfigError)
    if _kept(plan):
        validated(KeptAutoencoder, plan.autoencoder, f"{file}: autoencoder", ConfigError)
    else:
        validated(AutoencoderRecipe, plan.autoencoder | {"dataset": file}, f"{file}: autoencoder", ConfigError)
    validated(DenoiserRecipe, plan.denoiser | {"dataset": file, "autoencoder": file}, f"{file}: denoiser", ConfigError)
    if plan.grid is not None:
        validated(GridRecipe, plan.grid | {"dataset": file, "bundle": file}, f"{file}: grid", ConfigError)
    if plan.tokens is not None:
        validated(TokenRecipe, plan.tokens | {"dataset": file, "bundle": file}, f"{file}: tokens", ConfigError)
    if plan.mask is not None:
        validated(MaskRecipe, plan.mask | {"dataset": file}, f"{file}: mask", ConfigError)
    elif plan.slides.subtypes:
        raise ConfigError(f"{file}: slides.subtypes are drawn by a mask model; add 'mask:', or leave them out")
    for recipe in (plan.autoencoder, plan.denoiser):
        recipe.update({key: str(file.parent / recipe[key]) for key in ("start", "text", "use") if key in recipe})
    layouts = tuple(file.parent / path for path in plan.slides.layouts)
    return plan.model_copy(update={"slides": plan.slides.model_copy(update={"layouts": layouts})})


def open_data(plan: PipelineSettings, data: Path, out: Path, skip_bad: bool = False) -> Dataset:
    """Write the dataset's file, check and index it; print what it holds."""
    file = _write({**plan.dataset, "root": str(data.absolute())}, dataset_file(out))
    dataset = open_dataset(file, skip_bad=skip_bad)
    if dataset.skipped:
        print(f"note: {len(dataset.skipped)} images cannot be opened, left out, e.g. {dataset.skipped[0][1]}", flush=True)
    for note in dataset.notes:
        print("note:", note, flush=True)
    for split in ("training", "held_out"):
        members = dataset.training if split == "training" else dataset.held_out
        print(f"{split}: {len(members)} images of {len({m.group for m in members} - {None})} groups", flush=True)
    return dataset


def _write(described: dict[str, Any], file: Path) -> Path:
    """Write a dataset's file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as beside:
        beside.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return file


def dataset_file(out: Path) -> Path:
    """Where a pipeline describes its dataset; other commands of wsigen take that file as well."""
    return out / "dataset.yaml"


def train_models(plan: PipelineSettings, dataset: Dataset, out: Path, *, resume: bool) -> Path:
    """Train the autoencoder, then the denoiser on its latents. Returns the bundle.

    What is finished is not done again; TrainingError if it was made of other data or settings.
    """
    autoencoder = out / "autoencoder"
    if _kept(plan):
        autoencoder = Path(plan.autoencoder["use"])
    else:
        first = AutoencoderRecipe.model_validate({**plan.autoencoder, "dataset": out})
        make = partial(make_autoencoder, first, dataset, autoencoder)
        _once(make, autoencoder / "vae", resume, lambda: autoencoder_identity(first, dataset.key))
    recipe = DenoiserRecipe.model_validate({**plan.denoiser, "dataset": out, "autoencoder": autoencoder})
    make, bundle = partial(make_denoiser, recipe, dataset, out / "denoiser"), out / "denoiser" / "bundle"
    return _once(make, bundle, resume, lambda: denoiser_identity(recipe, data_key(recipe, dataset, load_vae(autoencoder))))


def train_grids(
    plan: PipelineSettings, dataset: Dataset, out: Path, bundle: Path, *, resume: bool, skip_bad: bool = False
) -> Path:
    """Train the network that draws the bundle's grids, if the plan has one. Returns the bundle with it; see `train_models`."""
    if plan.grid is None:
        return bundle
    if plan.grid_dataset:
        described = read_mapping(dataset_file(out), ConfigError) | plan.grid_dataset
        dataset = open_dataset(_write(described, out / "grid-dataset.yaml"), skip_bad=skip_bad)
    recipe = GridRecipe.model_validate({**plan.grid, "dataset": out, "bundle": bundle})
    make, folder = partial(make_grid, recipe, dataset, out / "grid"), out / "grid" / "bundle"
    return _once(make, folder, resume, lambda: grid_identity(recipe, dataset))


def train_tokens(plan: PipelineSettings, dataset: Dataset, out: Path, bundle: Path, *, resume: bool) -> Path:
    """Train the network that draws the bundle's tokens, if the plan has one. Returns the bundle with it; see `train_models`."""
    if plan.tokens is None:
        return bundle
    given = {"dataset": out, "bundle": bundle, "grids": bundle.parent / "grids"}
    recipe = TokenRecipe.model_validate({**plan.tokens, **given})
    make, folder = partial(make_tokens, recipe, dataset, out / "tokens"), out / "tokens" / "bundle"
    return _once(make, folder, resume, lambda: token_identity(recipe, dataset))


def train_layouts(plan: PipelineSettings, dataset: Dataset, out: Path, *, resume: bool) -> Path | None:
    """Train the model of layouts, if the plan has one. Returns what ``--mask-model`` takes; see `train_models`."""
    if plan.mask is None:
        return None
    folder, recipe = out / "mask", MaskRecipe.model_validate({**plan.mask, "dataset": out})
    data = read_maps(recipe, dataset)
    print(data.describe(recipe.side), flush=True)
    _once(partial(fit_mask, recipe, data, folder), folder / MASK, resume, lambda: mask_identity(recipe, data))
    return folder


def _kept(plan: PipelineSettings) -> bool:
    return "use" in plan.autoencoder


def _once(make: Callable[..., object], result: Path, resume: bool, identity: Callable[[], Identity]) -> Path:
    """Train what gives ``result``, or, if that is there, see that it was made of the same data and settings."""
    begun = (result.parent / CHECKPOINT).exists()
    if not result.exists():
        make(resume=resume and begun)
    elif begun:
        check_folder(result.parent, identity(), resume=True)
    return result


def make_slides(plan: PipelineSettings, bundle: Path, out: Path, mode: Mode, slides: Mapping[str, dict[str, Any]]) -> None:
    """Generate slides, named and each by its own settings, into ``out/slides``."""
    (folder := out / "slides").mkdir(exist_ok=True)
    for name, how in slides.items():
        output = folder / f"{name.replace(' ', '-').lower()}.ome.tiff"
        wsigen.generate(output, model=str(bundle), mode=mode, overwrite=True, **how, **plan.slides.settings)
        print("generated", output, flush=True)


def evaluate_slides(plan: PipelineSettings, dataset: Dataset, out: Path) -> None:
    """Compare the slides with images that training never saw, and with those it saw; write ``out/report``."""
    chosen, file = plan.evaluation, dataset_file(out)
    found = wsigen.evaluate(
        file,
        out / "slides",
        training=f"{file}#training",
        features=chosen.features,
        crops=chosen.crops,
        size=chosen.size_px,
        mpp=dataset.levels[0].mpp,
        report=out / "report",
    )
    print("wrote", out / "report")
    for name in ("fid", "kid", "precision", "recall", "density", "coverage"):
        print(f"{name:12}{found.numbers[name]:.4g}")
