"""Names of an edited slide's files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import ConfigError, OutputError, refusing
from wsigen.slide.sidecars import EDIT_SCRIPT
from wsigen.storage.files import move_all, remove_tree, write_atomic

OME = (".ome.tiff", ".ome.tif")


@dataclass(frozen=True, slots=True)
class EditFiles:
    """Paths of an edited slide and of what lies beside it.

    Attributes
    ----------
    slide : Path
        The slide, as the user calls it.
    """

    slide: Path

    @staticmethod
    def of(parent: Path, output: Path, overwrite: bool, anew: bool = False) -> EditFiles:
        """Refuse an output that cannot be written (OutputError, ConfigError).

        Parameters
        ----------
        anew : bool
            Whether the whole file is written anew, whatever the slide's format.
        """
        names, folder = EditFiles(output), output.absolute().parent
        if not folder.is_dir():
            raise OutputError(f"{folder}: no such folder; make it first")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: not writable; choose another place for the slide")
        if parent.exists() and output.exists() and output.samefile(parent):
            raise ConfigError(f"{output}: is the slide itself, which is never changed; give another name")
        if not anew and ending_of(output) != ending_of(parent):
            raise ConfigError(f"{output}: an edited slide keeps its format; give a name that ends in {ending_of(parent)!r}")
        if names.script.name == EDIT_SCRIPT:
            raise ConfigError(f"{output}: {EDIT_SCRIPT} beside it is of another use; choose another name")
        if len({*names.all, names.work}) <= len(names.all):
            raise ConfigError(f"{output}: a file beside it has that name; rename the slide so that it ends in .tif")
        with refusing(OutputError, f"{output}: cannot be written", "choose another name for the slide"):
            names._demand_kinds()
            names.demand_free(overwrite)
        return names

    def _demand_kinds(self) -> None:
        if folder := next((path for path in self.all if path.is_dir()), None):
            raise OutputError(f"{folder}: is a folder; choose another name for the slide")
        if self.work.is_symlink() or (self.work.exists() and not self.work.is_dir()):
            raise OutputError(f"{self.work}: is in the way of the windows' folder; move it, or choose another name")

    def demand_free(self, overwrite: bool) -> None:
        """Refuse to write over files that this edit did not write before it was stopped (OutputError)."""
        there = next((path for path in self.all if os.path.lexists(path)), None)
        if there is not None and not overwrite and not self.placing.is_file():
            raise OutputError(f"{there}: exists already; add --overwrite to replace it or choose another name")

    def spare(self, inputs: Iterable[Path | None]) -> None:
        """Refuse names of what the edit is made from, which would be written over (OutputError)."""
        written = {path.resolve() for path in self.all}
        for path in inputs:
            if path is not None and path.resolve() in written:
                raise OutputError(f"{path}: is an input and would be written over; choose another name for the edited slide")

    @contextmanager
    def unplaced(self) -> Iterator[EditFiles]:
        """Yield the same files in a folder of their own, in which they are made; what is left in it is removed."""
        folder = self.work / "whole"
        remove_tree(folder)  # of an edit that was killed
        folder.mkdir()
        try:
            yield EditFiles(folder / self.slide.name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def place(self, new: EditFiles) -> None:
        """Put files that were made (`unplaced`) into their places, the manifest last; one that was not made is removed.

        Until all are there the file `placing` is, and no manifest.
        """
        with refusing(OutputError, f"{self.slide}: cannot be put into its place", "then give the same command again"):
            write_atomic(self.placing, b"")
            self.manifest.unlink(missing_ok=True)
            pairs = [*zip(new.all, self.all, strict=True)]
            pairs.sort(key=lambda pair: (pair[1] == self.manifest, pair[1] != self.undo))  # what undoes a slide before it
            for made, path in pairs:
                if not made.exists():
                    path.unlink(missing_ok=True)
            there = [pair for pair in pairs if pair[0].exists()]
            move_all([made for made, _ in there], [path for _, path in there])
            self.placing.unlink()

    def _beside(self, ending: str) -> Path:
        return self.slide.with_name(base_of(self.slide) + ending)

    @property
    def annotations(self) -> Path:
        """GeoJSON of its classes."""
        return self._beside(".geojson")

    @property
    def manifest(self) -> Path:
        """How it was made, and its history."""
        return self._beside(".json")

    @property
    def thumbnail(self) -> Path:
        """A picture of it."""
        return self._beside(".jpg")

    @property
    def overlay(self) -> Path:
        """The same with its classes."""
        return self._beside(".overlay.jpg")

    @property
    def script(self) -> Path:
        """For QuPath: it brings the annotations in."""
        return self._beside(".groovy")

    @property
    def undo(self) -> Path:
        """What gives its parent back."""
        return self._beside(".undo")

    @property
    def work(self) -> Path:
        """Folder of the windows."""
        return self._beside(".edit")

    @property
    def placing(self) -> Path:
        """A file in it that is there while the others get their places: what lies there then is this edit's."""
        return self.work / "placing"

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them but the folder."""
        return (self.slide, self.annotations, self.manifest, self.thumbnail, self.overlay, self.script, self.undo)


def base_of(slide: Path) -> str:
    """Name of a slide without its ending: files beside it begin with it."""
    return slide.name[: len(slide.name) - len(ending_of(slide))]


def ending_of(slide: Path) -> str:
    """Its ending, in small letters."""
    lower = slide.name.lower()
    return next((end for end in OME if lower.endswith(end)), slide.suffix.lower())
