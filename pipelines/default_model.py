"""Train wsigen's embedded default model from the HER2-ST sections, from images to bundle.

Stages run one after the other with ``all`` (which leaves out ``decoder``), or alone; each leaves its result
in ``--work`` for the next:

    prepare      sections read, resampled, glass cleaned          WORK/sections
    labels       weak class maps, and pictures of them            WORK/labels
    autoencoder  trained without the held-out section             WORK/autoencoder.pt
    decoder      optional: its decoder trained further, alone     WORK/decoder.pt
    latents      every section encoded at both levels             WORK/latents
    denoiser     trained on all sections; previews, bundle        WORK/denoiser.pt, WORK/samples, --bundle
    export       the bundle from the newest checkpoint            --bundle
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from wsigen.cohort.augment import dihedral
from wsigen.training.autoencoder import AutoencoderTraining
from wsigen.training.budget import Budget
from wsigen.training.checkpoint import load_checkpoint
from wsigen.training.crops import crop_source, pixel_batch
from wsigen.training.denoiser import DenoiserTraining
from wsigen.training.export import TrainedModel, export_bundle
from pipelines.her2st.features import section_features
from wsigen.training.latents import LatentCrops, LatentImage, channel_statistics, encode
from wsigen.training.measure import measure_autoencoder
from wsigen.training.preview import sample_grid
from pipelines.her2st.sections import Section, prepare_section, read_index
from pipelines.her2st.seeds import paint_spots, spot_labels, weed_and_add
from wsigen.training.settings import TrainingSettings, read_settings
from pipelines.her2st.tissue import area_mean
from pipelines.her2st.weak_labels import coarser, dense_labels, fit_classifier, opacity_map, picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PREVIEW_FROM_STEP = 600  # a bundle exported earlier would be of no use to anyone


def prepare(data: Path, work: Path, settings: TrainingSettings) -> None:
    """Read, resample and clean every section."""
    for source in read_index(data):
        prepare_section(source, settings.sections).save(work / "sections")
        print("prepared", source.name, flush=True)


def label(data: Path, work: Path, settings: TrainingSettings) -> None:
    """Make a dense class map of every section from the sparse labels of all."""
    sections = [Section.load(work / "sections", source.name) for source in read_index(data)]
    features = [section_features(section, settings.sections.glass_rgb) for section in sections]
    seeds = [
        weed_and_add(paint_spots(section, spot_labels(data, section.name)), values, section.tissue)
        for section, values in zip(sections, features, strict=True)
    ]
    classifier = fit_classifier(features, seeds, settings.seed)
    (work / "labels").mkdir(parents=True, exist_ok=True)
    for section, values in zip(sections, features, strict=True):
        labels = dense_labels(section, values, opacity_map(section.rgb), classifier)
        np.save(work / "labels" / f"{section.name}.npy", labels)
        picture(section.rgb, labels).save(work / "labels" / f"{section.name}.png")
        print("labelled", section.name, np.bincount(labels.ravel(), minlength=6) / labels.size, flush=True)


def train_autoencoder(data: Path, work: Path, settings: TrainingSettings, resume: bool, decoder_only: bool = False) -> None:
    """Train the autoencoder, or its decoder alone, without the held-out section; measure it on that."""
    chosen = settings.autoencoder.for_decoder() if decoder_only else settings.autoencoder
    held_out = settings.sections.held_out
    names = [source.name for source in read_index(data)]
    sections = [Section.load(work / "sections", name) for name in names if name != held_out]
    patches = [crop_source(section) for section in sections]
    overviews = [crop_source(section, settings.sections.overview_factor) for section in sections]
    measured = Section.load(work / "sections", held_out)
    training = AutoencoderTraining(chosen, settings.seed + decoder_only, decoder_only)
    path = work / ("decoder.pt" if decoder_only else "autoencoder.pt")
    if resume and path.exists():
        training.load(path)
    elif decoder_only:
        training.load_networks(work / "autoencoder.pt")
    else:
        (work / "decoder.pt").unlink(missing_ok=True)  # it belongs to another encoder

    def batches(step: int) -> torch.Tensor:
        crops = pixel_batch(
            patches,
            overviews,
            side_px=chosen.crop_px,
            batch=chosen.batch,
            overview_share=chosen.overview_share,
            seed=(training.seed, step),
        )
        return torch.from_numpy(crops)

    def checkpoint() -> None:
        training.save(path)
        measure_autoencoder(training.model, measured, work / "autoencoder", training.step)

    budget = Budget(chosen.minutes, elapsed_s=training.elapsed_s)
    training.run(batches, budget, 60.0 * settings.checkpoint_minutes, checkpoint)


def encode_sections(data: Path, work: Path, settings: TrainingSettings) -> None:
    """Encode every section, turned and flipped in several ways, at both levels."""
    model = trained_autoencoder(work, settings)
    factor, variants = settings.sections.overview_factor, settings.denoiser.latent_variants
    for number, source in enumerate(read_index(data)):
        rgb = Section.load(work / "sections", source.name).rgb
        labels = np.load(work / "labels" / f"{source.name}.npy")
        coarse_rgb = np.rint(area_mean(rgb, factor)).astype(np.uint8)
        coarse_labels = coarser(labels, factor)
        patch_variants = [(number + 8 * i // variants) % 8 for i in range(variants)]
        for level, chosen, image, classes in (
            (0, patch_variants, rgb, labels),
            (1, range(8), coarse_rgb, coarse_labels),
        ):
            for variant in chosen:
                latents = encode(model, dihedral(image, variant))
                stored = LatentImage(latents, dihedral(classes, variant), level)
                stored.save(work / "latents" / f"{source.name}-{level}-{variant}.npz")
        print("encoded", source.name, flush=True)


def train_denoiser(work: Path, settings: TrainingSettings, resume: bool, bundle: Path | None) -> None:
    """Train the denoiser on the cached latents; every checkpoint draws samples and renews the bundle."""
    chosen = settings.denoiser
    images = [LatentImage.load(path) for path in sorted((work / "latents").glob("*.npz"))]
    mean, std = channel_statistics([image for image in images if image.level == 0])
    (work / "statistics.json").write_text(json.dumps({"mean": mean, "std": std}))
    crops = LatentCrops(images, mean, std)
    vae = trained_autoencoder(work, settings)
    training = DenoiserTraining(chosen, len(mean), settings.seed)
    path = work / "denoiser.pt"
    if resume and path.exists():
        training.load(path)

    def batches(step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side, count = chosen.large_crop if step % 3 == 2 else chosen.small_crop
        return crops.batch(side, count, chosen.overview_share, chosen.map_dropout, (settings.seed, step))

    def checkpoint() -> None:
        training.save(path)
        if training.step < PREVIEW_FROM_STEP:
            return
        if bundle is not None:
            export(work, settings, bundle)
        (work / "samples").mkdir(exist_ok=True)
        grid = sample_grid(training.average, vae, mean, std, steps=chosen.steps, guidance=chosen.guidance, side=40)
        grid.save(work / "samples" / f"{training.step:06d}.png")

    budget = Budget(chosen.minutes, elapsed_s=training.elapsed_s)
    training.run(batches, budget, 60.0 * settings.checkpoint_minutes, checkpoint)


def export(work: Path, settings: TrainingSettings, bundle: Path) -> None:
    """Write the bundle from the newest checkpoints."""
    statistics = json.loads((work / "statistics.json").read_text())
    denoiser = DenoiserTraining(settings.denoiser, len(statistics["mean"]), settings.seed)
    denoiser.load(work / "denoiser.pt")
    figures = json.loads((work / "autoencoder" / "figures.json").read_text())
    figures |= {
        **spent(work, "autoencoder", "ae"),
        **spent(work, "decoder", "decoder"),
        "unet_steps": denoiser.step,
        "unet_minutes": denoiser.elapsed_s / 60,
        "unet_loss": denoiser.loss,
    }
    model = TrainedModel(trained_autoencoder(work, settings), denoiser.average, statistics["mean"], statistics["std"], figures)
    export_bundle(model, settings, bundle)
    print(f"exported {bundle} at step {denoiser.step}", flush=True)


def trained_autoencoder(work: Path, settings: TrainingSettings) -> AutoencoderKL:
    """Load the trained autoencoder, with its further trained decoder where there is one."""
    training = AutoencoderTraining(settings.autoencoder, settings.seed)
    further = work / "decoder.pt"
    training.load_networks(further if further.exists() else work / "autoencoder.pt")
    return training.model.eval()


def spent(work: Path, stage: str, prefix: str) -> dict[str, float]:
    """Read the steps and minutes of a stage from its checkpoint; zeros where it has not run."""
    path = work / f"{stage}.pt"
    state = load_checkpoint(path) if path.exists() else {"step": 0, "elapsed_s": 0.0}
    return {f"{prefix}_steps": state["step"], f"{prefix}_minutes": state["elapsed_s"] / 60}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = ["all", "prepare", "labels", "autoencoder", "decoder", "latents", "denoiser", "export"]
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sections, index.csv and spots.csv")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches and checkpoints")
    parser.add_argument("--bundle", type=Path, help="folder of the finished model")
    parser.add_argument("--config", type=Path, default=Path("configs/default-model.yaml"))
    parser.add_argument("--minutes-autoencoder", type=float, help="wall time of that stage, over all resumed runs")
    parser.add_argument("--minutes-denoiser", type=float, help="likewise")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --work")
    return parser.parse_args()


def with_minutes(settings: TrainingSettings, autoencoder: float | None, denoiser: float | None) -> TrainingSettings:
    """Replace the wall times that were given on the command line."""
    changes: dict[str, object] = {}
    if autoencoder is not None:
        changes["autoencoder"] = settings.autoencoder.model_copy(update={"minutes": autoencoder})
    if denoiser is not None:
        changes["denoiser"] = settings.denoiser.model_copy(update={"minutes": denoiser})
    return settings.model_copy(update=changes)


def main() -> None:
    """Run one stage, or all of them."""
    args = arguments()
    settings = with_minutes(read_settings(args.config), args.minutes_autoencoder, args.minutes_denoiser)
    torch.set_num_threads(settings.threads)
    stages: dict[str, Callable[[], None]] = {
        "prepare": lambda: prepare(args.data, args.work, settings),
        "labels": lambda: label(args.data, args.work, settings),
        "autoencoder": lambda: train_autoencoder(args.data, args.work, settings, args.resume),
        "decoder": lambda: train_autoencoder(args.data, args.work, settings, args.resume, decoder_only=True),
        "latents": lambda: encode_sections(args.data, args.work, settings),
        "denoiser": lambda: train_denoiser(args.work, settings, args.resume, args.bundle),
        "export": lambda: export(args.work, settings, args.bundle),
    }
    if args.bundle is None and args.stage in ("all", "export"):
        raise SystemExit(f"Stage {args.stage!r} writes a model: say where with --bundle DIR.")
    for name, run in stages.items():
        # The further decoder gains 0.4 dB on real images but, after ten minutes, drew rings on sampled ones.
        if args.stage == name or (args.stage == "all" and name != "decoder"):
            run()


if __name__ == "__main__":
    main()
