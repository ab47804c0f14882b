"""Which numbers a device file holds: those of every kind here, those of one kind in `hw_models/analytic/<kind>.py`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from hw_models.discover import load
from hw_models.errors import InputError

SMALLEST, LARGEST = 1e-30, 1e30  # prices are float32, which ends at 1e38


class Free(NamedTuple):
    """A number that calibration may move: its key, and where the search starts if the file lacks it (or has 0)."""

    key: str
    start: float | None = None


class Keys(NamedTuple):
    """Keys `section.key` of a device file: one number each (`per_precision`: one number per precision).

    `or_zero` are optional as well, may be 0, and are 0 where the file leaves them out. `cells` are required numbers
    whose product is what a unit multiplies per cycle in one of its precisions. `free` ones are fitted by
    `hw_models.calibrate`. `any_width` says that devices of the kind compute in every integer width up to their widest,
    not only in the precisions that their files name.
    """

    required: tuple[str, ...] = ()
    per_precision: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    or_zero: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    free: tuple[Free, ...] = ()
    any_width: bool = False

    @property
    def single(self) -> tuple[str, ...]:
        """Every key that holds one number."""
        return self.required + self.cells + self.optional + self.or_zero

    def of_section(self, section: str) -> Keys:
        """The keys of one section without its name in front; `free` is left out."""

        def inside(group: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(key.split(".", 1)[1] for key in group if key.startswith(section + "."))

        return Keys(
            inside(self.required),
            inside(self.per_precision),
            inside(self.optional),
            inside(self.or_zero),
            inside(self.cells),
        )


# What every kind needs. Units: hertz, seconds, bytes, joules, watts; rates are per unit and cycle.
COMMON = Keys(
    required=(
        "compute.clock_hz",
        "compute.units",
        "compute.op_overhead_s",
        "memory.dram_bytes_per_s",
        "memory.efficiency",
        "memory.sram_bytes",
        "memory.sram_bytes_per_s",
        "energy.dram_j_per_byte",
        "energy.static_w",
    ),
    per_precision=("compute.macs_per_cycle", "compute.efficiency", "energy.mac_j"),
    optional=("memory.dram_bytes", "memory.flash_bytes"),
    or_zero=("compute.run_overhead_s", "compute.image_overhead_s", "energy.sram_j_per_byte"),
)

# Sections [sparsity.<pattern>] of a device file: the keys that each needs, and those that it may have. `threshold` is
# the largest density that gains, `factor` the largest gain, `efficiency` the share of 1 / density that is reached.
SPARSITY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "channel": (("threshold",), ()),
    "column": (("threshold", "factor"), ("efficiency",)),
    "kernel": (("threshold", "factor"), ("efficiency",)),
    "block": (("threshold", "factor"), ("efficiency",)),
    "n_m": (("threshold", "factor"), ()),
    "unstructured": (("threshold", "factor"), ("efficiency",)),
    # Reduce and scale: additions in the time of one int8 multiply-accumulate, and joules of an addition.
    "ternary": (("threshold", "factor", "adds_per_mac", "add_j"), ()),
}


def keys_of(kind: str, where: str = "") -> Keys:
    """All keys of the files of devices of `kind`, which file `where` names.

    Raises:
        InputError: no such kind.

    Example:
        >>> "compute.array_rows" in keys_of("tpu").cells
        True
    """
    own: Keys = load("hw_models.analytic", kind, "KEYS", kind="kind of device", where=where)
    return Keys(
        COMMON.required + own.required,
        COMMON.per_precision + own.per_precision,
        COMMON.optional + own.optional,
        COMMON.or_zero + own.or_zero,
        COMMON.cells + own.cells,
        COMMON.free + own.free,
        own.any_width,
    )


def is_share(key: str) -> bool:
    """Whether a number of a device file is a share, at most 1, as its name says.

    Example:
        >>> is_share("compute.serial_share"), is_share("memory.efficiency"), is_share("compute.units")
        (True, True, False)
    """
    return "efficiency" in key or key.endswith("_share")


def check_number(value: Any, source: str, key: str, or_zero: bool = False) -> float:
    """`value` as a float, if the number `key` of file `source` may have it: positive, or also 0, and shares at most 1.

    Raises:
        InputError: it may not.

    Example:
        >>> check_number(2, "mine.toml", "compute.units")
        2.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{source}: '{key}' is {value!r}: give a number")
    if isinstance(value, int) and abs(value) > LARGEST:  # may be too large to be a float, or to be printed
        raise InputError(f"{source}: '{key}' is too large: give a number from {SMALLEST:g} to {LARGEST:g}")
    if not (math.isfinite(value) and (value > 0 or (or_zero and value == 0))):
        allowed = "finite number of at least 0" if or_zero else "positive, finite number"
        raise InputError(f"{source}: '{key}' is {value!r}: give a {allowed}")
    if value and not SMALLEST <= value <= LARGEST:
        raise InputError(f"{source}: '{key}' is {value!r}: give a number from {SMALLEST:g} to {LARGEST:g}")
    if is_share(key) and value > 1:
        raise InputError(f"{source}: '{key}' is {value!r}: give a share, at most 1")
    return float(value)
