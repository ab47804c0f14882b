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
import json
import os
import platform
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from hw_models.errors import InputError
from nas.plain import arrays_of, dumps, plain
from nas.run import Record, Run

SCHEMA = 1
RUN, RECORDS, STATE, LOCK = "run.json", "records.jsonl", "state.msgpack", "lock"
IDENTITY = ("space", "devices", "objective", "strategy", "evaluator", "seed", "config")
FIX = "give another folder (--out), or remove this one"


class Snapshot(NamedTuple):
    """What `state.msgpack` holds: rounds and steps done, records written by then, states as arrays by path."""

    round: int
    step: int
    records: int
    evaluator: dict[str, Any]
    strategy: dict[str, Any]


def versions() -> dict[str, Any]:
    """What results may depend on besides the seed: versions, platform, backend, threads.

    Example:
        >>> sorted(versions())
        ['backend', 'cpus', 'flax', 'flynas', 'jax', 'jaxlib', 'numpy', 'platform', 'python', 'threads']
    """
    import jax

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
    }


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.part")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        schema = meta["schema"]
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run: it has no {RUN}: {FIX}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): restore it from a copy, or remove the folder") from None
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema}, this version reads {SCHEMA}: install a matching version of flynas"
        )
    missing = [name for name in IDENTITY if name not in meta]
    if missing:
        raise InputError(f"{path} is damaged (it lacks {missing[0]}): restore it from a copy, or remove the folder")
    return dict(meta)


def _read_records(folder: Path) -> tuple[list[Record], int, tuple[str, ...]]:
    """Records in order, the length in bytes of the sound part of the file, and what was dropped."""
    path = folder / RECORDS
    data = path.read_bytes() if path.exists() else b""
    found: dict[tuple[int, int], Record] = {}
    messages: list[str] = []
    position = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        last = number >= len(lines) - (not lines[-1])
        if number == len(lines) and not line:
            break
        try:
            if number == len(lines):
                raise ValueError("no end of line")
            record = json.loads(line)
            schema, place = record["schema"], (record["step"], record["index"])
        except (ValueError, KeyError, TypeError) as error:
            if not last:
                raise InputError(
                    f"{path} line {number} is damaged ({error}): remove that line, its candidate is evaluated again"
                ) from None
            messages.append(f"{path}: dropped a half-written last record (line {number})")
            break
        if schema != SCHEMA:
            raise InputError(f"{path} line {number} has schema {schema}, this version reads {SCHEMA}: update flynas")
        if place in found:
            raise InputError(f"{path} line {number} repeats step {place[0]} index {place[1]}: remove that line")
        found[place] = record
        position += len(line) + 1
    return [found[place] for place in sorted(found)], position, tuple(messages)


def read_snapshot(folder: str | Path) -> Snapshot | None:
    """The last snapshot of a run, or None where there is none yet.

    Raises:
        InputError: the file is damaged or of another schema.
    """
    from flax import serialization

    path = Path(folder) / STATE
    if not path.exists():
        return None
    fix = f"delete {path} to start again from the finished records"
    try:
        outer = serialization.msgpack_restore(path.read_bytes())
        schema, body, crc = outer["schema"], outer["body"], outer["crc32"]
        sound = zlib.crc32(body) == crc
        inner = serialization.msgpack_restore(body) if sound and schema == SCHEMA else {}
    except Exception as error:  # msgpack raises a dozen kinds of exception for damaged input
        raise InputError(f"{path} is damaged ({error}): {fix}") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}, this version reads {SCHEMA}: {fix}")
    if not sound:
        raise InputError(f"{path} is damaged (its checksum differs): {fix}")
    return Snapshot(**inner)


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
        """Add records, on the disk before this returns. One that is there already is a mistake of the caller."""
        for record in records:
            place = (record["step"], record["index"])
            if place in self.records:
                raise RuntimeError(f"record of step {place[0]} index {place[1]} is written twice")
            self.records[place] = record
        if self._file is not None and records:
            text = memoryview("".join(dumps(record) + "\n" for record in records).encode())
            while text:
                text = text[os.write(self._file, text) :]
            os.fsync(self._file)

    def save(self, round: int, step: int, evaluator: Any, strategy: Any) -> None:
        """Replace the snapshot: `round` training rounds and `step` steps are done."""
        if self.path is None:
            return
        from flax import serialization

        parts = Snapshot(round, step, len(self.records), arrays_of(evaluator), arrays_of(strategy))
        body = serialization.msgpack_serialize(parts._asdict())
        outer = {"schema": SCHEMA, "crc32": zlib.crc32(body), "body": body}
        _replace(self.path / STATE, serialization.msgpack_serialize(outer))

    def run(self) -> Run:
        """The run so far."""
        return Run(self.path, self.meta, [self.records[at] for at in sorted(self.records)], tuple(self.messages))


def _append_handle(path: Path) -> int:
    return os.open(path / RECORDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def _lock(path: Path) -> int:
    import fcntl

    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise InputError(f"{path} is being written by process {owner}: wait for it, or give another --out") from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def open_run(out: str | Path | None, meta: Mapping[str, Any], steps: int) -> Folder:
    """Create the folder of a run, or take up the interrupted run that is in it.

    `meta` holds the identity of the run (`space, devices, objective, strategy, evaluator, seed, config`); versions and
    the time are added. A larger number of steps extends a run; everything else must be equal.

    Raises:
        InputError: the folder holds something else, another run, a newer or damaged one, or is in use.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    fresh = {"schema": SCHEMA, "created": now, "steps": steps, **plain(dict(meta)), "versions": versions()}
    if out is None:
        return Folder(None, fresh)
    path = Path(out)
    ours = {RUN, RECORDS, STATE, LOCK, *(f".{name}.part" for name in (RUN, STATE))}
    try:
        path.mkdir(parents=True, exist_ok=True)
        present = sorted(entry.name for entry in path.iterdir())
        if RUN not in present and set(present) - {LOCK, f".{RUN}.part"}:
            odd = next((name for name in present if name not in ours), present[0])
            raise InputError(f"{path} is not a run: it holds {odd} and no {RUN}: {FIX}")
        lock = _lock(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give another --out") from None
    folder = Folder(path, fresh)
    folder._lock = lock
    try:
        _take_up(folder, fresh, steps)
    except BaseException:
        folder.__exit__(None, None, None)
        raise
    return folder


def _take_up(folder: Folder, fresh: dict[str, Any], steps: int) -> None:
    path = folder.path
    assert path is not None
    if (path / RUN).exists():
        stored = _read_meta(path)
        differing = [
            line for name in IDENTITY for line in _differing(_identity(stored, name), _identity(fresh, name), name)
        ]
        if differing:
            raise InputError(f"{path} holds another run: {'; '.join(differing[:3])}: {FIX}")
        changed = _differing(stored.get("versions"), fresh["versions"])
        if changed:
            folder.messages.append(f"continued under other versions, results may differ in the last bits: {changed[0]}")
        folder.snapshot = read_snapshot(path)
        done = folder.snapshot.step if folder.snapshot else 0
        if steps < done:
            raise InputError(f"{path} has {done} steps already, {steps} asked: ask for at least {done}, or {FIX}")
        records, sound, messages = _read_records(path)
        folder.records = {(record["step"], record["index"]): record for record in records}
        folder.messages += messages
        if folder.snapshot and len(records) < folder.snapshot.records:
            raise InputError(
                f"{path / RECORDS} has {len(records)} records where {STATE} counts {folder.snapshot.records}: "
                f"delete {path / STATE} to evaluate the missing ones again"
            )
        folder.meta = {**stored, "steps": steps}
        if steps != stored.get("steps"):
            _replace(path / RUN, dumps(folder.meta, indent=1).encode())
        folder._file = _append_handle(path)
        if os.fstat(folder._file).st_size > sound:
            os.ftruncate(folder._file, sound)
            os.fsync(folder._file)
    else:
        _replace(path / RUN, dumps(fresh, indent=1).encode())
        folder._file = _append_handle(path)
        _sync_folder(path)


def _identity(meta: Mapping[str, Any], name: str) -> Any:
    part = meta[name]
    # more steps extend a run, so their number is no part of what it is
    return {k: v for k, v in part.items() if k != "steps"} if name == "config" and isinstance(part, dict) else part


def load(path: str | Path) -> Run:
    """Read a run folder, finished or not; nothing is changed.

    Raises:
        InputError: not a run, of another schema, or damaged.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}: give the --out of a search")
    meta = _read_meta(folder)
    records, _, messages = _read_records(folder)
    return Run(folder, meta, records, messages)
