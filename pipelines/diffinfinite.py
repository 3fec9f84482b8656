"""DiffInfinite (NeurIPS 2023) end to end: data, training, slides, figures.

    python -m pipelines.diffinfinite configs/diffinfinite-small.yaml --data DIR --out OUT [--resume] [--skip-bad]

1. Sparsely annotated and unlabelled slides: pixels nobody annotated are unknown.
2. The first stage, a model that draws class maps of whole slides given their subtype (``mask`` in the YAML).
3. An autoencoder, and a denoiser told a class per pixel. Half of its crops are unlabelled and carry the null condition
   (semi-supervised classifier-free guidance); unknown pixels carry the null condition.
4. Slides of drawn layouts, and of layouts the first stage draws, by random patches: every crop one guided prediction, every
   pixel owned by its first crop.
5. Fidelity and memorisation against the slides that training never saw.
"""

from __future__ import annotations

from typing import Any

from pipelines.steps import evaluate_slides, make_slides, open_data, read_arguments, read_pipeline, train_layouts, train_models


def main() -> None:
    """Run all steps; each leaves its result in a folder of OUT."""
    args = read_arguments(str(__doc__))
    plan = read_pipeline(args.config)
    dataset = open_data(plan, args.data, args.out, args.skip_bad)
    masks = train_layouts(plan, dataset, args.out, resume=args.resume)
    bundle = train_models(plan, dataset, args.out, resume=args.resume)
    drawn: dict[str, dict[str, Any]] = {path.stem: {"layout": path} for path in plan.slides.layouts}
    sampled: dict[str, Any] = {"layout": "sample", "mask_model": masks}
    slides = drawn | {name: {**sampled, "subtype": name} for name in plan.slides.subtypes}
    make_slides(plan, bundle, args.out, "random-patch", slides)
    evaluate_slides(plan, dataset, args.out)


if __name__ == "__main__":
    main()
