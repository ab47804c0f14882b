"""Measured networks: a CSV of network texts and the time each took, read strictly.

Columns: `network` (any text that `flynas cost` accepts), exactly one of `latency_s` (seconds per run) and
`throughput_per_s` (images per second), and optionally `batch` (images per run, 1 if absent), `precision`, `threads`,
`runtime`, `spread_s`, `count`. Lines that start with `#` are comments. A network that was measured several times counts
once, with the geometric mean of its times; times that contradict each other are refused.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.pricing import resolved
from hw_models import Workload
from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.estimate import MAX_BATCH
from hw_models.table_rows import number_of

MEASURES = ("latency_s", "throughput_per_s")
SETTINGS = ("precision", "threads", "runtime")
COLUMNS = ("network", *MEASURES, "batch", *SETTINGS, "spread_s", "count")
UNITLESS = ("latency", "latency_ms", "latency_us", "time", "throughput", "seconds")
REPEATED = 1.25  # times of one network may differ by this factor; those of Accel-NASBench do by 1.03


class Measured(NamedTuple):
    """Networks and their times: `networks` are `N` texts, `workload` `[N, L]`, `batch` and `seconds` (per run) `[N]`.

    `settings` holds the one value of `precision`, `threads` and `runtime` that all rows share, where given. `busy` says
    that throughputs were measured, so that seconds are those from one run to the next.
    """

    path: Path
    networks: tuple[str, ...]
    workload: Workload
    batch: np.ndarray
    seconds: np.ndarray
    settings: dict[str, str]
    busy: bool = False

    @property
    def common_batch(self) -> int | None:
        """The batch of all rows, None if they differ."""
        return int(self.batch[0]) if np.all(self.batch == self.batch[0]) else None


class Row(NamedTuple):
    """One checked line: its number in the file, the network's text, images and seconds of a run."""

    line: int
    network: str
    batch: float
    seconds: float
    settings: tuple[str, ...]


def read_measured(path: Path, watch: Callable[[list[Row]], Iterable[Row]] = iter) -> Measured:
    """The measured networks of a CSV file. `watch` wraps the rows while networks are built, to show progress.

    Raises:
        InputError: the file, a column, a row or a network is not as it must be; names the line and the reason.
    """
    rows, settings, measure = _rows(path)
    layers: dict[str, list[Any]] = {}
    for row in watch(rows):
        if row.network not in layers:
            layers[row.network] = _layers(path, row)
    return Measured(
        path,
        tuple(row.network for row in rows),
        Workload.stack([layers[row.network] for row in rows]),
        np.asarray([row.batch for row in rows]),
        np.asarray([row.seconds for row in rows]),
        settings,
        measure == "throughput_per_s",
    )


def _layers(path: Path, row: Row) -> list[Any]:
    try:
        return resolved(row.network).network().lower()
    except InputError as error:
        raise InputError(f"{path}, line {row.line}: {error}") from error


def _rows(path: Path) -> tuple[list[Row], dict[str, str], str]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{path} cannot be read ({reason}): give a CSV file of measured networks") from error
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    columns = _cells(path, *numbered[0]) if numbered else []
    measure = _measure(path, columns)
    rows: list[Row] = []
    for line, text in numbered[1:]:
        where, row = f"{path}, line {line}", _cells(path, line, text)
        if len(row) != len(columns):
            few = "many" if len(row) > len(columns) else "few"
            raise InputError(f"{where}: too {few} values: give one for each column, and quote texts that hold a comma")
        rows.append(_row(where, line, dict(zip(columns, row, strict=True)), measure))
    if not rows:
        raise InputError(f"{path} holds no measured network: add a line for each below the names of the columns")
    settings = {}
    for position, name in enumerate(SETTINGS):
        values = {row.settings[position] for row in rows}
        if len(values) > 1:
            listed = ", ".join(repr(value) for value in sorted(values))
            raise InputError(f"{path}: column '{name}' has several values ({listed}): split the file, one for each")
        if values != {""}:
            settings[name] = values.pop()
    return _merged(path, rows), settings, measure


def _cells(path: Path, line: int, text: str) -> list[str]:
    """The values of one line: a text in quotes ends on the line that it begins on."""
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True))]
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not CSV ({error}): correct its quotes") from error


def _merged(path: Path, rows: list[Row]) -> list[Row]:
    """Repeated measurements of one network as one row with their geometric mean; a line written twice is a mistake."""
    found: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        same = found.setdefault((row.network, row.batch), [])
        for other in same:
            if other.seconds == row.seconds:
                raise InputError(
                    f"{path}, line {row.line}: {row.network} at batch {row.batch:g} has the same time in line "
                    f"{other.line}: keep one of them"
                )
            if max(other.seconds, row.seconds) > REPEATED * min(other.seconds, row.seconds):
                raise InputError(
                    f"{path}, line {row.line}: {row.network} at batch {row.batch:g} takes {row.seconds:g} s per run, "
                    f"and {other.seconds:g} s in line {other.line}: keep the one that is right"
                )
        same.append(row)
    return [
        same[0]
        if len(same) == 1
        else same[0]._replace(seconds=math.exp(sum(math.log(row.seconds) for row in same) / len(same)))
        for same in found.values()
    ]


def _measure(path: Path, columns: list[str]) -> str:
    for column in columns:
        if column in UNITLESS:
            raise InputError(f"{path}: column '{column}' must name its unit: give latency_s or throughput_per_s")
        if column not in COLUMNS:
            raise unknown("column", column, COLUMNS, str(path))
        if columns.count(column) > 1:
            raise InputError(f"{path}: column '{column}' is there twice: keep one")
    if "network" not in columns:
        raise InputError(f"{path}: column 'network' is missing: add the text of each network, as flynas cost takes it")
    given = [name for name in MEASURES if name in columns]
    if len(given) != 1:
        held = "both" if given else "neither"
        raise InputError(f"{path} holds {held} of latency_s and throughput_per_s: give exactly one of them")
    return given[0]


def _row(where: str, line: int, cells: dict[str, str], measure: str) -> Row:
    network = cells["network"]
    if not network:
        raise InputError(f"{where}: no network: give its text")
    batch = _positive(where, "batch", cells["batch"]) if cells.get("batch") else 1.0
    if batch != round(batch) or batch > MAX_BATCH:
        raise InputError(f"{where}: batch is {batch:g}: give a whole number of images, at most {MAX_BATCH:,}")
    measured = _positive(where, measure, cells[measure])
    seconds = measured if measure == "latency_s" else batch / measured
    for name in ("spread_s", "count"):
        if cells.get(name):
            _positive(where, name, cells[name], or_zero=name == "spread_s")
    return Row(line, network, batch, seconds, tuple(cells.get(name, "") for name in SETTINGS))


def _positive(where: str, name: str, text: str, or_zero: bool = False) -> float:
    value = number_of(text, name, where)
    if value < 0 or (value == 0 and not or_zero):
        raise InputError(f"{where}: {name} is {text}: give a positive, finite number")
    return value
