"""``wsigen edit``: places of a slide are made anew; everything else in its file stays byte for byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from wsigen.base.errors import ConfigError, LayoutError, OutputError, RunError
from wsigen.base.geometry import Box
from wsigen.base.json_file import read_json
from wsigen.base.version import __version__
from wsigen.editing.annotations import edited_annotations, geometries_of, shapes_of
from wsigen.editing.names import EditFiles, base_of
from wsigen.editing.patches import patch_of
from wsigen.editing.record import edited_manifest, manifest_beside
from wsigen.editing.windows import cell_px_of, seed_of, surroundings_px, windows_of
from wsigen.layout.polygons import PolygonLayout
from wsigen.models.bundle import bundle_hash, check_bundle, find_bundle
from wsigen.models.card import BundleCard
from wsigen.run.config import RunConfig
from wsigen.run.continued import placed_slide, read_regions
from wsigen.run.display import showing
from wsigen.run.engine.cluster import Cluster
from wsigen.run.engine.stage import Stage, Watcher
from wsigen.run.engine.workers import Workers
from wsigen.run.generate import do_run, prepare_run
from wsigen.run.keywords import with_settings
from wsigen.run.machine_file import with_machine
from wsigen.run.manifest import EditRecord
from wsigen.run.output_check import held_output
from wsigen.run.outputs import files_of
from wsigen.run.prepare import Prepared, slide_mpp
from wsigen.run.typed_settings import EditSettings
from wsigen.slide.edited_description import edited_description
from wsigen.slide.marks import description_of, synthetic_mark
from wsigen.slide.placed import PlacedImage
from wsigen.slide.reading import let_go
from wsigen.slide.sidecars import write_manifest, write_thumbnail
from wsigen.slide.splice import demand_replaceable, replace_pixels, restore
from wsigen.slide.writer import level0_sha256
from wsigen.storage.files import remove_leftovers, remove_tree, sha256, write_atomic


@dataclass(frozen=True, slots=True)
class Edited:
    """An edited slide.

    Attributes
    ----------
    slide, annotations, manifest, thumbnail : Path
        The slide, and what lies beside it.
    undo : Path or None
        What gives the parent's bytes back (`undo_edit`).
    boxes : tuple
        ``[x, y, w, h]`` of the windows that were generated, px.
    tiles : tuple of (int, int)
        Of each level: tiles that were encoded anew, of how many.
    level0_sha256 : str
        SHA-256 over the encoded tiles of level 0.
    notes : tuple of str
        What a user should know, a line each.
    """

    slide: Path
    annotations: Path
    manifest: Path
    thumbnail: Path
    undo: Path | None
    boxes: tuple[tuple[int, int, int, int], ...]
    tiles: tuple[tuple[int, int], ...]
    level0_sha256: str
    notes: tuple[str, ...] = ()


@with_settings(EditSettings.__annotations__)
def edit(
    slide: str | Path,
    output: str | Path,
    *,
    regions: str | Path,
    strength: float = 1.0,
    margin_um: float = 100.0,
    seed: int = 0,
    model: str = "default",
    annotations: str | Path | None = None,
    slide_mpp: float | None = None,
    resample: bool = False,
    undo: bool = True,
    machine: str | Path | None = None,
    progress: bool = False,
    watch: Watcher | None = None,
    **settings: Unpack[EditSettings],
) -> Edited:
    """Make places of a slide anew.

    Windows around them are generated, in which everything else is known. Then only the tiles that they touch are encoded anew.
    An edit that was interrupted goes on when the same one is asked for again: what is done lies in ``OUT.edit``.

    Parameters
    ----------
    slide : str or Path
        A tiled TIFF: a slide of wsigen, an SVS, any OME-TIFF. It is never changed.
    output : str or Path
        The new slide, of the same ending: it keeps the format.
    regions : str or Path
        GeoJSON of polygons with classes, px of the slide, as QuPath exports them.
    strength : float
        1 replaces what is there, less alters it.
    margin_um : float
        How far around the regions the slide changes, less and less, um.
    seed : int
        Equal seeds give equal pixels.
    model : str
        Name or folder of the model.
    annotations : str or Path, optional
        GeoJSON of the slide's classes; by default ``SLIDE.geojson`` beside it, if there is one.
    slide_mpp : float, optional
        um/px of the slide, if its file does not say it.
    resample : bool
        Whether the windows of a slide of other um/px than the model's are resampled.
    undo : bool
        Whether what is replaced is kept in ``OUT.undo``.
    machine, progress, watch
        As for `wsigen.generate`.
    **settings
        Execution settings and some of those of sampling (`EditSettings`).

    Returns
    -------
    Edited
        The files, and what was made.

    Raises
    ------
    WsigenError
        One line for whatever is wrong with the slide, the regions, the output or the machine.

    Examples
    --------
    >>> wsigen.edit("slide.ome.tiff", "edited.ome.tiff", regions="drawn.geojson", seed=1)
    """
    if refused := sorted(set(settings) - EditSettings.__annotations__.keys()):
        raise ConfigError(f"setting '{refused[0]}': an edit decides it itself, or does not know it; leave it out")
    slide, output = Path(slide), Path(output)
    given: Any = {"extend": slide, "regions": Path(regions), "margin_um": margin_um, "edit_strength": strength, "seed": seed}
    given |= {"model": model, "extend_mpp": slide_mpp, "resample": resample, "size": (2048, 2048), "compression": "deflate"}
    demand_replaceable(slide)
    names = EditFiles.of(slide, output, bool(settings.get("overwrite")))
    mark, layout = synthetic_mark(slide), _annotations(slide, annotations)
    card = check_bundle(find_bundle(model))
    if layout is not None:
        background = next((tissue.name for tissue in card.table if tissue.background), None)
        given |= {"layout": layout, "background": background if mark == "true" else None}
    config = with_machine(RunConfig(**{**given, **settings}), machine)
    task = _Task.of(slide, config, card, names)
    names.spare((*EditFiles(slide).all, config.regions, layout))
    with showing(progress, watch) as look, held_output(output):
        names.demand_free(config.overwrite)  # another edit may have been faster
        _remove_leftovers(names)
        _note(look, task.notes)
        made = task.generate(look)
        return _put_together(task, made, mark, layout, undo)


def undo_edit(output: str | Path) -> Path:
    """Give the parent's bytes back to an edited slide; what lay beside the edit is removed.

    Raises
    ------
    OutputError
        If there is no ``OUT.undo``, the slide was changed since, or another edit is writing it.
    """
    output = Path(output)
    names = EditFiles(output)
    if not output.is_file():
        raise OutputError(f"{output}: no such slide; check the path")
    if not names.undo.is_file():
        raise OutputError(f"{names.undo}: is not there: the edit kept none, or was undone; take the parent itself")
    with held_output(output):
        _remove_leftovers(names)
        restore(output, names.undo)
        let_go()
        for path in (names.manifest, names.annotations, names.thumbnail, names.undo):
            path.unlink(missing_ok=True)
    return output


# -- inside ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """An edit that is checked."""

    source: Path
    config: RunConfig
    card: BundleCard
    names: EditFiles
    placed: PlacedImage
    regions: PolygonLayout
    windows: tuple[Box, ...]
    notes: tuple[str, ...]

    @staticmethod
    def of(slide: Path, config: RunConfig, card: BundleCard, names: EditFiles) -> _Task:
        mpp = slide_mpp(config, card)
        placed = placed_slide(config, mpp)
        regions = read_regions(config, card.table, placed)
        sx, sy = regions.scale[1], regions.scale[0]
        bounds = regions.polygons.bounds * np.array([sx, sy, sx, sy])
        canvas = np.array([placed.size[1], placed.size[0]])
        outside = (bounds[:, 2:] <= 0).any(1) | (bounds[:, :2] >= canvas).any(1)
        if outside.any():
            raise LayoutError(f"{config.regions}: a region lies outside the slide of {canvas[0]}x{canvas[1]} px; draw it on it")
        around = round(config.margin_um / mpp) + surroundings_px(card)
        windows = windows_of(bounds, placed.size, around, cell_px_of(card))
        return _Task(slide, config, card, names, placed, regions, tuple(windows), (*placed.source.notes, *regions.notes))

    @property
    def to_file(self) -> float:
        """Px of the slide's file per px of the model."""
        return self.placed.source.width / self.placed.size[1]

    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """``(x, y, w, h)`` of the windows in px of the slide's file."""
        scaled = [[round(v * self.to_file) for v in (w.x0, w.y0, w.width, w.height)] for w in self.windows]
        return tuple((x, y, w, h) for x, y, w, h in scaled)

    def generate(self, look: Watcher | None) -> list[Prepared]:
        """Generate all windows that are not there yet."""
        workers = Workers.of(self.config)
        self._claim()
        made = []
        with workers.cluster() as cluster:
            for number, window in enumerate(self.windows):
                made.append(self._window(number, window, workers, cluster, look))
        return made

    def _claim(self) -> None:
        """Make the folder of the windows, or make sure that it is that of this edit (RunError)."""
        mine = {
            "slide": sha256(self.source),
            "windows": [[w.x0, w.y0, w.width, w.height] for w in self.windows],
            "regions": sha256(Path(str(self.config.regions))),
            "settings": {k: v for k, v in self.config.identity().items() if k not in ("extend", "regions", "layout", "model")},
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


def _remove_leftovers(names: EditFiles) -> None:
    """Remove what edits that were killed left beside the slide, each as large as it; the slide is held."""
    for path in (*names.all, names.work):
        remove_leftovers(path)


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


def _put_together(task: _Task, made: list[Prepared], mark: str | None, layout: Path | None, undo: bool) -> Edited:
    """Put the windows into the slide's file, and write what lies beside it; the manifest comes last."""
    names, config, card = task.names, task.config, task.card
    let_go()
    patches = [
        patch_of(names.work / f"window-{number}.ome.tiff", window, task.placed, prepared)
        for number, (window, prepared) in enumerate(zip(task.windows, made, strict=True))
    ]
    shapes = shapes_of(task.regions, task.to_file)
    parent = manifest_beside(task.source, base_of(task.source))
    earlier = sum(len(each.get("regions", ())) for each in (parent or {}).get("history") or ())
    write_atomic(names.placing, b"")
    names.manifest.unlink(missing_ok=True)
    details = {"model": card.name, "model_sha256": made[0].spec.model_sha256, "seed": str(config.seed)}
    text = edited_description(description_of(task.source) or "", earlier + len(shapes), details, names.slide.name)
    spliced = replace_pixels(task.source, names.slide, patches, description=text, undo=names.undo if undo else None)
    if not undo:
        names.undo.unlink(missing_ok=True)
    let_go()
    content, areas = edited_annotations(layout, shapes, card.table, config.seed)
    write_atomic(names.annotations, json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    write_thumbnail(names.slide, names.thumbnail)
    tiles = tuple((level.tiles, level.of) for level in spliced.levels)
    record = EditRecord(
        parent=task.source.name,
        parent_sha256=spliced.parent_sha256,
        regions=tuple(geometries_of(shapes, card.table)),
        boxes=task.boxes(),
        seed=config.seed,
        strength=config.edit_strength,
        margin_um=config.margin_um,
        model=card.name,
        model_sha256=made[0].spec.model_sha256,
        wsigen=__version__,
        tiles=tuple(count for count, _ in tiles),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    digest = level0_sha256(names.slide)
    hashes = {path.name: sha256(path) for path in (names.slide, names.annotations, names.thumbnail)}
    write_manifest(names.manifest, edited_manifest(parent, record, mark, card, areas, {"level0_tiles": digest, **hashes}))
    names.placing.unlink()
    if not config.keep_run:
        remove_tree(names.work)
    undo_path = names.undo if undo else None
    files = (names.slide, names.annotations, names.manifest, names.thumbnail, undo_path)
    return Edited(*files, task.boxes(), tiles, digest, (*task.notes, *spliced.notes))


def _annotations(slide: Path, given: str | Path | None) -> Path | None:
    """The GeoJSON of the slide's classes: as given, or the one beside it."""
    if given is not None:
        return Path(given)
    beside = slide.with_name(base_of(slide) + ".geojson")
    if not beside.is_file():
        return None
    content = read_json(beside, LayoutError, "repair it, or give others with --annotations")
    features = content.get("features") if isinstance(content, dict) else content
    return beside if features else None  # nothing but glass or unknown classes is drawn


def _note(look: Watcher | None, notes: tuple[str, ...]) -> None:
    for note in notes if look is not None else ():
        look(Stage("prepare", 0, note=note))  # type: ignore[misc]
