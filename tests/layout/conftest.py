"""A class table, and a writer of GeoJSON features, for the layout tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsigen.base.classes import ClassTable, TissueClass


@pytest.fixture(scope="session")
def table() -> ClassTable:
    return ClassTable(
        (
            TissueClass("Glass", (255, 255, 255), background=True),
            TissueClass("Tumor", (200, 0, 0)),
            TissueClass("Stroma", (150, 200, 150)),
            TissueClass("Immune cells", (160, 90, 160)),
            TissueClass("Other", (255, 200, 0)),
        )
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_json(data: Any, name: str = "a.geojson") -> Path:
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return path

    return write_json
