"""Tables of documents that a command writes anew, between two marks that name the command."""

from __future__ import annotations

from pathlib import Path

from wsigen.base.errors import OutputError
from wsigen.storage.files import write_atomic

END = "<!-- end of table -->"


def rewrite(document: Path, command: str, table: str) -> None:
    """Replace what lies between ``<!-- table: COMMAND -->`` and the next ``<!-- end of table -->``.

    Raises
    ------
    OutputError
        If the document cannot be read, or does not have the first mark once and the second one after it.
    """
    begin = f"<!-- table: {command} -->"
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{document}: cannot be read ({error}); give a document with the line {begin}") from None
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(END)
    if not (found and ended) or begin in rest:
        raise OutputError(f"{document}: the lines {begin} and {END} must be there once, in this order; add them")
    write_atomic(document, f"{before}{begin}\n{table}\n{END}{after}".encode())
