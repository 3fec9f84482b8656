"""Time of a slide whose tissue covers a quarter of its area over one fully covered: glass must cost next to nothing.

The tissue is one square near the middle, off the lattices of chunks and decoded windows, so that crops and windows reach over
all of its edges. Both slides are made in turn; the value is the ratio of the medians. The quick form is smaller and takes a
cheap random model with small crops.
"""

from __future__ import annotations

from statistics import median

import wsigen
from benchmarks.bundles import make_bundle, one_class, write_squares
from benchmarks.figure import Figure, Options, StageTimes

SIZE_PX, STEPS, GUIDANCE = 8192, 2, 0.5
CORNER = 0.27
"""Upper left corner of the square, over the slide's side."""

TARGET = 0.35


def measure(options: Options) -> Figure:
    size, repetitions = (SIZE_PX // 2, 3) if options.quick else (SIZE_PX, 1)
    bundle = options.model
    if options.quick:
        bundle = str(make_bundle(options.folder / "bundle", widths=(32, 48), decoder_width=8, crop=32))
    corner = round(CORNER * size)
    layouts = {
        "quarter": write_squares(options.folder / "quarter-drawn.geojson", [("Tumor", corner, corner, size // 2)]),
        "full": write_squares(options.folder / "full-drawn.geojson", [("Tumor", 0, 0, size)]),
    }
    spent: dict[str, list[StageTimes]] = {name: [] for name in layouts}
    for _ in range(repetitions):
        for name, layout in layouts.items():
            times = StageTimes()
            settings = one_class(bundle, size, class_name=None, levels=None, layout=layout, steps=STEPS, guidance=GUIDANCE)
            wsigen.generate(options.folder / f"{name}.ome.tiff", watch=times, **settings)
            spent[name].append(times)
    stages = (("denoise",), ("calibrate", "decode"))
    quarter, full = ([median(times.wall(*names) for times in each) for names in stages] for each in spent.values())
    detail = (
        f"denoise {quarter[0]:.1f} / {full[0]:.1f} s = {quarter[0] / full[0]:.2f} "
        f"(crops {spent['quarter'][0].rows / spent['full'][0].rows:.2f}: those on an edge count whole), "
        f"decode {quarter[1]:.1f} / {full[1]:.1f} s = {quarter[1] / full[1]:.2f}; "
        f"{STEPS} steps with guidance, medians of {repetitions} in turn"
    )
    what = f"time of a {size} px slide with a quarter of tissue over one of tissue only"
    return Figure("glass", what, sum(quarter) / sum(full), TARGET, detail)
