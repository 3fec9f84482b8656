"""What an evaluation leaves behind: ``report.json`` and a self-contained ``report.html``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from wsigen.base.errors import EvaluationError
from wsigen.base.version import __version__
from wsigen.evaluation.evaluate import Evaluation
from wsigen.evaluation.pooled import PooledSeam, pool
from wsigen.evaluation.report.page import page
from wsigen.evaluation.report.traces import hits_by_slide, nearest_pairs
from wsigen.storage.files import write_atomic


def to_json(found: Evaluation) -> dict[str, Any]:
    """Everything as plain values; a number that does not exist is null."""
    chosen = [] if found.nearest is None else found.nearest[1].tolist()
    nearest = [
        {"distance": d, "crop": i, "synthetic": asdict(synthetic), "training": asdict(training)}
        for i, (d, synthetic, training) in zip(chosen, nearest_pairs(found), strict=True)
    ]
    return finite(
        {
            "format": 1,
            "wsigen": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(found.settings).items()},
            "extractor": found.extractor,
            "mpp": found.mpp,
            "counts": found.counts(),
            "overlaps": found.overlaps(),
            "numbers": found.numbers,
            "by_class": found.by_class,
            "slides": [asdict(s) | {"found": [x.name for x in s.seams if x.found]} for s in found.slides],
            "seams": [_pooled(p) for p in pool(found.slides)],
            "nearest_training": nearest,
            "nearest_by_slide": [asdict(h) for h in hits_by_slide(found)],
            "skipped": [asdict(s) for side in found.sides.values() for s in side.skipped],
            "warnings": found.warnings,
        }
    )


def _pooled(found: PooledSeam) -> dict[str, Any]:
    path, seam = found.worst
    worst = {"path": path, "score": seam.score, "noise": seam.noise}
    counts = {"found": found.seam.found, "slides": found.slides, "found_on": found.found_on}
    return asdict(found.seam) | counts | {"worst": worst}


def check_folder(folder: Path, option: str) -> None:
    """Make the folder that will be written to, and try it: hours of work shall not end for want of it.

    Raises
    ------
    EvaluationError
        If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise EvaluationError(
            f"{option} {folder}: cannot be written to ({error.strerror or error}); give another folder"
        ) from None


def write_report(found: Evaluation, folder: Path) -> tuple[Path, Path]:
    """Write ``report.json`` and ``report.html`` into a folder, which is made if need be.

    Returns
    -------
    The two paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers, html = folder / "report.json", folder / "report.html"
    write_atomic(numbers, json.dumps(to_json(found), indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_atomic(html, page(found).encode())
    return numbers, html


def finite(value: Any) -> Any:
    """Plain values with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
