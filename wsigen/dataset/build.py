"""Go through the images of a dataset: open, find tissue and labels, lay out the patches, check what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from wsigen.base.classes import UNKNOWN
from wsigen.base.errors import DatasetError, ReferenceImageError
from wsigen.dataset.discovery import Found, class_index
from wsigen.dataset.groups import TRAINING
from wsigen.dataset.index import Index
from wsigen.dataset.labels import Labels, PointLabels, PolygonLabels, WholeLabel
from wsigen.dataset.members import Member
from wsigen.dataset.opening import Opened, open_image
from wsigen.dataset.patches import Patches, lattice, thin
from wsigen.dataset.point_tables import read_points
from wsigen.dataset.settings import AnnotatedSource, DatasetSettings, PointSource, TileSource
from wsigen.dataset.tissue import Mask, find_tissue
from wsigen.slide.reference import Reference

Watch = Callable[[int, int, str], None]
"""Called with (images done, images in all, name)."""


def label_images(settings: DatasetSettings, found: Sequence[Found]) -> tuple[dict[str, Labels], list[str]]:
    """Return the labels of every image, and notes; point radii are still as the source says them (see `in_px`).

    Raises
    ------
    DatasetError
        If a table, an annotation file or a class's name is wrong.
    """
    labels: dict[str, Labels] = {}
    notes: list[str] = []
    for position, source in enumerate(settings.sources):
        mine = [f for f in found if f.source == position]
        if isinstance(source, PointSource):
            others = [f.name for f in found if f.source != position]
            points, more = read_points(settings, source, [f.name for f in mine], others)
            labels |= points
            notes += more
            continue
        for f in mine:
            if isinstance(source, AnnotatedSource):
                labels[f.name] = _polygons(settings, source, f)
            else:
                labels[f.name] = WholeLabel(UNKNOWN if f.class_index is None else f.class_index)
    return labels, notes


def _polygons(settings: DatasetSettings, source: AnnotatedSource, found: Found) -> PolygonLabels:
    folder = found.path.parent if source.annotations is None else settings.root / source.annotations
    stem = found.path.stem
    names = [f"{s}{e}" for s in (stem, stem.removesuffix(".ome")) for e in (".geojson", ".geojson.gz", ".json")]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise DatasetError(f"{found.name}: no {folder / names[0]}; export its annotations there, or list it as unlabelled")
    background = UNKNOWN
    if source.background is not None:
        background = class_index(settings, source.background, f"source {found.source}: background")
    return PolygonLabels(path, settings.table, background, source.names)


def in_px(labels: Labels, settings: DatasetSettings, source: int, mpp: float) -> Labels:
    """Turn a radius in um into px of the image."""
    s = settings.sources[source]
    if isinstance(labels, PointLabels) and isinstance(s, PointSource) and s.radius_um is not None:
        return replace(labels, radius=s.radius_um / mpp)
    return labels


def make_member(
    settings: DatasetSettings,
    found: Found,
    opened: Opened,
    labels: Labels,
    mask: Mask | None,
    group: str,
    subtype: str | None,
) -> Member:
    """Put together what is known about an image."""
    o, source = opened, settings.sources[found.source]
    scaled = in_px(labels, settings, found.source, o.mpp)
    glass = settings.table.background if not isinstance(source, TileSource) and source.glass else None
    about = (found.name, found.path, source.kind, o.height, o.width, o.mpp, group, subtype, o.pixels)
    return Member(*about, scaled, mask, glass)


def build_index(
    settings: DatasetSettings,
    found: Sequence[Found],
    labels: Mapping[str, Labels],
    groups: Mapping[str, str],
    held_out: frozenset[str],
    cache: Path,
    skip_bad: bool,
    watch: Watch | None = None,
) -> Index:
    """Go through the images, one in memory at a time.

    Raises
    ------
    DatasetError
        If an image cannot be opened (unless ``skip_bad``), a label lies outside of it, or a class has no patches.
    """
    kept, opened, masks, skipped = _open_all(settings, found, cache, skip_bad, watch)
    parts: list[Patches] = []
    count = len(settings.classes)
    areas = np.zeros((len(kept), len(settings.levels), count + 1), np.int64)
    for i, (f, o) in enumerate(zip(kept, opened, strict=True)):
        member = make_member(settings, f, o, labels[f.name], masks[i], groups[f.name], None)
        for k, level in enumerate(settings.levels):
            assert level.mpp is not None
            if settings.too_coarse(o.mpp, level):
                continue
            sides = (settings.patch_px, settings.overlap_px)
            part, areas[i, k] = lattice(member, i, k, level.mpp, *sides, settings.min_tissue, count)
            parts.append(part)
    names = [f.name for f in kept]
    side = np.array([groups[n] in held_out for n in names], np.int64)
    every = Patches.join(parts, count)
    coarse = sum(all(settings.too_coarse(o.mpp, level) for level in settings.levels) for o in opened)
    cause = f"; {coarse} of {len(opened)} images would be enlarged beyond most_upsampling" if coarse else ""
    _check_classes(settings, kept, labels, areas, every, side, cause)
    patches = thin(every, names, side, settings.seed, settings.most_per_class, settings.most_unlabelled)
    return Index(names, opened, masks, skipped, patches, areas)


def _open_all(
    settings: DatasetSettings, found: Sequence[Found], cache: Path, skip_bad: bool, watch: Watch | None
) -> tuple[list[Found], list[Opened], list[Mask | None], list[tuple[str, str]]]:
    """Open every image and find its tissue: some files open and cannot be read."""
    kept, opened, bad = [], [], []
    masks: list[Mask | None] = []
    for i, f in enumerate(found):
        if watch is not None:
            watch(i, len(found), f.name)
        source = settings.sources[f.source]
        try:
            o = open_image(f.path, f.name, source, cache)
            whole = isinstance(source, TileSource)
            masks.append(None if whole else find_tissue(Reference(o.pixels, o.height, o.width, o.mpp), o.mpp))
            opened.append(o)
            kept.append(f)
        except ReferenceImageError as error:
            bad.append((f.name, str(error)))
    if bad and (not skip_bad or not kept):
        names = ", ".join(PurePosixPath(n).name for n, _ in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise DatasetError(
            f"{len(bad)} of {len(found)} images cannot be opened ({names}); the first: {bad[0][1].split(';')[0]}; "
            "mend them, or leave them out with --skip-bad"
        )
    return kept, opened, masks, bad


def _check_classes(
    settings: DatasetSettings,
    kept: Sequence[Found],
    labels: Mapping[str, Labels],
    areas: np.ndarray,
    patches: Patches,
    side: np.ndarray,
    cause: str,
) -> None:
    """Refuse a class nobody labelled, or that has no patch to train on; ``cause`` may be why."""
    if not len(patches):
        mpp, px = settings.levels[0].mpp, settings.patch_px
        raise DatasetError(
            f"no patches: no image holds {px} x {px} px of tissue at {mpp} um/px{cause}; "
            "lower patch_px or min_tissue, or check mpp"
        )
    if not any(labels[f.name].any for f in kept):
        return  # nothing is labelled: an autoencoder's dataset
    counts = patches.counts
    training = counts[side[patches.member] == TRAINING].sum(axis=0)
    for index, c in enumerate(settings.classes):
        if training[index]:
            continue
        if counts[:, index].any():
            raise DatasetError(f"class {c.name!r} has no patches in training, only in held-out groups; hold out other groups")
        if areas[:, :, index].any() or _carried(kept, labels, index):
            px = settings.patch_px
            raise DatasetError(
                f"class {c.name!r} has no patches: its images or areas are smaller than {px} px at "
                f"{settings.levels[0].mpp} um/px or fall between cells{cause}; lower patch_px or add larger ones"
            )
        raise DatasetError(f"class {c.name!r} is in no source; remove it from 'classes' or add images that carry it")


def _carried(kept: Sequence[Found], labels: Mapping[str, Labels], index: int) -> bool:
    """Whether any image has the class, were it large enough for a patch."""
    for f in kept:
        said = labels[f.name]
        if isinstance(said, WholeLabel) and said.class_index == index:
            return True
        if isinstance(said, PointLabels) and (said.labels == index).any():
            return True
        if isinstance(said, PolygonLabels) and said.names(index):
            return True
    return False
