"""A cohort in other forms: tiles with masks for training, and other formats of slides."""
