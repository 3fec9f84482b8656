"""Tables are well formed, in all documents; they are replaced between their marks, and nothing else is."""

from pathlib import Path

import pytest

from benchmarks.document import END, rewrite, table, table_problems
from wsigen.base.errors import OutputError

BEGIN = "<!-- table: make it -->"
ROOT = Path(__file__).parents[2]


def test_only_what_lies_between_the_marks_changes(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n<!-- table: other -->\nkept\n{END}\n")
    for _ in range(2):  # and again
        rewrite(path, "make it", "new")
        text = f"above\n{BEGIN}\nnew\n{END}\nbelow\n<!-- table: other -->\nkept\n{END}\n"
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


def test_tables_have_a_header_a_separator_and_rows_of_one_length():
    text = table(["a", "b"], [["x|y", 1], ["", 2.5]])
    assert text == "| a | b |\n|---|---|\n| x\\|y | 1 |\n|  | 2.5 |"
    assert not table_problems(f"above\n\n{text}\n\nbelow")
    with pytest.raises(ValueError, match="2 columns"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n| 1 | 2 |",
        "| a | b |\n|---|---|",
        "|---|---|\n| 1 | 2 |",
        "| a | b |\n|---|---|\n| 1 |",
        "| a |\n|---|---|\n| 1 | 2 |",
        "| a | b |\n|---|---|\n| 1 | x|y |",
    ],
)
def test_tables_that_are_none_are_found_and_never_written(tmp_path, text):
    assert table_problems(text)
    path = tmp_path / "page.md"
    path.write_text(f"{BEGIN}\nold\n{END}\n")
    with pytest.raises(OutputError, match="not well formed"):
        rewrite(path, "make it", text)
    assert "old" in path.read_text()


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name)
def test_every_table_of_the_documents_is_well_formed(path):
    assert not table_problems(path.read_text(encoding="utf-8"))
