"""Training data: real images, their labels, patches and splits."""

from wsigen.dataset.dataset import Cohort, open_cohort

__all__ = ["Cohort", "open_cohort"]
