"""mkdocs hooks: the table of settings; and ``::`` before a block of code is reStructuredText's, the pages are Markdown."""

from __future__ import annotations

from itertools import groupby
from typing import Any

MARK = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables of settings where a page wants them."""
    return markdown.replace(MARK, settings_tables()) if MARK in markdown else markdown


def settings_tables() -> str:
    """A table for each group of settings, from the fields of `RunConfig`."""
    from wsigen.cli.options import allowed, default_of
    from wsigen.run.config import RunConfig, about

    lines = []
    for group, names in groupby(RunConfig.model_fields, key=lambda name: about(name)["group"]):
        lines += ["", f"## {group}", "", "| setting | what it says | values | default |", "|---|---|---|---|"]
        for name in names:
            field, extra = RunConfig.model_fields[name], about(name)
            shown = ("class" if name == "class_name" else name) + ("` **·**" if extra["execution"] else "`")
            values = allowed(name).replace("|", "\\|")
            lines.append(f"| `{shown} | {field.description} | {values} | {default_of(name)} |")
    return "\n".join(lines)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out a ``::`` of its own line, and turn one at the end of a sentence into a colon."""
    return html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
