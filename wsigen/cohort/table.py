"""``cohort.csv``: one line a slide, from its manifest; the same as Parquet where pyarrow is there."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from wsigen.base.errors import OutputError, refusing
from wsigen.cohort.folder import CohortFolder, lies_below
from wsigen.cohort.slides import CohortSlide
from wsigen.run.manifest import Manifest
from wsigen.storage.files import atomic_path, write_atomic

CSV, PARQUET = "cohort.csv", "cohort.parquet"

NAMES = ("id", "split")
"""Columns from which other commands make names of files."""

FILES = ("slide", "annotations", "labels", "thumbnail", "manifest")
"""Columns that name files, from the cohort's folder."""

NEEDED = (*NAMES, "subtype", "group", "width", "height", "um_per_px", "level0_sha256", *FILES)
"""Columns that other commands read."""

CURE = "restore it, or make the cohort again"

Value = str | int | float


@dataclass(frozen=True, slots=True)
class MadeSlide:
    """A slide that is there: what the plan says of it, and its manifest."""

    slide: CohortSlide
    manifest: Manifest


def made_slides(folder: CohortFolder, slides: list[CohortSlide]) -> list[MadeSlide]:
    """Those of a cohort's slides that are there (OutputError if a manifest cannot be read)."""
    return [MadeSlide(slide, folder.manifest(slide.id)) for slide in slides if folder.done(slide.id, slide.config.drawn)]


def row_of(folder: CohortFolder, made: MadeSlide) -> dict[str, Value]:
    """A line of the table; files are named from the cohort's folder, areas are px of the full resolution."""
    slide, manifest, files = made.slide, made.manifest, folder.files(made.slide.id)
    stain = manifest.stain
    return {
        "id": slide.id,
        "split": slide.split,
        "subtype": slide.subtype,
        "part": slide.part,
        "group": slide.group,
        "seed": manifest.sampling.seed,
        "width": manifest.slide.width,
        "height": manifest.slide.height,
        "um_per_px": manifest.slide.mpp,
        "model": manifest.model.name,
        "mode": slide.mode,
        "stain": slide.stain,
        "haematoxylin": 1.0 if stain is None else stain.haematoxylin_intensity,
        "eosin": 1.0 if stain is None else stain.eosin_intensity,
        **{f"area_px_{name}": area for name, area in manifest.area_px.items()},
        "sha256": manifest.sha256[files.slide.name],
        "level0_sha256": manifest.sha256["level0_tiles"],
        **{name: getattr(files, name).relative_to(folder.root).as_posix() for name in FILES},
    }


def write_tables(folder: CohortFolder, rows: list[dict[str, Value]]) -> None:
    """Write the CSV, and the Parquet file if pyarrow is installed."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(folder.root / CSV, text.getvalue().encode())
    if find_spec("pyarrow") is not None:
        _write_parquet(folder.root / PARQUET, rows)


def read_rows(folder: Path) -> list[dict[str, str]]:
    """The lines of ``cohort.csv`` as they stand there; none if it is not there (OutputError if it is no such table)."""
    path = folder / CSV
    if not path.is_file():
        return []
    with refusing(OutputError, f"{path}: cannot be read", CURE), path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 2):
        missing = next((name for name in NEEDED if not row.get(name)), None)
        if missing is not None:
            raise OutputError(f"{path}, line {number}: has no {missing!r}; {CURE}")
        odd = next((name for name in (*NAMES, *FILES) if not _names_a_file(row[name], name in NAMES)), None)
        if odd is not None:
            raise OutputError(f"{path}, line {number}: {odd!r} is {row[odd]!r}, which names no file of this cohort; {CURE}")
    return rows


def _names_a_file(text: str, plain: bool) -> bool:
    return lies_below(text) and not (plain and ("/" in text or "\\" in text))


def _write_parquet(path: Path, rows: list[dict[str, Value]]) -> None:
    import pyarrow
    import pyarrow.parquet

    with atomic_path(path) as beside:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), beside)
