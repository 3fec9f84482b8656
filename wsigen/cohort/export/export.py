"""``wsigen cohort export``: the slides of a cohort as tiles, with masks, for training. The same call again goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsigen.base.classes import ClassTable
from wsigen.base.errors import ConfigError, OutputError, refusing
from wsigen.base.state import State, parse_state
from wsigen.cohort.as_data import DATASET, write_dataset
from wsigen.cohort.export.pictures import Kind
from wsigen.cohort.export.targets import Folders, Shards, Target, about
from wsigen.cohort.export.tiles import open_cut
from wsigen.cohort.folder import RECIPE, CohortFolder
from wsigen.cohort.labels import CLASS_TABLE, write_class_table
from wsigen.cohort.recipe import read_recipe
from wsigen.cohort.table import CSV, read_rows
from wsigen.dataset.settings import CELL_PX
from wsigen.slide.reading import MIN_SIDE_PX
from wsigen.storage.files import atomic_path, write_atomic

RECORD, INDEX = "export.json", "tiles.csv"

To = Literal["folder", "webdataset"]

Watch = Callable[[int, int], None]
"""Called with how many slides are done, and how many there are."""

MOST_SIDE_PX = 8192


class Record(State):
    """What a folder of tiles holds: settings, and the SHA-256 of the pixels of the slides it is of."""

    tiles: int
    mpp: float | None
    to: To
    masks: bool
    min_tissue: float
    image: Kind
    slides: dict[str, str]


@dataclass(frozen=True, slots=True)
class Exported:
    """Tiles of a cohort.

    Attributes
    ----------
    folder : Path
        Where they lie.
    tiles : dict of str to int
        How many of each split.
    without : tuple of str
        Ids of slides of which there is none: too small, or too little tissue.
    """

    folder: Path
    tiles: dict[str, int]
    without: tuple[str, ...]


def export_cohort(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    tiles: int = 512,
    mpp: float | None = None,
    to: To = "folder",
    masks: bool = False,
    min_tissue: float = 0.1,
    image: Kind = "jpg",
    watch: Watch | None = None,
) -> Exported:
    """Cut the slides of a cohort into tiles for training, with masks and an index.

    Parameters
    ----------
    folder : str or Path
        The cohort.
    out : str or Path, optional
        Folder of the tiles; by default ``tiles`` in the cohort's.
    tiles : int
        Side of a tile, px.
    mpp : float, optional
        um/px of the tiles; by default that of the slides.
    to : str
        ``folder``: files by split, with a ``dataset.yaml`` that ``wsigen train`` reads; ``webdataset``: tar files of samples.
    masks : bool
        Also the class of every pixel, as PNG; values are those of ``classes.csv``.
    min_tissue : float
        Tiles with less tissue than this share are left out.
    image : str
        ``jpg`` or ``png``.
    watch : callable, optional
        Called with how many slides are done, and how many there are.

    Returns
    -------
    Exported
        What is there now.

    Raises
    ------
    WsigenError
        If it is no cohort, a setting cannot be, or OUT holds something else.

    Examples
    --------
    >>> wsigen.export_cohort("cohort", tiles=256, mpp=1.0, masks=True)
    """
    place = CohortFolder(Path(folder))
    rows = read_rows(place.root)
    if not rows:
        raise ConfigError(f"{place.root}: no cohort with slides in it ({CSV} is missing or empty); make it first")
    _check(tiles, mpp, to, min_tissue, image)
    target_folder = Path(out) if out is not None else place.root / "tiles"
    digests = {row["id"]: row["level0_sha256"] for row in rows}
    _claim(
        target_folder,
        Record(tiles=tiles, mpp=mpp, to=to, masks=masks, min_tissue=min_tissue, image=image, slides=digests),
    )
    target = Folders(target_folder, image, masks) if to == "folder" else Shards(target_folder, image, masks)
    cutting = _Cutting(place, rows, target, tiles, mpp, min_tissue)
    exported = cutting.write(target_folder / INDEX, watch)
    write_class_table(target_folder / CLASS_TABLE, cutting.table)
    if to == "folder" and any(exported.tiles.values()):
        training = next(iter(read_recipe(place.root / RECIPE).plan["splits"]))
        images = {"images": f"*/images/*.{image}", "mpp": cutting.mpp_of_tiles}
        write_dataset(
            target_folder / DATASET,
            "Tiles of this cohort",
            cutting.table,
            cutting.seen.get(training) or set(cutting.table.names),
            cutting.groups,
            training,
            INDEX,
            "image",
            {"kind": "masks", **images, "masks": "../masks/*.png"} if masks else {"kind": "unlabelled", **images},
            {
                "levels": [{"name": "tile", "mpp": cutting.mpp_of_tiles}],
                "patch_px": tiles // CELL_PX * CELL_PX,
                "overlap_px": 0,
            },
        )
    return exported


# -- inside ------------------------------------------------------------------------------------------------------------


@dataclass
class _Cutting:
    """All slides of a cohort into one target; what was seen of them on the way."""

    place: CohortFolder
    rows: list[dict[str, str]]
    target: Target
    side: int
    mpp: float | None
    min_tissue: float

    def __post_init__(self) -> None:
        first = open_cut(self.place, self.rows[0], self.mpp)
        self.table: ClassTable = first.table
        self.mpp_of_tiles = first.mpp
        self.groups: dict[str, set[str]] = {}
        self.seen: dict[str, set[str]] = {}
        """Split -> groups of which there are tiles; classes that they show."""

    def write(self, index: Path, watch: Watch | None) -> Exported:
        """Write all tiles and the index, which comes last."""
        counts: dict[str, int] = {row["split"]: 0 for row in self.rows}
        without: list[str] = []
        problem = f"{index}: cannot be written"
        with ExitStack() as stack:
            stack.enter_context(refusing(OutputError, problem, "make room, then the same command goes on"))
            beside = stack.enter_context(atomic_path(index))
            file = stack.enter_context(beside.open("w", encoding="utf-8", newline=""))
            lines: csv.DictWriter[str] | None = None
            for done, row in enumerate(self.rows, 1):
                slide, before = open_cut(self.place, row, self.mpp), counts[row["split"]]
                for tile in slide.tiles(self.side, self.min_tissue):
                    line = {**self.target.put(slide, tile), **about(slide, tile)}
                    if lines is None:
                        lines = csv.DictWriter(file, fieldnames=list(line), lineterminator="\n")
                        lines.writeheader()
                    lines.writerow(line)
                    counts[row["split"]] += 1
                    self.seen.setdefault(row["split"], set()).update(name for name, share in tile.shares.items() if share)
                if counts[row["split"]] == before:
                    without.append(row["id"])
                else:
                    self.groups.setdefault(row["split"], set()).add(row["group"])
                if watch is not None:
                    watch(done, len(self.rows))
            self.target.close()
        return Exported(index.parent, counts, tuple(without))


def _check(tiles: int, mpp: float | None, to: str, min_tissue: float, image: str) -> None:
    """Refuse settings that cannot be (ConfigError)."""
    if not MIN_SIDE_PX <= tiles <= MOST_SIDE_PX:
        raise ConfigError(f"--tiles {tiles}: {MIN_SIDE_PX} to {MOST_SIDE_PX} px a side are possible")
    if mpp is not None and not 0 < mpp < 100:
        raise ConfigError(f"--mpp {mpp:g}: um/px are above 0 and below 100")
    if not 0 <= min_tissue <= 1:
        raise ConfigError(f"--min-tissue {min_tissue:g}: a share is 0 to 1")
    for name, value, known in (("to", to, ("folder", "webdataset")), ("image", image, ("jpg", "png"))):
        if value not in known:
            raise ConfigError(f"--{name} {value!r}: known are {' and '.join(known)}")


def _claim(folder: Path, record: Record) -> None:
    """Begin an export, or make sure that the one there is this one, perhaps of fewer slides (OutputError)."""
    path = folder / RECORD
    if path.is_file():
        there = parse_state(Record, path.read_bytes(), str(path), OutputError)
        for name in ("tiles", "mpp", "to", "masks", "min_tissue", "image"):
            mine, other = getattr(record, name), getattr(there, name)
            if mine != other:
                raise OutputError(f"{folder}: holds other tiles ({name} {mine} here, {other} there); choose another --out")
        for name, digest in there.slides.items():
            if record.slides.get(name) != digest:
                raise OutputError(f"{folder}: holds tiles of another slide {name}; choose another --out, or remove it")
    elif folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder}: holds no tiles of a cohort, but {next(folder.iterdir()).name}; choose another --out")
    with refusing(OutputError, f"{folder}: cannot be written", "choose another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (record.model_dump_json(indent=1) + "\n").encode())
