"""GPU: one kernel per operation, tiles that quantise the work, waves that quantise the tiles.

Equations:
    tiles = ceil(m / tile_m) * ceil(n / tile_n) * groups;  waves = ceil(tiles / units)
    time  = waves * tile_m * tile_n * round_up(k, align) / (clock * macs_per_cycle * efficiency)
    align = 16 bytes of the computing precision: 4 float32, 8 float16, 16 int8 elements (tensor cores want channels in
            such multiples)
Depthwise layers cannot use matrix units and run on the ordinary ones (`vector_macs_per_cycle`). Launch time is
`op_overhead_s`: at batch 1 a network's time follows its number of kernels (once-for-all measurements: rank correlation
0.74-0.86 with layers, 0.21-0.29 with MACs).

Source: NVIDIA, "Deep Learning Performance: Matrix Multiplication Background" (tile and wave quantisation, alignment).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device, Keys
from hw_models.precision import Run
from hw_models.roofline import ceil_div, gemm, on_vector_unit, round_up
from hw_models.workload import Workload

ALIGN_BITS = 128

KEYS = Keys(required=("compute.tile_m", "compute.tile_n", "compute.vector_macs_per_cycle"))


def compute_time(device: Device, layers: Workload, run: Run, batch: Any = 1) -> Array:
    """Seconds the arithmetic of each layer takes, `[..., L]`."""
    compute = device.compute
    size = gemm(layers, batch)
    tiles = ceil_div(size.m, compute["tile_m"]) * ceil_div(size.n, compute["tile_n"]) * size.groups
    waves = ceil_div(tiles, compute["units"])
    depth = round_up(size.k, ALIGN_BITS / run.act_bits)
    dense = waves * compute["units"] * compute["tile_m"] * compute["tile_n"] * depth / run.macs_per_s
    macs = size.m * size.k * size.n * size.groups
    vector = macs / (compute["vector_macs_per_cycle"] * compute["clock_hz"] * compute["units"])
    return layers.multiplies * jnp.where(on_vector_unit(layers), vector, dense)


def resource_fraction(device: Device) -> Array:
    """No hard resource besides the shared ones."""
    del device
    return jnp.float32(0.0)
