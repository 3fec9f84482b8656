"""``wsigen view``: says where the page is, ends with Ctrl-C, and says in one line what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from viewing.viewing_making import small_slide

VIEW = [sys.executable, "-m", "wsigen", "view"]


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--no-browser"], {}),
        ([], {"PATH": "/nowhere"}),
        ([], {"PATH": "/nowhere", "BROWSER": "/nowhere/browser"}),
        ([], {"BROWSER": "false"}),  # is there, and fails
    ],
)
def test_an_address_until_it_is_stopped(tmp_path: Path, options: list[str], environment: dict[str, str]) -> None:
    path = small_slide(tmp_path)
    without_screen = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    command, streams = [*VIEW, str(path), *options], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command, **streams, text=True, env=without_screen | environment)  # type: ignore[call-overload]  # streams
    assert running.stdout is not None
    assert running.stderr is not None
    address = running.stdout.readline().strip()
    assert "open this address in a browser" in running.stderr.readline()
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"wsigen" in answer.read()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0
    assert said == "closed\n"


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    path = small_slide(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for arguments, said in (([str(path), "--port", port], "is in use"), ([str(tmp_path / "x.svs")], "check the path")):
            done = subprocess.run([*VIEW, *arguments, "--no-browser"], capture_output=True, text=True, timeout=120)
            assert done.returncode == 2
            assert said in done.stderr
            assert len(done.stderr.splitlines()) == 1
