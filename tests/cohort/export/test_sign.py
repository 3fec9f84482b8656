"""Detached C2PA manifests: the slide stays as it is, and a flipped bit is found out."""

import datetime
import shutil

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wsigen.base.errors import WsigenError
from wsigen.cohort.sign import manifest_state, sign_cohort
from wsigen.cohort.verify import verify_cohort


@pytest.fixture
def signer(tmp_path):
    """A certificate with the one that issued it, and its key, as PEM files."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = issued("root", authority, "root", authority, x509.BasicConstraints(True, None), signs=True)
    leaf = issued("signer", key, "root", authority, x509.BasicConstraints(False, None), signs=False)
    pem = serialization.Encoding.PEM
    (tmp_path / "chain.pem").write_bytes(leaf.public_bytes(pem) + root.public_bytes(pem))
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(plain)
    return tmp_path / "chain.pem", tmp_path / "key.pem"


def issued(name, key, by, issuer, constraints, signs):
    of = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test")
    called = [x509.Name([of, x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, by)]
    begin = datetime.datetime(2026, 1, 1)
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"],
        False,
    )
    made = x509.CertificateBuilder().subject_name(called[0]).issuer_name(called[1]).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin)
    made = made.not_valid_after(begin + datetime.timedelta(days=9000)).add_extension(constraints, True)
    usage |= {"digital_signature": not signs, "key_cert_sign": signs, "crl_sign": signs}
    made = made.add_extension(x509.KeyUsage(**usage), True)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    if not signs:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False)
    return made.sign(issuer, hashes.SHA256())


def test_a_slide_is_signed_beside_and_a_flipped_bit_is_found_out(cohort, signer, tmp_path):
    pytest.importorskip("c2pa")
    mine = shutil.copytree(cohort, tmp_path / "cohort")
    before = {path.name: path.read_bytes() for path in mine.glob("slides/*.tiff")}
    signed = sign_cohort(mine, *signer)
    assert {path.name: path.read_bytes() for path in mine.glob("slides/*.tiff")} == before
    assert verify_cohort(mine).good
    assert "detached C2PA manifest" in (mine / "README.md").read_text()
    name, manifest = next(iter(signed.items()))
    slide = mine / f"slides/{name}.ome.tiff"
    assert manifest.stat().st_size < 8192
    assert manifest_state(slide, manifest) == "Valid"
    stamps = {path: path.stat().st_mtime_ns for path in signed.values()}
    sign_cohort(mine, *signer)
    assert stamps == {path: path.stat().st_mtime_ns for path in signed.values()}
    content = slide.read_bytes()
    slide.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert manifest_state(slide, manifest) == "Invalid"


def test_keys_and_certificates_that_cannot_be_used(cohort, signer, tmp_path):
    pytest.importorskip("c2pa")
    (tmp_path / "no.pem").write_text("?")
    with pytest.raises(WsigenError, match="no private key that can be read"):
        sign_cohort(cohort, signer[0], tmp_path / "no.pem")
    with pytest.raises(WsigenError, match=r"no\.pem: cannot be used to sign"):
        sign_cohort(cohort, tmp_path / "no.pem", signer[1])
    assert not list(cohort.glob("slides/*.c2pa"))
