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
    denoise: dict[str, list[float]] = {name: [] for name in layouts}
    decode: dict[str, list[float]] = {name: [] for name in layouts}
    rows = {}
    for _ in range(repetitions):
        for name, layout in layouts.items():
            times = StageTimes()
            settings = one_class(bundle, size, class_name=None, levels=None, layout=layout, steps=STEPS, guidance=GUIDANCE)
            wsigen.generate(options.folder / f"{name}.ome.tiff", watch=times, **settings)
            denoise[name].append(times.wall("denoise"))
            decode[name].append(times.wall("calibrate", "decode"))
            rows[name] = times.rows
    part = {name: (median(denoise[name]), median(decode[name])) for name in layouts}
    (few_denoise, few_decode), (all_denoise, all_decode) = part["quarter"], part["full"]
    detail = (
        f"denoise {few_denoise:.1f} / {all_denoise:.1f} s = {few_denoise / all_denoise:.2f} "
        f"(crops {rows['quarter'] / rows['full']:.2f}: those on an edge count whole), "
        f"decode {few_decode:.1f} / {all_decode:.1f} s = {few_decode / all_decode:.2f}; "
        f"{STEPS} steps with guidance, medians of {repetitions} in turn"
    )
    what = f"time of a {size} px slide with a quarter of tissue over one of tissue only"
    return Figure("glass", what, sum(part["quarter"]) / sum(part["full"]), TARGET, detail)
