"""What ``wsigen train data`` does: check, index, sum up, show."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def run_data(file: Path, cache: Path | None, skip_bad: bool) -> None:
    """Open the dataset, print and save its summary, write the contact sheet."""
    from wsigen.dataset.dataset import open_dataset
    from wsigen.dataset.settings import cache_of
    from wsigen.dataset.summary import summarise, write_sheet
    from wsigen.storage.files import write_atomic

    folder = cache if cache is not None else cache_of(file)
    dataset = open_dataset(file, folder, skip_bad, _say)
    summary = summarise(dataset)
    write_atomic(folder / "summary.json", json.dumps(summary, indent=2).encode())
    write_sheet(dataset, folder / "patches.png", dataset.settings.seed)
    print_summary(summary)
    for label, name in (("index", "index.npz"), ("summary", "summary.json"), ("contact sheet", "patches.png")):
        print(f"{label + ':':15}{folder / name}")


def print_summary(summary: dict[str, Any]) -> None:
    """Print the figures as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 120, markup=False)
    for split, s in summary["splits"].items():
        mpp = "" if s["um_per_px"] is None else f", {s['um_per_px'][0]}-{s['um_per_px'][1]} um/px"
        title = f"{split}: {s['images']} images ({s['labelled_images']} with labels) of {s['groups']} groups{mpp}"
        table = Table(title=title, title_justify="left")
        for column in ("level", "class", "patches", "Mpx"):
            table.add_column(column, justify="left" if column in ("level", "class") else "right")
        for name, level in s["levels"].items():
            for class_name, figures in level["classes"].items():
                table.add_row(name, class_name, str(figures["patches"]), f"{figures['px'] / 1e6:.2f}")
            unknown = "-" if level["unknown_share"] is None else f"{100 * level['unknown_share']:.1f} %"
            small = f", {level['images_too_small']} images too small" if level["images_too_small"] else ""
            about = f"all ({level['um_per_px']} um/px; {unknown} unknown{small})"
            table.add_row(name, about, f"{level['patches']} ({level['unlabelled_patches']} unlabelled)", "", end_section=True)
        if s["images"]:
            console.print(table)
    for note in summary["notes"]:
        console.print(f"note: {note}", highlight=False, markup=False)
    if summary["skipped"]:
        console.print(f"{len(summary['skipped'])} images could not be opened and are left out:", highlight=False)
        for bad in summary["skipped"]:
            console.print(f"  {bad['reason']}", highlight=False, markup=False)


def _say(done: int, total: int, name: str) -> None:
    if total < 50 or done % (total // 20) == 0:
        print(f"indexing {done + 1}/{total}: {name}", file=sys.stderr, flush=True)
