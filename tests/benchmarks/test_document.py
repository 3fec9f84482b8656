"""Tables of documents are replaced between their marks, and nothing else is."""

import pytest

from benchmarks.document import END, rewrite
from wsigen.base.errors import OutputError

BEGIN = "<!-- table: make it -->"


def test_only_what_lies_between_the_marks_changes(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n<!-- table: other -->\nkept\n{END}\n")
    for _ in range(2):  # and again
        rewrite(path, "make it", "| new |")
        text = f"above\n{BEGIN}\n| new |\n{END}\nbelow\n<!-- table: other -->\nkept\n{END}\n"
        assert path.read_text() == text


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_document_without_its_marks_is_left_as_it_is(tmp_path, text):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(OutputError, match="must be there once"):
        rewrite(path, "make it", "new")
    assert path.read_text() == text
    with pytest.raises(OutputError, match="cannot be read"):
        rewrite(tmp_path / "none.md", "make it", "new")
