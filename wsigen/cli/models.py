"""``wsigen models`` and ``wsigen models card``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsigen.base.errors import ConfigError

Kind = Literal["class-map", "class-tokens", "text", "none"]


def models() -> None:
    """List the models known here: classes, um/px, subtypes of layouts."""
    from wsigen.models.listing import list_models

    found = list_models()
    if not found:
        raise ConfigError("no model is embedded in this installation: give one with --model DIR or --model HUB_ID")
    print("\n".join(map(str, found)))


def card(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a model that diffusers saved", show_default=False)],
    classes: Annotated[str | None, typer.Option("--classes", metavar="NAME,NAME", help="in the model's order")] = None,
    background: Annotated[
        str | None, typer.Option("--background", metavar="NAME", help="which is bare glass; by default Glass or Background")
    ] = None,
    mpp: Annotated[
        list[float] | None, typer.Option("--mpp", min=0.01, max=100, help="um/px; once a level, from fine to coarse")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="of the weights")] = None,
    name: Annotated[str | None, typer.Option("--name", help="by default that of the folder")] = None,
    title: Annotated[str | None, typer.Option("--title", help="what it is, in one line")] = None,
    not_for: Annotated[str | None, typer.Option("--not-for", help="what it must not be used for")] = None,
    conditioning: Annotated[
        Kind | None, typer.Option("--conditioning", help="how it is told classes; by default what its configs suggest")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="for models of text, such as '{class}, {level}'")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write a card that exists anew")] = False,
) -> None:
    """Write wsigen.yaml for a diffusers folder, and check that the model can be used."""
    from wsigen.models.card import CARD_NAME
    from wsigen.models.write_card import CardWishes, write_card

    names = tuple(part.strip() for part in (classes or "").split(",") if part.strip())
    wishes = CardWishes(names, background, tuple(mpp or ()), conditioning, prompt, name, title, licence, not_for)
    made, unknown = write_card(folder, wishes, overwrite)
    print(f"{'card:':15}{folder / CARD_NAME}")
    print(f"{'conditioning:':15}{made.conditioning.kind}")
    print(f"{'classes:':15}{', '.join(f'{c.name} (background)' if c.background else c.name for c in made.classes)}")
    print(f"{'levels:':15}{', '.join(f'{v.name} {v.mpp} um/px' if v.mpp else f'{v.name}, um/px unknown' for v in made.levels)}")
    for line in unknown:
        print(f"{'not known:':15}{line}")
    tissue = next((c.name for c in made.classes if not c.background), made.classes[0].name)
    more = "" if made.levels[0].mpp else " --mpp 0.5"
    print(f"{'next:':15}wsigen generate OUT.ome.tiff --model {folder} --class {tissue!r} --size 2048x2048{more}")
