"""From a path or a URL to a folder."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from wsigen.base.errors import ConfigError
from wsigen.base.names import unusable_path
from wsigen.storage.files import leftover_name
from wsigen.storage.folder import RUN_SPEC, Folder
from wsigen.storage.local import LocalFolder


def is_url(place: str | Path) -> bool:
    """Whether a place is an object store's prefix (``s3://bucket/prefix``) and not a path."""
    return isinstance(place, str) and "://" in place and not place.startswith("file://")


def as_place(place: str | Path) -> str | Path:
    """A path as ``Path``, a URL as text without its last slash.

    Raises
    ------
    ConfigError
        For web servers, which keep no runs, and URLs that lead through others (``simplecache::http://...``).
    """
    if is_url(place):
        kinds = re.findall(r"([^:/]+)://", str(place).lower())
        if "::" in str(place) or {"http", "https"} & set(kinds):
            raise ConfigError(f"{place}: no place for a run; give a folder or an object store such as s3://bucket/prefix")
        return str(place).rstrip("/")
    return Path(str(place).removeprefix("file://"))


def absolute_place(place: str | Path) -> str | Path:
    """The same from any working directory."""
    place = as_place(place)
    return place.absolute() if isinstance(place, Path) else place


def open_folder(place: str | Path) -> Folder:
    """Open a run's folder; it need not be there yet.

    Raises
    ------
    ConfigError
        If nothing here knows URLs of this kind, or no path has such a name.
    """
    place = as_place(place)
    if why := unusable_path(str(place)):
        raise ConfigError(f"{place}: {why}; give the place of a run")
    if isinstance(place, Path):
        return LocalFolder(place)
    from wsigen.storage.objects import open_objects

    return open_objects(place)


def open_nearest(place: str | Path) -> Folder:
    """Open a run's folder, or, where a path is not there yet, the folder it will be made in."""
    place = as_place(place)
    return open_folder(place if not isinstance(place, Path) or place.is_dir() else place.parent)


def why_not_usable(folder: Folder) -> str:
    """Put a value, read it back and remove it; why that fails in this process, empty if it does not."""
    probe, content = leftover_name(RUN_SPEC), b"wsigen"  # if this process is killed here, it is known as a run's own
    try:
        folder.write(probe, content)
        return "" if folder.read(probe) == content else "does not give back what was written"
    except FileNotFoundError:
        return "no such bucket" if is_url(folder.name) else "no such folder here"
    except PermissionError as error:
        return f"access refused ({error.strerror or error})"
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    finally:
        with suppress(OSError):
            folder.delete(probe)
