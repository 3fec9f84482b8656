"""mkdocs hook: the ``::`` before a block of code is reStructuredText's; the pages are Markdown."""

from __future__ import annotations

from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Leave out a ``::`` of its own line, and turn one at the end of a sentence into a colon."""
    return html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
