"""Model calls of all passes of the demo slide, those of its grid among them, over those of the finest: counted on the plan."""

from __future__ import annotations

from benchmarks.demo import LAYOUT, SIZE
from benchmarks.figure import Figure, Options
from wsigen.run.config import make_config
from wsigen.run.estimate.estimate import count_pass
from wsigen.run.prepare import prepare

TARGET = 1.15


def measure(options: Options) -> Figure:
    config = make_config({"layout": LAYOUT, "size": SIZE, "model": options.model}, None)
    prepared = prepare(config, options.folder / "demo.ome.tiff")
    rows = [count_pass(prepared, plan).rows for plan in prepared.spec.passes]
    what = f"model calls of all passes over those of the finest, the demo slide, {SIZE} px"
    return Figure("calls", what, sum(rows) / rows[-1], TARGET, " + ".join(map(str, rows)))
