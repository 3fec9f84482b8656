"""The slide that is made again and again: its model, its layout, the commands that make it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bundles import make_bundle, write_squares


@dataclass(frozen=True)
class Subject:
    """A slide by its settings.

    Attributes
    ----------
    bundle, layout:
        Model and drawing.
    settings:
        Options of ``wsigen generate``.
    """

    bundle: Path
    layout: Path
    settings: dict[str, Any]

    def command(self, output: Path, *more: str) -> list[str]:
        """Arguments of ``wsigen generate``."""
        options = [part for key, value in self.settings.items() for part in (f"--{key}", str(value))]
        return ["generate", str(output), "--model", str(self.bundle), "--layout", str(self.layout), *options, *more]


@dataclass(frozen=True)
class Place:
    """Where one making of the slide puts its files."""

    output: Path
    run_dir: Path

    def beside(self, suffix: str) -> Path:
        """A file beside the slide."""
        return self.output.with_name(self.output.name.removesuffix(".ome.tiff") + suffix)

    def digest(self) -> str:
        """SHA-256 of level 0, as the slide's manifest has it."""
        return str(json.loads(self.beside(".json").read_text())["sha256"]["level0_tiles"])


def make_subject(folder: Path, size: int, steps: int, bundle: Path | None = None) -> Subject:
    """Two passes, a sampler with a memory, tissue of two classes, and glass: every kind of key is in the store.

    Parameters
    ----------
    size:
        Side of the slide, px.
    steps:
        Denoising steps; with chunks of 16 latent px their number decides how many tasks there are.
    bundle:
        A bundle with two levels; a tiny random one is made by default.
    """
    bundle = bundle or make_bundle(folder / "bundle", (8, 16), 8, crop=16, levels=2)
    share = size // 8
    squares = [("Stroma", share, share, 5 * share), ("Tumor", 2 * share, 2 * share, 2 * share)]
    layout = write_squares(folder / "layout.geojson", squares)
    settings = {"size": f"{size}x{size}", "steps": steps, "chunk": 16, "levels": 2, "sampler": "dpm++", "seed": 11}
    return Subject(bundle, layout, {**settings, "strength": 0.9})
