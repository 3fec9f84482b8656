"""Which polygons of a file's features are drawn, and of which class; what is left out, and why.

The class map and the file of the drawn polygons are made of the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from wsigen.layout.class_names import ClassNames, Unresolved, as_option
from wsigen.layout.geojson_features import Feature
from wsigen.layout.polygons import Rings
from wsigen.layout.problems import Problems


class Drawn(NamedTuple):
    """A polygon that is drawn.

    Attributes
    ----------
    feature : Feature
        Whose it is.
    class_index : int
        Its class.
    rings : Rings
        Its outline and holes, in units of the file.
    nucleus : bool
        Whether it is of the feature's nucleus.
    """

    feature: Feature
    class_index: int
    rings: Rings
    nucleus: bool = False

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"the nucleus of {self.feature.where}" if self.nucleus else self.feature.where


def drawn_polygons(
    features: Sequence[Feature], known: ClassNames, nuclei: int | None, problems: Problems
) -> tuple[list[Drawn], list[str]]:
    """Return the polygons of a class on one plane, in the order of the file, then the nuclei; and notes of what is left out.

    Nuclei are drawn of all cells but those that are left out by name: a cell needs no class for it.

    Parameters
    ----------
    features : sequence of Feature
        All of a file.
    known : ClassNames
        Finds their classes.
    nuclei : int or None
        Class index of nuclei; None: they are not drawn.
    problems : Problems
        Gets names that are no class, and files of which nothing is left.
    """
    classed, others = list[Feature](), list[Feature]()
    for feature in (f for f in features if f.polygons or f.nucleus):
        found = known.find(feature.class_name)
        has_nucleus = nuclei is not None and feature.nucleus is not None
        (classed if isinstance(found, int) or found is Unresolved.UNKNOWN or has_nucleus else others).append(feature)
    classed, notes = _one_plane(classed)  # which is not decided by what is left out anyway
    areas = classed + others
    left_out: Counter[tuple[str, str]] = Counter()
    unknown: Counter[str] = Counter()
    drawn: list[Drawn] = []
    unnamed: list[Feature] = []
    cells = [f for f in areas if f.nucleus is not None]
    dropped = 0
    for feature in areas:
        found = known.find(feature.class_name)
        if isinstance(found, int):
            drawn += [Drawn(feature, found, rings) for rings in feature.polygons]
        elif found is Unresolved.UNKNOWN:
            unknown[str(feature.class_name)] += 1
        elif found is Unresolved.UNNAMED:
            unnamed.append(feature)
            left_out[feature.kind, "without a class"] += 1
        elif found is Unresolved.STARRED:
            left_out[feature.kind, f"of class {feature.class_name!r}"] += 1
        else:
            dropped += 1
    if unknown:
        first = next(iter(unknown))
        remedy = f"rename them with {as_option(first, 'CLASS')}, or drop them: {as_option(first)}"
        problems.add(known.unknown(unknown), remedy)
    left_out["object", "without area (points or lines)"] = sum(f.without_area for f in features)
    left_out["object", "without geometry"] = sum(not (f.polygons or f.nucleus or f.without_area) for f in features)
    if nuclei is not None:
        kept = [f for f in cells if isinstance(known.find(f.class_name), int) or known.find(f.class_name) is Unresolved.UNNAMED]
        drawn += [Drawn(f, nuclei, rings, True) for f in kept for rings in f.nucleus or ()]
    elif any(isinstance(known.find(f.class_name), int) for f in cells):
        notes.append(f"{len(cells)} nuclei of cells are left out; the setting 'nuclei' gives them a class of their own")
    listed = ", ".join(f"{count} {kind}{'s' * (count > 1)} {why}" for (kind, why), count in left_out.items() if count)
    if not drawn and dropped and not problems:
        problems.add(f"'names' leaves out every annotation of a class ({dropped})", "keep a class, or take the file away")
    elif not drawn and not problems:
        _explain_nothing(unnamed, listed or f"{len(features)} features", known, problems)
    return drawn, notes + [f"left out: {listed}"] * bool(listed)


def _one_plane(areas: list[Feature]) -> tuple[list[Feature], list[str]]:
    """Keep the plane with most of them: a slide has one."""
    planes = Counter(f.plane for f in areas)
    if len(planes) < 2:
        return areas, []
    z, t = chosen = min(planes, key=lambda plane: (-planes[plane], plane))
    note = (
        f"drawn on {len(planes)} planes; z={z}, t={t} with {planes[chosen]} of {len(areas)} objects is read and the others are "
        "left out; export another plane alone to use it"
    )
    return [f for f in areas if f.plane == chosen], [note]


def _explain_nothing(unnamed: Sequence[Feature], listed: str, known: ClassNames, problems: Problems) -> None:
    if unnamed:
        remedy = f"set one of {', '.join(known.table.names)} in QuPath, or one for all with --layout-names '=CLASS'"
        problems.add(f"no class is set, on any of {len(unnamed)} objects", remedy, unnamed[0].where)
    else:
        problems.add(f"no polygons are left ({listed})", "draw areas in QuPath and set their classes")
