"""Names of an edited slide's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsigen.base.errors import ConfigError, OutputError


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
    def of(parent: Path, output: Path, overwrite: bool) -> EditFiles:
        """Refuse an output that cannot be written (OutputError, ConfigError)."""
        names = EditFiles(output)
        if not output.absolute().parent.is_dir():
            raise OutputError(f"{output.absolute().parent}: no such folder; make it first")
        if parent.exists() and output.exists() and output.samefile(parent):
            raise ConfigError(f"{output}: is the slide itself, which is never changed; give another name")
        if ending_of(output) != ending_of(parent):
            raise ConfigError(f"{output}: an edited slide keeps its format; give a name that ends in {ending_of(parent)}")
        there = next((path for path in names.all if path.exists()), None)
        if there is not None and not overwrite:
            raise OutputError(f"{there}: exists already; add --overwrite to replace it or choose another name")
        return names

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
    def undo(self) -> Path:
        """What gives its parent back."""
        return self._beside(".undo")

    @property
    def work(self) -> Path:
        """Folder of the windows."""
        return self._beside(".edit")

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them but the folder."""
        return (self.slide, self.annotations, self.manifest, self.thumbnail, self.undo)


def base_of(slide: Path) -> str:
    """Name of a slide without its ending: files beside it begin with it."""
    return slide.name[: -len(ending_of(slide))]


def ending_of(slide: Path) -> str:
    """Its ending, in small letters."""
    lower = slide.name.lower()
    return next((end for end in (".ome.tiff", ".ome.tif") if lower.endswith(end)), slide.suffix.lower())
