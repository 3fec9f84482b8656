"""``wsigen cohort export``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsigen.cli.cohort import Folder

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="folder of what is written", show_default=False)]

EXAMPLES = (
    "wsigen cohort export cohort --tiles 512 --masks",
    "wsigen cohort export cohort --tiles 256 --mpp 1 --to webdataset --masks --out shards",
)


def export(
    folder: Folder,
    out: Out = None,
    tiles: Annotated[int, typer.Option("--tiles", metavar="PX", help="side of a tile")] = 512,
    mpp: Annotated[float | None, typer.Option("--mpp", help="um/px of the tiles; by default that of the slides")] = None,
    to: Annotated[
        Literal["folder", "webdataset"], typer.Option("--to", help="files by split, or tar files of samples")
    ] = "folder",
    masks: Annotated[bool, typer.Option("--masks", help="also the class of every pixel, as PNG")] = False,
    min_tissue: Annotated[float, typer.Option("--min-tissue", metavar="SHARE", help="leave out tiles with less tissue")] = 0.1,
    image: Annotated[Literal["jpg", "png"], typer.Option("--image", help="form of the tiles")] = "jpg",
) -> None:
    """Cut a cohort's slides into tiles for training; the same command again goes on."""
    from wsigen.cohort.export.export import export_cohort

    made = export_cohort(
        folder, out, tiles=tiles, mpp=mpp, to=to, masks=masks, min_tissue=min_tissue, image=image, watch=_watch
    )
    for name in made.without:
        print(f"note: {name}: no tile of {tiles} px has enough tissue", file=sys.stderr)
    counts = ", ".join(f"{split} {count}" for split, count in made.tiles.items())
    print(f"{'tiles:':15}{sum(made.tiles.values())} ({counts})")
    print(f"{'folder:':15}{made.folder}")
    print(f"{'index:':15}{made.folder / 'tiles.csv'}")
    if (data := made.folder / "dataset.yaml").is_file():
        print(f"{'next:':15}wsigen train data {shlex.quote(str(data))}")


def _watch(done: int, total: int) -> None:
    """A line that grows on a terminal."""
    if sys.stderr.isatty():
        print(f"\rslides {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
