"""Training data: real images, their labels, patches and splits."""
