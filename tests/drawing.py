"""Small layouts for tests, written as QuPath exports them."""

import json
import uuid


def feature(name, ring, color=(200, 0, 0)):
    """One QuPath annotation with a polygon."""
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}{ring}")),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": list(color)}},
    }


def square(x, y, side):
    """Corners of a square."""
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def write_layout(path, *features):
    """Write a feature collection."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


def tumor_in_stroma(path, size=640):
    """Stroma with a tumour nest in it and glass around it."""
    return write_layout(
        path,
        feature("Stroma", square(64, 80, size - 160)),
        feature("Tumor", [[200, 200], [380, 240], [300, 400]]),
    )
