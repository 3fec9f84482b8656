"""wsigen: synthetic whole slides for digital pathology.

::

    import wsigen
    result = wsigen.generate("slide.ome.tiff", layout="regions.geojson", seed=1)
    print(result.slide, result.annotations)

The names are those of ``__init__.pyi``; each is imported when it is first used (SPEC 1 of Scientific Python), so that importing
the package is instant.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
