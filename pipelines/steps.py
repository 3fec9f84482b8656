"""What the pipelines of the papers share: one YAML with all settings, the data, the two trainings, the evaluation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from wsigen.cohort.cohort import Cohort, open_cohort
from wsigen.cohort.settings import CohortSettings, read_settings
from wsigen.errors import ConfigError
from wsigen.files import atomic_path
from wsigen.training.loop import CHECKPOINT
from wsigen.training.make_autoencoder import make_autoencoder
from wsigen.training.make_denoiser import make_denoiser
from wsigen.training.recipes import AutoencoderRecipe, DenoiserRecipe
from wsigen.yaml_file import read_mapping, validated


class SlideSettings(BaseModel):
    """The slides: one per class, or one per layout (GeoJSON, beside the YAML); ``settings`` go to ``wsigen.generate``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[str, ...] = ()
    layouts: tuple[Path, ...] = ()
    settings: dict[str, Any]


class EvaluationSettings(BaseModel):
    """Crops of each side, their side in px, and the extractor (``wsigen evaluate --help``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crops: int = 500
    size_px: int = 128
    features: str = "embedded"


class PipelineSettings(BaseModel):
    """A pipeline from data to figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cohort: dict[str, Any]
    autoencoder: dict[str, Any]
    denoiser: dict[str, Any]
    slides: SlideSettings = SlideSettings(settings={})
    evaluation: EvaluationSettings = EvaluationSettings()


def read_arguments(description: str) -> argparse.Namespace:
    """Read the command line of a pipeline: ``config``, ``data``, ``out``, ``resume``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="the pipeline's YAML, e.g. configs/*-small.yaml or configs/*-paper.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder that the cohort's sources count from")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was stopped")
    return parser.parse_args()


def read_pipeline(file: Path) -> PipelineSettings:
    """Read and check a pipeline's YAML; layouts count from its folder (ConfigError)."""
    plan = validated(PipelineSettings, read_mapping(file, ConfigError), str(file), ConfigError)
    for part, kind, needed in (
        ("cohort", CohortSettings, ()),
        ("autoencoder", AutoencoderRecipe, ("cohort",)),
        ("denoiser", DenoiserRecipe, ("cohort", "autoencoder")),
    ):
        content = getattr(plan, part) | dict.fromkeys(needed, file)
        validated(kind, content, f"{file}: {part}", ConfigError)
    for recipe in (plan.autoencoder, plan.denoiser):
        recipe.update({key: str(file.parent / recipe[key]) for key in ("start", "text") if key in recipe})
    layouts = tuple(file.parent / path for path in plan.slides.layouts)
    return plan.model_copy(update={"slides": plan.slides.model_copy(update={"layouts": layouts})})


def open_data(plan: PipelineSettings, data: Path, out: Path) -> Cohort:
    """Write the cohort's file, check and index it; print what it holds."""
    file = cohort_file(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as beside:
        beside.write_text(yaml.safe_dump({**plan.cohort, "root": str(data.absolute())}, sort_keys=False), encoding="utf-8")
    cohort = open_cohort(read_settings(file), file.with_suffix(".cache"))
    for note in cohort.notes:
        print("note:", note, flush=True)
    for split in ("training", "held_out"):
        members = cohort.training if split == "training" else cohort.held_out
        print(f"{split}: {len(members)} images of {len({m.group for m in members})} groups", flush=True)
    return cohort


def cohort_file(out: Path) -> Path:
    """Where a pipeline describes its cohort; other commands of wsigen take that file as well."""
    return out / "cohort.yaml"


def train_models(plan: PipelineSettings, cohort: Cohort, out: Path, *, resume: bool) -> Path:
    """Train the autoencoder, then the denoiser on its latents; what is finished is not done again. Returns the bundle."""
    bundle = out / "denoiser" / "bundle"
    if not (out / "autoencoder" / "vae").exists():
        recipe = AutoencoderRecipe.model_validate({**plan.autoencoder, "cohort": out})
        make_autoencoder(recipe, cohort, out / "autoencoder", resume=resume and _begun(out / "autoencoder"))
    if not bundle.exists():
        settings = {**plan.denoiser, "cohort": out, "autoencoder": out / "autoencoder"}
        denoiser = DenoiserRecipe.model_validate(settings)
        make_denoiser(denoiser, cohort, out / "denoiser", resume=resume and _begun(out / "denoiser"))
    return bundle


def _begun(folder: Path) -> bool:
    return (folder / CHECKPOINT).exists()


def evaluate_slides(plan: PipelineSettings, cohort: Cohort, out: Path) -> None:
    """Compare the slides with images that training never saw, and with those it saw; write ``out/report``."""
    from wsigen.metrics.evaluation import Settings, evaluate
    from wsigen.metrics.extractors import open_extractor
    from wsigen.metrics.report import write_report

    chosen = plan.evaluation
    settings = Settings(
        real=cohort_file(out),
        synthetic=out / "slides",
        training=Path(f"{cohort_file(out)}#training"),
        crops=chosen.crops,
        size_px=chosen.size_px,
        mpp=cohort.levels[0].mpp,
        cache=out / "report" / "features",
    )
    found = evaluate(settings, open_extractor(chosen.features))
    for path in write_report(found, out / "report"):
        print("wrote", path)
    for name in ("fid", "kid", "precision", "recall", "density", "coverage"):
        print(f"{name:12}{found.numbers[name]:.4g}")
