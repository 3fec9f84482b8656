"""PathUp (ACM MM 2024) end to end: data, training, slides, figures.

    python -m pipelines.pathup configs/pathup-small.yaml --data DIR --out OUT [--resume] [--skip-bad]

1. Patches of labelled tiles or slides at two magnification levels: "patch", and "overview" of four times the side.
2. An autoencoder, and a denoiser told one class and one level per crop (class tokens in place of the paper's prompts, which
   need a CLIP text encoder: give ``start`` and ``conditioning: {kind: text}`` to fine-tune one), with the feature entropy loss.
3. A slide per class by the cascade: an overview from noise, enlarged, noised again and refined window by window, weighted.
4. Fidelity and memorisation against the patients that training never saw.
"""

from __future__ import annotations

from pipelines.steps import evaluate_slides, make_slides, open_data, read_arguments, read_pipeline, train_models


def main() -> None:
    """Run all steps; each leaves its result in a folder of OUT."""
    args = read_arguments(str(__doc__))
    plan = read_pipeline(args.config)
    dataset = open_data(plan, args.data, args.out, args.skip_bad)
    bundle = train_models(plan, dataset, args.out, resume=args.resume)
    make_slides(plan, bundle, args.out, "pathup", {name: {"class_name": name} for name in plan.slides.classes})
    evaluate_slides(plan, dataset, args.out)


if __name__ == "__main__":
    main()
