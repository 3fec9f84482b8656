"""What turns crops into features, behind one small interface, and how one is named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsigen.base.errors import EvaluationError, suggest

KINDS = ("embedded", "imagenet", "inception", "timm", "transformers")

ON_THE_HUB = {
    "uni_v1": "timm:hf-hub:MahmoodLab/uni",
    "uni_v2": "timm:hf-hub:MahmoodLab/UNI2-h",
    "gigapath": "timm:hf-hub:prov-gigapath/prov-gigapath",
    "hoptimus0": "timm:hf-hub:bioptimus/H-optimus-0",
    "hoptimus1": "timm:hf-hub:bioptimus/H-optimus-1",
    "phikon": "transformers:owkin/phikon",
    "phikon_v2": "transformers:owkin/phikon-v2",
}
"""TRIDENT's names of encoders whose features are the class token of a network on the Hugging Face hub, as an extractor's are;
of others, such as Virchow, both make different features of one network."""


class Extractor(Protocol):
    """A network that describes pictures."""

    @property
    def name(self) -> str:
        """Name that a report prints, e.g. ``inception``."""

    @property
    def version(self) -> str:
        """Weights, and how pictures are prepared, in words."""

    @property
    def sha256(self) -> str:
        """Hexadecimal, of every parameter that runs."""

    @property
    def dimension(self) -> int:
        """Length d of a feature vector."""

    @property
    def side_px(self) -> int:
        """Side of the pictures it was trained with, px; it takes others, too."""

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 ``(n, d)`` of uint8 ``(n, P, P, 3)`` RGB."""

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return class probabilities ``(n, classes)`` of features, or None if the extractor knows no classes."""


def identity(extractor: Extractor) -> dict[str, str]:
    """Name, version and hash: what every number is said with."""
    return {"name": extractor.name, "version": extractor.version, "sha256": extractor.sha256}


def open_extractor(text: str, device: str = "cpu") -> Extractor:
    """Load an extractor by its name on the command line.

    Parameters
    ----------
    text : str
        * ``embedded`` - the default model's encoder; ``embedded:FOLDER`` that of another bundle;
        * ``imagenet`` - EfficientNet-Lite0 from a package of the Python index; ``imagenet:FILE`` its weights from a file;
        * ``inception`` - the network of FID, downloaded once; ``inception:FILE`` its weights from a file;
        * ``timm:NAME`` or ``timm:NAME@FILE`` - any timm model, its own weights or those of a file;
        * ``transformers:NAME`` - any encoder on the hub or in a folder;
        * a name of TRIDENT's in `ON_THE_HUB`, such as ``uni_v1``.

    Raises
    ------
    EvaluationError
        If there is no such kind, package or file, or the weights do not fit.
    """
    kind, _, rest = ON_THE_HUB.get(text, text).partition(":")
    if kind not in KINDS:
        raise EvaluationError(f"features {text!r}: no such extractor{suggest(kind, KINDS)}; known: {', '.join(KINDS)}")
    from wsigen.models.extractors.torch_module import check_device

    check_device(device)
    if kind == "embedded":
        from wsigen.models.extractors.embedded import open_embedded

        return open_embedded(rest or "default", device)
    if kind == "imagenet":
        from wsigen.models.extractors.efficientnet import open_efficientnet

        return open_efficientnet(Path(rest) if rest else None, device)
    if kind == "inception":
        from wsigen.models.extractors.inception import open_inception

        return open_inception(Path(rest) if rest else None, device)
    if not rest:
        raise EvaluationError(f"features {text!r}: which one? Give {kind}:NAME")
    from wsigen.models.extractors.encoder import open_timm, open_transformers

    return open_timm(rest, device) if kind == "timm" else open_transformers(rest, device)
