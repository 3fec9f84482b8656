"""The server gives out what was opened, to whoever has the token, and nothing else to nobody else."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import fsspec
import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_making import tissue
from viewing_making import cohort, small_slide

from wsigen.base.errors import ResourceError, WsigenError
from wsigen.viewing.server import serving
from wsigen.viewing.shown_slide import mark_of
from wsigen.viewing.site import Site, site_of

Answer = tuple[int, Mapping[str, str], bytes]


def ask(url: str, name: str = "", method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """Send a request as it is, whatever the name."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request(method, parts.path + name, body, {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.headers, data


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("server"), name="a b&<i>")


@pytest.fixture(scope="module")
def url(slide: Path) -> Iterator[str]:
    with serving(site_of(str(slide))) as address:
        yield address


def test_the_page_and_what_it_asks_for(url: str, slide: Path) -> None:
    status, headers, page = ask(url)
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    for name in ("style.css", "main.js", "vendor/openseadragon.min.js"):
        assert f"page/{name}".encode() in page
    entry = json.loads(ask(url, "page/data.json")[2])["slides"][0]
    record = json.loads(ask(url, entry["about"])[2])
    assert (record["width"], record["height"], record["mpp"], record["mark"]) == (1500, 1100, 0.5, "synthetic")
    assert ask(url, record["file"])[2] == slide.read_bytes()
    assert len(json.loads(ask(url, record["annotations"])[2])["features"]) == 2
    assert ask(url, entry["picture"])[1]["Content-Type"] == "image/jpeg"
    assert ask(url, entry["classes"])[1]["Content-Type"] == "image/png"
    assert len(json.dumps(record)) < 2000


@pytest.mark.parametrize("said", ["Aperio Image Library|MPP = 0.5|Synthetic = partly synthetic: 1 region", "partly synthetic"])
def test_what_a_slide_says_of_itself_goes_before_what_its_user_says(said: str, tmp_path: Path) -> None:
    path = tmp_path / "edited.tif"
    tifffile.imwrite(path, np.full((128, 128, 3), 200, np.uint8), description=said, photometric="rgb")
    assert [mark_of(str(path), real) for real in (False, True)] == ["partly synthetic"] * 2


def test_a_slide_elsewhere_is_marked_too(slide: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/x.ome.tiff", slide.read_bytes())
    assert [mark_of("memory://x.ome.tiff", real) for real in (False, True)] == ["synthetic"] * 2


def test_what_a_browser_is_started_with_leads_to_the_page_once(slide: Path) -> None:
    with serving(site_of(str(slide)), once="word") as address:
        first = urljoin(address, "/word/")
        status, headers, _ = ask(first)
        assert (status, urljoin(address, headers["Location"])) == (302, address)
        assert ask(first)[0] == ask(urljoin(address, "/another/"))[0] == 403
        assert ask(address)[0] == 200


def test_a_name_that_no_browser_can_ask_for(slide: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/x\xff.ome.tiff"))
    path.write_bytes(slide.read_bytes())
    for what in (path, tmp_path):
        with pytest.raises(WsigenError, match="not UTF-8"):
            site_of(str(what))


def test_ranges(url: str, slide: Path) -> None:
    data, name = slide.read_bytes(), f"files/0/{quote(slide.name)}"
    for asked, wanted in {"bytes=0-15": data[:16], "bytes=100-100": data[100:101], "bytes=-7": data[-7:]}.items():
        status, headers, body = ask(url, name, Range=asked)
        assert (status, body) == (206, wanted)
        assert headers["Content-Range"].endswith(f"/{len(data)}")
    assert ask(url, name, Range=f"bytes={len(data) - 5}-")[2] == data[-5:]
    assert ask(url, name, Range=f"bytes={len(data)}-")[0] == 416
    for nonsense in ("bytes=", "bytes=-", "lines=1-2", "bytes=0-1,3-4"):
        assert ask(url, name, Range=nonsense)[0] == 200
    status, headers, body = ask(url, name, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(data)), b"")


def test_headers_keep_others_out(url: str) -> None:
    for name in ("", "page/data.json", "nothing"):
        headers = ask(url, name)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
        assert not any(key.lower().startswith("access-control") for key in headers)
        assert "Server" not in headers
    assert ask(url, "", "OPTIONS", Origin="https://elsewhere.example")[0] in (403, 405)


def test_nothing_without_the_token(url: str) -> None:
    base = url.rsplit("/", 2)[0]
    for name in ("/", "/page/data.json", "/x/page/data.json", "/favicon.ico", f"/{'A' * 22}/", "/%00/"):
        assert ask(base, name)[0] == 403, name
        assert ask(base, name, "POST", b"{}")[0] == 403, name
    assert ask(url, "edit", "POST", b"{}")[0] == 404  # nothing can be asked for yet


def test_two_servers_have_two_tokens(slide: Path) -> None:
    site = site_of(str(slide))
    with serving(site) as one, serving(site) as other:
        assert one.split("/")[3] != other.split("/")[3]
        assert min(len(url.split("/")[3]) for url in (one, other)) >= 22


STRANGERS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", ""]


@pytest.mark.parametrize("host", STRANGERS)
def test_a_name_that_was_pointed_here_is_refused(url: str, host: str) -> None:
    assert ask(url, "page/data.json", Host=host)[0] in (400, 403)


def test_a_tunnel_may_have_another_port(url: str) -> None:
    for host in ("localhost:1234", "127.0.0.1", "[::1]:99", "LOCALHOST"):
        assert ask(url, "page/data.json", Host=host)[0] == 200


def test_only_what_was_opened(url: str, slide: Path) -> None:
    (slide.parent / "secret.txt").write_text("secret")
    names = ["secret.txt", "files/0/secret.txt", "files/0/../secret.txt", "files/0/%2e%2e/secret.txt", "..%2f..%2fetc"]
    names += ["/etc/passwd", "%2fetc%2fpasswd", "page/../secret.txt", quote(str(slide)), "files/1/x"]
    names += ["page/__init__.py", "page/", "page/vendor"]
    for name in names:
        status, _, body = ask(url, name)
        assert status in (403, 404), name
        assert b"secret" not in body


def test_posts_reach_what_a_site_offers(slide: Path) -> None:
    site = Site({}, {}, [], {"edit": lambda body: body.upper()})
    with serving(site) as url:
        assert ask(url, "edit", "POST", b"draw")[2] == b"DRAW"
        assert ask(url, "edit", "POST", b"draw", Origin="https://elsewhere.example")[0] == 403
        assert ask(url, "edit", "POST", b"draw", Origin="null")[0] == 403
        assert ask(url, "edit", "POST", b"draw", Origin=url.rsplit("/", 2)[0])[2] == b"DRAW"
        assert ask(f"{url.rsplit('/', 2)[0]}/wrong/", "edit", "POST", b"draw")[0] == 403


def test_a_port_in_use_is_one_line(slide: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = f"port {port}: is in use; choose another with --port"
        with pytest.raises(ResourceError, match=said), serving(site_of(str(slide)), port):
            pass


def test_tiles_that_a_browser_cannot_decode_are_made(tmp_path: Path) -> None:
    rgb = tissue(1300, 900)
    tifffile.imwrite(tmp_path / "strips.tif", rgb, photometric="rgb")
    with serving(site_of(str(tmp_path / "strips.tif"))) as url:
        record = json.loads(ask(url, "page/slides/0.json")[2])
        assert (record["file"], record["table"], record["mark"]) == ("", None, "")
        assert record["served"] == {"url": "tiles/0/", "tile": 512, "levels": 3}
        (tmp_path / "tile.jpg").write_bytes(ask(url, "tiles/0/0/2/1")[2])
        tile = np.asarray(Image.open(tmp_path / "tile.jpg")).astype(int)
        assert tile.shape == (1300 - 1024, 900 - 512, 3)
        assert np.abs(tile - rgb[1024:, 512:]).mean() < 3
        (tmp_path / "tile.jpg").write_bytes(ask(url, "tiles/0/2/0/0")[2])
        assert Image.open(tmp_path / "tile.jpg").size == (225, 325)
        for beyond in ("0/3/0", "0/0/2", "3/0/0", "0/-1/0", "99/0/0"):
            assert ask(url, f"tiles/0/{beyond}")[0] == 404
        assert ask(url, "tiles/1/0/0/0")[0] == 404


def test_a_folder_with_a_table(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "cohort")
    with serving(site_of(str(folder))) as url:
        slides = json.loads(ask(url, "page/data.json")[2])["slides"]
        assert [(s["id"], s["split"], s["subtype"]) for s in slides] == [
            ("demo-0", "train", "ductal"), ("demo-1", "test", "lobular"), ("demo-2", "train", "<b>mixed</b>"),
        ]  # fmt: skip
        record = json.loads(ask(url, slides[2]["about"])[2])
        assert record["file"] == "slides/demo-2.ome.tiff"
        assert ask(url, record["file"], Range="bytes=0-3")[2] == b"II+\0"
        assert ask(url, "cohort.csv")[0] == 404


def test_what_cannot_be_shown_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tif").write_text("no picture")
    folder = cohort(tmp_path / "cohort", 1)
    outside = small_slide(tmp_path, name="outside")
    (folder / "cohort.csv").write_text("id,slide\nx,slides/missing.ome.tiff\n")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "x.ome.tiff").symlink_to(outside)
    for what, said in {
        "nothing": "no such slide, run or folder",
        "empty": "neither a run nor a folder with slides",
        "text.tif": "not an image",
        "cohort": "'slides/missing.ome.tiff' is not there",
        "linked": "does not lie in",
    }.items():
        with pytest.raises(WsigenError, match=said):
            site_of(str(tmp_path / what))
    with pytest.raises(WsigenError, match="not an image"):
        site_of(str(outside), str(tmp_path / "text.tif"))


def test_memory_of_the_server_is_flat(tmp_path: Path) -> None:
    """Two thousand tiles of a file of some hundred of them, and of one whose tiles are made."""
    import psutil

    path = small_slide(tmp_path, 4096, 4096)
    rgb = np.ascontiguousarray(tissue(1024, 1024))
    tifffile.imwrite(tmp_path / "strips.tif", rgb, photometric="rgb")
    size = path.stat().st_size
    with serving(site_of(str(path), str(tmp_path / "strips.tif"))) as url:
        record = json.loads(ask(url, "page/slides/0.json")[2])

        def read(count: int) -> int:
            for number in range(count):
                at = number * 7919 % (size - 2**17)
                assert len(ask(url, record["file"], Range=f"bytes={at}-{at + 2**17 - 1}")[2]) == 2**17
                if number % 20 == 0:
                    assert ask(url, f"tiles/1/0/{number % 2}/0")[0] == 200
            return int(psutil.Process().memory_info().rss)

        before = read(200)
        after = read(2000)
    assert after - before < 16 * 2**20
