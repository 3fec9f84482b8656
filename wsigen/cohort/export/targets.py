"""Where tiles go: files in folders by split, or shards of samples for WebDataset. What is there already is not made again."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from wsigen.base.errors import OutputError, refusing
from wsigen.cohort.export.pictures import Kind, encode_mask, encode_tile
from wsigen.cohort.export.tiles import CutSlide, Tile
from wsigen.storage.files import atomic_path, write_atomic

Value = str | int | float

SHARD_TILES = 1000
"""Tiles of a shard: some hundred MB, as WebDataset's makers advise."""


class Target(Protocol):
    """What takes tiles, one slide after another."""

    def put(self, slide: CutSlide, tile: Tile) -> dict[str, Value]:
        """Take a tile; returns the columns of the index that say where it is."""

    def close(self) -> None:
        """Write what is left."""


class Folders:
    """``SPLIT/images/NAME.jpg`` and ``SPLIT/masks/NAME.png``: every file whole or not there."""

    def __init__(self, root: Path, kind: Kind, masks: bool) -> None:
        self._root, self._kind, self._masks = root, kind, masks

    def put(self, slide: CutSlide, tile: Tile) -> dict[str, Value]:
        """Write a tile, and its mask, unless they are there."""
        split = slide.row["split"]
        where: dict[str, Value] = {"image": f"{split}/images/{tile.name}.{self._kind}"}
        self._write(str(where["image"]), lambda: encode_tile(slide.pixels(tile), self._kind))
        if self._masks:
            where["mask"] = f"{split}/masks/{tile.name}.png"
            self._write(str(where["mask"]), lambda: encode_mask(slide.mask(tile), slide.table))
        return where

    def close(self) -> None:
        """Nothing is left."""

    def _write(self, name: str, content: Callable[[], bytes]) -> None:
        path = self._root / name
        if path.is_file():
            return
        with refusing(OutputError, f"{path}: cannot be written", "make room, then the same command goes on"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content(), "contents")


class Shards:
    """``SPLIT-000000.tar``: plain tar files of so many samples, each NAME.jpg, NAME.mask.png and NAME.json.

    A shard is whole or not there; one that holds the names that it should is not made again. The bytes depend on the cohort
    alone: no times, no owners.

    Memory bound: the places of the tiles of one shard for each split, and one encoded tile.
    """

    def __init__(self, root: Path, kind: Kind, masks: bool) -> None:
        self._root, self._kind, self._masks = root, kind, masks
        self._waiting: dict[str, list[tuple[CutSlide, Tile]]] = {}
        self._written: dict[str, int] = {}

    def put(self, slide: CutSlide, tile: Tile) -> dict[str, Value]:
        """Take a tile; a shard that is full is written."""
        split = slide.row["split"]
        waiting = self._waiting.setdefault(split, [])
        waiting.append((slide, tile))
        name = self._name(split)
        if len(waiting) == SHARD_TILES:
            self._write(split)
        return {"shard": name, "key": tile.name}

    def close(self) -> None:
        """Write the last shard of each split."""
        for split, waiting in self._waiting.items():
            if waiting:
                self._write(split)

    def _name(self, split: str) -> str:
        return f"{split}-{self._written.get(split, 0):06d}.tar"

    def _write(self, split: str) -> None:
        path, samples = self._root / self._name(split), self._waiting[split]
        if not _holds(path, [name for slide, tile in samples for name in self._names(tile)]):
            with refusing(OutputError, f"{path}: cannot be written", "make room, then the same command goes on"):
                self._fill(path, samples)
        self._written[split] = self._written.get(split, 0) + 1
        self._waiting[split] = []

    def _fill(self, path: Path, samples: list[tuple[CutSlide, Tile]]) -> None:
        with atomic_path(path) as beside, tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as tar:
            for slide, tile in samples:
                for name, content in zip(self._names(tile), self._contents(slide, tile), strict=True):
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o644
                    tar.addfile(entry, io.BytesIO(content))

    def _names(self, tile: Tile) -> list[str]:
        """Names without a dot before their suffixes: WebDataset's key ends at the first one."""
        return [f"{tile.name}.{end}" for end in (self._kind, *(["mask.png"] if self._masks else []), "json")]

    def _contents(self, slide: CutSlide, tile: Tile) -> Iterator[bytes]:
        yield encode_tile(slide.pixels(tile), self._kind)
        if self._masks:
            yield encode_mask(slide.mask(tile), slide.table)
        yield json.dumps({"synthetic": True, "classes": slide.table.names, **about(slide, tile)}, ensure_ascii=False).encode()


def about(slide: CutSlide, tile: Tile) -> dict[str, Value]:
    """What the index says of a tile besides where it is."""
    return {
        "slide": slide.row["id"],
        "split": slide.row["split"],
        "subtype": slide.row["subtype"],
        "group": slide.row["group"],
        "x": tile.x,
        "y": tile.y,
        "um_per_px": slide.mpp,
        "tissue": round(tile.tissue, 4),
        **{f"share_{name}": round(share, 4) for name, share in tile.shares.items()},
    }


def _holds(path: Path, names: list[str]) -> bool:
    """Whether a tar file is there and holds just these names."""
    try:
        with tarfile.open(path) as tar:
            return tar.getnames() == names
    except (OSError, tarfile.TarError):
        return False
