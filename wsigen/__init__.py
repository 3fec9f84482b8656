"""wsigen: synthetic whole slides for digital pathology.

::

    import wsigen
    result = wsigen.generate("slide.ome.tiff", layout="regions.geojson", seed=1)
    print(result.slide, result.annotations)

Names are imported when they are first used, so that importing the package (and ``wsigen --help``) stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsigen.base.errors import WsigenError
    from wsigen.run.config import RunConfig
    from wsigen.run.generate import Result, generate, resume

from wsigen.base.version import __version__

__all__ = ["Result", "RunConfig", "WsigenError", "__version__", "generate", "resume"]

_HOME = {
    "Result": "wsigen.run.generate",
    "generate": "wsigen.run.generate",
    "resume": "wsigen.run.generate",
    "RunConfig": "wsigen.run.config",
    "WsigenError": "wsigen.base.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'wsigen' has no attribute {name!r}")
