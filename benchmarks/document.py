"""Markdown tables: made here by all commands, and put into documents between two marks that name the command."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wsigen.base.errors import OutputError, WsigenError
from wsigen.storage.files import write_atomic

END = "<!-- end of table -->"


def show(command: str, measure: Callable[[], str], document: Path | None) -> int:
    """Measure, print the text, rewrite it in a document if one is given; the exit code is 1 if something given was wrong."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded
    try:
        text = measure()
        print(text)
        if document:
            rewrite(document, command, text)
    except WsigenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers: bool = False) -> str:
    """A Markdown table; with ``numbers`` its columns stand to the right.

    Raises
    ------
    ValueError
        If a row has more or fewer cells than the header.
    """
    lines = [list(map(str, line)) for line in (head, *rows)]
    wrong = [line for line in lines if len(line) != len(head)]
    if wrong:
        raise ValueError(f"a table of {len(head)} columns has the row {wrong[0]}")
    first, *others = (f"| {' | '.join(line)} |" for line in ([cell.replace("|", r"\|") for cell in line] for line in lines))
    return "\n".join([first, f"|{('---:|' if numbers else '---|') * len(head)}", *others])


def table_problems(text: str) -> list[str]:
    """What is wrong with the tables of a Markdown text, a line each: no header or separator, rows of another length."""
    problems, rows = [], list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(re.split(r"(?<!\\)\|", line.strip())[1:-1])
        elif rows:
            if len(rows) < 3 or not all(re.fullmatch(r" *:?-{3,}:? *", cell) for cell in rows[1]):
                problems.append(f"no header and separator: |{'|'.join(rows[0])}|")
            unequal = [row for row in rows if len(row) != len(rows[0])]
            problems += [f"{len(row)} cells and not {len(rows[0])}: |{'|'.join(row)}|" for row in unequal]
            rows = []
    return problems


def rewrite(document: Path, command: str, text: str) -> None:
    """Replace what lies between ``<!-- table: COMMAND -->`` and the next ``<!-- end of table -->``.

    Raises
    ------
    OutputError
        If the document cannot be read, or does not have the first mark once and the second one after it; if a table in
        ``text`` is not well formed.
    """
    if problems := table_problems(text):
        raise OutputError(f"{command}: a table is not well formed, {document} is left as it is: {problems[0]}")
    begin = f"<!-- table: {command} -->"
    try:
        before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{document}: cannot be read ({error}); give a document with the line {begin}") from None
    _, ended, after = rest.partition(END)
    if not (found and ended) or begin in rest:
        raise OutputError(f"{document}: the lines {begin} and {END} must be there once, in this order; add them")
    write_atomic(document, f"{before}{begin}\n{text}\n{END}{after}".encode())
