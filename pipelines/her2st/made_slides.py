"""The slides that the report of the default model is about: the held-out section's twin, and one of every class."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wsigen
from wsigen.models.bundle import bundle_hash, find_bundle
from wsigen.models.card import read_card
from wsigen.run.spec import FORMAT

if TYPE_CHECKING:
    from wsigen.dataset.dataset import Dataset


@dataclass(frozen=True)
class Slides:
    """The slides of one model and solver, in a folder of their own; ``px`` is the side of those of one class."""

    folder: Path
    px: int
    settings: dict[str, Any]

    @classmethod
    def called(cls, out: Path, model: str, sampler: str | None, steps: int | None, px: int) -> Slides:
        """Name the folder after what identifies the model, how it is sampled, wsigen's version and its runs' format; make it.

        The format grows between releases, too, so that slides of code that is no longer there are not taken for new ones.
        """
        bundle = find_bundle(model)
        card = read_card(bundle)
        steps, sampler = steps or card.steps, sampler or card.sampler
        folder = out / f"{bundle_hash(bundle)[:12]}-{sampler}-{steps}-{wsigen.__version__}-{FORMAT}"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, px, {"model": model, "sampler": sampler, "steps": steps})

    @property
    def twin(self) -> Path:
        """That of the held-out section."""
        return self.folder / "twin.ome.tiff"

    def of(self, tissue: str) -> Path:
        """That of one class."""
        return self.folder / f"slide-{self.px}-{tissue.replace(' ', '-').lower()}.ome.tiff"


def make_twin(dataset: Dataset, data: Path, slides: Slides) -> None:
    """Generate a slide of the held-out section's size and class map, if it is not there."""
    mpp = dataset.mpps[0]
    (section,) = dataset.held_out
    height, width = section.canvas(mpp)
    layout = data / f"{Path(section.name).stem}.geojson"
    # what nobody labelled lies inside the tissue: stroma there, not holes
    how = {"layout": layout, "background": "Stroma", "size": (width, height), "mpp": mpp, "seed": 1}
    _make(slides.twin, how | slides.settings, hashlib.sha256(layout.read_bytes()).hexdigest())


def make_class_slides(dataset: Dataset, slides: Slides) -> None:
    """Generate a slide of every class that is not there."""
    for index, tissue in enumerate(dataset.table):
        if not tissue.background:
            how = {"class_name": tissue.name, "size": (slides.px, slides.px), "mpp": dataset.mpps[0], "seed": index}
            _make(slides.of(tissue.name), how | slides.settings)


def _make(slide: Path, settings: dict[str, Any], drawing: str = "") -> None:
    """Generate a slide, unless the note beside it says that it was made so, of this drawing (its SHA-256)."""
    note, asked = slide.with_suffix("").with_suffix(".of.json"), json.dumps([settings, drawing], default=str)
    if slide.exists() and note.exists() and note.read_text() == asked:
        return
    note.unlink(missing_ok=True)
    wsigen.generate(slide, overwrite=True, **settings)
    note.write_text(asked)


def picture_of(slide: Path) -> Path:
    """The small picture that lies beside a slide."""
    return slide.with_suffix("").with_suffix(".jpg")
