import pytest
import yaml
from drawing import tumor_in_stroma
from tiny_bundles import CLASSES, make_class_map_bundle

SUBTYPES = {"half": {"shares": {"Tumor": 0.5, "Stroma": 0.5}}, "more": {"shares": {"Tumor": 0.8, "Stroma": 0.2}}}


MORE = [{"name": "Immune cells / é", "color": [160, 90, 160]}, {"name": "Immune cells, é", "color": [90, 160, 160]}]
"""Classes whose names are no identifiers."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A tiny random bundle; two of its classes have names as people give them."""
    return make_class_map_bundle(tmp_path_factory.mktemp("bundle") / "tiny", classes=[*CLASSES, *MORE])


@pytest.fixture
def content(bundle, tmp_path):
    """A plan of four small slides: three drawn by rule, one from a file; its files lie in ``tmp_path``."""
    tumor_in_stroma(tmp_path / "layout.geojson")
    (tmp_path / "subtypes.yaml").write_text(yaml.safe_dump(SUBTYPES))
    drawn = {"name": "sampled", "slides": 3, "subtypes": {"half": 0.6, "more": 0.4}, "subtypes_file": "subtypes.yaml"}
    files = {"name": "drawn", "layouts": "*.geojson", "size": "640x584"}
    return {
        "name": "demo",
        "model": str(bundle),
        "size": {"576x512": 0.5, "512x512": 0.5},
        "stain": {"model": 0.4, "pale": 0.6},
        "settings": {"steps": 2, "guidance": 0.0, "chunk": 32},
        "parts": [drawn, files],
    }


@pytest.fixture
def write(tmp_path):
    """Write a plan and return its path."""

    def written(content, name="plan.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return written
