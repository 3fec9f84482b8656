"""``wsigen models``, ``wsigen models card`` and ``wsigen models import``."""

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


def import_(
    kind: Annotated[Literal["zoomldm"], typer.Argument(metavar="zoomldm", help="whose release", show_default=False)],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="weights.ckpt as it was released", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the bundle", show_default=False)],
    name: Annotated[str | None, typer.Option("--name", help="by default zoomldm-brca or zoomldm-naip")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="of the weights, as their page says")] = None,
    tokens: Annotated[
        Path | None, typer.Option("--tokens", metavar="FILE", help="the released model that draws tokens, for tiles")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="take the place of a bundle that is there; another folder is left alone")
    ] = False,
) -> None:
    """Turn released weights of another project into a model that wsigen can use."""
    from wsigen.models.zoomldm import import_zoomldm

    card, notes = import_zoomldm(file, out, name, licence, tokens, overwrite)
    print(f"{'model:':15}{out}")
    print(f"{'title:':15}{card.title}")
    print(f"{'levels:':15}{', '.join(f'{level.name} {level.mpp:g} um/px' for level in card.levels)}")
    print(f"{'licence:':15}{card.licence}")
    for line in notes:
        print(f"{'note:':15}{line}")
    print(f"{'next:':15}wsigen generate OUT.ome.tiff --model {out} --reference SLIDE")


def tiles(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a bundle that draws tokens", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the tiles, *.png", show_default=False)],
    level: Annotated[str | None, typer.Option("--level", help="a magnification of the model; by default the finest")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="of tiles")] = 16,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the first tile; the others follow")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=1000, help="of each tile; by default the model's")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", min=0, max=50, help="strength w; by default the model's")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Draw single tiles of a magnification, without a reference, by a model that draws tokens (ZoomLDM's)."""
    from wsigen.models.tiles import write_tiles

    files = write_tiles(model, out, level, count, seed, steps, guidance, device)
    print(f"{'tiles:':15}{len(files)} in {out}; synthetic, not a patient's tissue")
