"""One driver per run on an object store, where nothing releases a lock when its holder dies: a lease.

The lock is an object that its holder puts again every few seconds; one that was not renewed for long is nobody's. Its age is
read from the store's clock, never from this machine's. Weaker than a file lock: a driver that stood still for longer than the
lease (a frozen machine) may find that another has taken over; it then stops at its next task. Until then both may work on the
same run, and write equal bytes.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Annotated, Protocol

import psutil
from pydantic import Field

from wsigen.base.errors import RunError
from wsigen.base.state import State, parse_state
from wsigen.storage.files import leftover_name
from wsigen.storage.folder import Folder, Lock

RENEW_S = 10.0
"""Seconds between renewals."""

EXPIRES_S = 60.0
"""Seconds without a renewal after which a lease is nobody's."""

SETTLE_S = 1.0
"""Seconds after which two that took over at the same moment see who was last."""


class Objects(Folder, Protocol):
    """What a lease needs of an object store."""

    def create(self, key: str, data: bytes) -> bool:
        """Put an object if there is none; whether it was put."""
        ...

    def modified(self, key: str) -> datetime:
        """When an object was put."""
        ...


class _Holder(State):
    """What the object holds: a word of the driver's own, its process, and where numbers of processes mean what they do."""

    token: str
    process: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    host: str | None = None
    boot: str | None = None
    processes: str | None = None


@dataclass
class Lease(Lock):
    """A folder held by this process until another driver takes over."""

    folder: Objects
    key: str
    token: str
    lost: str = ""

    @property
    def text(self) -> bytes:
        """The object's content."""
        return _Holder(token=self.token, process=os.getpid(), **_machine()).model_dump_json().encode()

    def renew(self) -> None:
        """Put the object again, unless another driver has taken over."""
        holder = _read(self.folder, self.key)
        if holder.token == self.token:
            self.folder.write(self.key, self.text)
        else:
            self.lost = _named(holder)

    def confirm(self) -> None:
        """Ask the store whether it is still held, before something is done that another driver would suffer from.

        Raises
        ------
        RunError
            If another driver has taken over.
        """
        if not self.lost:
            self.renew()
        if self.lost:
            raise RunError(
                f"{self.folder.name}: another driver ({self.lost}) has taken this run over, as nothing was heard of this one "
                "for long"
            )


@contextmanager
def hold(folder: Objects, key: str) -> Iterator[Lease]:
    """Hold a folder until the end of the block.

    Raises
    ------
    RunError
        If another driver holds it.
    """
    lease = Lease(folder, key, uuid.uuid4().hex)
    _take(lease)
    stop = Event()
    thread = Thread(target=_keep, args=(lease, stop), name="wsigen-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join(RENEW_S)
        with suppress(OSError):
            if _read(folder, key).token == lease.token:
                folder.delete(key)


def _take(lease: Lease) -> None:
    """Put the lock if there is none, or if its holder is dead; then make sure that nobody else did so as well."""
    if lease.folder.create(lease.key, lease.text):
        return
    holder = _read(lease.folder, lease.key)
    if holder.token == lease.token:
        return  # the client sent it twice, as the first answer got lost
    age = _age(lease.folder, lease.key)
    if age < EXPIRES_S and not _is_dead(holder):
        raise RunError(
            f"{lease.folder.name}: held by another driver ({_named(holder)}, heard of {age:.0f} s ago); stop it, or, if it is "
            f"dead, wait {EXPIRES_S - age:.0f} s"
        )
    lease.folder.write(lease.key, lease.text)
    sleep(SETTLE_S)
    holder = _read(lease.folder, lease.key)
    if holder.token != lease.token:
        raise RunError(f"{lease.folder.name}: another driver ({_named(holder)}) was faster; wait for it or stop it")


def _keep(lease: Lease, stop: Event) -> None:
    while not stop.wait(RENEW_S) and not lease.lost:
        with suppress(OSError):  # a network that is away for a moment: the next renewal comes in time
            lease.renew()


def _read(folder: Objects, key: str) -> _Holder:
    """Who holds a folder; a holder without a token if nobody does, or the object says nothing that can be understood."""
    with suppress(FileNotFoundError, RunError):
        return parse_state(_Holder, folder.read(key), key, RunError)
    return _Holder(token="")


def _is_dead(holder: _Holder) -> bool:
    """Whether the holder was a process of this machine that is no more; of other machines nobody knows."""
    here = _machine()
    same = None not in here.values() and holder.model_dump(include=set(here)) == here
    return same and holder.process is not None and not psutil.pid_exists(holder.process)


def _machine() -> dict[str, str | None]:
    """Where numbers of processes mean what they mean here: containers and clones of a machine share its name, not these."""
    boot = processes = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        processes = str(Path("/proc/self/ns/pid").readlink())
    return {"host": socket.gethostname(), "boot": boot, "processes": processes}


def _age(folder: Objects, key: str) -> float:
    """Seconds since an object was put, by the store's clock: a probe says what time it is there."""
    probe = leftover_name(key)
    folder.write(probe, b"")
    try:
        return (folder.modified(probe) - folder.modified(key)).total_seconds()
    except FileNotFoundError:
        return EXPIRES_S  # released meanwhile
    finally:
        folder.delete(probe)


def _named(holder: _Holder) -> str:
    return f"process {holder.process} on {holder.host}" if holder.process and holder.host else "another process"
