"""``dataset.yaml``: a cohort, or the tiles cut from it, as data of trainings and evaluations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from wsigen.base.classes import UNKNOWN, ClassTable
from wsigen.base.errors import one_line
from wsigen.storage.files import write_atomic

DATASET = "dataset.yaml"


def write_dataset(
    path: Path,
    what: str,
    table: ClassTable,
    seen: Collection[str],
    groups: Mapping[str, Collection[str]],
    training: str,
    index: str,
    image: str,
    source: Mapping[str, Any],
    patches: Mapping[str, Any],
) -> None:
    """Write what `wsigen.dataset` reads: the first split is for training, the others are held out.

    Parameters
    ----------
    what : str
        For the header.
    seen : collection of str
        Classes of which the training split has some. What shows another is unknown: a network cannot learn it.
    groups : mapping of str to collection of str
        Split -> groups of its images.
    training : str
        The first split.
    index, image : str
        Table beside the file with the columns ``group`` and ``subtype``, and its column of images.
    source : mapping
        Images, and masks if there are some, without their values.
    patches : mapping
        Levels and sides of patches.
    """
    classes = [kind for kind in table if kind.background or kind.name in seen]
    values = {**{k: kind.name if kind in classes else None for k, kind in enumerate(table)}, UNKNOWN: None}
    held_out = sorted({group for split, of_split in groups.items() if split != training for group in of_split})
    content = {
        "classes": [
            {"name": c.name, "color": list(c.color), **({"background": True} if c.background else {})} for c in classes
        ],
        **patches,
        "sources": [{**source, "values": values} if "masks" in source else dict(source)],
        "groups": {"csv": index, "image": image, "group": "group"},
        "subtypes": {"csv": index, "image": image, "subtype": "subtype"},
        **({"held_out": held_out} if held_out and groups.get(training) else {}),
    }
    unseen = [kind.name for kind in table if kind not in classes]
    header = [
        f"# {what} as data: 'wsigen train' and 'wsigen evaluate' read it. The slides are synthetic.",
        f"# Of the splits in {index}, {training!r} is for training, and the others are held out.",
        *([f"# Unknown, as {training!r} shows nothing of it: {one_line(', '.join(unseen))}."] if unseen else []),
    ]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    write_atomic(path, ("\n".join(header) + "\n" + body).encode())
