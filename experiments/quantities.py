"""Costs as people write and read them: milliseconds, kilobytes, percent. Everywhere else the units are SI.

K, M and G are 1,000, 1,000,000 and so on, of bytes as well; KiB and MiB are the binary ones.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from hw_models.costs import COUNTS

SHORT = {
    "latency": "latency_s",
    "energy": "energy_j",
    "size": "weight_bytes",
    "memory": "peak_memory_bytes",
    "throughput": "interval_s",  # the more images per second, the less time each
}
TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
ENERGY = {"j": 1.0, "mj": 1e-3, "uj": 1e-6, "µj": 1e-6}
BYTES = {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
SHARE = {"": 1.0, "%": 1e-2}
RATE = {"": 1.0, "/s": 1.0}


class Scale(NamedTuple):
    """How a field is shown: its name in words, the unit, and what one of that unit is in SI."""

    label: str
    unit: str
    one: float

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def _field(name: str) -> str:
    return name.partition("@")[0]


def scale_of(name: str, typical: float = 1.0) -> Scale:
    """How to show values of field `name` whose size is about `typical`.

    Example:
        >>> scale_of("latency_s", 0.004).axis
        'latency (ms)'
    """
    field, at = _field(name), name.partition("@")[2]
    label = {
        "latency_s": "latency",
        "interval_s": "time per image",
        "compute_s": "compute time",
        "energy_j": "energy",
        "weight_bytes": "size of weights",
        "peak_memory_bytes": "peak memory",
        "params": "parameters",
        "macs": "multiply-accumulates",
    }.get(field, field.replace("_", " "))
    label = f"{label} on {at}" if at else label
    if field == "error":  # outside 0 to 1 it is a score, such as that of a proxy
        return Scale(label, "%", 1e-2) if 0 <= typical <= 1 or not math.isfinite(typical) else Scale(label, "", 1.0)
    if field.endswith("_s"):
        return Scale(label, "ms", 1e-3)
    if field.endswith("_j"):
        return Scale(label, "mJ", 1e-3)
    size = abs(typical) if math.isfinite(typical) else 1.0
    if field.endswith("_bytes"):
        return Scale(label, "MB", 1e6) if size >= 1e6 else Scale(label, "KB", 1e3)
    if field in COUNTS:
        return Scale(label, "M", 1e6) if size >= 1e6 else Scale(label, "K", 1e3)
    return Scale(label, "", 1.0)


def shown(name: str, value: float | None) -> str:
    """A value with its unit, in three or four digits; a dash where it is not known.

    Example:
        >>> shown("latency_s", 0.00123), shown("weight_bytes", 2.5e6), shown("error", 0.1), shown("error", -6.7)
        ('1.23 ms', '2.5 MB', '10 %', '-6.7')
    """
    if value is None or not math.isfinite(value):
        return "-"
    scale = scale_of(name, value)
    number = value / scale.one
    text = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}" if abs(number) >= 100 else f"{number:.3g}"
    return f"{text} {scale.unit}".strip()


def with_error(latency_s: float | None, error: float | None) -> str:
    """A latency and, where the device was calibrated, its relative error.

    Example:
        >>> with_error(0.0123, 0.081), with_error(0.0123, None)
        ('12.3 ms +- 8.1 %', '12.3 ms')
    """
    text = shown("latency_s", latency_s)
    return text if error is None or latency_s is None else f"{text} {error_of(error)}"


def error_of(error: float) -> str:
    """A relative error as it stands behind a number.

    Example:
        >>> error_of(0.081), error_of(1.25)
        ('+- 8.1 %', '+- 125 %')
    """
    return f"+- {100 * error:{'.2g' if error < 0.995 else '.0f'}} %"


def full_name(name: str) -> str:
    """The name of a field from its short form; anything else stays as it is.

    Example:
        >>> full_name("latency@zcu102"), full_name("macs")
        ('latency_s@zcu102', 'macs')
    """
    field, at, device = name.partition("@")
    return f"{SHORT.get(field, field)}{at}{device}"


def parse_limit(text: str) -> tuple[str, float]:
    """Name and value in SI of a limit written as `latency=5ms`, `size=300KB`, `error=10%`.

    `throughput=200/s` asks for at least so many images per second: a time per image of at most 5 ms.

    Raises:
        InputError: no number, or a unit that does not belong to the field.

    Example:
        >>> parse_limit("latency=5ms"), parse_limit("params=0.5M")
        (('latency_s', 0.005), ('params', 500000.0))
        >>> parse_limit("throughput=200/s")
        ('interval_s', 0.005)
    """
    from hw_models.discover import unknown
    from hw_models.errors import InputError

    given, equals, amount = (part.strip() for part in text.partition("="))
    name = full_name(given)
    field = _field(name)
    units = TIME if field.endswith("_s") else ENERGY if field.endswith("_j") else BYTES
    units = units if field.endswith(("_s", "_j", "_bytes")) else COUNT if field in COUNTS else SHARE
    rate = given.partition("@")[0] == "throughput"
    units = RATE if rate else units
    known = ("latency_s", "interval_s", "energy_j", "weight_bytes", "peak_memory_bytes", *COUNTS, "error")
    if field not in (*known, "compute_s", "resource_fraction"):
        raise unknown("objective or cost", given, (*SHORT, *known))
    match = re.fullmatch(r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*([a-zA-Zµ%/]*)", amount)
    if not equals or not match:
        raise InputError(f"'{text}' is no limit: write a name and a number, such as latency=5ms")
    unit = match[2].lower()
    if unit == "" and unit not in units:
        unit = field[-1]
    if unit not in units:
        allowed = ", ".join(each for each in units if each)
        raise InputError(
            f"'{text}': unit '{match[2]}' does not belong to {given if rate else field}: use one of {allowed}"
        )
    value = float(match[1]) * units[unit]
    if not 0 < value < math.inf:
        raise InputError(f"'{text}': give a finite number above 0")
    return name, 1 / value if rate else value
