"""The run folder: written so that a killed search continues, read back as a `Run`.

    run.json       what was searched and how: space, devices, objective, strategy, evaluator, seed, versions
    records.jsonl  one line per candidate, appended and flushed to the disk chunk by chunk
    state.msgpack  the last snapshot, replaced as a whole: training round, step, states of evaluator and strategy
    lock           held while a search writes

Nothing is pickled. A half-written last record is dropped; a damaged file is named with the fix. A snapshot may be older
than the records: the steps since then are asked again, give the same candidates, and reuse their records.
"""

from __future__ import annotations

import datetime
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from hw_models.errors import InputError
from nas import disk
from nas.plain import arrays_of, dumps, plain
from nas.run import Record, Run
from nas.run_files import (
    FIX,
    IDENTITY,
    LOCK,
    RECORDS,
    RUN,
    SCHEMA,
    STATE,
    Records,
    Snapshot,
    read_meta,
    read_records,
    read_snapshot,
)


def versions() -> dict[str, Any]:
    """What results may depend on besides the seed: versions, platform, backend, threads, the compiled kernel.

    `kernel` is the instruction set of the compiled kernel, None where it is not available.

    Example:
        >>> sorted(versions())
        ['backend', 'cpus', 'flax', 'flynas', 'jax', 'jaxlib', 'kernel', 'numpy', 'platform', 'python', 'threads']
    """
    import jax

    from search_spaces.kernels import native

    library = native.load(native.FOLDER)

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "flynas")},
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": {name: os.environ.get(name) for name in ("NPROC", "XLA_FLAGS", "OMP_NUM_THREADS")},
        "kernel": library.build["instruction_set"] if library.available else None,
    }


def said_of_versions(there: Any, here: Any) -> str | None:
    """The sentence for work that began under the `versions()` of `there` and goes on under others; None if equal.

    Example:
        >>> said_of_versions({"jax": "1"}, {"jax": "2"})
        'continued under other versions, results may differ in the last bits: jax is "1" there and "2" here'
    """
    changed = _differing(there, here)
    return f"continued under other versions, results may differ in the last bits: {changed[0]}" if changed else None


def _differing(there: Any, here: Any, path: str = "") -> list[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for name in sorted({*there, *here}):
            found += _differing(there.get(name), here.get(name), f"{path}.{name}" if path else name)
        return found
    if there == here:
        return []
    return [f"{path} is {dumps(there)[:60]} there and {dumps(here)[:60]} here"]


class Folder:
    """A run being written; `open_run` makes one. With `path` None nothing is kept on disk."""

    def __init__(self, path: Path | None, meta: dict[str, Any]):
        self.path = path
        self.meta = meta
        self.records: dict[tuple[int, int], Record] = {}
        self.messages: list[str] = []
        self.snapshot: Snapshot | None = None
        self._lock: int | None = None
        self._file: int | None = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            os.close(self._file)
        if self._lock is not None:
            os.close(self._lock)

    def append(self, records: Sequence[Record]) -> None:
        """Add records, on the disk before this returns; one that is there already is a mistake of the caller.

        Raises:
            InputError: they cannot be written; then none of them is counted, and the file is as it was.
        """
        fresh: dict[tuple[int, int], Record] = {}
        for record in records:
            place = (record["step"], record["index"])
            if place in self.records or place in fresh:
                raise RuntimeError(f"record of step {place[0]} index {place[1]} is written twice")
            fresh[place] = record
        if self._file is not None and fresh:
            assert self.path is not None
            with disk.explained(self.path / RECORDS):
                disk.append(self._file, "".join(dumps(record) + "\n" for record in records).encode())
        self.records |= fresh

    def save(self, round: int, step: int, evaluator: Any, strategy: Any) -> None:
        """Replace the snapshot: `round` training rounds and `step` steps are done.

        Raises:
            InputError: it cannot be written; the one before is still there.
        """
        if self.path is None:
            return
        from flax import serialization

        parts = Snapshot(round, step, len(self.records), arrays_of(evaluator), arrays_of(strategy))
        body = serialization.msgpack_serialize(parts._asdict())
        outer = {"schema": SCHEMA, "crc32": zlib.crc32(body), "body": body}
        disk.replace(self.path / STATE, serialization.msgpack_serialize(outer))

    def run(self) -> Run:
        """The run so far."""
        return Run(self.path, self.meta, [self.records[at] for at in sorted(self.records)], tuple(self.messages))


def _append_handle(path: Path) -> int:
    with disk.explained(path / RECORDS):
        return os.open(path / RECORDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def check_out(out: str | Path, steps: int) -> None:
    """Raise InputError where `open_run` would refuse `out` whatever the run is; changes nothing.

    For callers to whom it costs much to find out what the run is: the data are read, the space is built.

    Example:
        >>> check_out("setup.cfg/run", 10)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: setup.cfg/run cannot be written (Not a directory): give another --out
    """
    check_steps(steps)
    path = Path(out)
    try:
        present = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        present = []
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another --out") from None
    _check_contents(path, present)
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "Permission denied" if nearest.is_dir() else "Not a directory"
        raise InputError(f"{path} cannot be written ({why}): give another --out")
    if RUN in present:
        read_meta(path)
        _check_done(path, read_snapshot(path), steps)


def check_steps(steps: Any) -> None:
    """Raise InputError unless `steps` is a whole number from 1.

    Example:
        >>> check_steps(10)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r} is not allowed: give a whole number from 1")


def _check_contents(path: Path, present: Sequence[str]) -> None:
    ours = {RUN, RECORDS, STATE, LOCK, *(f".{name}.part" for name in (RUN, STATE))}
    if RUN not in present and set(present) - {LOCK, f".{RUN}.part"}:
        odd = next((name for name in present if name not in ours), present[0])
        raise InputError(f"{path} is not a run: it holds {odd} and no {RUN}: {FIX}")


def _check_done(path: Path, snapshot: Snapshot | None, steps: int) -> None:
    done = snapshot.step if snapshot else 0
    if steps < done:
        raise InputError(f"{path} has {done} steps already, {steps} asked: ask for at least {done}, or {FIX}")


def open_run(out: str | Path | None, meta: Mapping[str, Any], steps: int) -> Folder:
    """Create the folder of a run, or take up the interrupted run that is in it.

    `meta` holds the identity of the run (`space, devices, objective, strategy, evaluator, seed, config`); versions and
    the time are added. A larger number of steps extends a run; everything else must be equal. A run that was given up
    before its first record and its first snapshot is replaced, so that a command can be corrected.

    Raises:
        InputError: the folder holds something else, another run, a newer or damaged one, or is in use.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    fresh = {"schema": SCHEMA, "created": now, "steps": steps, **plain(dict(meta)), "versions": versions()}
    if out is None:
        return Folder(None, fresh)
    path = Path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _check_contents(path, sorted(entry.name for entry in path.iterdir()))
        lock = disk.lock(path / LOCK, f"{path} is being written", "give another --out")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another --out") from None
    folder = Folder(path, fresh)
    folder._lock = lock
    try:
        stored = read_meta(path) if (path / RUN).exists() else None
        if stored is None:
            _begin(folder, path)
        else:
            _take_up(folder, path, stored, fresh, steps)
    except BaseException:
        folder.__exit__(None, None, None)
        raise
    return folder


def _begin(folder: Folder, path: Path) -> None:
    disk.replace(path / RUN, dumps(folder.meta, indent=1).encode())
    folder._file = _append_handle(path)
    with disk.explained(path):
        disk.sync_folder(path)


def _take_up(folder: Folder, path: Path, stored: dict[str, Any], fresh: dict[str, Any], steps: int) -> None:
    differing = [
        line for name in IDENTITY for line in _differing(_identity(stored, name), _identity(fresh, name), name)
    ]
    snapshot, found = read_snapshot(path), _read_records(path, stored)
    if differing and snapshot is None and not found.records:
        if found.sound or found.messages:
            (path / RECORDS).unlink()
        folder.messages.append(f"{path} held the beginning of another run without any result, which is replaced")
        _begin(folder, path)
        return
    if differing:
        raise InputError(f"{path} holds another run: {'; '.join(differing[:3])}: {FIX}")
    changed = said_of_versions(stored.get("versions"), fresh["versions"])
    if changed:
        folder.messages.append(changed)
    _check_done(path, snapshot, steps)
    folder.snapshot = snapshot
    folder.records = {(record["step"], record["index"]): record for record in found.records}
    folder.messages += found.messages
    if snapshot and len(found.records) < snapshot.records:
        raise InputError(
            f"{path / RECORDS} has {len(found.records)} records where {STATE} counts {snapshot.records}: "
            f"delete {path / STATE} to evaluate the missing ones again"
        )
    folder.meta = {**stored, "steps": steps, "config": fresh["config"]}
    later = stored.get("continued_under", [])
    if changed and fresh["versions"] not in later:
        # the first versions stay: the oldest records were made with them
        folder.meta["continued_under"] = [*later, fresh["versions"]]
    if folder.meta != stored:
        disk.replace(path / RUN, dumps(folder.meta, indent=1).encode())
    folder._file = _append_handle(path)
    with disk.explained(path / RECORDS):
        if os.fstat(folder._file).st_size > found.sound:
            os.ftruncate(folder._file, found.sound)
            os.fsync(folder._file)


def _read_records(path: Path, meta: Mapping[str, Any]) -> Records:
    return read_records(path, meta["objective"]["minimize"])


def _identity(meta: Mapping[str, Any], name: str) -> Any:
    part = meta[name]
    # more steps extend a run, so their number is no part of what it is
    return {k: v for k, v in part.items() if k != "steps"} if name == "config" and isinstance(part, dict) else part


def load(path: str | Path) -> Run:
    """Read a run folder, finished or not; nothing is changed.

    Raises:
        InputError: not a run, of another schema, or damaged; names the file, the line and the key.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}: give the --out of a search")
    meta = read_meta(folder)
    found = _read_records(folder, meta)
    return Run(folder, meta, found.records, found.messages)
