"""``wsigen info``: what a file is and how it would be read, or how far a run is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="a slide or picture, a TIFF's URL, or a run", show_default=False)],
    picture: Annotated[
        Path | None,
        typer.Option(
            "--thumbnail", "--picture", help="PNG to write: thumbnail of a slide, timestep map of a run (RUN_DIR/timesteps.png)"
        ),
    ] = None,
) -> None:
    """Say what a slide is and how it is read (size, um/px, levels, warnings), or show the progress of a run."""
    if _is_run(what):
        from wsigen.run.inspect import inspect

        print(inspect(what, picture))
        return
    from wsigen.slide.reading import open_image, slide_info
    from wsigen.slide.sidecars import write_thumbnail

    print("\n".join(slide_info(what).lines()))
    open_image(what)  # refuses what is truncated or too small
    if picture is not None:
        write_thumbnail(what, picture)
        print(f"thumbnail:    {picture}")


def _is_run(what: str) -> bool:
    """Whether it is a folder, or a URL that is not of a TIFF."""
    return not what.casefold().endswith((".tif", ".tiff", ".btf")) if "://" in what else Path(what).is_dir()
