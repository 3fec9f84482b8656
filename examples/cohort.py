"""A small cohort, checked, with a slide made again: python examples/cohort.py configs/cohort-small.yaml cohort-small

The same in a shell: wsigen cohort make, verify and regenerate (docs/cohorts.md).
"""

import sys

import wsigen


def main(plan: str, folder: str) -> None:
    """Make the cohort, or go on with it."""
    wsigen.preview_cohort(plan, f"{folder}-layouts.png")
    print(wsigen.estimate_cohort(plan))
    cohort = wsigen.make_cohort(plan, folder, progress=True)
    print(f"{len(cohort.made)} of {len(cohort.slides)} slides; failed: {cohort.failed or 'none'}")
    print("\n".join(wsigen.verify_cohort(folder).problems) or "all files are as they were written")
    again = wsigen.regenerate_cohort(folder, slides=1)
    print(f"made again, with the same pixels: {', '.join(again.same)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
