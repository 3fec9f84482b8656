"""Which settings exclude or need each other (ValueError)."""

from __future__ import annotations

from typing import Any

Settings = Any
"""A `RunConfig`, which is made with these checks."""

SAMPLE = "sample"
"""The word that stands for a layout to be drawn."""


def check_layout(config: Settings) -> None:
    """Of the layout's file, and what else says how large the slide is."""
    if config.layout and config.class_name:
        raise ValueError("'layout' and 'class' exclude each other: give a drawing or one class for the whole slide")
    if config.grid and config.reference:
        raise ValueError("'grid' and 'reference' exclude each other: a reference is followed by its own grid")
    if config.region and (config.size or not config.grid):
        raise ValueError("'region' is a part of a grid's slide and its size: give --grid FILE, and leave --size out")
    if not (config.layout or config.size or config.reference or config.grid):
        raise ValueError("the slide's size is not known: give --size WIDTHxHEIGHT, --layout FILE or --reference FILE")
    if config.layout_classes and not config.layout_file:
        raise ValueError("'layout_classes' names the values of a label raster: give the raster with --layout")
    if config.layout_names and not (config.layout_file or config.regions):
        raise ValueError("'layout_names' renames classes of a layout's file: give the file with --layout")
    if config.drawn and not config.layout_file:
        raise ValueError("'drawn' writes the polygons of a layout's file: give the file with --layout")
    if config.nuclei and not config.layout_file:
        raise ValueError("'nuclei' is the class of nuclei in a layout's file: give the file with --layout")
    if config.layout_mpp and not config.layout_file:
        raise ValueError("'layout_mpp' is the um/px a layout was drawn at: give the layout with --layout")


def check_sampled_layout(config: Settings) -> None:
    """Of a layout that is drawn."""
    if not config.sampled:
        for name in [name for name in ("subtype", "subtypes", "mask_model") if getattr(config, name)]:
            raise ValueError(f"'{name}' belongs to a layout that is drawn: add --layout {SAMPLE}, or leave it out")
        return
    if config.subtype is None:
        raise ValueError(f"'layout: {SAMPLE}' draws a layout of a subtype: give --subtype NAME (wsigen models lists them)")
    if config.subtypes and config.mask_model:
        raise ValueError("'subtypes' and 'mask_model' exclude each other: a mask model knows its own subtypes")
    if config.size is None and config.reference is None and config.grid is None:
        raise ValueError(f"'layout: {SAMPLE}' has no size of its own: give --size WIDTHxHEIGHT")


def check_sampling(config: Settings) -> None:
    """Of solvers and modes."""
    if config.eta and config.sampler not in (None, "ddim"):
        raise ValueError(f"'eta' adds noise, which sampler {config.sampler} does not know: use sampler ddim or eta 0")
    if config.weighted_last and config.mode != "random-patch":
        raise ValueError(f"'weighted_last' belongs to mode random-patch; mode {config.mode} weights every step")


def check_extension(config: Settings) -> None:
    """Of a slide that is continued."""
    if config.extend is None:
        for name in [name for name in ("at", "extend_mpp", "resample", "regions") if getattr(config, name)]:
            raise ValueError(f"'{name}' says something of a slide that is continued: give it with --extend SLIDE")
        return
    for name in [name for name in ("reference", "grid", "stain") if getattr(config, name)]:
        raise ValueError(f"'extend' and '{name}' exclude each other: a slide that is continued is followed as it is")
    if config.size is None:
        raise ValueError("'extend' needs the new slide's size: give --size WIDTHxHEIGHT")


CHECKS = (check_layout, check_sampled_layout, check_sampling, check_extension)
