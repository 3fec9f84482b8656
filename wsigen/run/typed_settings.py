"""The settings of a run as keywords, for editors and type checkers; their meaning is said in `wsigen.run.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict

from wsigen.sampling.passes import Consistency
from wsigen.slide.stain import Stain

Mode = Literal["pathup", "random-patch", "shifted"]
Taper = Literal["pathup", "flat", "linear", "hann", "gaussian"]


class ResumeSettings(TypedDict, total=False):
    """The settings that may change when a run goes on: where and how fast (see `RunConfig`)."""

    overwrite: bool
    keep_run: bool
    device: str
    workers: int | None
    processes: bool
    threads: int | None
    tasks_at_once: int | None
    window: int
    memory_gb: float | None
    scheduler: str | None


class EditSettings(ResumeSettings, total=False):
    """The settings of a run that an edit takes; it decides the others itself."""

    layout_names: str | dict[str, str | None] | None
    levels: int | None
    precision: Literal["fp32", "bf16"]
    mode: Mode
    steps: int | None
    guidance: float | None
    sampler: Literal["ddim", "dpm++"] | None
    eta: float | None
    overlap: int | None
    taper: Taper | None
    chunk: int | None
    batch: int | None


class RunSettings(ResumeSettings, total=False):
    """The fields of `RunConfig` as keywords of `wsigen.generate`, for editors and type checkers."""

    size: str | tuple[int, int] | None
    seed: int
    reference: str | Path | None
    grid: str | Path | None
    region: str | tuple[int, int, int, int] | None
    mpp: float | None
    extend: str | Path | None
    at: str | tuple[int, int] | None
    extend_mpp: float | None
    resample: bool
    regions: str | Path | None
    margin_um: float
    edit_strength: float
    layout: str | Path | None
    layout_mpp: float | None
    layout_classes: str | Path | None
    layout_names: str | dict[str, str | None] | None
    nuclei: str | None
    class_name: str | None
    background: str | None
    subtype: str | None
    subtypes: str | Path | None
    mask_model: str | Path | None
    model: str
    levels: int | None
    precision: Literal["fp32", "bf16"]
    mode: Mode
    steps: int | None
    guidance: float | None
    sampler: Literal["ddim", "dpm++"] | None
    eta: float | None
    strength: float
    consistency: Consistency
    overlap: int | None
    taper: Taper | None
    weighted_last: int
    chunk: int | None
    batch: int | None
    compression: Literal["jpeg", "deflate"]
    quality: int
    drawn: bool
    rois: bool
    stain: str | Path | Stain | dict[str, Any] | None
    run_dir: str | Path | None
    mixed_workers: Literal["refuse", "warn"]
