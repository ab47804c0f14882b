"""`LookupTable`: what was measured on one device, as its file says it (see `hw_models.table_files`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hw_models import interpolation
from hw_models.table_keys import parse_key
from hw_models.workload import Layer

UNKNOWN = "unknown"  # precision of a table whose source does not say


class Row(NamedTuple):
    """One measurement. `baseline` rows are in the constant and add nothing; what is not known is None."""

    mean_s: float
    spread_s: float | None = None
    count: int | None = None  # type: ignore[assignment]
    baseline: bool = False


@dataclass(frozen=True)
class LookupTable:
    """A measured table. Load one with `load_table`; the fields are those of its file, times in seconds."""

    name: str
    device: str
    kind: str
    level: str
    values: str
    precision: str
    runtime: str
    batch: int
    source: str
    licence: str
    date: str
    rows: Mapping[str, Row]
    constant_s: float = 0.0
    constant_meaning: str = ""
    threads: int | None = None
    space: str = ""
    notes: str = ""

    @property
    def key_precision(self) -> str | None:
        """The format that keys leave out; None where it is not known."""
        return None if self.precision == UNKNOWN else self.precision

    @functools.cached_property
    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """What each key stands for; empty for a table by position."""
        return {} if self.level == "position" else {key: parse_key(key, self.key_precision) for key in self.rows}

    @property
    def timed(self) -> list[tuple[tuple[Layer, ...], float]]:
        """Layers and seconds of each row that has a time of its own; empty for a table by position."""
        return [(layers, self.rows[key].mean_s) for key, layers in self.layers.items() if not self.rows[key].baseline]

    @functools.cached_property
    def between(self) -> interpolation.Fit:
        """What the table knows between its rows; see `hw_models.interpolation`."""
        return interpolation.fit(self.timed)
