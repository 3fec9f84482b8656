"""``wsigen cohort sign``: a detached C2PA manifest for each slide: who says that it is synthetic, and unchanged.

The slide's bytes stay as they are: a manifest within a TIFF makes other readers fail (https://spec.c2pa.org).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsigen.base.errors import ConfigError, OutputError, refusing
from wsigen.base.version import __version__
from wsigen.cohort.folder import SLIDES, CohortFolder
from wsigen.cohort.made import read_made
from wsigen.cohort.publish import write_cohort_files
from wsigen.storage.files import write_atomic

KIND = "image/tiff"

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

CHAIN = "give a PEM file: the signer's certificate, then its issuers"

Watch = Callable[[int, int], None]
"""Called with how many slides are done, and how many there are."""


def sign_cohort(folder: str | Path, certificate: str | Path, key: str | Path, *, watch: Watch | None = None) -> dict[str, Path]:
    """Sign the slides of a cohort: ``slides/ID.c2pa`` beside each.

    Parameters
    ----------
    folder : str or Path
        The cohort.
    certificate : str or Path
        PEM: the signer's certificate, then those that issued it.
    key : str or Path
        PEM: its private key, not encrypted. EC (P-256, P-384), RSA or Ed25519.
    watch : callable, optional
        Called with how many slides are done, and how many there are.

    Returns
    -------
    dict of str to Path
        The manifest of each slide by its id. Slides whose manifest is there and right are not signed again.

    Raises
    ------
    WsigenError
        If c2pa-python is not installed, it is no cohort, or the certificate or key cannot be used.
    """
    place = CohortFolder(Path(folder))
    read_made(place)  # before the certificate is looked at
    sign = _signer(Path(certificate), Path(key))
    signed = {}
    with place.held():
        made = read_made(place)
        for done, slide in enumerate(made.slides, 1):
            path, file = place.root / SLIDES / f"{slide.id}.c2pa", place.files(slide.id).slide
            if not (path.is_file() and manifest_state(file, path) in ("Valid", "Trusted")):
                with refusing(OutputError, f"{file}: cannot be signed", "check the certificate and its key"):
                    write_atomic(path, sign(file))
            signed[slide.id] = path
            if watch is not None:
                watch(done, len(made.slides))
        write_cohort_files(place, made)
    return signed


def manifest_state(slide: Path, manifest: Path) -> str:
    """What C2PA says of a slide and its manifest: Trusted, Valid (by an unknown signer) or Invalid.

    Raises
    ------
    ConfigError
        If c2pa-python is not installed.
    """
    c2pa = _library()
    with slide.open("rb") as file:
        try:
            return str(c2pa.Reader(KIND, file, manifest.read_bytes()).get_validation_state())
        except c2pa.C2paError:
            return "Invalid"


# -- inside ------------------------------------------------------------------------------------------------------------


def _library() -> Any:
    try:
        import c2pa
    except ImportError:
        raise ConfigError("signing needs c2pa-python: pip install 'wsigen[c2pa]'") from None
    return c2pa


def _signer(certificate: Path, key: Path) -> Callable[[Path], bytes]:
    """What makes the manifest of a file (ConfigError if certificate or key cannot be used)."""
    c2pa = _library()
    algorithm = _algorithm(certificate, key)
    with refusing(ConfigError, f"{certificate}: cannot be used to sign", CHAIN):
        signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, certificate.read_bytes(), key.read_bytes(), None))
    without_thumbnail = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})

    def sign(slide: Path) -> bytes:
        builder = c2pa.Builder.from_json(json.dumps(_claim(slide.name)), context=without_thumbnail)
        builder.set_no_embed()
        with slide.open("rb") as source, Path(os.devnull).open("w+b") as nowhere:
            return bytes(builder.sign(signer, KIND, source, nowhere))

    return sign


def _claim(name: str) -> dict[str, Any]:
    agent = {"name": "wsigen", "version": __version__}
    created = {"action": "c2pa.created", "digitalSourceType": SOURCE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": name,
        "format": KIND,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }


def _algorithm(certificate: Path, key: Path) -> str:
    """What C2PA calls the algorithm of a private key (ConfigError if it is not that of the certificate)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    with refusing(ConfigError, f"{key}: no private key that can be read", "give a PEM file without a password"):
        found = load_pem_private_key(key.read_bytes(), None)
    with refusing(ConfigError, f"{certificate}: cannot be used to sign", CHAIN):
        chain = load_pem_x509_certificates(certificate.read_bytes())
    if chain[0].public_key() != found.public_key():
        raise ConfigError(f"{certificate}: its first certificate is not of {key}; {CHAIN}")
    if isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.key_size in (256, 384):
        return f"es{found.curve.key_size}"
    if isinstance(found, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(found, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise ConfigError(f"{key}: C2PA signs with EC keys (P-256, P-384), RSA and Ed25519, not with this one")
