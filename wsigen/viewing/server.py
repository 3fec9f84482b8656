"""The server of ``wsigen view``: this machine alone, one secret address, and nothing but what was opened.

What keeps others out:

* it listens on 127.0.0.1;
* every address begins with a token of 128 random bits, also those of tiles; a POST asks for it as well; the browser is started
  with another word, which leads there once;
* the ``Host`` of a request has to be this machine by name: a page elsewhere whose name was pointed here (DNS rebinding) is
  refused;
* no CORS headers, a content security policy without inline code and without other hosts, no referrer, no frames;
* names are looked up in the `Site`; no path is made of what was asked for.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from wsigen.base.errors import ResourceError, WsigenError, one_line
from wsigen.viewing.site import Site

ADDRESS = "127.0.0.1"

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names of this machine. The port is not compared: a tunnel of SSH has another one at its other end."""

OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
"""The one rule of style that OpenSeadragon adds to a page; by its hash no other one may be."""

POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' '{OPENSEADRAGON_STYLE}'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}

CHUNK_BYTES = 2**18
"""Read and sent at a time: a file of any size takes no more memory."""

MOST_POST_BYTES = 2**24

THREADS = 4
"""For pictures, tiles and reading from disk."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TILE = re.compile(r"tiles/(\d{1,7})/(\d{1,2})/(\d{1,6})/(\d{1,6})")


@contextmanager
def serving(site: Site, port: int = 0, once: str = "") -> Iterator[str]:
    """Serve a site from a thread, and give its address.

    Parameters
    ----------
    port : int
        0: any free one.
    once : str
        A word that leads to the address when it is asked for in the token's place, the first time and never again. A browser is
        started with it: other users of the machine see what programs are started with.

    Raises
    ------
    ResourceError
        If the port is in use or not allowed.
    """
    try:
        sockets = bind_sockets(port, ADDRESS)
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ResourceError(f"port {port}: {reason}; choose another with --port, or leave it out") from None
    token = secrets.token_urlsafe(16)
    begun, ends = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        with ThreadPoolExecutor(THREADS) as threads:
            shared = {"site": site, "token": token, "once": [once] if once else [], "threads": threads}
            app = Application([(r"/([^/]*)/(.*)", _Handler, shared), (r".*", _Elsewhere)], log_function=lambda handler: None)
            server = HTTPServer(app, max_body_size=MOST_POST_BYTES)
            server.add_sockets(sockets)
            begun.set()
            await ends.wait()
            server.stop()
            await server.close_all_connections()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="wsigen view", daemon=True)
    thread.start()
    begun.wait()
    try:
        yield f"http://{ADDRESS}:{sockets[0].getsockname()[1]}/{token}/"
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        loop.close()
        for end in site.ends:
            end()


class _Plain(RequestHandler):
    """Headers of all answers, and errors as one line without a name that was asked for."""

    def set_default_headers(self) -> None:
        for name, value in {
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",  # slides may be patients'
        }.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def write_error(self, status_code: int, **more: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        error = (more.get("exc_info") or (None, None, None))[1]
        text = str(error) if isinstance(error, WsigenError) else self._reason
        self.finish(f"{one_line(text)}\n")

    def log_exception(self, *args: Any) -> None:
        """The page shows what went wrong; a terminal has no use for tracebacks of requests."""


class _Elsewhere(_Plain):
    def prepare(self) -> None:
        raise HTTPError(403, reason="Forbidden")


class _Handler(_Plain):
    def initialize(self, site: Site, token: str, once: list[str], threads: ThreadPoolExecutor) -> None:
        self._site, self._token, self._once, self._threads = site, token, once, threads

    def prepare(self) -> None:
        host = self.request.headers.get("Host", "").casefold()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in HOSTS:
            raise HTTPError(403, reason="Forbidden")
        given = self.path_args[0].encode()
        if any(hmac.compare_digest(given, word.encode()) for word in self._once):
            self._once.clear()
            self.redirect(f"/{self._token}/")
        elif not hmac.compare_digest(given, self._token.encode()):
            raise HTTPError(403, reason="Forbidden")

    async def get(self, token: str, name: str) -> None:
        name = name or "index.html"
        self.set_header("Content-Type", TYPES.get(Path(name).suffix.lower(), "application/octet-stream"))
        if (make := self._site.made.get(name)) is not None:
            self.write(await self._off_the_loop(make))
        elif (path := self._site.files.get(name)) is not None:
            await self._send(path)
        elif (tile := _TILE.fullmatch(name)) is not None:
            await self._send_tile(*map(int, tile.groups()))
        else:
            raise HTTPError(404)

    async def head(self, token: str, name: str) -> None:
        await self.get(token, name)

    async def post(self, token: str, name: str) -> None:
        origin = self.request.headers.get("Origin")
        if origin is not None and origin != f"{self.request.protocol}://{self.request.host}":
            raise HTTPError(403, reason="Forbidden")
        if (act := self._site.posts.get(name)) is None:
            raise HTTPError(404)
        body = self.request.body
        try:
            answer = await self._off_the_loop(lambda: act(body))
        except WsigenError as error:  # what was asked for cannot be
            self.set_status(400)
            self.set_header("Content-Type", TYPES[".txt"])
            self.finish(f"{error}\n")
            return
        self.set_header("Content-Type", "application/json")
        self.write(answer)

    async def _send_tile(self, number: int, level: int, row: int, column: int) -> None:
        if number >= len(self._site.slides):
            raise HTTPError(404)
        try:
            data = await self._off_the_loop(lambda: self._site.slides[number].served_tile(level, row, column))
        except KeyError:
            raise HTTPError(404) from None
        self.set_header("Content-Type", TYPES[".jpg"])
        self.write(data)

    async def _send(self, path: Path) -> None:
        """A file or the range of it that was asked for; a chunk of it is in memory at a time."""
        try:
            file = path.open("rb")
        except OSError:
            raise HTTPError(404) from None
        with file:
            size = path.stat().st_size
            first, last = self._range(size)
            self.set_header("Accept-Ranges", "bytes")
            self.set_header("Content-Length", str(last - first + 1))
            if self.request.method == "HEAD":
                return
            file.seek(first)
            left = last - first + 1
            while left:
                chunk = await self._off_the_loop(lambda: file.read(min(CHUNK_BYTES, left)))  # noqa: B023  # awaited at once
                if not chunk:
                    raise HTTPError(500, reason="File was cut short")
                left -= len(chunk)
                self.write(chunk)
                try:
                    await self.flush()
                except StreamClosedError:  # the browser has moved on
                    return

    def _range(self, size: int) -> tuple[int, int]:
        """First and last byte to be sent; several ranges, and what is none, are answered with all (RFC 9110, 14.2)."""
        asked = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        if asked is None or asked.groups() == ("", ""):
            return 0, size - 1
        begin, end = asked.groups()
        first = int(begin) if begin else max(0, size - int(end))
        last = min(int(end), size - 1) if begin and end else size - 1
        if first >= size or last < first:
            self.set_header("Content-Range", f"bytes */{size}")
            raise HTTPError(416)
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {first}-{last}/{size}")
        return first, last

    async def _off_the_loop(self, make: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)
