"""The embedded default model, from the HER2-ST sections (Andersson et al. 2021, CC BY 4.0) to a bundle.

    python -m pipelines.default_model configs/default-model.yaml --data DIR --out OUT [--resume]

1. Sections are read and resampled, their lilac glass with its printed spots is painted clean, and weak class maps are made
   of the spots' labels: OUT/slides, tiled TIFFs with QuPath annotations, like any other dataset.
2. An autoencoder, a denoiser conditioned on class maps, magnification and a grid of mean colours, and the network that draws
   such grids, by the code of ``wsigen train``; section C3 is held out, by all.
3. The autoencoder's figures on C3, and the bundle with its card: OUT/grid/bundle.
"""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.her2st.labels import (
    dense_labels,
    fit_classifier,
    opacity_map,
    paint_spots,
    picture,
    section_features,
    spot_labels,
    weed_and_add,
    write_section,
)
from pipelines.her2st.sections import GLASS_RGB, prepare_section, read_index
from pipelines.steps import open_data, read_arguments, read_pipeline, train_grids, train_models
from wsigen.models.card import read_card

CARD = Path(__file__).parent / "her2st" / "card.md"


def main() -> None:
    """Run all steps; each leaves its result in a folder of OUT, and what is finished is not done again."""
    args = read_arguments(str(__doc__))
    plan = read_pipeline(args.config)
    slides = args.out / "slides"
    if not (slides / "done").exists():
        write_slides(args.data, slides)
    dataset = open_data(plan, slides, args.out, args.skip_bad)
    bundle = train_models(plan, dataset, args.out, resume=args.resume)
    bundle = train_grids(plan, dataset, args.out, bundle, resume=args.resume, skip_bad=args.skip_bad)
    write_card(bundle, args.out)


def write_slides(data: Path, folder: Path) -> None:
    """Clean and label every section; one classifier learns from the spots of all."""
    sections = [prepare_section(source) for source in read_index(data)]
    features = [section_features(section, GLASS_RGB) for section in sections]
    seeds = [
        weed_and_add(paint_spots(section, spot_labels(data, section.name)), values, section.tissue)
        for section, values in zip(sections, features, strict=True)
    ]
    classifier = fit_classifier(features, seeds)
    for section, values in zip(sections, features, strict=True):
        labels = dense_labels(section, values, opacity_map(section.rgb), classifier)
        write_section(section, labels, folder)
        picture(section.rgb, labels).save(folder / f"{section.name}.png")
        print("prepared", section.name, flush=True)
    (folder / "done").touch()


def write_card(bundle: Path, out: Path) -> None:
    """Put the model's own card in place of the general one: what it learned from, what it is not for, its figures."""
    card, figures = read_card(bundle), json.loads((out / "autoencoder" / "figures.json").read_text(encoding="utf-8"))
    data = (f"{d.name}. {d.attribution}. Images from <{d.url}>, licence {d.licence}." for d in card.training_data)
    text = CARD.read_text(encoding="utf-8").format(
        name=card.name,
        data=" ".join(data),
        mpps=" and ".join(f"{level.mpp:g}" for level in card.levels),
        classes=", ".join(c.name for c in card.classes),
        channels=card.latent.channels,
        grid_mpps=", ".join(f"{level.mpp:g}" for level in card.drawing.levels) if card.drawing else "no",
        guidance=card.guidance,
        **figures,
    )
    (bundle / "README.md").write_text(text, encoding="utf-8")
    print("bundle:", bundle)


if __name__ == "__main__":
    main()
