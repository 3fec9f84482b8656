"""Training data: real images, their labels, patches and splits."""

from wsigen.cohort.cohort import Cohort, open_cohort

__all__ = ["Cohort", "open_cohort"]
