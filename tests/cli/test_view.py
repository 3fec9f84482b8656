"""``wsigen view``: says where the page is, ends with Ctrl-C, and says in one line what is wrong."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from viewing.viewing_making import small_slide

VIEW = [sys.executable, "-m", "wsigen", "view"]


def test_an_address_until_it_is_stopped(tmp_path: Path) -> None:
    path = small_slide(tmp_path)
    running = subprocess.Popen([*VIEW, str(path), "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    address = running.stdout.readline().strip()
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert b"wsigen" in answer.read()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "open this address in a browser" in said
    assert "Traceback" not in said


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
