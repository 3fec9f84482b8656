"""Tables as spreadsheets and programs save them."""

import pytest

from wsigen.base.csv_file import number, read_table

ROWS = [["image", "x, px", "class"], ["a", "1,5", "Tumor"], ["b", "2", "µ"]]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_separators_and_encodings(tmp_path, separator, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes("\r\n".join(separator.join(row) for row in [*ROWS, [], [""]]).encode(encoding))
    assert read_table(path) == (ROWS[0], ROWS[1:])


def test_the_separator_may_be_said_before_the_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sep=;\nimage;x, y\na;1,5\n")
    assert read_table(path) == (["image", "x, y"], [["a", "1,5"]])


def test_quoted_commas(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('image,"a;b;c"\n"x\ny" , 3\n')
    assert read_table(path) == (["image", "a;b;c"], [["x\ny", "3"]])
    path.write_text("")
    assert read_table(path) == ([], [])


def test_numbers():
    assert [number(text) for text in ("1.5", "1,5", "-3", "1e3")] == [1.5, 1.5, -3.0, 1000.0]
    for text in ("1.234,5", "1,234,5", "", "a"):
        with pytest.raises(ValueError, match=r".*"):
            number(text)
