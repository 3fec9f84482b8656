"""``wsigen cohort export`` and ``sign``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsigen.base.errors import ConfigError
from wsigen.cli.cohort import Folder

Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="folder of what is written", show_default=False)]

EXAMPLES = (
    "wsigen cohort export cohort --tiles 512 --masks",
    "wsigen cohort export cohort --tiles 256 --mpp 1 --to webdataset --masks --out shards",
    "wsigen cohort export cohort --dicom",
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
    dicom: Annotated[bool, typer.Option("--dicom", help="no tiles: slides as whole-slide DICOM")] = False,
    ome_zarr: Annotated[bool, typer.Option("--ome-zarr", help="no tiles: slides as OME-Zarr 0.5")] = False,
) -> None:
    """Cut a cohort's slides into tiles for training, or write them in another format; the same command again goes on."""
    if dicom or ome_zarr:
        _export_slides(folder, out, dicom, ome_zarr)
        return
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


def sign(
    folder: Folder,
    certificate: Annotated[
        Path, typer.Option("--certificate", metavar="PEM", help="the signer's certificate, then its issuers")
    ],
    key: Annotated[Path, typer.Option("--key", metavar="PEM", help="its private key")],
) -> None:
    """Sign a cohort's slides: a detached C2PA manifest beside each."""
    from wsigen.cohort.sign import sign_cohort

    print(f"{'signed:':15}{len(sign_cohort(folder, certificate, key, watch=_watch))} slides, slides/ID.c2pa")


def _export_slides(folder: Path, out: Path | None, dicom: bool, ome_zarr: bool) -> None:
    from wsigen.cohort.export.slides import export_cohort_slides

    if dicom and ome_zarr:
        raise ConfigError("--dicom and --ome-zarr exclude each other: give one after the other")
    written = export_cohort_slides(folder, "dicom" if dicom else "ome-zarr", out, watch=_watch)
    print(f"{'slides:':15}{len(written)}")
    print(f"{'folder:':15}{next(iter(written.values())).parent}")


def _watch(done: int, total: int) -> None:
    """A line that grows on a terminal."""
    if sys.stderr.isatty():
        print(f"\rslides {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
