"""The training data: real images, their labels, patches."""
