"""The labels of every image of a dataset: from folders of tiles, GeoJSON files, label images and CSV tables of points."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from wsigen.base.classes import UNKNOWN
from wsigen.base.csv_file import number
from wsigen.base.errors import DatasetError, LayoutError
from wsigen.dataset.groups import match_names
from wsigen.dataset.images import ImageFile
from wsigen.dataset.labels import Labels, PointLabels, PolygonLabels, WholeLabel
from wsigen.dataset.mask_labels import MaskLabels
from wsigen.dataset.settings import AnnotatedSource, DatasetSettings, MaskSource, PointSource
from wsigen.dataset.tables import ImageNames, existing, few, folder_of, keys, named_unit, read_rows
from wsigen.layout.class_names import ClassNames, Unresolved
from wsigen.layout.raster import read_class_table, value_table
from wsigen.slide.dicom import files_of, own_folder

Point = tuple[float, float, int]
"""x and y in units of the table, and the class."""

ANNOTATIONS = (".geojson", ".geojson.gz", ".geojson.zip")
"""How the name of an image's annotations ends."""

MASKS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
"""How the name of an image's mask ends."""


def label_images(settings: DatasetSettings, files: Sequence[ImageFile], cache: Path) -> tuple[dict[str, Labels], list[str]]:
    """Return the labels of every image by its name, and notes: which images a table speaks of that the dataset does not have.

    ``cache`` is the folder for copies of large masks.

    Raises
    ------
    DatasetError
        If a table, an annotation file or a class's name is wrong.
    """
    labels: dict[str, Labels] = {}
    notes: list[str] = []
    for position, source in enumerate(settings.sources):
        of_source = [f for f in files if f.source == position]
        if isinstance(source, PointSource):
            others = [f.name for f in files if f.source != position]
            points, notes_of_table = _points(settings, source, [f.name for f in of_source], others)
            labels |= points
            notes += notes_of_table
        elif isinstance(source, AnnotatedSource):
            labels |= {f.name: _polygons(settings, source, f) for f in of_source}
        elif isinstance(source, MaskSource):
            labels |= _masks(settings, source, of_source, cache / "tiled")
        else:  # tiles of one class, and images without labels
            labels |= {f.name: WholeLabel(UNKNOWN if f.class_index is None else f.class_index) for f in of_source}
    return labels, notes


def _polygons(settings: DatasetSettings, source: AnnotatedSource, file: ImageFile) -> PolygonLabels:
    folder = None if source.annotations is None else settings.root / source.annotations
    path = annotations_of(file.path, folder) or annotations_of(file.path, folder, (".json",))
    if path is None:
        expected = (folder or file.path.parent) / f"{file.path.stem}.geojson"
        raise DatasetError(f"{file.name}: no {expected}; export its annotations there, or list it as unlabelled")
    background = UNKNOWN if source.background is None else settings.table.index(source.background)
    return PolygonLabels(path, settings.table, background, source.names, source.nuclei, source.origin)


def annotations_of(slide: Path, folder: Path | None = None, suffixes: Sequence[str] = ANNOTATIONS) -> Path | None:
    """Return the GeoJSON of a slide; a DICOM slide is called as any of its files, or as the folder that it has of its own.

    Parameters
    ----------
    folder : Path, optional
        Where to look; by default beside the slide, and beside its own folder.

    Raises
    ------
    DatasetError
        If several are there.
    """
    found = [find_annotations(folder or slide.parent, file.name, suffixes) for file in files_of(slide)]
    if own := own_folder(slide):
        found.append(find_annotations(folder or own.parent, own.name, suffixes))
    paths = sorted({path for path in found if path})
    if len(paths) > 1:
        raise DatasetError(f"{', '.join(map(str, paths))} may all be the annotations of {slide}; keep one of them there")
    return paths[0] if paths else None


def find_annotations(folder: Path, image: str, suffixes: Sequence[str] = ANNOTATIONS) -> Path | None:
    """Return the GeoJSON of an image in a folder: ``IMAGE.tif.geojson``, ``IMAGE.geojson``, or one of these packed.

    Raises
    ------
    DatasetError
        If several lie there.
    """
    stem = PurePosixPath(image).stem
    names = dict.fromkeys((image, stem, stem.removesuffix(".ome")))
    found = [path for name in names for suffix in suffixes if (path := existing(folder / f"{name}{suffix}"))]
    if len(found) > 1:
        listed = ", ".join(path.name for path in found)
        raise DatasetError(f"{folder}: {listed} may all be the annotations of {image}; keep one of them there")
    return found[0] if found else None


def _masks(settings: DatasetSettings, source: MaskSource, files: Sequence[ImageFile], copies: Path) -> dict[str, Labels]:
    """The masks of a source's images, all that is missing in one message."""
    try:
        given = source.values
        table = read_class_table(settings.root / given) if isinstance(given, str) else value_table(given, "'values'")
    except LayoutError as error:
        raise DatasetError(str(error)) from None
    values, rename = tuple(table.items()), tuple(sorted(source.names.items()))
    found: dict[str, Path] = {}
    missing = []
    for file in files:
        mask = find_mask(settings.root, source.masks, file)
        if mask is None:
            missing.append(file.name)
        else:
            found[file.name] = mask
    if missing:
        raise DatasetError(
            f"{settings.root / source.masks}: no mask of {len(missing)} of {len(files)} images ({few(missing, 10)}); add them, "
            "correct 'masks' (or 'images', if these are masks), or list these images as unlabelled"
        )
    owner = {mask: name for name, mask in found.items()}
    for name, mask in found.items():
        if owner[mask] != name:
            raise DatasetError(f"{mask}: the mask of {name} and of {owner[mask]}; give it their folders' names, too")
    return {
        name: MaskLabels(mask, settings.table, values, rename, source.unlisted, source.mask_mpp, copies, source.origin)
        for name, mask in found.items()
    }


def find_mask(root: Path, masks: str, file: ImageFile) -> Path | None:
    """Return the mask of an image: of several names that it may have, the one with most of the image's folders.

    Parameters
    ----------
    masks : str
        The folder or pattern of `MaskSource`.

    Raises
    ------
    DatasetError
        If several files have that name.
    """
    pattern = masks.replace("\\", "/")
    beside = pattern.split("/")[0] in (".", "..")
    base, names = (file.path.parent, keys(file.path.name)) if beside else (root, keys(file.name))
    folder, suffixes = (pattern, MASKS) if "*" not in pattern else (pattern.rpartition("/")[0], ("",))
    name_pattern = pattern.rpartition("/")[2] if "*" in pattern else "*"
    for name in names:
        called = base / folder / name
        paths = [called.parent / (name_pattern.replace("*", called.name) + suffix) for suffix in suffixes]
        there = [path for path in map(existing, paths) if path and path.resolve() != file.path.resolve()]
        if len(there) > 1:
            listed = ", ".join(path.name for path in there)
            raise DatasetError(f"{there[0].parent}: {listed} may all be the mask of {file.name}; keep one of them there")
        if there:
            return there[0]
    return None


def _points(
    settings: DatasetSettings, source: PointSource, names: list[str], others: Sequence[str]
) -> tuple[dict[str, PointLabels], list[str]]:
    """Read the table of one source: labels by image, and notes.

    ``names`` are the source's images, ``others`` those of other sources, which the table may speak of as well.
    """
    path, c, folder = settings.root / source.csv, source.columns, folder_of(source.csv)
    rows = read_rows(path, (c.image, c.x, c.y, c.label))
    in_um = _unit(path, source) == "um"
    find_image, classes = _calls(source, names, folder), ClassNames(settings.table, source.names)
    points: dict[str, list[Point]] = {n: [] for n in names}
    strangers, left_out, unknown, bad = Counter[str](), Counter[Unresolved](), Counter[str](), list[int]()
    for line, row in enumerate(rows, 2):
        name, label = find_image(row[c.image]), classes.find(row[c.label])
        if name is None:
            strangers[row[c.image]] += 1
        elif label is Unresolved.UNKNOWN:
            unknown[row[c.label]] += 1
        elif not isinstance(label, int):
            left_out[label] += 1
        elif (place := _place(row[c.x], row[c.y])) is None:
            bad.append(line)
        else:
            points[name].append((*place, label))
    _check_rows(path, rows, source, unknown, bad, classes)
    if not any(points.values()):
        cause = f"no label is left of all {left_out.total()} rows of" if left_out else "no row speaks of an image of"
        others = f", but of {few(list(strangers))}" if strangers else ""
        raise DatasetError(f"{path}: {cause} its source, e.g. {names[0]}{others}; check columns.image, image_pattern and names")
    labels = {}
    for name, of_image in points.items():
        centres = np.array([p[:2] for p in of_image], np.float64).reshape(-1, 2)
        indices = np.array([p[2] for p in of_image], np.uint8)
        radius = source.radius_px, source.radius_um
        labels[name] = PointLabels(f"{path}: {name}", centres, indices, in_um, *radius, source.origin)
    return labels, _notes(path, left_out, strangers, ImageNames(others, folder))


def _unit(path: Path, source: PointSource) -> str:
    """What x and y of a table count: as its columns say, else as the source says.

    Raises
    ------
    DatasetError
        If nobody says it, or one says another thing than the other.
    """
    c = source.columns
    said = {name: unit for name in (c.x, c.y) if (unit := named_unit(name))}
    units = {*said.values(), *([source.unit] if source.unit else [])}
    if len(units) == 1:
        return units.pop()
    if not units:
        raise DatasetError(
            f"{path}: the columns {c.x!r} and {c.y!r} do not say their unit; give 'unit: px' (of the full resolution) or "
            "'unit: um' in the source"
        )
    words = [f"column {name!r} says {unit}" for name, unit in said.items()] + [f"'unit' says {source.unit}"] * bool(source.unit)
    raise DatasetError(f"{path}: {' and '.join(words)}; correct 'unit' or 'columns' in the source")


def _place(x: str, y: str) -> tuple[float, float] | None:
    try:
        place = number(x), number(y)
    except ValueError:
        return None
    return place if math.isfinite(sum(place)) else None


def _check_rows(
    path: Path,
    rows: Sequence[Mapping[str, str]],
    source: PointSource,
    unknown: Mapping[str, int],
    bad: Sequence[int],
    classes: ClassNames,
) -> None:
    """Refuse labels without a class and places that are no numbers, all of them at once."""
    problems = []
    if unknown:
        problems.append(f"{classes.unknown(unknown)}; add them to 'classes', or map or drop them with 'names'")
    if bad:
        c, row = source.columns, rows[bad[0] - 2]
        more = f" (and in {len(bad) - 1} more lines: {', '.join(map(str, bad[1:10]))}{', ...' * (len(bad) > 10)})"
        more *= len(bad) > 1
        problems.append(f"line {bad[0]}: x={row[c.x]!r}, y={row[c.y]!r} are not numbers{more}; mend or remove such lines")
    if problems:
        raise DatasetError(f"{path}: {'; '.join(problems)}")


def _notes(path: Path, left_out: Mapping[Unresolved, int], strangers: Mapping[str, int], elsewhere: ImageNames) -> list[str]:
    notes = []
    for why, rows in ((Unresolved.UNNAMED, "without a label"), (Unresolved.STARRED, "of labels that end in *")):
        if left_out.get(why):
            notes.append(f"{path}: {left_out[why]} rows {rows} are left out")
    unknown = {name: count for name, count in strangers.items() if elsewhere.find(name) is None}
    if unknown:
        images = f"{len(unknown)} images its source does not have ({few(list(unknown))})"
        notes.append(f"{path}: {sum(unknown.values())} rows speak of {images}; they are left out")
    return notes


def _calls(source: PointSource, names: list[str], folder: str) -> Callable[[str], str | None]:
    """What finds the name of the image that the table speaks of."""
    if source.image_pattern is None:
        return ImageNames(names, folder).find
    called = match_names(source.image_pattern, [n.rsplit("/", 1)[-1] for n in names], "image_pattern")
    return {called[n.rsplit("/", 1)[-1]]: n for n in names}.get
