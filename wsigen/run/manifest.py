"""``OUT.json``, the manifest of a slide: how it was made, with names and hashes and without a path of the machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from wsigen.base.classes import TissueClass
from wsigen.base.state import State
from wsigen.models.card import BundleCard, DataSource
from wsigen.run.continued import synthetic_of
from wsigen.run.spec import RunSpec, Sampling
from wsigen.sampling.passes import PassPlan
from wsigen.slide.pyramid import PyramidSpec
from wsigen.slide.stain import Stain


class InputFile(State):
    """A file the run was given, by name and content."""

    name: str
    sha256: str


class ModelRecord(State):
    """The bundle, and what it was trained on."""

    name: str
    title: str
    licence: str
    sha256: str
    training_data: tuple[DataSource, ...]


class EditRecord(State):
    """Places of a slide that were made anew.

    Attributes
    ----------
    parent, parent_sha256 : str
        The slide before, by name and content.
    regions : tuple of dict
        Class and GeoJSON geometry of each, px of the slide.
    boxes : tuple
        ``[x, y, w, h]`` of the windows that were generated, px of the slide.
    seed, strength, margin_um, model, model_sha256, wsigen
        How they were made.
    tiles : tuple of int
        Tiles of each level that were encoded anew, finest first.
    created : str
        When, ISO 8601.
    """

    parent: str
    parent_sha256: str
    regions: tuple[dict[str, JsonValue], ...]
    boxes: tuple[tuple[int, int, int, int], ...]
    seed: int
    strength: float
    margin_um: float
    model: str
    model_sha256: str
    wsigen: str
    tiles: tuple[int, ...]
    created: str


class Manifest(State):
    """Everything that made a slide.

    Attributes
    ----------
    created : str
        When, ISO 8601.
    run_id : str
        The same for slides of equal pixels.
    sampling, passes, slide, precision, device, mixed_workers
        How the pixels were made (`RunSpec`).
    class_name, background, layout_mpp, layout_names, nuclei, stain, region
        As set: the one class, the class outside every polygon, um/px of the layout, which of its classes were renamed,
        the class of nuclei, the stain if it is not the model's, the part of the grid's slide (x, y, width, height, px).
    inputs : dict
        Files given: ``layout``, ``layout_classes``, ``subtypes``, ``reference``, ``grid``.
    layout : str or None
        The layout for people: a file's name, or how it was drawn.
    drawn_layout : dict or None
        What a drawn layout depends on besides seed, size and um/px.
    area_px : dict
        Pixels of every class at full resolution.
    sha256 : dict
        Of the files beside the manifest by name, and of the encoded tiles of level 0 (``level0_tiles``).
    history : tuple of EditRecord
        Edits of the slide since, the first one first.
    """

    synthetic: Literal[True, "partly"] = True
    statement: str
    created: str
    run_id: str
    sampling: Sampling
    passes: tuple[PassPlan, ...]
    slide: PyramidSpec
    precision: str
    device: str
    mixed_workers: str
    class_name: str | None
    background: str | None
    layout_mpp: float | None
    layout_names: dict[str, str | None] | None
    nuclei: str | None
    stain: Stain | None = None
    region: tuple[int, int, int, int] | None = None
    inputs: dict[str, InputFile]
    layout: str | None
    drawn_layout: dict[str, JsonValue] | None
    classes: tuple[TissueClass, ...]
    area_px: dict[str, float]
    model: ModelRecord
    versions: dict[str, str]
    sha256: dict[str, str]
    history: tuple[EditRecord, ...] = ()


def make_manifest(spec: RunSpec, card: BundleCard, area_px: dict[str, float], sha256: dict[str, str]) -> Manifest:
    """Say how the slide of a run was made; files are named without their folders."""
    settings = spec.settings
    digests = {name: digest for name, digest in spec.inputs if digest is not None}
    inputs = {name: InputFile(name=Path(getattr(settings, name)).name, sha256=digest) for name, digest in digests.items()}
    by = f"made by wsigen {spec.versions['wsigen']}"
    partly = synthetic_of(settings) == "partly"
    whole = f"Synthetic slide {by}; it shows no patient."
    return Manifest(
        synthetic="partly" if partly else True,
        statement=f"{f'Partly synthetic slide: a real one was continued, {by}.' if partly else whole} {card.not_for}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=spec.run_id,
        sampling=spec.sampling,
        passes=spec.passes,
        slide=spec.slide,
        precision=spec.precision,
        device=spec.device,
        mixed_workers=settings.mixed_workers,
        class_name=settings.class_name,
        background=settings.background,
        layout_mpp=settings.layout_mpp,
        layout_names=settings.layout_names,
        nuclei=settings.nuclei,
        stain=settings.stain,
        region=settings.region,
        inputs=inputs,
        layout=inputs["layout"].name if "layout" in inputs else spec.layout_title,
        drawn_layout=spec.drawn_layout,
        classes=tuple(card.table),
        area_px=area_px,
        model=ModelRecord(
            name=card.name, title=card.title, licence=card.licence, sha256=spec.model_sha256, training_data=card.training_data
        ),
        versions=spec.versions,
        sha256=sha256,
    )
