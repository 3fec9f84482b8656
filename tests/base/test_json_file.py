"""JSON from elsewhere: what is no plain, finite tree of values is refused in one line, at any depth and of any size."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsigen.base.errors import LayoutError
from wsigen.base.json_file import parse_json, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_reads_what_json_writes(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "text",
    [b"[" * 200_000, b'{"a":' * 50_000, b"1" * 5000, b"", b"NaN", b"[-Infinity]", b'{"a": [1, {"b": 1e999}]}', b'"\\ud800"',
     b'{"a": 1, "a": 2}', b"[1] x", b"\xff\xfe[\0]\0", b'["\xff"]'],
)  # fmt: skip
def test_refuses_what_is_no_plain_value(tmp_path, text) -> None:
    file = tmp_path / "strange.json"
    file.write_bytes(text)
    with pytest.raises(LayoutError) as refusal:
        read_json(file, LayoutError, "export it again")
    assert str(refusal.value).startswith(f"{file}: cannot be read as JSON: ")
    assert str(refusal.value).endswith("export it again")


def test_a_file_that_is_too_large_is_not_read(tmp_path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(LayoutError, match="1048576 MiB; at most 8 MiB are taken"):
        read_json(file, LayoutError)


def test_who_asks_says_what_a_missing_file_means(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json", LayoutError)
    with pytest.raises(LayoutError, match="null"):
        read_json(tmp_path / "a\0b", LayoutError)
