"""Slides told apart by what a model keeps of them: the table of ZoomLDM's supplement, with a control.

    python -m pipelines.mil TABLE.csv --bundle BUNDLE --out OUT [--slide COLUMN --label COLUMN --group COLUMN --mpp UM]

TABLE names slides, their labels and their patients. Each slide is compressed to a grid once, and gives three bags (`bags`). For
each kind of bag the same network, gated attention over the bag (Ilse et al. 2018, eq. 9), learns the labels in folds by
patient. ``OUT/mil.md``: the area under the ROC curve of the predictions of all folds together, mean and deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.bags import KINDS, Array, BagMaker, Columns, Row, read_rows
from wsigen.base.errors import ConfigError, refusing

WIDTH, DROPOUT, RATE, WEIGHT_DECAY = 64, 0.25, 1e-3, 1e-2


@dataclass(frozen=True, slots=True)
class MilSettings:
    """How bags are learned: folds by group, passes over the bags, networks of other random weights."""

    folds: int = 4
    epochs: int = 30
    seeds: int = 3


class GatedAttention(nn.Module):
    """Classes of a bag: ``a = softmax(w (tanh(V h) * sigmoid(U h)))``, logits of ``sum a h``."""

    def __init__(self, dimension: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(dimension, width), nn.ReLU(), nn.Dropout(DROPOUT))
        self.content, self.gate, self.weigh = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.last = nn.Linear(width, classes)

    def forward(self, bag: Tensor) -> Tensor:
        """(n, D) -> (classes,)."""
        h = self.first(bag)
        weights = self.weigh(self.content(h).tanh() * self.gate(h).sigmoid()).softmax(dim=0)
        logits: Tensor = self.last((weights * h).sum(dim=0))
        return logits


def main() -> None:
    """Read the table, make the bags, learn and test."""
    args = _arguments()
    rows = read_rows(args.table, Columns(args.slide, args.label, args.group), args.data or args.table.parent)
    check_folds([row.group for row in rows], args.folds)
    (grids := args.out / "grids").mkdir(parents=True, exist_ok=True)
    maker = BagMaker(args.bundle)
    made = [maker.bags(maker.grid_of(row.slide, grids, args.mpp)) for row in rows]
    lines = mil_table(rows, made, MilSettings(args.folds, args.epochs, args.seeds), args.out)
    print("\n".join(lines))


def mil_table(rows: Sequence[Row], made: Sequence[dict[str, Array]], settings: MilSettings, out: Path) -> list[str]:
    """Learn each kind of bag; write ``mil.json`` and ``mil.md``, whose lines are returned (ConfigError: too few groups)."""
    labels = sorted({row.label for row in rows})
    y = np.array([labels.index(row.label) for row in rows])
    folds = group_folds(y, [row.group for row in rows], settings.folds)
    groups = {label: len({row.group for row in rows if row.label == label}) for label in labels}
    held = ", ".join(f"{label} {int((y == i).sum())} of {groups[label]} groups" for i, label in enumerate(labels))
    lines = [f"{len(rows)} slides: {held}. {len(folds)} folds by group, {settings.seeds} seeds.", ""]
    lines += ["| bag | instances, median | numbers, median | AUC |", "|---|---|---|---|"]
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        bags = [bag[kind] for bag in made]
        aucs = [area(y, predictions(bags, y, folds, settings.epochs, seed)) for seed in range(settings.seeds)]
        instances, numbers = (int(np.median(v)) for v in ([len(b) for b in bags], [b.size for b in bags]))
        found[kind] = {"instances": instances, "numbers": numbers, "auc": aucs}
        lines.append(f"| {kind} | {instances:,} | {numbers:,} | {np.mean(aucs):.3f} ± {np.std(aucs):.3f} |")
    (out / "mil.json").write_text(json.dumps({"labels": groups, "bags": found}, indent=1) + "\n", encoding="utf-8")
    (out / "mil.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def check_folds(groups: Sequence[str], count: int) -> None:
    """Refuse folds that groups cannot be dealt out to (ConfigError)."""
    found = len(set(groups))
    if found < 2:
        raise ConfigError("all slides are of one group, and folds are by group: give slides of at least two")
    if not 2 <= count <= found:
        raise ConfigError(f"{found} groups cannot be dealt out to {count} folds; give --folds of 2 to {found}")


def group_folds(y: NDArray[np.int64], groups: Sequence[str], count: int) -> list[NDArray[np.int64]]:
    """Positions that each fold tests, no group in two of them, the labels in like shares."""
    from sklearn.model_selection import StratifiedGroupKFold

    check_folds(groups, count)
    dealer = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with refusing(ConfigError, f"{count} folds", "give fewer --folds, or more slides of each label"):
        return [test for _, test in dealer.split(np.zeros(len(y)), y, np.asarray(groups)) if len(test)]


def predictions(
    bags: Sequence[Array], y: NDArray[np.int64], folds: Sequence[NDArray[np.int64]], epochs: int, seed: int
) -> NDArray[np.float64]:
    """Probabilities ``(slides, classes)``, each slide's by the network that has not seen its fold."""
    found, classes = np.zeros((len(bags), int(y.max()) + 1)), int(y.max()) + 1
    for fold in folds:
        training = np.setdiff1d(np.arange(len(bags)), fold)
        cells = np.concatenate([bags[i] for i in training])
        mean, std = cells.mean(axis=0), np.maximum(cells.std(axis=0), 1e-6)
        scaled = [torch.from_numpy((bag - mean) / std).float() for bag in bags]
        network = fit_bags([scaled[i] for i in training], y[training], classes, epochs, seed)
        with torch.inference_mode():
            found[fold] = np.stack([network(scaled[i]).softmax(dim=0).double().numpy() for i in fold])
    return found


def fit_bags(bags: Sequence[Tensor], y: NDArray[np.int64], classes: int, epochs: int, seed: int) -> GatedAttention:
    """Train on bags, as many a step as there are classes, one of each that is there."""
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(y == c) for c in range(classes) if (y == c).any()]
    steps = epochs * -(-len(bags) // len(of_class))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = GatedAttention(bags[0].shape[1], classes).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(steps):
            chosen = [int(rng.choice(positions)) for positions in of_class]
            logits = torch.stack([network(bags[i]) for i in chosen])
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(y[chosen]))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return network.eval()


def area(y: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Area under the ROC curve; of more than two classes the mean of each against the others."""
    from sklearn.metrics import roc_auc_score

    of_class = [roc_auc_score(y == c, probabilities[:, c]) for c in range(probabilities.shape[1])]
    return float(of_class[1] if len(of_class) == 2 else np.mean(of_class))


def _arguments() -> argparse.Namespace:
    columns = Columns()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV of slides (or grids, *.wsz), labels and groups")
    parser.add_argument("--bundle", type=Path, required=True, help="a model that is told tokens")
    parser.add_argument("--out", type=Path, required=True, help="folder of grids and table")
    parser.add_argument("--data", type=Path, help="folder that the slides' paths count from (default: the table's)")
    for name in ("slide", "label", "group"):
        parser.add_argument(f"--{name}", default=getattr(columns, name), help="its column (default: %(default)s)")
    parser.add_argument("--mpp", type=float, help="um/px of slides that do not say their own")
    for name, value in (("folds", 4), ("epochs", 30), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
