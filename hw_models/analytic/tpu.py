"""TPU: a systolic array that must be filled and drained, a vector unit for depthwise layers, a memory bound.

Dense layers run weight stationary with serial folds (`hw_models.systolic`).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device, Keys
from hw_models.precision import Run
from hw_models.roofline import gemm, on_vector_unit
from hw_models.systolic import systolic_cycles_traced
from hw_models.workload import Workload

KEYS = Keys(required=("compute.vector_macs_per_cycle",), cells=("compute.array_rows", "compute.array_cols"))


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
