"""Which compression makes which kind of device faster: one table, read by the device files, the tests and the docs.

It says what the device files of a kind may opt in to. Zeros that a device does not gain from still shrink storage.

Sources: Schindler, dissertation (Heidelberg 2021), sections 2 and 6 (CPUs: unstructured zeros, three bits and fewer;
GPUs: 16 and 8 bits, channels; data-flow FPGAs: any bit width; systolic arrays: columns and channels, nothing finer) and
L1345 (columns are out of reach inside closed GPU and TPU libraries); XNNPACK (unstructured); NVIDIA (2:4).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Gain(Enum):
    """What a device of a kind may gain."""

    SMALLER = "the smaller layer, rounded up to whole tiles"
    OPT_IN = "factor or capped inverse of the density, below a threshold"
    STORAGE = "storage only"
    NEXT_WIDTH = "storage only, computed at the next width up"
    ANY_WIDTH = "computed in its own width"
    REFUSED = "does not fit"
    NATIVE = "faster where the file names the precision, else computed at the next width up"


SMALLER, OPT_IN, STORAGE = Gain.SMALLER, Gain.OPT_IN, Gain.STORAGE
KINDS = ("cpu", "gpu", "tpu", "fpga", "dataflow", "mcu")

# Rows: pattern of zeros. Columns: KINDS. `ternary` is reduce and scale: unstructured zeros in weights of two bits.
ZEROS: Mapping[str, tuple[Gain, ...]] = {
    "channel": (SMALLER, SMALLER, SMALLER, SMALLER, SMALLER, SMALLER),
    "column": (OPT_IN, OPT_IN, OPT_IN, STORAGE, STORAGE, STORAGE),
    "kernel": (OPT_IN, STORAGE, STORAGE, STORAGE, STORAGE, STORAGE),
    "block": (OPT_IN, OPT_IN, STORAGE, STORAGE, STORAGE, STORAGE),
    "n_m": (STORAGE, OPT_IN, STORAGE, STORAGE, STORAGE, STORAGE),
    "unstructured": (OPT_IN, STORAGE, STORAGE, STORAGE, STORAGE, STORAGE),
    "ternary": (OPT_IN, STORAGE, STORAGE, STORAGE, STORAGE, STORAGE),
}

# Rows: formats of weights and activations. Columns: KINDS.
BITS: Mapping[str, tuple[Gain, ...]] = {
    "float16": (Gain.NATIVE, Gain.NATIVE, Gain.REFUSED, Gain.REFUSED, Gain.REFUSED, Gain.REFUSED),
    "int8": (Gain.NATIVE, Gain.NATIVE, Gain.NATIVE, Gain.NATIVE, Gain.ANY_WIDTH, Gain.NATIVE),
    "below 8 bits": (
        Gain.NATIVE,
        Gain.NEXT_WIDTH,
        Gain.NEXT_WIDTH,
        Gain.NEXT_WIDTH,
        Gain.ANY_WIDTH,
        Gain.NEXT_WIDTH,
    ),
    "float32 on integer-only devices": (Gain.REFUSED,) * 6,
}


def gain_of(kind: str, pattern: str) -> Gain:
    """What devices of `kind` may gain from zeros in `pattern`; kinds of one's own may opt in to everything.

    Example:
        >>> gain_of("gpu", "unstructured").value, gain_of("my_package.mine", "unstructured").name
        ('storage only', 'OPT_IN')
    """
    if kind not in KINDS:
        return SMALLER if pattern == "channel" else OPT_IN
    return ZEROS[pattern][KINDS.index(kind)]


def as_markdown() -> str:
    """The table as it stands in `docs/compression.md`.

    Example:
        >>> as_markdown().splitlines()[0]
        '| compression | cpu | gpu | tpu | fpga | dataflow | mcu |'
    """
    lines = [f"| compression | {' | '.join(KINDS)} |", "| --- " * (len(KINDS) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(gain.value for gain in row)} |" for name, row in [*ZEROS.items(), *BITS.items()]]
    return "\n".join(lines)
