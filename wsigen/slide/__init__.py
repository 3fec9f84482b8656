"""Images in and out: reading by region, and pixels to an OME-TIFF slide with annotations and files beside it."""
