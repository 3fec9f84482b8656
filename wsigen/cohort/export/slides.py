"""The slides of a cohort in other formats: whole-slide DICOM, OME-Zarr. The same call again goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from wsigen.base.errors import ConfigError
from wsigen.cohort.folder import CohortFolder
from wsigen.cohort.table import CSV, read_rows

Format = Literal["dicom", "ome-zarr"]

Watch = Callable[[int, int], None]
"""Called with how many slides are done, and how many there are."""


def export_cohort_slides(
    folder: str | Path, to: Format, out: str | Path | None = None, *, watch: Watch | None = None
) -> dict[str, Path]:
    """Write the slides of a cohort in another format, with the mark that they are synthetic.

    Parameters
    ----------
    folder : str or Path
        The cohort.
    to : str
        ``dicom``: a folder a slide with a file a level, Synthetic Data (0008,001C) YES, the same JPEG tiles; ``ome-zarr``:
        OME-Zarr 0.5.
    out : str or Path, optional
        Where they go; by default a folder called so in the cohort's.
    watch : callable, optional
        Called with how many slides are done, and how many there are.

    Returns
    -------
    dict of str to Path
        The folder of each slide by its id.

    Raises
    ------
    WsigenError
        If it is no cohort, or a slide cannot be written so.

    Examples
    --------
    >>> wsigen.export_cohort_slides("cohort", "dicom")
    """
    place = CohortFolder(Path(folder))
    rows = read_rows(place.root)
    if not rows:
        raise ConfigError(f"{place.root}: no cohort with slides in it ({CSV} is missing or empty); make it first")
    if to not in ("dicom", "ome-zarr"):
        raise ConfigError(f"format {to!r}: known are dicom and ome-zarr")
    target = Path(out) if out is not None else place.root / to
    written = {}
    for done, row in enumerate(rows, 1):
        if to == "dicom":
            from wsigen.cohort.export.dicom import write_dicom

            written[row["id"]] = write_dicom(place, row, target / row["id"])
        else:
            from wsigen.cohort.export.ome_zarr import write_ome_zarr

            written[row["id"]] = write_ome_zarr(place, row, target)
        if watch is not None:
            watch(done, len(rows))
    return written
