"""``wsigen view``: a page in the browser that shows slides, runs and cohorts."""

from __future__ import annotations

import secrets
import sys
import threading
from typing import Annotated
from urllib.parse import urljoin

import typer


def view(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="a slide, directory of a run, cohort or folder of slides", show_default=False)
    ],
    real: Annotated[str | None, typer.Option("--real", help="a real slide to show beside it, linked")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port on this machine; 0: any that is free")] = 0,
    model: Annotated[str, typer.Option("--model", help="makes drawn regions anew: a name, a folder or a hub id")] = "default",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open the page, or only say where it is")] = True,
) -> None:
    """Show a slide, a run in progress or a cohort in the browser, on this machine alone."""
    from wsigen.editing.edit import edit
    from wsigen.viewing.server import serving
    from wsigen.viewing.site import site_of

    site, once = site_of(what, real, edit, model), secrets.token_urlsafe(16)
    with serving(site, port, once if browser else "") as address:
        print(address, flush=True)
        try:
            opened = browser and _open(urljoin(address, f"/{once}/"))
            said = "shown in the browser" if opened else "open this address in a browser"
            print(f"{said}; only this machine and who knows it can; Ctrl-C ends it", file=sys.stderr, flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closed", file=sys.stderr)


def _open(address: str) -> bool:
    import webbrowser

    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
