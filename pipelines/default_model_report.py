"""Figures and pictures of the default model, for docs/default-model.md.

    python -m pipelines.default_model_report configs/default-model.yaml --data OUT/slides --out WORK --docs docs/default-model

``OUT`` is that of ``python -m pipelines.default_model``. Slides made on the way stay in WORK, in a folder per model and
setting, and are not made again:

1. A twin of the held-out section: a slide of its size and class map. Its crops against the section's at the same places.
2. A slide of every class.
3. KID and its kin, a linear probe, memorisation, the nearest training crops; ``figures.md`` and pictures go to DOCS.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.her2st.crops import SIDE, Batched, cut_sides, held_out_places, reconstructed, twin_crops, with_own_detail
from pipelines.her2st.made_slides import Slides, make_class_slides, make_twin
from pipelines.her2st.report import ROUND_TRIP, draw, fidelity_table, memorisation_table, probe_table
from pipelines.steps import open_data, read_pipeline
from wsigen.models.extractors.extractors import open_extractor


def main() -> None:
    """Make slides, measure, draw."""
    args = _arguments()
    plan = read_pipeline(args.config)
    dataset = open_data(plan, args.data, args.out)
    args.docs.mkdir(parents=True, exist_ok=True)
    extractor = Batched(open_extractor(args.features))
    slides = _slides(args.model, args)
    make_twin(dataset, args.data, slides)
    make_class_slides(dataset, slides)
    sides = cut_sides(dataset, slides, args.crops)
    lines = [f"Features: {extractor.name} ({extractor.version}), {args.crops} crops of {SIDE} px.", ""]
    others = dict(args.twin)
    if args.earlier:
        before = _slides(args.earlier, args)
        make_twin(dataset, args.data, before)
        others["the version before"] = before.twin
    where = held_out_places(dataset, args.crops)
    cut = {name: twin_crops(slide, where, dataset.mpps[0], len(dataset.table)) for name, slide in others.items()}
    once = reconstructed(args.model, sides.held_out)
    detailed = with_own_detail(once, sides.held_out)
    decoded = {ROUND_TRIP: once, "the same with their own detail below sigma 1 px": detailed}
    lines += fidelity_table(extractor, sides, decoded | cut)
    lines += probe_table(extractor, sides, dataset)
    lines += memorisation_table(extractor, sides)
    (args.docs / "figures.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(extractor, sides, cut, dataset, slides, args.docs)
    print("\n".join(lines))


def _slides(model: str, args: argparse.Namespace) -> Slides:
    return Slides.called(args.out, model, args.sampler, args.steps, args.slide_px)


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
    parser.add_argument("--sampler", help="of every slide (default: the bundle's)")
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
