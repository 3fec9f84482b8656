"""Every setting of a run, validated at the edge.

A setting comes from a YAML file, from the command line or from the Python API; all three fill one ``RunConfig``. Settings
marked *execution* say where and how fast; all others decide the pixels and belong to a run's identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from wsigen.base.errors import ConfigError, suggest
from wsigen.base.yaml_file import first_fault, read_mapping
from wsigen.storage.opening import as_place, is_url

MAX_SIDE_PX = 1_000_000
MIN_SIDE_PX = 512
SAMPLE = "sample"  # the word that stands for a layout to be drawn

_EXECUTION = frozenset(
    {"run_dir", "keep_run", "workers", "processes", "threads", "tasks_at_once", "scheduler", "memory_gb", "window", "overwrite"}
)

_PATHS = frozenset({"layout", "layout_classes", "subtypes", "mask_model", "reference", "run_dir"})


class RunConfig(BaseModel):
    """Settings of one slide.

    Attributes
    ----------
    size:
        ``(width, height)`` in px of the full-resolution slide, each 512 .. 1,000,000. Without it the layout's or the
        reference's extent decides.
    layout, layout_mpp, layout_classes:
        GeoJSON, label raster or ``sample``: draw one; a file's um/px, if not the slide's; a raster's table "value -> class".
    subtype, subtypes, mask_model:
        Of a layout that is drawn: what kind of slide; a YAML file with subtypes of your own; the folder of a mask model
        that draws it (by default the bundle's, and without one the procedural sampler).
    class_name:
        One class for the whole slide (instead of a layout).
    background:
        Class outside every polygon; the model's background (glass) by default.
    reference:
        Image or slide whose coarse structure the slide follows.
    model:
        ``"default"``, a bundle folder, or a hub id.
    mode:
        ``pathup`` | ``random-patch`` | ``shifted``.
    overlap, taper:
        Latent px and name of the weights (``sampling.plan.TAPERS``); the mode's own by default
        (docs/quality.md).
    weighted_last:
        ``random-patch``: so many last steps are weighted instead of owned.
    steps, guidance:
        Transitions at strength 1; w of ``(1 + w) eps(c) - w eps(null)``. The bundle's by default.
    sampler:
        ``ddim``, or ``dpm++``: DPM-Solver++ (2M), of second order, for few steps (eta 0 only).
    eta:
        0 (deterministic) .. 1 (DDPM) noise of each step of ``ddim``; the bundle's by default. Fresh noise forgives a network's
        errors, which a deterministic path carries on; it needs more steps.
    strength:
        Re-noising of a reference or of a coarser level, in (0, 1].
    levels:
        Magnification levels of the cascade, coarse to fine; by default all of the bundle for ``pathup`` and 1 otherwise.
    seed:
        0 .. 2**64 - 1.
    chunk, batch:
        Chunk side in latent px and crops per model call (by canvas and device by default); both belong to the identity,
        as they decide the bits.
    mpp:
        um/px of the slide, if the bundle does not know its own.
    compression, quality:
        Of the slide's tiles.
    device, precision:
        Where the model runs (*cpu*, *cuda*, ...) and in which numbers (``fp32``, ``bf16``).
    run_dir, keep_run, overwrite:
        *Execution.* State of the run (a folder, ``OUT.run`` beside the slide by default, or ``s3://bucket/prefix``); keep it
        after success; replace an existing slide.
    workers, processes, threads, scheduler, window:
        *Execution.* Dask workers, whether they are processes, torch threads of each, the address of a running scheduler
        instead, tasks in flight per task that a worker has at once.
    tasks_at_once:
        *Execution.* Tasks that a worker has at once, 1 to 8: one calls the model while others read and write. 2 on an
        accelerator and 1 on a CPU by default; CPU workers of a scheduler have as many as threads.
    mixed_workers:
        Workers with other versions of what decides the last bits, or without the run's device: ``refuse`` them, or ``warn`` and
        let them help (those without the device on their CPU). A slide made so has no promise to come out the same again.
    memory_gb:
        *Execution.* Memory all local workers may use together (the machine's free memory by default).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    size: tuple[int, int] | None = None
    layout: Literal["sample"] | Path | None = None
    layout_mpp: float | None = Field(default=None, gt=0)
    layout_classes: Path | None = None
    subtype: str | None = Field(default=None, min_length=1)
    subtypes: Path | None = None
    mask_model: Path | None = None
    class_name: str | None = None
    background: str | None = None
    reference: Path | None = None
    model: str = "default"
    mode: Literal["pathup", "random-patch", "shifted"] = "shifted"
    overlap: int | None = Field(default=None, ge=0)
    taper: Literal["pathup", "flat", "linear", "hann", "gaussian"] | None = None
    weighted_last: int = Field(default=0, ge=0)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0, le=50)
    sampler: Literal["ddim", "dpm++"] = "ddim"
    eta: float | None = Field(default=None, ge=0, le=1)
    strength: float = Field(default=0.7, gt=0, le=1)
    levels: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**64)
    chunk: int | None = Field(default=None, ge=16)
    batch: int | None = Field(default=None, ge=1)
    mpp: float | None = Field(default=None, gt=0)
    compression: Literal["jpeg", "deflate"] = "jpeg"
    quality: int = Field(default=90, ge=1, le=100)
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    mixed_workers: Literal["refuse", "warn"] = "refuse"
    run_dir: str | Path | None = None
    keep_run: bool = False
    workers: int | None = Field(default=None, ge=1)
    processes: bool = False
    threads: int | None = Field(default=None, ge=1)
    tasks_at_once: int | None = Field(default=None, ge=1, le=8)
    scheduler: str | None = None
    memory_gb: float | None = Field(default=None, gt=0)
    window: int = Field(default=2, ge=1)
    overwrite: bool = False

    @field_validator("threads")
    @classmethod
    def _check_threads(cls, value: int | None) -> int | None:
        if value not in (None, 1, 2, 4):
            raise ValueError(f"{value}: 1, 2 or 4; other numbers of model threads change the last bits of a CPU's results")
        return value

    @field_validator("run_dir")
    @classmethod
    def _parse_run_dir(cls, value: str | Path | None) -> str | Path | None:
        return None if value is None else as_place(value)

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = value.lower().replace("×", "x").split("x")
        if len(parts) != 2 or not all(p.strip().isdigit() for p in parts):
            raise ValueError(f"{value!r} is not WIDTHxHEIGHT in pixels, e.g. 4096x4096")
        return tuple(int(p) for p in parts)

    @field_validator("size")
    @classmethod
    def _check_size(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None:
            check_size(*value)
        return value

    @property
    def sampled(self) -> bool:
        """Whether wsigen draws the layout. A file called ``sample`` is ``./sample``."""
        return self.layout == SAMPLE

    @property
    def layout_file(self) -> Path | None:
        """The file of the layout, None if it is drawn or there is none."""
        return self.layout if isinstance(self.layout, Path) else None

    def identity(self) -> dict[str, Any]:
        """The settings that decide the pixels, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(_EXECUTION))


def check_size(width: int, height: int) -> None:
    """Refuse a slide size outside 512 .. 1,000,000 px a side (ValueError)."""
    if min(width, height) < MIN_SIDE_PX or max(width, height) > MAX_SIDE_PX:
        raise ValueError(
            f"{width}x{height} px: a slide has {MIN_SIDE_PX} to {MAX_SIDE_PX:,} px a side (the model's crop is the least)"
        )


def make_config(settings: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """Build a configuration from a YAML file and settings that override it.

    Parameters
    ----------
    settings:
        Field names to values; None means "not given".
    file:
        YAML with the same names (``-`` or ``_``, ``class`` for ``class_name``); its relative paths count from its folder.

    Raises
    ------
    ConfigError
        One line: which field of which source is wrong, and what is possible.
    """
    merged: dict[str, Any] = dict(_read_yaml(file)) if file else {}
    merged.update({key: value for key, value in settings.items() if value is not None})
    for key in merged:
        if key not in RunConfig.model_fields:
            source = f"{file}: " if file and key not in settings else ""
            known = [*RunConfig.model_fields, "class"]
            raise ConfigError(f"{source}unknown setting '{key}'{suggest(key, known)}; known: {', '.join(sorted(known))}")
    try:
        config = RunConfig(**merged)
    except ValidationError as error:
        raise ConfigError(f"{f'{file}: ' if file else ''}{first_fault(RunConfig, error)}") from None
    return _check_combination(config)


def _read_yaml(file: Path) -> dict[str, Any]:
    """Read a flat mapping from YAML, with field names as Python spells them."""
    content = read_mapping(file, ConfigError, "no such configuration file", may_be_empty=True)
    found = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        name = "class_name" if name == "class" else name
        word = name == "layout" and value == SAMPLE
        if name in _PATHS and isinstance(value, str) and not word and not is_url(value):
            value = file.parent / value
        if name in ("model", "scheduler") and isinstance(value, str) and (file.parent / value).exists():
            value = str(file.parent / value)
        found[name] = value
    return found


def _check_combination(config: RunConfig) -> RunConfig:
    """Refuse settings that contradict each other."""
    if config.layout and config.class_name:
        raise ConfigError("'layout' and 'class' exclude each other: give a drawing or one class for the whole slide")
    if not (config.layout or config.size or config.reference):
        raise ConfigError("the slide's size is not known: give --size WIDTHxHEIGHT, --layout FILE or --reference FILE")
    if config.layout_classes and not config.layout_file:
        raise ConfigError("'layout_classes' names the values of a label raster: give the raster with --layout")
    if config.layout_mpp and not config.layout_file:
        raise ConfigError("'layout_mpp' is the um/px a layout was drawn at: give the layout with --layout")
    if config.eta and config.sampler != "ddim":
        raise ConfigError(f"'eta' adds noise, which sampler {config.sampler} does not know: use sampler ddim or eta 0")
    _check_sampling(config)
    if config.weighted_last and config.mode != "random-patch":
        raise ConfigError(f"'weighted_last' belongs to mode random-patch; mode {config.mode} weights every step")
    return config


def _check_sampling(config: RunConfig) -> None:
    """Refuse a sampled layout without what it needs, and its settings without it."""
    if not config.sampled:
        for name in [name for name in ("subtype", "subtypes", "mask_model") if getattr(config, name)]:
            raise ConfigError(f"'{name}' belongs to a layout that is drawn: add --layout {SAMPLE}, or leave it out")
        return
    if config.subtype is None:
        raise ConfigError(f"'layout: {SAMPLE}' draws a layout of a subtype: give --subtype NAME (wsigen models lists them)")
    if config.subtypes and config.mask_model:
        raise ConfigError("'subtypes' and 'mask_model' exclude each other: a mask model knows the subtypes it was trained on")
    if config.size is None and config.reference is None:
        raise ConfigError(f"'layout: {SAMPLE}' has no size of its own: give --size WIDTHxHEIGHT")
