"""Grids: what each place of a slide looks like, coarsely."""
