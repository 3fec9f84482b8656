"""Slides and class maps from the HER2-ST sections, for the default model."""
