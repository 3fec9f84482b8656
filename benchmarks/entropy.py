"""``python -m benchmarks.entropy``: PathUp's feature entropy loss on and off, same budget, several seeds.

One autoencoder, then for every seed two denoisers that differ in nothing but the loss; each makes a slide per class. Reported,
in the embedded extractor's features:

* spread between classes: mean squared distance of the classes' centres from their mean, over that of crops from their centre;
* spread of the held-out real crops, to compare with;
* improved recall, precision and KID of all crops against the held-out ones.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import mean, pstdev
from typing import TYPE_CHECKING

import numpy as np

import wsigen
from benchmarks.document import table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.steps import PipelineSettings
    from wsigen.dataset.dataset import Dataset
    from wsigen.models.extractors.extractors import Extractor

SHOWN = ("spread", "recall", "precision", "kid")


def main() -> None:
    """Train, generate, measure; what is finished in OUT is not done again."""
    args = _arguments()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from pipelines.steps import open_data, read_pipeline, train_models
    from wsigen.models.extractors.extractors import open_extractor

    plan = read_pipeline(args.config)
    dataset = open_data(plan, args.data, args.out)
    extractor = open_extractor("embedded")
    rows: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    (args.out / "autoencoder").mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name, enabled in (("off", False), ("on", True)):
            entropy = {**plan.denoiser.get("entropy", {}), "enabled": enabled}
            loop = plan.denoiser["loop"] | ({"steps": args.steps} if args.steps else {})
            changed = plan.model_copy(update={"denoiser": {**plan.denoiser, "entropy": entropy, "loop": loop, "seed": seed}})
            folder = args.out / f"{name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "autoencoder").exists():
                (folder / "autoencoder").symlink_to((args.out / "autoencoder").absolute())
            bundle = train_models(changed, dataset, folder, resume=True)
            rows[name].append(_measure(changed, dataset, bundle, folder, args.side, extractor))
            print(name, seed, json.dumps(rows[name][-1]), flush=True)
    _print(rows)


def _measure(
    plan: PipelineSettings, dataset: Dataset, bundle: Path, folder: Path, side: int, extractor: Extractor
) -> dict[str, float]:
    """Make a slide per class, and compare its crops with the held-out ones."""
    from pipelines.her2st.crops import joined, tiles
    from wsigen.evaluation.fidelity import fidelity_numbers

    size = plan.evaluation.size_px
    real, labels = _real(dataset, size, plan.evaluation.crops)
    made = []
    for index, tissue in enumerate(dataset.table):
        if tissue.background:
            continue
        path = folder / "slides" / f"{index}.ome.tiff"
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            wsigen.generate(path, model=str(bundle), class_name=tissue.name, size=(side, side), seed=index)
        made.append(tiles(path, size, index))
    crops = joined(made)
    synthetic, held_out = extractor.features(crops.images), extractor.features(real)
    numbers = fidelity_numbers(held_out, synthetic, 0)
    return {
        "spread": spread(synthetic, crops.classes),
        "spread_real": spread(held_out, labels),
        **{name: float(numbers[name]) for name in ("recall", "precision")},
        "kid": 1000 * float(numbers["kid"]),
    }


def spread(features: NDArray[np.float32], classes: NDArray[np.int64]) -> float:
    """Mean squared distance of class centres from their mean over that of samples from their class's centre."""
    groups = [features[classes == c].astype(np.float64) for c in np.unique(classes)]
    centres = np.stack([g.mean(axis=0) for g in groups])
    within = mean(float(np.square(g - c).sum(axis=1).mean()) for g, c in zip(groups, centres, strict=True))
    return float(np.square(centres - centres.mean(axis=0)).sum(axis=1).mean()) / within


def _real(dataset: Dataset, size: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Held-out crops of the finest level and the most frequent class of each; crops without one are left out."""
    shares = tuple(float(level == 0) for level in range(len(dataset.levels)))
    batch = dataset.crops("held_out", size, 0, shares, augment=False).batch(0, count)
    votes = np.stack([(batch.class_maps == c).sum(axis=(1, 2)) for c in range(len(dataset.table))], axis=1)
    known = votes.max(axis=1) > 0
    return batch.images[known], votes.argmax(axis=1)[known]


def _print(rows: dict[str, list[dict[str, float]]]) -> None:
    cells = [
        [name, *(f"{mean(values):.3f} ± {pstdev(values):.3f}" for values in ([row[key] for row in found] for key in SHOWN))]
        for name, found in rows.items()
    ]
    head = ["feature entropy loss", "spread between classes", "improved recall", "precision", "KID x 1000"]
    print(f"\n{table(head, cells)}")
    real = rows["off"][0]["spread_real"]
    print(f"\nspread of the held-out real crops: {real:.3f}; mean ± deviation over {len(rows['off'])} seeds")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entropy", description=__doc__)
    parser.add_argument("config", type=Path, help="a pipeline's YAML with class tokens, e.g. configs/pathup-small.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder that the dataset's sources count from")
    parser.add_argument("--out", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, help="of each denoiser (default: the YAML's)")
    parser.add_argument("--side", type=int, default=1024, help="of the slides, px (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
