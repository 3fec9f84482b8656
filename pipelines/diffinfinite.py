"""DiffInfinite (NeurIPS 2023) end to end: data, training, slides, figures.

    python -m pipelines.diffinfinite configs/diffinfinite-small.yaml --data DIR --out OUT [--resume] [--skip-bad]

1. Sparsely annotated and unlabelled slides: pixels nobody annotated are unknown.
2. An autoencoder, and a denoiser told a class per pixel. Half of its crops are unlabelled and carry the null condition
   (semi-supervised classifier-free guidance); unknown pixels carry the null condition.
3. Slides of drawn layouts by random patches: every crop one guided prediction, every pixel owned by its first crop.
4. Fidelity and memorisation against the slides that training never saw.
"""

from __future__ import annotations

import wsigen
from pipelines.steps import evaluate_slides, open_data, read_arguments, read_pipeline, train_models

MODE = "random-patch"


def main() -> None:
    """Run all steps; each leaves its result in a folder of OUT."""
    args = read_arguments(str(__doc__))
    plan = read_pipeline(args.config)
    cohort = open_data(plan, args.data, args.out, args.skip_bad)
    bundle = train_models(plan, cohort, args.out, resume=args.resume)
    for layout in plan.slides.layouts:
        folder = args.out / "slides"
        folder.mkdir(exist_ok=True)
        output = folder / f"{layout.stem}.ome.tiff"
        wsigen.generate(output, model=str(bundle), layout=layout, mode=MODE, overwrite=True, **plan.slides.settings)
        print("generated", output, flush=True)
    evaluate_slides(plan, cohort, args.out)


if __name__ == "__main__":
    main()
