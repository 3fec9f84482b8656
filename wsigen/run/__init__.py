"""A configuration in, a slide out: preparation, state, ``tasks`` (pixels), ``engine`` (no pixels), ``estimate``, outputs."""
