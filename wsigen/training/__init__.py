"""Training of the embedded default model; needs the extra ``wsigen[train]``."""
