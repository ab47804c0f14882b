"""The files of a run folder, read and checked entry by entry; `nas.store` says what they are and writes them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hw_models.errors import InputError
from nas.disk import explained
from nas.run import Record

SCHEMA = 1
RUN, RECORDS, STATE, LOCK = "run.json", "records.jsonl", "state.msgpack", "lock"
IDENTITY = ("space", "devices", "objective", "strategy", "evaluator", "seed", "config")
FIX = "give another folder (--out), or remove this one"
STATUSES = ("ok", "cached", "infeasible", "failed", "relaxed", "partial")


class Snapshot(NamedTuple):
    """What `state.msgpack` holds: rounds and steps done, records written by then, states as arrays by path."""

    round: int
    step: int
    records: int
    evaluator: dict[str, Any]
    strategy: dict[str, Any]


class Records(NamedTuple):
    """What `records.jsonl` holds, in order; the length in bytes of its sound part; what was dropped, in words."""

    records: list[Record]
    sound: int
    messages: tuple[str, ...]


class _Wrong(Exception):
    """An entry that is not what it should be: says which and why."""


def _content(path: Path) -> bytes:
    with explained(path, "read", "then try again"):
        return path.read_bytes()


def _entry(tree: Mapping[str, Any], name: str, kind: type | tuple[type, ...], what: str) -> Any:
    if name not in tree:
        raise _Wrong(f"key '{name}' is missing")
    value = tree[name]
    # in Python True is an int; in a file it is not
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Wrong(f"key '{name}' is {json.dumps(value)[:60]}, not {what}")
    return value


def _texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of `run.json`.

    Raises:
        InputError: there is none, it is of another schema, or an entry is missing or of a wrong type; names the key.
    """
    path = folder / RUN
    fix = "restore it from a copy, or remove the folder"
    if not path.exists():
        raise InputError(f"{folder} is not a run: it has no {RUN}: {FIX}")
    try:
        meta = json.loads(_content(path).decode("utf-8"))
        schema = meta["schema"]
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): {fix}") from None
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema}, this version reads {SCHEMA}: install a matching version of flynas"
        )
    missing = [name for name in IDENTITY if name not in meta]
    if missing:
        raise InputError(f"{path} is damaged (it lacks {missing[0]}): {fix}")
    try:
        _check_meta(meta)
    except _Wrong as error:
        raise InputError(f"{path} is damaged ({error}): {fix}") from None
    return dict(meta)


def _check_meta(meta: Mapping[str, Any]) -> None:
    for name in IDENTITY:
        _entry(meta, name, (dict, type(None)) if name == "config" else dict, "an object")
    parts = [("space", "text", str, "a text"), ("space", "tree", dict, "an object")]
    parts += [("objective", "minimize", list, "a list of names"), ("objective", "limits", dict, "an object")]
    for section, name, kind, what in parts:
        try:
            _entry(meta[section], name, kind, what)
        except _Wrong as error:
            raise _Wrong(str(error).replace(f"'{name}'", f"'{section}.{name}'", 1)) from None
    names = meta["objective"]["minimize"]
    if not _texts(names):
        raise _Wrong(f"key 'objective.minimize' is {json.dumps(names)[:60]}, not a list of names")
    if not all(_number(value) for value in meta["objective"]["limits"].values()):
        raise _Wrong("key 'objective.limits' does not hold numbers only")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_record(record: Any, minimize: Sequence[str]) -> None:
    whole, text, table = (int, "a whole number"), (str, "a text"), (dict, "an object")
    kinds: dict[str, tuple[Any, str]] = {"step": whole, "index": whole, "genes": (list, "a list of whole numbers")}
    kinds |= {"network": text, "names": table, "objectives": table, "costs": table, "status": text}
    kinds |= {"error": ((str, type(None)), "a text or null"), "evaluator_version": text}
    for name, (kind, what) in kinds.items():
        _entry(record, name, kind, what)
    for name in ("step", "index"):
        if record[name] < 0:
            raise _Wrong(f"key '{name}' is {record[name]}, which is below 0")
    if not all(isinstance(gene, int) and not isinstance(gene, bool) for gene in record["genes"]):
        raise _Wrong(f"key 'genes' is {json.dumps(record['genes'])[:60]}, not a list of whole numbers")
    for table_name in ("objectives", "costs"):
        for name, value in record[table_name].items():
            if value is not None and not _number(value):
                raise _Wrong(f"key '{table_name}.{name}' is {json.dumps(value)[:60]}, not a number or null")
    for name in dict.fromkeys(("error", *minimize)):
        if name not in record["objectives"]:
            raise _Wrong(f"key 'objectives.{name}' is missing")
    if record["status"] not in STATUSES:
        raise _Wrong(f"key 'status' is {json.dumps(record['status'])[:60]}, not one of {', '.join(STATUSES)}")
    if record["status"] in ("ok", "cached"):
        for name in minimize:
            if record["objectives"][name] is None:
                raise _Wrong(f"key 'objectives.{name}' is null where the status is {record['status']}")


def read_records(folder: Path, minimize: Sequence[str]) -> Records:
    """The records of a run that minimised `minimize`. A last line that was cut off is dropped.

    Raises:
        InputError: a line is damaged, of another schema, repeated, or an entry is missing or of a wrong type; names
            the line and the key.
    """
    path = folder / RECORDS
    data = _content(path) if path.exists() else b""
    found: dict[tuple[int, int], Record] = {}
    messages: list[str] = []
    position = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        last = number >= len(lines) - (not lines[-1])
        if number == len(lines) and not line:
            break
        fix = "remove that line, its candidate is evaluated again"
        try:
            if number == len(lines):
                raise ValueError("no end of line")
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not last:
                raise InputError(f"{path} line {number} is damaged ({error}): {fix}") from None
            messages.append(f"{path}: dropped a half-written last record (line {number})")
            break
        try:
            if not isinstance(record, dict):
                raise _Wrong("it is no object")
            schema = _entry(record, "schema", int, "a whole number")
            if schema == SCHEMA:
                _check_record(record, minimize)
        except _Wrong as error:
            raise InputError(f"{path} line {number} is damaged ({error}): {fix}") from None
        if schema != SCHEMA:
            raise InputError(f"{path} line {number} has schema {schema}, this version reads {SCHEMA}: update flynas")
        place = (record["step"], record["index"])
        if place in found:
            raise InputError(f"{path} line {number} repeats step {place[0]} index {place[1]}: remove that line")
        found[place] = record
        position += len(line) + 1
    return Records([found[place] for place in sorted(found)], position, tuple(messages))


def read_snapshot(folder: str | Path) -> Snapshot | None:
    """The last snapshot of a run, or None where there is none yet.

    Raises:
        InputError: the file is damaged or of another schema.
    """
    from flax import serialization

    path = Path(folder) / STATE
    if not path.exists():
        return None
    data = _content(path)
    fix = f"delete {path} to start again from the finished records"
    try:
        outer = serialization.msgpack_restore(data)
        schema, body, crc = outer["schema"], outer["body"], outer["crc32"]
        sound = zlib.crc32(body) == crc
        stored = Snapshot(**serialization.msgpack_restore(body)) if sound and schema == SCHEMA else None
    except Exception as error:  # msgpack raises a dozen kinds of exception for damaged input
        raise InputError(f"{path} is damaged ({error}): {fix}") from None
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema}, this version reads {SCHEMA}: {fix}")
    if stored is None:
        raise InputError(f"{path} is damaged (its checksum differs): {fix}")
    return stored
