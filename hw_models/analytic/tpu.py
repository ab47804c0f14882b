"""TPU: a systolic array that must be filled and drained, a vector unit for depthwise layers, a memory bound.

Cycles of one `m x k` by `k x n` product on an array of R rows and C columns, as SCALE-Sim 3.0.0 counts them (the index
of the last cycle, hence the -1):
    weight stationary: ceil(k/R) * ceil(n/C) * (2R + C + m - 2) - 1
    output stationary: ceil(m/R) * ceil(n/C) * ( R + C + k - 2) - 1
    input  stationary: ceil(k/R) * ceil(m/C) * (2R + C + n - 2) - 1

Source: SCALE-Sim (Samajdar et al. 2020, https://arxiv.org/abs/1811.02883, and version 3.0.0 of its MIT-licensed code,
which differs from the paper for output stationary). The TPU model uses weight stationary.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device, Keys
from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.precision import Run
from hw_models.roofline import ceil_div, gemm, on_vector_unit
from hw_models.workload import Workload

DATAFLOWS = ("ws", "os", "is")

KEYS = Keys(required=("compute.vector_macs_per_cycle",), cells=("compute.array_rows", "compute.array_cols"))


def systolic_cycles(m: int, k: int, n: int, rows: int, cols: int, dataflow: str = "ws") -> int:
    """Cycles of an `m x k` by `k x n` product on a systolic array of height `rows` and width `cols`; exact.

    Raises:
        InputError: a size below 1 or not an integer, or an unknown dataflow.

    Example:
        >>> systolic_cycles(1024, 27, 16, 8, 8)
        8367
    """
    for name, value in {"m": m, "k": k, "n": n, "rows": rows, "cols": cols}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"systolic_cycles: {name} is {value!r}: give an integer of at least 1")
    if dataflow not in DATAFLOWS:
        raise unknown("dataflow", dataflow, DATAFLOWS)
    down, across, through, fill = {
        "ws": (k, n, m, 2 * rows),
        "os": (m, n, k, rows),
        "is": (k, m, n, 2 * rows),
    }[dataflow]
    return -(-down // rows) * -(-across // cols) * (fill + cols + through - 2) - 1


def systolic_cycles_traced(m: Any, k: Any, n: Any, rows: Any, cols: Any) -> Array:
    """The weight-stationary count of `systolic_cycles` for arrays: jittable, differentiable, float32 `[...]`.

    Example:
        >>> float(systolic_cycles_traced(1024.0, 27.0, 16.0, 8.0, 8.0))
        8367.0
    """
    return ceil_div(k, rows) * ceil_div(n, cols) * (2 * rows + cols + m - 2) - 1


def compute_time(device: Device, layers: Workload, run: Run, batch: Any = 1) -> Array:
    """Seconds the arithmetic of each layer takes, `[..., L]`."""
    compute = device.compute
    size = gemm(layers, batch)
    rows, cols = compute["array_rows"], compute["array_cols"]
    cycles = systolic_cycles_traced(size.m, size.k, size.n, rows, cols) * size.groups
    dense = cycles * rows * cols / run.macs_per_s
    macs = size.m * size.k * size.n * size.groups
    vector = macs / (compute["vector_macs_per_cycle"] * compute["clock_hz"] * compute["units"])
    return layers.multiplies * jnp.where(on_vector_unit(layers), vector, dense)


def resource_fraction(device: Device) -> Array:
    """No hard resource besides the shared ones."""
    del device
    return jnp.float32(0.0)
