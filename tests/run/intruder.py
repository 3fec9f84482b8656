"""Another user of the machine: looks at a run of ours that goes on, and does to it what it can. Prints what it could, as JSON.

Arguments: process id of the run's driver, a file with the folders to look through (JSON). It is started as root, to import
what it needs, and then becomes ``nobody``.
"""

import encodings.idna  # noqa: F401  # which socket imports later, when it may no longer be readable
import json
import os
import pwd
import re
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import psutil

LISTENS = "0A"
"""State of a socket in ``/proc/net/tcp``."""


def family(driver):
    """The driver and all its children."""
    return [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]


def sockets_of(processes):
    """Inodes of all sockets that processes have open (root alone may ask)."""
    found = set()
    for process in processes:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                found |= set(re.findall(r"^socket:\[(\d+)\]$", str(link.readlink())))
    return found


def listening_ports(inodes):
    """Ports that sockets listen on, as ``ss -tln`` shows them."""
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def listening_files(inodes):
    """Unix sockets that are listened on, by name; abstract ones begin with ``@``."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [row[7] for row in rows if len(row) > 7 and row[6] in inodes and int(row[3], 16) & 0x10000]


def answers(port, secure):
    """Whether a port says anything to who has no certificate: a dask server that does takes calls, and so runs code."""
    with socket.create_connection(("127.0.0.1", port), timeout=1.5) as plain:
        plain.settimeout(1.5)
        try:
            if secure:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(plain) as there:
                    return bool(there.recv(1))
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n" if secure is None else b"")
            return bool(plain.recv(1))
        except (OSError, TimeoutError):
            return False


def changes(folder):
    """What below a folder could be changed; nothing is harmed beyond that."""
    found = []
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            with suppress(OSError):
                (path / "intruder").touch()
                found.append(str(path))
        elif not path.is_symlink():
            with suppress(OSError), path.open("r+b"):
                found.append(str(path))
            with suppress(OSError):
                path.rename(path.with_name("intruder"))
                found.append(str(path))
    return found


def main():
    driver, folders = int(sys.argv[1]), [Path(folder) for folder in json.loads(Path(sys.argv[2]).read_text())]
    inodes = sockets_of(family(driver))
    ports = listening_ports(inodes)
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    said = {
        "ports": ports,
        "answered": [port for port in ports if any(answers(port, secure) for secure in (False, None, True))],
        "unix": [name for name in listening_files(inodes) if name.startswith("@") or os.access(name, os.W_OK)],
        "changed": [path for folder in folders for path in changes(folder)],
    }
    try:
        psutil.Process(driver).terminate()
        said["changed"].append("the driver itself")
    except psutil.AccessDenied:
        pass
    print(json.dumps(said))


if __name__ == "__main__":
    main()
