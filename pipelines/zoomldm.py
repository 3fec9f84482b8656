"""ZoomLDM (CVPR 2025) end to end: data, training at many magnifications, a slide compressed and decompressed, tiles.

    python -m pipelines.zoomldm configs/zoomldm-small.yaml --data DIR --out OUT [--resume] [--skip-bad]

1. Patches of slides at every magnification, and a grid of each slide by an encoder, once.
2. An autoencoder, and one denoiser of all magnifications that is told the cells under its crop through a summariser, trained
   with it. A crop's magnification is drawn first, so that patches of coarse ones are seen far oftener: ``seen.md`` says how
   often.
3. The network that draws tokens, and tiles of every magnification from them.
4. Slides that training never saw: compressed to grids, drawn again through all magnifications, and compared.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import wsigen
from pipelines.steps import PipelineSettings, open_data, read_arguments, read_pipeline, train_models, train_tokens
from wsigen.base.errors import ConfigError
from wsigen.dataset.dataset import Dataset
from wsigen.models.card import read_card
from wsigen.models.tiles import write_tiles
from wsigen.training.recipes import LoopSettings

TILES = 4
"""Tiles of each magnification."""


def main() -> None:
    """Run all steps; each leaves its result in a folder of OUT."""
    args = read_arguments(str(__doc__))
    plan = read_pipeline(args.config)
    run(plan, open_data(plan, args.data, args.out, args.skip_bad), args.out, resume=args.resume)


def run(plan: PipelineSettings, dataset: Dataset, out: Path, *, resume: bool) -> None:
    """The steps after the data."""
    seen = often_seen(plan, dataset)
    (out / "seen.md").write_text("\n".join(seen) + "\n", encoding="utf-8")
    print("\n".join(seen), flush=True)
    bundle = train_models(plan, dataset, out, resume=resume)
    if plan.tokens is not None:
        bundle = train_tokens(plan, dataset, out, bundle, resume=resume)
        for level in dataset.levels:
            write_tiles(bundle, out / "tiles", level.name, TILES)
        print("tiles:", out / "tiles", flush=True)
    decompress_slides(plan, dataset, bundle, out)


def often_seen(plan: PipelineSettings, dataset: Dataset) -> list[str]:
    """How often training sees each patch of a magnification, in the mean, as a table."""
    loop, patches = LoopSettings.model_validate(plan.denoiser.get("loop", {})), dataset.split_patches("training")
    counts = [int((patches.level == level).sum()) for level in range(len(dataset.levels))]
    shares = plan.denoiser.get("level_shares") or [count > 0 for count in counts]
    lines = ["| magnification | um/px | patches | each is seen |", "|---|---|---|---|"]
    for level, mpp, count, share in zip(dataset.levels, dataset.mpps, counts, shares, strict=True):
        times = loop.steps * loop.batch * share / sum(shares) / max(1, count)
        lines.append(f"| {level.name} | {mpp:g} | {count:,} | {times:.3g} times |")
    return lines


def decompress_slides(plan: PipelineSettings, dataset: Dataset, bundle: Path, out: Path) -> None:
    """Compress each held-out slide, draw it again, or a region of it, and write what is left into ``out/decompressed``."""
    told = read_card(bundle).grid
    if told is None:
        raise ConfigError(f"{bundle}: follows no grids; give 'grid:' in the denoiser's recipe")
    (folder := out / "decompressed").mkdir(exist_ok=True)
    for member in dataset.held_out:
        grid, slide = folder / f"{member.path.stem}.wsz", folder / f"{member.path.stem}.ome.tiff"
        if not grid.exists():
            image = replace(member.reference, mpp=member.mpp)
            wsigen.compress(image, grid, encoder=told.encoder, cell_um=told.cell_um, encoder_mpp=told.encoder_mpp)
        made: dict[str, Any] = {"model": str(bundle), "overwrite": True, **plan.slides.settings}
        _, found = wsigen.decompress(grid, slide, original=member.path, report=folder / member.path.stem, **made)
        print(f"{slide}: synthetic, not {member.name}'s tissue", *found.lines(), sep="\n", flush=True)


if __name__ == "__main__":
    main()
