"""Layouts (which class is where on the slide) and reference images, read box by box."""
