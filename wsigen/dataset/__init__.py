"""Training data: real images, their labels, patches and splits."""

from wsigen.dataset.dataset import Dataset, open_dataset

__all__ = ["Dataset", "open_dataset"]
