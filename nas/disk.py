"""Writing so that a crash or a full disk leaves what was there, and failures that a person can act on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from hw_models.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def explained(path: str | Path, verb: str = "written", again: str = "the same command continues") -> Iterator[None]:
    """Failures of the operating system inside become one line: what cannot be read or written, why, what to do.

    Raises:
        InputError: in place of any OSError.

    Example:
        >>> with explained("notes.txt"):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: notes.txt cannot be written (No space left on device): free space; the same command continues
    """  # noqa: E501
    try:
        yield
    except OSError as error:
        fix = "free space" if error.errno in FULL else "correct that"
        raise InputError(f"{path} cannot be {verb} ({error.strerror or error}): {fix}; {again}") from error


def lock(path: Path, busy: str, other: str) -> int:
    """Handle of the lock file `path`, held until it is closed; `busy` and `other` are the error's beginning and end.

    Raises:
        InputError: another process holds it.
        OSError: it cannot be made or locked at all.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     os.close(lock(Path(folder, "lock"), "the folder is being written", "give another"))
    """
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        owner = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise InputError(f"{busy} by process {owner}: wait for it, or {other}") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def sync_folder(folder: Path) -> None:
    """Make what was created and renamed in `folder` last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part.

    Raises:
        InputError: it cannot be written; the old one is still there.
    """
    temporary = path.with_name(f".{path.name}.part")
    with explained(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            # it would keep the space that is missing
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def append(handle: int, data: bytes) -> None:
    """Add `data` at the end of the open file, on the disk before this returns, or leave the file as it was."""
    before = os.fstat(handle).st_size
    try:
        text = memoryview(data)
        while text:
            text = text[os.write(handle, text) :]
        os.fsync(handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, before)
        raise
