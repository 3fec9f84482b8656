"""What the pages of reports are made of: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

THUMB_PX, QUALITY = 160, 85
"""Side of a shown crop in px and its JPEG quality."""

_NUMBER = re.compile(r"(-?[\d.,]+(e[-+]\d+)?|inf|nan)?( \+- .*)?")
"""What a cell of a column of numbers holds: a number, perhaps with its deviation, or nothing."""

STYLE = """
:root{--ink:#22252a;--soft:#6b7280;--line:#e5e7eb;--real:#2563eb;--synthetic:#d9480f;--bad:#b42318}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);max-width:1080px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.3rem 0}.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.35rem .6rem;text-align:left;
border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
.warn{border-left:4px solid #f59e0b;background:#fffbeb;padding:.5rem .9rem;margin:1rem 0}.warn li{overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:1fr 1fr;gap:1.4rem}.grid{display:grid;grid-template-columns:repeat(6,1fr);gap:3px}
.grid img,.pairs img{width:100%;display:block;border-radius:2px}.pairs{display:grid;grid-template-columns:repeat(8,1fr);gap:8px}
figure{margin:0}figcaption{font-size:.7rem;color:var(--soft);overflow-wrap:anywhere}.bad{color:var(--bad);font-weight:600}svg{max-width:100%;height:auto}
@media(max-width:700px){.two{grid-template-columns:1fr}.pairs{grid-template-columns:repeat(4,1fr)}}
"""


def document(title: str, body: str) -> str:
    """Return a whole page."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table; columns of numbers are set to the right."""
    cells = [list(row) for row in body]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in cells) for i in range(len(head))]
    kinds = [' class="n"' if n else "" for n in numeric]
    top = "".join(f"<th{k}>{escape(h)}</th>" for k, h in zip(kinds, head, strict=True))
    rest = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True)) + "</tr>" for row in cells
    )
    return f"<table><tr>{top}</tr>{rest}</table>"


def section(title: str, content: str, note: str = "") -> str:
    """A part of a page with its title and, in grey, a note."""
    noted = f'<p class="soft">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{noted}{content}</section>"


def warned(warnings: list[str]) -> str:
    """The box of warnings; empty without any."""
    items = "".join(f"<li>{escape(w)}</li>" for w in warnings)
    return f'<div class="warn"><b>Know before you read</b><ul>{items}</ul></div>' if warnings else ""


def picture(pixels: NDArray[np.uint8], name: str) -> str:
    """A crop as an image tag with its pixels (uint8 ``[P, P, 3]``) inside."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{data}">'
