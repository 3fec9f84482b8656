"""The folder of a cohort: what lies where, and one driver at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from wsigen.base.errors import OutputError, refusing
from wsigen.base.state import parse_state
from wsigen.run.manifest import Manifest
from wsigen.run.outputs import drawn_of, files_of
from wsigen.slide.sidecars import write_manifest
from wsigen.storage.files import held, remove_tree, sha256

SLIDES, LABELS, THUMBNAILS, INPUTS = "slides", "labels", "thumbnails", "inputs"
RECIPE = "recipe.yaml"

WORK = ".making"
"""Folder of the slides that are being made, each with its run in a folder of its own."""

_LOCK = ".making.lock"


def lies_below(name: str) -> bool:
    """Whether a name in a cohort's own lists (recipe, table, checksums) is of a file below its folder, on any system."""
    return bool(name) and not any(
        path.is_absolute() or path.drive or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name))
    )


@dataclass(frozen=True, slots=True)
class SlideFiles:
    """The files of a slide, and where they are made before they get their places; the manifest comes last."""

    slide: Path
    annotations: Path
    labels: Path
    thumbnail: Path
    manifest: Path


@dataclass(frozen=True, slots=True)
class CohortFolder:
    """Names in the folder of a cohort.

    Attributes
    ----------
    root : Path
        The folder.
    """

    root: Path

    def files(self, slide_id: str) -> SlideFiles:
        """The files of a slide."""
        slides = self.root / SLIDES
        return SlideFiles(
            slides / f"{slide_id}.ome.tiff",
            slides / f"{slide_id}.geojson",
            self.root / LABELS / f"{slide_id}.png",
            self.root / THUMBNAILS / f"{slide_id}.jpg",
            slides / f"{slide_id}.json",
        )

    def work(self, slide_id: str) -> Path:
        """The folder in which a slide is made."""
        return self.root / WORK / slide_id

    def made(self, slide_id: str) -> SlideFiles:
        """The files of a slide while it is made."""
        files = files_of(self.work(slide_id) / f"{slide_id}.ome.tiff")
        folder = files.slide.parent
        return SlideFiles(files.slide, files.annotations, folder / "labels.png", files.thumbnail, files.manifest)

    def done(self, slide_id: str, drawn: bool = False) -> bool:
        """Whether a slide is there with all of its files; its manifest is the last one to get its place.

        Parameters
        ----------
        drawn : bool
            Whether its drawn polygons are one of them.
        """
        files = self.files(slide_id)
        return files.thumbnail.is_file() and files.manifest.is_file() and all(path.is_file() for path in _kept(files, drawn))

    def manifest(self, slide_id: str) -> Manifest:
        """The manifest of a slide (OutputError if it cannot be read)."""
        path = self.files(slide_id).manifest
        cure = "delete it, and the same 'wsigen cohort make' makes the slide anew"
        with refusing(OutputError, f"{path}: no manifest of a slide", cure):
            content = path.read_bytes()
        try:
            return parse_state(Manifest, content, str(path), OutputError)
        except OutputError as error:
            raise OutputError(f"{error}; {cure}") from None

    def make(self) -> None:
        """Make the folders (OutputError)."""
        with refusing(OutputError, f"{self.root}: cannot be made", "choose another folder"):
            for name in (SLIDES, LABELS, THUMBNAILS, WORK):
                (self.root / name).mkdir(parents=True, exist_ok=True)

    def publish(self, slide_id: str) -> None:
        """Give the files of a slide that is complete their places; may be called again after any interruption."""
        made, files = self.made(slide_id), self.files(slide_id)
        manifest = parse_state(Manifest, made.manifest.read_bytes(), str(made.manifest), OutputError)
        files.manifest.unlink(missing_ok=True)  # of a slide that lost another of its files
        if made.thumbnail.exists():
            _write_jpeg(made.thumbnail, files.thumbnail)
            made.thumbnail.unlink()
        for source, target in zip(_kept(made), _kept(files), strict=True):
            if source.exists():
                source.replace(target)
        kept = {files.slide.name, files.annotations.name, "level0_tiles"}
        digests = {name: digest for name, digest in manifest.sha256.items() if name in kept}
        digests[LABELS] = sha256(files.labels)
        write_manifest(files.manifest, manifest.model_copy(update={"sha256": digests}).model_dump(mode="json"))
        self.clear_work(slide_id)

    def complete(self, slide_id: str, drawn: bool) -> bool:
        """Whether a slide is complete where it is made, and has only to be given its place.

        Parameters
        ----------
        drawn : bool
            Whether its drawn polygons belong to it; they come after the manifest.
        """
        made, files = self.made(slide_id), self.files(slide_id)
        pairs = zip(_kept(made, drawn), _kept(files, drawn), strict=True)
        return made.manifest.is_file() and all(source.is_file() or target.is_file() for source, target in pairs)

    def clear_work(self, slide_id: str) -> None:
        """Remove the folder in which a slide was made."""
        remove_tree(self.work(slide_id))

    def clear(self) -> None:
        """Remove what only a cohort on its way needs, if nothing is left in it."""
        work = self.root / WORK
        if work.is_dir() and not any(path.name[0] != "." for path in work.iterdir()):
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder for this process (OutputError if another one works in it)."""
        place = self.root / _LOCK
        with held(
            place,
            lambda holder: OutputError(f"{self.root}: {holder} works in it; wait for it, or choose another folder"),
            "choose another folder",
            must=True,
        ):
            yield


def _kept(files: SlideFiles, drawn: bool = True) -> Sequence[Path]:
    """What gets its place by being moved."""
    return files.slide, files.annotations, files.labels, *([drawn_of(files.slide)] if drawn else [])


def _write_jpeg(source: Path, target: Path, side: int = 512) -> None:
    from PIL import Image

    from wsigen.storage.files import atomic_path

    with Image.open(source) as image:
        picture = image.convert("RGB")
    picture.thumbnail((side, side))
    with atomic_path(target) as beside:
        picture.save(beside, format="JPEG", quality=88)
