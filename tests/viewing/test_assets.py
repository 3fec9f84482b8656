"""The page is whole: its files are there, are what they are said to be, and load nothing from elsewhere."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import wsigen.viewing
from wsigen.viewing.page import ASSETS, assets
from wsigen.viewing.server import POLICY

FOLDER = Path(wsigen.viewing.__file__).parent / "assets"


def test_what_others_wrote_is_unchanged_and_named() -> None:
    row = r"^\| `([^`]+)` \|.*BSD-3-Clause, `([^`]+)` \| `(\w{64})` \|$"
    rows = re.findall(row, (FOLDER / "vendor/README.md").read_text(), re.MULTILINE)
    assert {row[0] for row in rows} == {path.name for path in (FOLDER / "vendor").glob("*.js")}
    for name, licence, digest in rows:
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == digest
        assert "Redistribution and use in source and binary forms" in (FOLDER / "vendor" / licence).read_text()


def test_every_file_is_given_out() -> None:
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert there == {*ASSETS, "index.html", "vendor/README.md"}
    assert all(make() for make in assets().values())


def test_modules_import_each_other_alone() -> None:
    for path in FOLDER.glob("*.js"):
        for name in re.findall(r'from "([^"]+)"', path.read_text()):
            assert name.startswith("./"), path.name
            assert (FOLDER / name).is_file()


def test_nothing_comes_from_elsewhere() -> None:
    for path in [FOLDER / "index.html", *FOLDER.glob("*.js"), *FOLDER.glob("*.css")]:
        addresses = set(re.findall(r"https?://[^\s\"'`]+", path.read_text())) - {"http://www.w3.org/2000/svg"}
        assert not addresses, path.name
        assert "innerHTML" not in path.read_text()


def test_the_policy_of_the_page_is_that_of_the_server() -> None:
    said = re.search(r'content="(default-src[^"]+)"', (FOLDER / "index.html").read_text())
    assert said is not None
    assert f"{said[1]}; frame-ancestors 'none'" == POLICY  # which a page cannot say of itself
