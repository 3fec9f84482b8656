"""Paths that no system can open, and URLs, which have other rules."""

import re

import pytest

from wsigen.base.names import unusable_path


@pytest.mark.parametrize(
    "path", ["a/b.tiff", "x" * 255, "https://h/slide.svs?X-Amz-Signature=" + "f" * 900, "s3://bucket/" + "long-key/" * 1000, ""]
)
def test_usable(path):
    assert unusable_path(path) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a\0b", "NUL"),
        ("s3://a\0b", "NUL"),
        ("s3://bucket/\ud800", "no URL can have"),
        ("\ud800", "no name on this machine"),
        (
            "folder/" + "n" * 256 + "/slide.tiff",
            r"has a name that is longer than any \('nnnnnnnnnnnnnnnnnnnn\.\.\.', 256 bytes",
        ),
        ("folder/" * 600, r"is longer than any path \(4200 bytes; at most 4095\)"),
    ],
)
def test_unusable(path, why):
    assert re.search(why, unusable_path(path))
