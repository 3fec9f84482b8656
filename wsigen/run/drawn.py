"""``OUT.drawn.geojson``: the drawn polygons beside a slide, where they are asked for."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

from wsigen.base.errors import ConfigError, OutputError, refusing
from wsigen.base.geometry import Box
from wsigen.layout.drawn import write_drawn
from wsigen.layout.geojson_file import looks_like_json
from wsigen.run.config import RunConfig
from wsigen.run.outputs import drawn_of
from wsigen.run.prepare import Prepared
from wsigen.storage.files import leftover_name


def check_drawn(output: Path, config: RunConfig) -> None:
    """Refuse before work starts what could not be written at its end (ConfigError, OutputError)."""
    target, layout = drawn_of(output), config.layout_file
    if layout is not None and layout.is_file() and not looks_like_json(layout):
        raise ConfigError(f"setting 'drawn': {layout} is a label image, which has no polygons; leave 'drawn' out")
    if os.path.lexists(target) and not config.overwrite:
        raise OutputError(f"{target}: exists already; add --overwrite to replace it or choose another name")


def put_drawn(prepared: Prepared) -> None:
    """Write the file; another one of its name is replaced only if the user says so (OutputError)."""
    config, spec, target = prepared.config, prepared.spec, drawn_of(prepared.output)
    if config.layout_file is None:
        return
    scale = config.layout_mpp / spec.slide.mpp if config.layout_mpp else 1.0
    x, y, width, height = config.region or (0, 0, 0, 0)
    part = Box(y, x, y + height, x + width) if config.region else None
    beside = target.with_name(leftover_name(target.name))
    with refusing(OutputError, f"{target}: cannot be written", "what is finished is kept: make room, then resume the run"):
        try:
            write_drawn(config.layout_file, beside, prepared.card.table, scale, config.layout_names, config.nuclei, part)
            if os.path.lexists(target) and not config.overwrite and not filecmp.cmp(beside, target, shallow=False):
                raise OutputError(f"{target}: exists already and is not of this run; move it away, or resume with --overwrite")
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
