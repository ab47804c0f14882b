"""Where the files of a data set may lie on this computer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hw_models.errors import InputError


def cache(name: str) -> Path:
    """The folder in the user's cache for data set `name`; it need not exist.

    Example:
        >>> cache("cifar10").parts[-2:]
        ('flynas', 'cifar10')
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "flynas" / name


def candidates(name: str, system: Sequence[str] = ()) -> list[Path]:
    """Folders to look in for data set `name`, first to last; `system` lists those of Linux packages."""
    own = os.environ.get("FLYNAS_DATA", "")
    return [*([Path(own) / name] if own else []), *map(Path, system), cache(name)]


def find(
    name: str,
    folder: str | os.PathLike[str] | None,
    holds: Callable[[Path], str],
    how_to_get: str,
    system: Sequence[str] = (),
) -> Path:
    """The first folder that has the data; a `folder` named by the user is the only one looked at.

    `holds(folder)` returns "" if all is there, or what is missing.

    Raises:
        InputError: no folder has it; the message says where was looked and how to get it.
    """
    if folder is not None:
        missing = holds(Path(folder))
        if missing:
            raise InputError(f"data set '{name}': '{os.fspath(folder)}' has no {missing}: {how_to_get}")
        return Path(folder)
    looked = candidates(name, system)
    for place in looked:
        if not holds(place):
            return place
    raise InputError(f"data set '{name}' was not found in {', '.join(map(str, looked))}: {how_to_get}")


def where(name: str, holds: Callable[[Path], str], system: Sequence[str] = ()) -> str:
    """The first folder that has data set `name`, as text; empty if none has."""
    return next((str(place) for place in candidates(name, system) if not holds(place)), "")
