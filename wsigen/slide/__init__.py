"""The way out: pixels to an OME-TIFF slide, class map to GeoJSON, and what lies beside them."""
