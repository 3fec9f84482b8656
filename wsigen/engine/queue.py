"""Workers as jobs of a queueing system (SLURM, PBS, SGE, LSF, ...), through dask-jobqueue: the settings file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsigen.errors import ConfigError, ResourceError
from wsigen.yaml_file import read_mapping, validated


class QueueSettings(BaseModel):
    """``--scheduler FILE.yaml``: which queue, how many jobs, and what each of them asks for.

    Attributes
    ----------
    queue:
        Name of the queueing system.
    jobs:
        Jobs to submit; those that the queue starts later, or never, only change the time a slide takes.
    settings:
        Arguments of dask-jobqueue's cluster class of that queue (``cores``, ``processes``, ``memory``, ``walltime``, ...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

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


def submit_jobs(path: Path) -> Any:
    """Start a scheduler in this process and submit the workers' jobs; returns dask-jobqueue's cluster.

    The scheduler's dashboard listens on loopback alone unless the file says otherwise.

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
    if not (settings.get("interface") or options.get("interface") or options.get("host")):
        raise ConfigError(
            f"{path}: 'settings' needs an 'interface' (e.g. ib0): the scheduler runs what it is sent, so it listens on the "
            "network you name and on no other"
        )
    settings["scheduler_options"] = {"dashboard_address": "127.0.0.1:0", **options}
    try:
        cluster = kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: 'settings': {error}") from None
    try:
        cluster.scale(jobs=chosen.jobs)
        return cluster
    except (OSError, RuntimeError) as error:
        cluster.close()
        raise ResourceError(f"{path}: the jobs cannot be submitted ({error}); is {chosen.queue} installed here?") from None


_CLUSTERS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "moab": "MoabCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
}
