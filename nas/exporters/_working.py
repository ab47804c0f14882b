"""Where an export keeps what is not finished: a hidden folder beside the one to write, for one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hw_models.errors import InputError
from nas import disk

LOCK, PART, OLD = "lock", "part", "old"


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """`.NAME.export` beside `out` (`NAME`), with an empty folder `PART`; afterwards gone, unless it holds checkpoints.

    What a process left that was killed is removed, but for checkpoints; an earlier export that it had just moved out
    of the way comes back.

    Raises:
        InputError: it cannot be written, or another process is exporting to `out`.
    """
    place = out.with_name(f".{out.name}.export")
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = disk.lock(place / LOCK, f"{out} is being exported", "give another folder")
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): give another folder") from error
    try:
        with disk.explained(out):
            if (place / OLD).exists() and not out.exists():
                os.replace(place / OLD, out)
            for name in (PART, OLD):
                shutil.rmtree(place / name, ignore_errors=True)
            (place / PART).mkdir()
        yield place
    finally:
        shutil.rmtree(place / PART, ignore_errors=True)
        for entry in place.iterdir():
            with suppress(OSError):  # only empty ones go: a training that kept nothing
                entry.rmdir()
        if [entry.name for entry in place.iterdir()] == [LOCK]:
            with suppress(OSError):
                (place / LOCK).unlink()
                place.rmdir()
        os.close(handle)


def publish(place: Path, out: Path) -> None:
    """Put the finished `PART` of `place` where `out` is; an earlier export comes back if that fails."""
    if not out.exists():
        os.replace(place / PART, out)
        return
    os.replace(out, place / OLD)
    try:
        os.replace(place / PART, out)
    except BaseException:
        os.replace(place / OLD, out)
        raise
    shutil.rmtree(place / OLD, ignore_errors=True)
