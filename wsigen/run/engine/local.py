"""Workers of this machine that nobody else can reach: a dask cluster without open ports, with keys and a folder of its own.

dask's own ``LocalCluster`` takes the machine for private. It listens on two HTTP ports; the scheduler of worker processes takes
calls (that is: runs code) from every local user; and it locks ``TMPDIR/dask-scratch-space/global.lock``, a name that another
user can lay a link under, through which files of ours would be cut to nothing. Here

* threads of this process talk through memory (``inproc``), and nothing listens at all;
* processes talk by TLS, with a certificate that lives in memory as long as the run and is demanded of whoever connects;
* no HTTP server is started;
* what dask writes goes into a folder that its user alone can enter.

This module is imported when a cluster starts: importing dask takes a second.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import distributed.core
from distributed import Nanny, Scheduler, Security, SpecCluster, Worker

from wsigen.base.errors import ResourceError


class _Quiet:
    """A dask server whose pages and metrics no port shows, and from whose folder no module is imported.

    Python keeps for good what it found in each folder that ever was on its search path: 30 objects a slide.
    """

    local_directory: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with suppress(ValueError):
            sys.path.remove(self.local_directory)
        sys.path_importer_cache.pop(self.local_directory, None)

    def start_http_server(self, routes: Any, dashboard_address: Any, default_port: int = 0, ssl_options: Any = None) -> None:
        """Start nothing."""


class QuietScheduler(_Quiet, Scheduler):
    """dask's scheduler without HTTP."""


class QuietWorker(_Quiet, Worker):
    """dask's worker without HTTP."""


class QuietNanny(_Quiet, Nanny):
    """What starts a worker's process, in this one."""


def start_local(workers: int, processes: bool, tasks_at_once: int, scratch: str) -> SpecCluster:
    """Start workers on this machine.

    Parameters
    ----------
    workers : int
        How many can compute at the same time.
    processes : bool
        Each is a process of its own instead of a thread of this one.
    tasks_at_once : int
        Threads of each, which share its model.
    scratch : str
        A folder that no other user can enter; dask's ``temporary-directory`` has to be the same.

    Raises
    ------
    ResourceError
        If one of them ends before it has begun.
    """
    security = Security.temporary() if processes else None
    place = {"protocol": "tls://", "host": "127.0.0.1", "security": security} if processes else {"protocol": "inproc://"}
    options = {**place, "local_directory": scratch, "memory_limit": 0, "silence_logs": logging.CRITICAL, "dashboard": False}
    if processes:
        each = {"cls": QuietNanny, "options": {**options, "nthreads": tasks_at_once, "worker_class": QuietWorker}}
        spec = dict.fromkeys(range(workers), each)
    else:
        spec = {0: {"cls": QuietWorker, "options": {**options, "nthreads": workers * tasks_at_once}}}
    scheduler = {"cls": QuietScheduler, "options": {**place, "port": 0, "dashboard": False}}
    try:
        return SpecCluster(workers=spec, scheduler=scheduler, security=security, silence_logs=logging.CRITICAL)
    except (RuntimeError, OSError, TimeoutError) as error:
        kind = "worker processes" if processes else "workers"
        raise ResourceError(f"the {kind} of this machine cannot be started ({error}); try again, or with fewer") from error


def forget_servers() -> None:
    """Let go of schedulers and workers that are closed.

    distributed asks a function without end to its memory whether a handler takes a connection (``core._expects_comm``), and so
    keeps the handlers, and with them every server there ever was: 1,000 objects a slide.
    """
    asked = getattr(distributed.core, "_expects_comm", None)
    if asked is not None and hasattr(asked, "cache_clear"):
        asked.cache_clear()
