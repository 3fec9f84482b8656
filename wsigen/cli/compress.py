"""``wsigen compress``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from wsigen.base.errors import GridError


def compress(
    slide: Annotated[
        Path, typer.Argument(metavar="SLIDE", help="slide, image, or features by TRIDENT or CLAM (*.h5)", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT.wsz", help="the grid", show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="mean-colour, or one of 'wsigen evaluate --features': imagenet, timm:NAME[@FILE], transformers:NAME ...",
            show_default="mean-colour",
        ),
    ] = None,
    cell_um: Annotated[
        float | None, typer.Option("--cell-um", min=0.1, help="side of a cell, um", show_default="5.6, or an encoder's tile")
    ] = None,
    encoder_mpp: Annotated[
        float | None, typer.Option("--encoder-mpp", min=0.01, help="um/px the encoder sees", show_default="0.5 or by the cell")
    ] = None,
    mpp: Annotated[float | None, typer.Option("--mpp", min=0.001, help="um/px of an image that does not say its own")] = None,
    device: Annotated[str, typer.Option("--device", help="where the encoder runs")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing grid")] = False,
) -> None:
    """Compress a slide to a grid: mean colours, or what an encoder makes of each place; 'wsigen generate --grid' follows it."""
    from wsigen.grids.compress import compress
    from wsigen.grids.opening import open_grid
    from wsigen.grids.wsz import SUFFIX

    if output.suffix != SUFFIX:
        raise GridError(f"{output}: the name of a grid ends in {SUFFIX}")
    if output.exists() and not overwrite:
        raise GridError(f"{output}: exists already; add --overwrite to replace it or choose another name")
    if not output.absolute().parent.is_dir():
        raise GridError(f"{output.absolute().parent}: no such folder; make it first")

    def watch(done: int, bands: int) -> None:
        if bands > 1:
            print(f"compress: {100 * done // bands} %", file=sys.stderr, flush=True)

    about = compress(
        slide, output, encoder=encoder, cell_um=cell_um, encoder_mpp=encoder_mpp, mpp=mpp, device=device, watch=watch
    )
    count = math.prod(open_grid(output).known.shape)
    print(f"{'grid:':15}{output}")
    print(f"{'encoder:':15}{about.encoder}")
    print(f"{'cells:':15}{count:,} of {about.cell_um:g} um, {output.stat().st_size / 2**20:.1f} MiB")
    print(f"{'next:':15}wsigen generate OUT.ome.tiff --grid {output} --layout FILE")
