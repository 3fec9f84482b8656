"""A run's folder as a prefix of an object store: any that fsspec knows (``s3://``, ``gs://``, ``abfs://``).

What the store must give: a PUT that appears whole or not at all, and listings and reads that show it from then on (S3, GCS
and Azure do, as do MinIO and Ceph). Folders are no things of their own there, so what late writers find gone is ``run.json``.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from wsigen.base.errors import ConfigError, RunError
from wsigen.storage.files import target_of_leftover
from wsigen.storage.folder import RUN_SPEC, Folder, Lock
from wsigen.storage.lease import hold
from wsigen.storage.scratch import Scratch, sweep_scratch

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from wsigen.storage.zarr_stores import ChunkObjects

P = ParamSpec("P")
T = TypeVar("T")

OPTIONS = {"use_listings_cache": False}
"""Other processes write there: what was listed a moment ago is no longer true."""

PREFIX = "wsigen-inputs-"
"""Begins the names of temporary folders with copies of objects."""

CLOSE_S = 10.0
"""Seconds for which the end of a session is waited for."""


def open_objects(url: str) -> ObjectFolder:
    """Open a prefix of an object store; nothing is asked of it yet.

    Raises
    ------
    ConfigError
        If there is no such kind of URL, or the package that knows it is not installed.
    """
    import fsspec

    scheme = url.partition("://")[0]
    try:
        system, root = fsspec.core.url_to_fs(url, **OPTIONS)
    except ImportError as error:
        package = "pip install 'wsigen[s3]'" if scheme == "s3" else str(error)
        raise ConfigError(f"{url}: object stores of this kind need another package: {package}") from None
    except ValueError as error:
        raise ConfigError(f"{url}: {error}; give a path or a URL like s3://bucket/prefix") from None
    atexit.register(_close_session, system)
    if "/" not in root.strip("/"):
        raise ConfigError(f"{url}: names no place of its own in the bucket; add a prefix, e.g. {url}/slide.run")
    return ObjectFolder(url, system, root.rstrip("/"))


def _close_session(system: Any) -> None:
    """Close what S3's client has open; its own finalizer waits for a tenth of a second, and zarr's clients have none."""
    from fsspec.asyn import sync
    from zarr.core.sync import sync as sync_with_zarr

    session = getattr(system, "_s3creator", None)
    if session is None:
        return
    with suppress(Exception):  # the process ends, however that went
        if system.asynchronous:
            sync_with_zarr(session.__aexit__(None, None, None), timeout=CLOSE_S)
        else:
            sync(system.loop, session.__aexit__, None, None, None, timeout=CLOSE_S)


def _as_os_error(method: Callable[P, T]) -> Callable[P, T]:
    """Errors of a client library become ``OSError``, which callers know as trouble with the place."""

    @wraps(method)
    def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (OSError, RunError):
            raise
        except Exception as error:
            raise OSError(f"{args[0].name}: {type(error).__name__}: {error}") from error  # type: ignore[attr-defined]  # self

    return translated


class ObjectFolder(Folder):
    """Values are objects; prefixes are no things of their own, and a PUT that was cut short leaves nothing.

    Parameters
    ----------
    name : str
        The URL.
    system, root : fsspec file system, str
        fsspec's file system, and the prefix in it.
    guard : str or None
        An object without which nothing is written: ``run.json``, in folders of a run.
    """

    answers_late = True
    delete_at_once = 250
    """One request takes hardly longer for many, but fewer than any store takes (Azure 256, S3 1000)."""

    def __init__(self, name: str, system: Any, root: str, guard: str | None = None) -> None:
        self._name = name
        self._system = system
        self._root = root
        self._guard = guard
        self._scratch: Scratch | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self._name

    def sub(self, name: str) -> ObjectFolder:
        """A prefix below this one."""
        guard = self._guard or f"{self._root}/{RUN_SPEC}"
        return ObjectFolder(f"{self.name}/{name}", self._system, f"{self._root}/{name}", guard)

    @_as_os_error
    def read(self, key: str) -> bytes:
        """Bytes of an object."""
        return bytes(self._system.cat_file(self._path(key)))

    @_as_os_error
    def write(self, key: str, data: Buffer, flush: bool = True) -> None:
        """Put an object; a store keeps it at once."""
        if self._guard is not None and not self._is_there(self._guard):
            raise FileNotFoundError(f"{self.name}: there is no run (any more)")
        self._system.pipe_file(self._path(key), bytes(data))

    @_as_os_error
    def create(self, key: str, data: bytes) -> bool:
        """Put an object if there is none, in one step where the store can (S3's ``If-None-Match``); whether it was put."""
        try:
            self._system.pipe_file(self._path(key), data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, ValueError, NotImplementedError):  # a client that knows no such mode
            if self.has(key):
                return False
            self._system.pipe_file(self._path(key), data)
        except OSError:  # every store has its own words for "it is there" (412, 409), which clients translate as they like
            if not self.has(key):
                raise
            return False
        return True

    @_as_os_error
    def has(self, key: str) -> bool:
        """Whether the object is there (OSError if the store does not say: nobody may take that for a no)."""
        return self._is_there(self._path(key))

    @_as_os_error
    def names(self, prefix: str = "") -> list[str]:
        """Objects below a prefix."""
        try:
            paths = self._system.find(f"{self._root}/{prefix}".rstrip("/"))
        except FileNotFoundError:
            return []
        return [path.removeprefix(f"{self._root}/") for path in paths]

    @_as_os_error
    def top(self) -> list[str]:
        """First parts of the names below the prefix."""
        try:
            return [path.rstrip("/").rpartition("/")[2] for path in self._system.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []

    @_as_os_error
    def delete(self, key: str) -> None:
        """Remove an object."""
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(key))

    @_as_os_error
    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects, with one request where the store can; S3's client leaves what fails, and says nothing."""
        if not keys:
            return
        try:
            if has_magic(self._root):  # fsspec would look for names like these
                raise FileNotFoundError
            self._system.rm([self._path(key) for key in keys])
        except FileNotFoundError:  # one is gone, and this client minds
            for key in keys:
                self.delete(key)

    @_as_os_error
    def stamp(self, key: str) -> str:
        """The object's ETag and time."""
        info = self._system.info(self._path(key))
        return f"{info.get('ETag')} {info.get('LastModified') or info.get('created')}"

    @_as_os_error
    def modified(self, key: str) -> datetime:
        """When the object was put, by the store's clock."""
        return datetime.fromisoformat(str(self._system.modified(self._path(key))))

    def local(self, key: str) -> Path:
        """A copy in a temporary folder."""
        self._scratch = self._scratch or Scratch(PREFIX)
        target = self._scratch.path / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.read(key))
        return target

    def chunks(self) -> ChunkObjects:
        """Chunks as objects."""
        from wsigen.storage.zarr_stores import ChunkObjects

        store: ChunkObjects = ChunkObjects.from_url(self.name, storage_options=dict(OPTIONS))
        store.guard = self._guard
        atexit.register(_close_session, store.fs)  # after zarr's own, so that its loop still runs
        return store

    @contextmanager
    def lock(self, key: str) -> Iterator[Lock]:
        """Hold the folder by a lease; copies that killed drivers left on this machine are removed."""
        sweep_scratch(PREFIX)
        with hold(self, key) as lease:
            yield lease

    @_as_os_error
    def discard(self, name: str) -> None:
        """Remove an object, or all below a prefix."""
        for other in self.top():
            if other == name or target_of_leftover(other) == name:
                self.delete(other)
        with suppress(FileNotFoundError):
            self._system.rm(self._path(name), recursive=True)

    @_as_os_error
    def size(self) -> int:
        """Bytes of all objects."""
        return int(sum(info["size"] for info in self._system.find(self._root, detail=True).values()))

    def _is_there(self, path: str) -> bool:
        """fsspec's own ``isfile`` and ``exists`` answer no to every error."""
        try:
            return bool(self._system.info(path)["type"] == "file")
        except FileNotFoundError:
            return False
        except OSError as error:
            raise OSError(f"{self.name}: whether {path} is there is not known ({error.strerror or error})") from error

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"
