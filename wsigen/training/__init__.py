"""Training of models: autoencoder, denoiser and mask model; needs the extra ``wsigen[train]``."""
