"""Figures and pictures of the default model, for docs/default-model.md.

    python -m pipelines.default_model_report configs/default-model.yaml --data OUT/slides --out WORK --docs docs/default-model

``OUT`` is that of ``python -m pipelines.default_model``. Slides made on the way stay in WORK, in a folder per model and
setting, and are not made again:

1. A twin of the held-out section: a slide of its size and class map. Its crops against the section's at the same places.
2. A slide of every class, and a window of the overview level.
3. KID and its kin, a linear probe, memorisation, the nearest training crops; ``figures.md`` and pictures go to DOCS.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import wsigen
from pipelines.her2st.crops import Crops, joined, lattice_places, places, real_crops, tiles, twin_crops
from pipelines.her2st.overviews import draw_window
from pipelines.steps import open_data, read_pipeline
from wsigen.metrics import memorisation
from wsigen.metrics.extractors import open_extractor
from wsigen.metrics.fidelity import fidelity_numbers
from wsigen.models.bundle import bundle_hash, find_bundle
from wsigen.models.card import read_card
from wsigen.models.model import load_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsigen.cohort.cohort import Cohort
    from wsigen.cohort.members import Member
    from wsigen.geometry import Box
    from wsigen.metrics.extractors import Extractor

SIDE = 512
"""px of the crops that are compared."""
BATCH = 16
"""Crops that the extractor sees at a time."""
SHOWN = ("kid", "fid", "precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Sides:
    """What is compared: crops of `SIDE` px of real tissue, of the twin, and of the slides of one class.

    ``training`` are at random places and may overlap; ``apart``, of training sections as well, do not.
    """

    held_out: Crops
    training: Crops
    apart: Crops
    twin: Crops
    classes: Crops


@dataclass(frozen=True)
class Slides:
    """The slides of one model and solver, in a folder of their own; ``px`` is the side of those of one class."""

    folder: Path
    px: int
    settings: dict[str, Any]

    @property
    def twin(self) -> Path:
        """That of the held-out section."""
        return self.folder / "twin.ome.tiff"

    def of(self, tissue: str) -> Path:
        """That of one class."""
        return self.folder / f"slide-{self.px}-{tissue.replace(' ', '-').lower()}.ome.tiff"


class Batched:
    """An extractor that sees few crops at a time, and none twice: 450 crops of 512 px at once would take 8 GB."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._known: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
        self.name, self.version = extractor.name, extractor.version

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 ``[n, d]`` of uint8 ``[n, P, P, 3]``."""
        if id(images) not in self._known:
            parts = [self._extractor.features(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
            self._known[id(images)] = images, np.concatenate(parts)  # the images stay, so that nothing else gets their id
        return self._known[id(images)][1]


def main() -> None:
    """Make slides, measure, draw."""
    args = _arguments()
    plan = read_pipeline(args.config)
    cohort = open_data(plan, args.data, args.out)
    args.docs.mkdir(parents=True, exist_ok=True)
    extractor = Batched(open_extractor(args.features))
    slides = slides_of(args.model, args)
    make_twin(cohort, args.data, slides)
    make_class_slides(cohort, slides)
    sides = cut_sides(cohort, slides, args.crops)
    lines = [f"Features: {extractor.name} ({extractor.version}), {args.crops} crops of {SIDE} px.", ""]
    others = dict(args.twin)
    if args.earlier:
        before = slides_of(args.earlier, args)
        make_twin(cohort, args.data, before)
        others["the version before"] = before.twin
    where = held_out_places(cohort, args.crops)
    cut = {name: twin_crops(slide, where, cohort.mpps[0], len(cohort.table)) for name, slide in others.items()}
    decoded = {"held-out crops, encoded and decoded": reconstructed(args.model, sides.held_out)}
    lines += fidelity_table(extractor, sides, decoded | cut)
    lines += probe_table(extractor, sides, cohort)
    lines += memorisation_table(extractor, sides)
    (args.docs / "figures.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(extractor, sides, cohort, slides, args.docs)
    print("\n".join(lines))


def slides_of(model: str, args: argparse.Namespace) -> Slides:
    """Name the folder of a model's slides after what identifies the model, how it is sampled, and wsigen's version."""
    bundle = find_bundle(model)
    steps = args.steps or read_card(bundle).steps
    folder = args.out / f"{bundle_hash(bundle)[:12]}-{args.sampler}-{steps}-{wsigen.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    return Slides(folder, args.slide_px, {"model": model, "sampler": args.sampler, "steps": steps})


def make_twin(cohort: Cohort, data: Path, slides: Slides) -> None:
    """Generate a slide of the held-out section's size and class map, if it is not there."""
    mpp = cohort.mpps[0]
    (section,) = cohort.held_out
    height, width = section.canvas(mpp)
    layout = data / f"{Path(section.name).stem}.geojson"
    made_of = slides.folder / "twin-of.txt"
    asked = f"{section.name} {hashlib.sha256(layout.read_bytes()).hexdigest()} {width}x{height} {mpp}"
    if slides.twin.exists() and made_of.exists() and made_of.read_text() == asked:
        return
    made_of.unlink(missing_ok=True)
    # what nobody labelled lies inside the tissue: stroma there, not holes
    size = (width, height)
    wsigen.generate(
        slides.twin, layout=layout, background="Stroma", size=size, mpp=mpp, seed=1, overwrite=True, **slides.settings
    )
    made_of.write_text(asked)


def make_class_slides(cohort: Cohort, slides: Slides) -> None:
    """Generate a slide of every class that is not there."""
    size = (slides.px, slides.px)
    for index, tissue in enumerate(cohort.table):
        path = slides.of(tissue.name)
        if not tissue.background and not path.exists():
            wsigen.generate(path, class_name=tissue.name, size=size, mpp=cohort.mpps[0], seed=index, **slides.settings)


def held_out_places(cohort: Cohort, count: int) -> list[tuple[Member, Box]]:
    """Where crops of the held-out section and of its twins are cut."""
    return places(cohort.held_out, cohort.mpps[0], SIDE, count, _glass(cohort), 0)


def cut_sides(cohort: Cohort, slides: Slides, count: int) -> Sides:
    """Cut all crops."""
    mpp, classes = cohort.mpps[0], len(cohort.table)
    where = held_out_places(cohort, count)
    training = real_crops(places(cohort.training, mpp, SIDE, 3 * count, _glass(cohort), 1), mpp, classes)
    apart = real_crops(lattice_places(cohort.training, mpp, SIDE, _glass(cohort)), mpp, classes)
    tissues = [(i, c.name) for i, c in enumerate(cohort.table) if not c.background]
    drawn = joined([tiles(slides.of(name), SIDE, index) for index, name in tissues])
    return Sides(real_crops(where, mpp, classes), training, apart, twin_crops(slides.twin, where, mpp, classes), drawn)


def picture_of(slide: Path) -> Path:
    """The small picture that lies beside a slide."""
    return slide.with_suffix("").with_suffix(".png")


def _glass(cohort: Cohort) -> int:
    return next(i for i, c in enumerate(cohort.table) if c.background)


def reconstructed(model: str, crops: Crops) -> Crops:
    """What the autoencoder makes of crops: the best that any denoiser could do with it."""
    loaded = load_model(find_bundle(model))
    images = [loaded.decode(loaded.encode(image)).round().astype(np.uint8) for image in crops.images]
    return Crops(np.stack(images), crops.classes)


def fidelity_table(extractor: Batched, sides: Sides, others: Mapping[str, Crops]) -> list[str]:
    """Held-out crops against the twin's at the same places; against as many training crops, as the measure's floor."""
    real = extractor.features(sides.held_out.images)
    rows = {"training crops": sides.training.some(len(real)), "this model": sides.twin, **others}
    found = {name: fidelity_numbers(real, extractor.features(crops.images), 0) for name, crops in rows.items()}
    lines = [
        "| against held-out crops | KID x 1000 | FID | precision | recall | density | coverage |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, numbers in found.items():
        cells = [f"{1000 * numbers['kid']:.1f}", *(f"{numbers[key]:.2f}" for key in SHOWN[1:])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    kids = {name: numbers["kid"] for name, numbers in found.items()}
    said = [f"{name} {kid / kids['training crops']:.1f}" for name, kid in kids.items() if name != "training crops"]
    return [*lines, "", f"KID over that of training crops: {', '.join(said)}.", ""]


def probe_table(extractor: Batched, sides: Sides, cohort: Cohort) -> list[str]:
    """A linear probe trained on real training crops names the classes of held-out and of synthetic crops."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = sides.training.classes >= 0
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    probe.fit(extractor.features(sides.training.images)[known], sides.training.classes[known])
    trained = np.unique(sides.training.classes[known])
    lines = ["| class recognised by a linear probe | training crops | held-out crops | one-class slides |", "|---|---|---|---|"]
    for c in trained:
        cells = [f"{int((sides.training.classes == c).sum())}"]
        for crops in (sides.held_out, sides.classes):
            images = crops.images[crops.classes == c]
            share = (probe.predict(extractor.features(images)) == c).mean() if len(images) else float("nan")
            cells.append(f"{share:.2f} of {len(images)}")
        lines.append(f"| {cohort.table[int(c)].name} | {' | '.join(cells)} |")
    return [*lines, "", f"Chance is {1 / len(trained):.2f}.", ""]


def memorisation_table(extractor: Batched, sides: Sides) -> list[str]:
    """Authenticity of 200 samples beside that of held-out crops, and the data's own near duplicates.

    Training crops do not overlap here: a crop that shows half of another one's tissue is its nearest neighbour, and held
    against such a distance whatever is drawn looks authentic.
    """
    training = extractor.features(sides.apart.images)
    held_out = extractor.features(sides.held_out.images)
    samples = extractor.features(joined([sides.twin, sides.classes]).some(200).images)
    below, pairs = memorisation.share_too_near(training, held_out, samples)
    copying = memorisation.data_copying(training, held_out, samples, 5, 0)
    return [
        f"| memorisation, against {len(training)} training crops that do not overlap | value |",
        "|---|---|",
        f"| authenticity of 200 samples | {memorisation.authenticity(training, samples):.2f} |",
        f"| authenticity of held-out crops, as of fresh tissue | {memorisation.authenticity(training, held_out):.2f} |",
        "| training crops nearer to another one than all but the nearest 5 % of held-out crops: the data's own duplicates | "
        f"{memorisation.duplicates(training, held_out):.2f} |",
        f"| samples nearer to training than all but the nearest 5 % of held-out crops | {below:.2f} |",
        f"| probability that a sample is nearer than a held-out crop | {pairs:.2f} |",
        f"| C_T (below 0: copies) | {copying.score:.1f} |",
        "",
    ]


def draw(extractor: Batched, sides: Sides, cohort: Cohort, slides: Slides, docs: Path) -> None:
    """Pictures: crops side by side, the twin beside its section, one slide and overview per class, nearest crops."""
    chosen = np.random.default_rng(5).permutation(len(sides.held_out.images))[:6]
    rows = [np.concatenate(list(crops.images[chosen]), axis=1) for crops in (sides.held_out, sides.twin)]
    save(np.concatenate(rows), docs / "crops.jpg", 1800)
    (section,) = cohort.held_out
    real = Image.open(section.path)
    Image.MAX_IMAGE_PIXELS = None
    twin = Image.open(picture_of(slides.twin))
    pair = [np.asarray(im.convert("RGB").resize((900, 900 * real.height // real.width))) for im in (real, twin)]
    save(np.concatenate(pair, axis=1), docs / "twin.jpg", 1800)
    tissues = [(i, c.name) for i, c in enumerate(cohort.table) if not c.background]
    pictures = [np.asarray(Image.open(picture_of(slides.of(name))).convert("RGB").resize((512, 512))) for _, name in tissues]
    save(np.concatenate(pictures, axis=1), docs / "slides.jpg", 2048)
    model = load_model(find_bundle(slides.settings["model"]))
    windows = [draw_window(model, index, len(cohort.mpps) - 1, seed=index) for index, _ in tissues]
    save(np.concatenate(windows, axis=1), docs / "overviews.jpg", 2048)
    samples = joined([sides.twin, sides.classes]).some(8, seed=3).images
    _, nearest = memorisation.nearest_training(extractor.features(sides.training.images), extractor.features(samples))
    save(
        np.concatenate([np.concatenate(list(s), axis=1) for s in (samples, sides.training.images[nearest])]),
        docs / "nearest.jpg",
        2048,
    )


def save(picture: NDArray[np.uint8], path: Path, width: int) -> None:
    """Write a picture of the documents, ``width`` px wide."""
    height = picture.shape[0] * width // picture.shape[1]
    Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS).save(path, quality=85)
    print("drew", path, flush=True)


def _named(text: str) -> tuple[str, Path]:
    name, _, slide = text.partition("=")
    if not name or not Path(slide).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=SLIDE whose slide is there")
    return name, Path(slide)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configs/default-model.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the slides that the model was trained on, with C3")
    parser.add_argument("--out", type=Path, required=True, help="folder of the slides made on the way")
    parser.add_argument("--docs", type=Path, required=True, help="folder of figures.md and the pictures")
    parser.add_argument("--steps", type=int, help="of every slide (default: the bundle's)")
    parser.add_argument("--sampler", default="ddim", help="of every slide (default: %(default)s)")
    parser.add_argument("--slide-px", type=int, default=4096, help="side of the slides of one class (default: %(default)s)")
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument("--earlier", help="another bundle to compare with")
    parser.add_argument(
        "--twin", type=_named, action="append", default=[], metavar="NAME=SLIDE", help="another twin to compare with"
    )
    parser.add_argument("--features", default="embedded", help="extractor (default: %(default)s)")
    parser.add_argument("--crops", type=int, default=150, help="of each side (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
