"""``wsigen info``: what a file is and how it would be read, what a grid holds, or how far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="slide, DICOM folder, picture, URL, grid (*.wsz, *.h5) or run", show_default=False),
    ],
    picture: Annotated[
        Path | None,
        typer.Option("--thumbnail", "--picture", help="PNG or JPEG to write: a slide, or a run so far beside its timestep map"),
    ] = None,
) -> None:
    """Say what a slide is and how it is read (size, um/px, levels, warnings), or show the progress of a run."""
    if _is_run(what):
        from wsigen.run.inspect import inspect

        print(inspect(what, picture))
        return
    from wsigen.grids.opening import SUFFIXES, open_grid

    if what.casefold().endswith(SUFFIXES):
        from wsigen.grids.picture import describe_grid, grid_picture
        from wsigen.slide.sidecars import write_picture

        print("\n".join(describe_grid(Path(what))))
        if picture is not None:
            write_picture(picture, grid_picture(open_grid(Path(what))))
            print(f"picture:      {picture}")
        return
    from wsigen.slide.reading import open_image, slide_info
    from wsigen.slide.sidecars import write_thumbnail

    print("\n".join(slide_info(what).lines()))
    open_image(what)  # refuses what is truncated or too small
    if picture is not None:
        write_thumbnail(what, picture)
        print(f"thumbnail:    {picture}")


def _is_run(what: str) -> bool:
    """Whether it is a folder without DICOM files, or a URL that is not of a TIFF."""
    if "://" in what:
        return not what.casefold().endswith((".tif", ".tiff", ".btf"))
    from wsigen.slide.dicom import dicom_files

    return Path(what).is_dir() and not dicom_files(Path(what))
