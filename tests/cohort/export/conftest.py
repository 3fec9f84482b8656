import pytest
import yaml
from drawing import tumor_in_stroma

from wsigen.cohort.make import make_cohort


@pytest.fixture(scope="session")
def cohort(bundle, tmp_path_factory):
    """Four small slides, made once."""
    place = tmp_path_factory.mktemp("export")
    for number in range(4):
        tumor_in_stroma(place / f"{'abcd'[number]}.geojson")
    plan = {
        "name": "demo",
        "model": str(bundle),
        "splits": {"train": 0.5, "test": 0.5},
        "settings": {"steps": 1, "guidance": 0.0, "chunk": 32},
        "parts": [
            {"name": "one", "layouts": ["a.geojson", "b.geojson"], "split": "train", "size": "640x640"},
            {"name": "two", "layouts": ["c.geojson", "d.geojson"], "split": "test", "size": "600x584"},
        ],
    }
    (place / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    make_cohort(place / "plan.yaml", place / "cohort", workers=1)
    return place / "cohort"
