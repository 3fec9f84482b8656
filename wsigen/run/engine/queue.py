"""Workers as jobs of a queueing system (SLURM, PBS, SGE, LSF, ...), through dask-jobqueue: the settings file."""

from __future__ import annotations

import threading
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from pydantic import Field

from wsigen.base.errors import ConfigError, ResourceError
from wsigen.base.yaml_file import Settings, read_mapping, validated

WORKER_OPTIONS = ("--dashboard-address", "127.0.0.1:0", "--memory-limit", "0")
"""Of every worker, unless the file says otherwise: a page for its machine alone, and no endless pause for want of memory."""

GONE_S = 30.0
"""Seconds without any of its workers after which a job has ended: a worker that died is started again within its job."""


class QueueSettings(Settings):
    """``--scheduler FILE.yaml``: which queue, how many jobs, and what each of them asks for.

    Attributes
    ----------
    queue : {"slurm", "pbs", "sge", "lsf", "moab", "oar", "htcondor"}
        Name of the queueing system.
    jobs : int
        Jobs to submit; those that the queue starts later, or never, only change the time a slide takes.
    settings : dict
        Arguments of dask-jobqueue's cluster class of that queue (``cores``, ``processes``, ``memory``, ``walltime``, ...).
    """

    queue: Literal["slurm", "pbs", "sge", "lsf", "moab", "oar", "htcondor"]
    jobs: int = Field(default=1, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)


def is_queue_file(scheduler: str) -> bool:
    """Whether ``--scheduler`` names a settings file and not an address."""
    return scheduler.endswith((".yaml", ".yml")) and "://" not in scheduler


def read_queue_file(path: Path) -> QueueSettings:
    """Read the settings of a queue.

    Raises
    ------
    ConfigError
        One line: what is wrong with which field of the file.
    """
    content = read_mapping(path, ConfigError, "the settings of a queue cannot be read (no such file); check --scheduler")
    return validated(QueueSettings, content, str(path), ConfigError)


class Jobs:
    """The workers' jobs: a queue ends each at its wall time, and a run may need many of them one after the other.

    dask-jobqueue submits jobs once and does not look after them; what it knows of them by itself differs with the number of
    worker processes a job has, so they are followed here, by the names of their workers.

    Parameters
    ----------
    cluster : object
        dask-jobqueue's cluster.
    count : int
        Jobs there are to be.
    where : str
        What an error names.
    """

    def __init__(self, cluster: Any, count: int, where: str) -> None:
        self.cluster = cluster
        self._count, self._where = count, where
        self._begun: set[str] = set()
        self._sent_away: set[str] = set()
        self._absent: dict[str, float] = {}
        self._lock = threading.Lock()
        """Several runs may share the jobs, each with a driver's thread of its own."""

    def submit(self) -> None:
        """Submit what is missing, each job once (ResourceError with the queue's own words if it does not take one)."""

        async def complete() -> None:
            for job in self._refused():  # awaited as they are, they would be submitted by either line below, the first unheard
                del self.cluster.worker_spec[job]
            await self.cluster  # closes jobs that are no longer wanted: their names are given again
            while len(self.cluster.worker_spec) < self._count:
                self.cluster.worker_spec.update(self.cluster.new_worker_spec())
            await self.cluster  # submits those that are wanted

        try:
            self.cluster.sync(complete)
        except (OSError, RuntimeError, ValueError) as error:  # the last: what it answers names no job
            raise ResourceError(f"{self._where}: jobs cannot be submitted ({_said(error)})") from None

    def renew(self, names: set[str]) -> int:
        """Submit a job for each that has ended; returns how many those were.

        A job has ended once all its workers were gone for ``GONE_S``. One that no worker was seen of may still wait in the
        queue, for days.

        Parameters
        ----------
        names : set of str
            Of all workers there are now.
        """
        with self._lock:
            return self._renew(names)

    def _renew(self, names: set[str]) -> int:
        now, unfit = monotonic(), self._unfit()
        for job, its in self._workers().items():
            if its & names:
                self._begun.add(job)
                self._absent.pop(job, None)
            elif job in self._begun - unfit:
                self._absent.setdefault(job, now)
        ended = [job for job, since in self._absent.items() if now - since >= GONE_S]
        for job in ended:
            del self._absent[job]
            self._begun.discard(job)
            self.cluster.worker_spec.pop(job, None)
        self.submit()
        return len(ended)

    def leave_out(self, name: str) -> bool:
        """Put no other job in the place of one all of whose workers were sent away: it would meet the same.

        Returns whether any other job is there, waits in the queue or will be submitted again.
        """
        self._sent_away.add(name)
        return bool(set(self.cluster.worker_spec) - self._unfit())

    def _unfit(self) -> set[str]:
        """Jobs all of whose workers were sent away."""
        return {job for job, its in self._workers().items() if its <= self._sent_away}

    def _refused(self) -> list[str]:
        """Jobs that the queue did not take."""
        sent = self.cluster.workers
        return [job for job in self.cluster.worker_spec if job in sent and sent[job].status.name == "created"]

    def _workers(self) -> dict[str, set[str]]:
        """Names of the workers of each job."""
        return {
            job: {f"{job}{suffix}" for suffix in wanted.get("group", [""])} for job, wanted in self.cluster.worker_spec.items()
        }


def _said(error: Exception) -> str:
    """What a command of the queue wrote, of all that dask-jobqueue says of it; one line."""
    text = str(error)
    return " ".join((text.partition("stderr:\n")[2].strip() or text).split())


def submit_jobs(path: Path) -> Jobs:
    """Start a scheduler in this process and submit the workers' jobs to dask-jobqueue's cluster.

    The pages that scheduler and workers serve are on loopback alone unless the file says otherwise.

    Raises
    ------
    ConfigError, ResourceError
        If the file is wrong, dask-jobqueue is missing or refuses a setting, or the queue cannot be reached.
    """
    chosen = read_queue_file(path)
    try:
        import dask_jobqueue
    except ImportError:
        raise ResourceError(f"{path}: queues need dask-jobqueue; pip install 'wsigen[cluster]'") from None
    kind = getattr(dask_jobqueue, _CLUSTERS[chosen.queue])
    settings = {**chosen.settings}
    options = settings.get("scheduler_options") or {}
    if not settings.get("interface"):
        raise ConfigError(
            f"{path}: 'settings' needs an 'interface' (e.g. ib0): scheduler and workers run what they are sent, so they listen "
            "on the network you name and on no other"
        )
    settings["scheduler_options"] = {"dashboard_address": "127.0.0.1:0", **options}
    settings["worker_extra_args"] = [*WORKER_OPTIONS, *(settings.get("worker_extra_args") or [])]
    try:
        cluster = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: 'settings': {error}") from None
    jobs = Jobs(cluster, chosen.jobs, str(path))
    try:
        jobs.submit()
    except ResourceError as error:
        cluster.close()
        raise ResourceError(f"{error}; is {chosen.queue} installed here?") from None
    return jobs


_CLUSTERS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
}
