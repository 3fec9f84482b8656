"""`EditTask`: an edit that is checked, and its windows, each an ordinary run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import ImageError, LayoutError, RunError
from wsigen.base.geometry import Box
from wsigen.base.json_file import read_json
from wsigen.editing.names import EditFiles
from wsigen.editing.windows import cell_px_of, seed_of, surroundings_px, windows_of
from wsigen.layout.polygons import PolygonLayout
from wsigen.models.bundle import bundle_hash, find_bundle
from wsigen.models.card import BundleCard
from wsigen.run.config import RunConfig
from wsigen.run.continued import SAME_MPP, placed_slide, read_regions
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.stage import Stage, Watcher
from wsigen.run.engine.workers import Workers
from wsigen.run.generate import do_run, prepare_run
from wsigen.run.outputs import files_of
from wsigen.run.prepare import Prepared, slide_mpp
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import ImageSource
from wsigen.slide.rewrite import write_ome_tiff
from wsigen.slide.tissue import USUAL_MPP, VIEW_MPP, tissue_mask
from wsigen.storage.files import sha256, write_atomic

MOST_LOOKED_AT, AROUND_PX = 100, 64
"""Regions of which is looked whether they lie on tissue; how far around them, px of about 8 um."""

_ANEW = (
    "pixels of {} cannot be replaced in its format: it was written anew, as an OME-TIFF of JPEG; label and macro are left out, "
    "and nothing is kept to undo it, as the slide is still there"
)


@dataclass(frozen=True, slots=True)
class EditTask:
    """An edit that is checked."""

    source: Path
    config: RunConfig
    card: BundleCard
    names: EditFiles
    placed: PlacedImage
    regions: PolygonLayout
    windows: tuple[Box, ...]
    notes: tuple[str, ...]
    anew: bool

    @staticmethod
    def of(slide: Path, config: RunConfig, card: BundleCard, names: EditFiles, anew: bool) -> EditTask:
        """Read slide and regions, and plan the windows (WsigenError)."""
        mpp = slide_mpp(config, card)
        placed = placed_slide(config, mpp)
        _demand_placeable(placed.source)
        regions = read_regions(config, card.table, placed)
        sx, sy = regions.scale[1], regions.scale[0]
        bounds = regions.polygons.bounds * np.array([sx, sy, sx, sy])
        canvas = np.array([placed.size[1], placed.size[0]])
        outside = (bounds[:, 2:] <= 0).any(1) | (bounds[:, :2] >= canvas).any(1)
        if outside.any():
            raise LayoutError(f"{config.regions}: a region lies outside the slide of {canvas[0]}x{canvas[1]} px; draw it on it")
        around = round(config.margin_um / mpp) + surroundings_px(card)
        windows = windows_of(bounds, placed.size, around, cell_px_of(card))
        notes = (
            *placed.source.notes,
            *regions.notes,
            *_on_glass(placed, regions, bounds, card),
            *([_ANEW.format(slide.name)] if anew else []),
        )
        return EditTask(slide, config, card, names, placed, regions, tuple(windows), notes, anew)

    @property
    def to_file(self) -> float:
        """Px of the slide's file per px of the model."""
        return self.placed.source.width / self.placed.size[1]

    def settings(self) -> dict[str, Any]:
        """What decides the pixels besides files, as plain JSON values."""
        return {k: v for k, v in self.config.identity().items() if k not in ("extend", "regions", "layout", "model")}

    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(x, y, w, h)`` of the windows in px of the slide's file."""
        scaled = [[round(v * self.to_file) for v in (w.x0, w.y0, w.width, w.height)] for w in self.windows]
        return tuple((x, y, w, h) for x, y, w, h in scaled)

    def generate(self, look: Watcher | None) -> list[Prepared]:
        """Generate all windows that are not there yet."""
        workers = Workers.of(self.config)
        self._claim()
        if self.anew and not self.file.is_file():
            self._copy(look)
        made = []
        with workers.cluster() as cluster:
            for number, window in enumerate(self.windows):
                made.append(self._window(number, window, workers, cluster, look))
        return made

    @property
    def file(self) -> Path:
        """The file whose pixels are replaced: the slide, or a copy of it in another format."""
        return self.names.work / "copy" / self.names.slide.name if self.anew else self.source

    def _copy(self, look: Watcher | None) -> None:
        """Write the slide as an OME-TIFF."""

        def note(done: int, of: int) -> None:
            if look is not None:
                look(Stage("write the slide as an OME-TIFF", of, done, finished=done == of))

        self.file.parent.mkdir(exist_ok=True)
        write_ome_tiff(self.source, self.file, mpp=self.config.extend_mpp, note=note)

    def _claim(self) -> None:
        """Make the folder of the windows, or make sure that it is that of this edit (RunError)."""
        mine = {
            "slide": sha256(self.source),
            "windows": [[w.x0, w.y0, w.width, w.height] for w in self.windows],
            "regions": sha256(Path(str(self.config.regions))),
            "settings": self.settings(),
            "model": bundle_hash(find_bundle(self.config.model)),
        }
        file = self.names.work / "edit.json"
        if file.is_file() and read_json(file, RunError, "delete the folder") != json.loads(json.dumps(mine)):
            raise RunError(f"{self.names.work}: holds another edit that was stopped; delete it, or choose another name")
        self.names.work.mkdir(exist_ok=True)
        write_atomic(file, json.dumps(mine).encode())

    def _window(self, number: int, window: Box, workers: Workers, cluster: Cluster, look: Watcher | None) -> Prepared:
        output = self.names.work / f"window-{number}.ome.tiff"
        changes: Any = {"size": (window.width, window.height), "at": (-window.x0, -window.y0), "run_dir": None}
        changes["seed"] = seed_of(self.config.seed, window)
        config = self.config.merged(**changes, overwrite=True, keep_run=False)
        prepared = prepare_run(output, config, workers)
        if not _finished(prepared, output):
            do_run(prepared, workers, cluster, look)
        return prepared


def _demand_placeable(source: ImageSource) -> None:
    """Refuse slides whose px are not those that a viewer counts: a region would be made at another place (ImageError)."""
    part = source.scanned
    if part is not None and (part.x0, part.y0) != (0, 0):
        raise ImageError(
            f"{source.path}: a part of it alone was scanned, {part.width}x{part.height} px at {part.x0}, {part.y0}, and QuPath "
            "counts px from there; export it from QuPath as an OME-TIFF, and edit that"
        )
    if abs(source.aspect - 1.0) > SAME_MPP:
        shape = f"{source.aspect:.3g} times as high as wide"
        raise ImageError(f"{source.path}: its px are {shape}; export it with square ones, and edit that")


def _on_glass(placed: PlacedImage, regions: PolygonLayout, bounds: NDArray[np.float64], card: BundleCard) -> Iterator[str]:
    """Say so if regions of tissue lie where the slide shows none, as a misplaced drawing does."""
    tissue = [n for n in range(len(bounds)) if not card.table[int(regions.polygons.classes[n])].background]
    looked_at = tissue[:MOST_LOOKED_AT]
    if bare := sum(not _shows_tissue(placed, bounds[n]) for n in looked_at):
        yield f"{bare} of {len(looked_at)} regions lie on bare glass, not on tissue; it is made there as drawn"


def _shows_tissue(placed: PlacedImage, bounds: NDArray[np.float64]) -> bool:
    """Whether there is tissue in a region's bounding box, px of the model."""
    source, mpp = placed.source, placed.source.mpp or USUAL_MPP
    factor = VIEW_MPP / mpp
    canvas = (max(1, round(source.height / factor)), max(1, round(source.width / factor)))
    down, across = canvas[0] / placed.size[0], canvas[1] / placed.size[1]
    x0, y0, x1, y1 = bounds * np.array([across, down, across, down])
    inner = Box(int(y0), int(x0), int(y1) + 1, int(x1) + 1).intersect(Box(0, 0, *canvas))
    view = inner.dilate(AROUND_PX).intersect(Box(0, 0, *canvas))
    mask = tissue_mask(source.region(view, canvas), mpp * source.width / canvas[1])
    return bool(mask[inner.relative_to(view).slices].any())


def _finished(prepared: Prepared, output: Path) -> bool:
    """Whether a window is there, whole, and the one of this run."""
    files = files_of(output)
    if not files.slide.is_file() or not files.manifest.is_file():
        return False
    said = read_json(files.manifest, RunError, "delete it")
    return bool(
        isinstance(said, dict)
        and said.get("run_id") == prepared.spec.run_id
        and said.get("sha256", {}).get(output.name) == sha256(output)
    )
