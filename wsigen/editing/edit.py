"""``wsigen edit``: places of a slide are made anew; everything else in its file stays byte for byte."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

from wsigen.base.errors import ConfigError, LayoutError, OutputError, refusing
from wsigen.base.version import __version__
from wsigen.editing.annotations import Annotations, edited_annotations, features_of, geometries_of, shapes_of
from wsigen.editing.names import OME, EditFiles, base_of, ending_of
from wsigen.editing.patches import patches_of
from wsigen.editing.record import edited_manifest, manifest_beside
from wsigen.editing.task import EditTask
from wsigen.layout.geojson_file import JSON_SUFFIXES, load_whole
from wsigen.models.bundle import check_bundle, find_bundle
from wsigen.run.config import RunConfig
from wsigen.run.display import showing
from wsigen.run.engine.stage import Stage, Watcher
from wsigen.run.keywords import with_settings
from wsigen.run.machine_file import with_machine
from wsigen.run.manifest import EditRecord
from wsigen.run.output_check import held_output
from wsigen.run.prepare import Prepared
from wsigen.run.typed_settings import EditSettings
from wsigen.slide.edited_description import edited_description, holds_rois
from wsigen.slide.marks import description_of, synthetic_mark
from wsigen.slide.ome_rois import Roi, TooManyRoisError, rois_of
from wsigen.slide.reading import let_go
from wsigen.slide.sidecars import import_script, write_annotated, write_edit_script, write_manifest, write_thumbnail
from wsigen.slide.splice import OtherFormatError, demand_replaceable, replace_pixels, restore
from wsigen.slide.writer import level0_sha256
from wsigen.storage.files import remove_leftovers, remove_tree, sha256, write_atomic


@dataclass(frozen=True, slots=True)
class Undone:
    """A slide that is its parent again.

    Attributes
    ----------
    slide : Path
        The slide.
    notes : tuple of str
        What a user should know, a line each.
    """

    slide: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edited:
    """An edited slide.

    Attributes
    ----------
    slide, annotations, manifest, thumbnail, overlay, script : Path
        The slide, and what lies beside it: as of `wsigen.run.outputs.Files`.
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
    overlay: Path
    script: Path
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
        The new slide, of the same ending: it keeps the format. A slide in whose format pixels cannot be replaced becomes an
        OME-TIFF, if the name ends in ``.ome.tiff``.
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
    if not 0 < strength <= 1:
        raise ConfigError(f"setting 'strength': is {strength:g}; it lies above 0, and 1 replaces what is there")
    slide, output = Path(slide), Path(output)
    given: Any = {"extend": slide, "regions": Path(regions), "margin_um": margin_um, "edit_strength": strength, "seed": seed}
    given |= {"model": model, "extend_mpp": slide_mpp, "resample": resample, "size": (2048, 2048), "compression": "deflate"}
    anew = _written_anew(slide, output)
    names = EditFiles.of(slide, output, bool(settings.get("overwrite")), anew)
    mark, layout = synthetic_mark(slide), _annotations(slide, annotations)
    card = check_bundle(find_bundle(model))
    if layout is not None:
        background = next((tissue.name for tissue in card.table if tissue.background), None)
        given |= {"layout": layout, "background": background if mark == "true" else None}
    config = with_machine(RunConfig(**{**given, **settings}), machine)
    task = EditTask.of(slide, config, card, names, anew)
    names.spare((*EditFiles(slide).all, config.regions, layout))
    drawn = _Drawn.of(task, layout)  # what is wrong with annotations is said before anything is made
    with showing(progress, watch) as look, held_output(output):
        names.demand_free(config.overwrite)  # another edit may have been faster
        _remove_leftovers(names)
        _note(look, task.notes)
        made = task.generate(look)
        return _put_together(task, made, mark, drawn, undo and not anew)


def undo_edit(output: str | Path) -> Undone:
    """Give the parent's bytes back to an edited slide, and its annotations and manifest, if it had any.

    What lies beside it and was changed since the edit stays.

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
        others = _changed_since(names)
        beside = {".geojson": names.annotations, ".json": names.manifest}
        restore(output, names.undo, {ending: path for ending, path in beside.items() if path not in others})
        let_go()
        made = {names.thumbnail, names.overlay, names.undo} | (set() if names.annotations.exists() else {names.script})
        for path in made - set(others):
            path.unlink(missing_ok=True)
    return Undone(
        output, tuple(f"{path.name} was changed since the edit: it stays, and is not the parent's" for path in others)
    )


# -- inside ------------------------------------------------------------------------------------------------------------


def _changed_since(names: EditFiles) -> list[Path]:
    """Files beside an edited slide that are not those of its edit, as far as its manifest says which these are."""
    said = (manifest_beside(names.slide, base_of(names.slide)) or {}).get("sha256") or {}
    whole = names.slide.name in said and said[names.slide.name] == sha256(names.slide)
    said = said if whole else {}
    beside = (names.annotations, names.thumbnail, names.overlay, names.script)
    changed = [path for path in beside if path.exists() and said.get(path.name) != sha256(path)]
    return [*changed, *([names.manifest] if names.manifest.exists() and not whole else [])]


def _remove_leftovers(names: EditFiles) -> None:
    """Remove what edits that were killed left beside the slide, each as large as it; the slide is held."""
    for path in (*names.all, names.work):
        remove_leftovers(path)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What an edit says of its regions and of the annotations around them.

    Attributes
    ----------
    layout : Path or None
        The annotations of the slide before.
    regions : tuple of dict
        Class and geometry of each, px of the slide.
    annotations : Annotations
        Those of the edited slide.
    rois : tuple of Roi or None
        The same for its OME-XML; None: those that it holds stay.
    notes : tuple of str
        What a user should know of them.
    """

    layout: Path | None
    regions: tuple[dict[str, Any], ...]
    annotations: Annotations
    rois: tuple[Roi, ...] | None
    notes: tuple[str, ...]

    @staticmethod
    def of(task: EditTask, layout: Path | None) -> _Drawn:
        """Cut the regions out of a slide's annotations, and put them there (LayoutError)."""
        shapes, table = shapes_of(task.regions, task.to_file), task.card.table
        annotations = edited_annotations(layout, shapes, table, task.config.seed)
        before = "" if task.anew else description_of(task.file) or ""
        with refusing(LayoutError, f"{layout}: no annotations for OME-XML", "export them anew"):
            rois, notes = _rois(before, None if layout is None else annotations.features)
        return _Drawn(layout, tuple(geometries_of(shapes, table)), annotations, rois, notes)


def _put_together(task: EditTask, made: list[Prepared], mark: str | None, drawn: _Drawn, undo: bool) -> Edited:
    """Make the slide and what lies beside it from the windows, and put them into their places when all are there."""
    names, config, card = task.names, task.config, task.card
    let_go()
    slides = (names.work / f"window-{number}.ome.tiff" for number in range(len(made)))
    patches = patches_of(zip(slides, task.windows, made, strict=True), task.placed, names.work)
    parent = manifest_beside(task.source, base_of(task.source))
    earlier = sum(len(each.get("regions", ())) for each in (parent or {}).get("history") or ())
    model = {"model": card.name, "model_sha256": made[0].spec.model_sha256}
    told: Any = {"regions": drawn.regions, "boxes": task.boxes(), "seed": config.seed, **model}
    told |= {"strength": config.edit_strength, "margin_um": config.margin_um}
    edit_id = hashlib.sha256(json.dumps([told, task.settings()], sort_keys=True).encode()).hexdigest()
    details = {**model, "seed": str(config.seed), "edit": edit_id}
    before = description_of(task.file) or ""
    text = edited_description(before, earlier + len(drawn.regions), details, names.slide.name, drawn.rois)
    kept = _kept_beside(task.source, drawn.layout, names.work)
    with names.unplaced() as new:
        spliced = replace_pixels(task.file, new.slide, patches, description=text, undo=new.undo if undo else None, beside=kept)
        let_go()
        write_atomic(new.annotations, drawn.annotations.text)
        _write_pictures(task, new, drawn.annotations, mark)
        tiles = tuple((level.tiles, level.of) for level in spliced.levels)
        record = EditRecord(
            parent=task.source.name,
            parent_sha256=sha256(task.source) if task.anew else spliced.parent_sha256,
            wsigen=__version__,
            tiles=tuple(count for count, _ in tiles),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **told,
        )
        digest = level0_sha256(new.slide)
        hashes = {path.name: sha256(path) for path in new.all if path not in (new.manifest, new.undo)}
        hashes["level0_tiles"] = digest
        write_manifest(new.manifest, edited_manifest(parent, record, mark, card, drawn.annotations.area_px, hashes))
        let_go()
        names.place(new)
    write_edit_script(names.slide.absolute().parent)
    if not config.keep_run:
        remove_tree(names.work)
    undo_path = names.undo if undo else None
    files = (names.slide, names.annotations, names.manifest, names.thumbnail, names.overlay, names.script, undo_path)
    return Edited(*files, task.boxes(), tiles, digest, (*task.notes, *spliced.notes, *drawn.notes))


def _rois(before: str, features: list[dict[str, Any]] | None) -> tuple[tuple[Roi, ...] | None, tuple[str, ...]]:
    """The annotations for a slide that holds those of its parent, and what a user should know of them."""
    if not holds_rois(before):
        return None, ()
    if features is None:
        what = "no annotations lie beside the slide: those in its OME-XML stay as they were, without the regions"
        return None, (f"{what}; --annotations gives them",)
    try:
        return rois_of(features), ()
    except TooManyRoisError:
        return (), ("the annotations have too many corners for the slide's OME-XML; the GeoJSON beside it alone has them",)


def _kept_beside(slide: Path, layout: Path | None, folder: Path) -> dict[str, Path]:
    """The slide's annotations and manifest, by ending: undone edits have them again; a folder is for what was packed."""
    base = base_of(slide)
    if layout is None:
        layout = slide.with_name(f"{base}.geojson")
    elif layout.suffix.lower() not in JSON_SUFFIXES:
        packed, layout = layout, folder / "annotations.geojson"
        write_atomic(layout, json.dumps(load_whole(packed), ensure_ascii=False).encode())
    files = {".geojson": layout}
    if manifest_beside(slide, base) is not None:
        files[".json"] = slide.with_name(f"{base}.json")
    return {ending: path for ending, path in files.items() if path.is_file()}


def _write_pictures(task: EditTask, names: EditFiles, annotations: Annotations, mark: str | None) -> None:
    """The pictures and the script for QuPath, as beside a slide that was generated."""
    source = task.placed.source
    write_thumbnail(names.slide, names.thumbnail)
    title = "SYNTHETIC" if mark == "true" else "PARTLY SYNTHETIC"
    write_annotated(names.thumbnail, names.overlay, annotations.features, (source.height, source.width), title)
    write_atomic(names.script, import_script().encode())


def _written_anew(slide: Path, output: Path) -> bool:
    """Whether the whole slide is written as an OME-TIFF, as no pixels can be replaced in its format (ImageError)."""
    try:
        demand_replaceable(slide)
    except OtherFormatError:
        if ending_of(output) not in OME:
            raise
        return True
    return False


def _annotations(slide: Path, given: str | Path | None) -> Path | None:
    """The GeoJSON of the slide's classes: as given, or the one beside it."""
    if given is not None:
        return Path(given)
    beside = slide.with_name(base_of(slide) + ".geojson")
    if not beside.is_file():
        return None
    return beside if features_of(beside) else None  # nothing but glass or unknown classes is drawn


def _note(look: Watcher | None, notes: tuple[str, ...]) -> None:
    for note in notes if look is not None else ():
        look(Stage("prepare", 0, note=note))  # type: ignore[misc]
