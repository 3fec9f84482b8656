"""Files that hold a grid: `*.wsz`, and the feature files of TRIDENT and CLAM."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import GridError
from wsigen.grids.feature_file import FEATURES, open_features
from wsigen.grids.grid import Grid, GridFile
from wsigen.grids.wsz import SUFFIX, open_wsz

SUFFIXES = (SUFFIX, *FEATURES)


def open_grid(path: Path) -> Grid:
    """The grid of a file; the cells of a ``*.wsz`` are read as windows ask for them.

    Raises
    ------
    GridError
        If it is no grid, or one that cannot be used.
    """
    return _open(path)[1]


def read_about(path: Path) -> GridFile:
    """What a file says of itself (GridError if it is none)."""
    return _open(path)[0]


def _open(path: Path) -> tuple[GridFile, Grid]:
    if path.suffix not in SUFFIXES:
        raise GridError(f"{path}: a grid's file is called *{' or *'.join(SUFFIXES)}; 'wsigen compress SLIDE OUT.wsz' makes one")
    if not path.is_file():
        raise GridError(f"{path}: no such file; 'wsigen compress SLIDE OUT.wsz' makes one")
    return open_features(path) if path.suffix in FEATURES else open_wsz(path)
