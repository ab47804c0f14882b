"""TPU: a systolic array that must be filled and drained, a vector unit for depthwise layers, a memory bound.

Cycles of one `m x k` by `k x n` product on an array of R rows and C columns, as SCALE-Sim 3.0.0 counts them (the index
of the last cycle, hence the -1):
    weight stationary: ceil(k/R) * ceil(n/C) * (2R + C + m - 2) - 1
    output stationary: ceil(m/R) * ceil(n/C) * ( R + C + k - 2) - 1
    input  stationary: ceil(k/R) * ceil(m/C) * (2R + C + n - 2) - 1
The TPU model uses weight stationary. Further equations:
    vector    = macs / (clock * vector_macs_per_cycle * units)                           (depthwise layers)
    resident  = 2 * (input + output of one image) <= sram_bytes, channels padded to whole lanes, because two buffers
                overlap copying with work; the vector unit of versions 2 and 3 has no 16-bit arithmetic, so that its
                maps count 32 bits an element
    traffic   = weights / dram + activations / (resident ? sram rate : dram rate, depthwise: times depthwise_efficiency)
    layer     = max(compute, memory) + serial_share * min(compute, memory) + op_overhead

A map that is not resident is cut into tiles whose borders are read again, and its windows slide over rows that must be
brought back: depthwise layers suffer most.

Sources: SCALE-Sim (Samajdar et al. 2020, https://arxiv.org/abs/1811.02883, and version 3.0.0 of its MIT-licensed code,
which differs from the paper for output stationary); lanes, vector memory and padding from the hardware table of JAX
(`jax/_src/pallas/mosaic/tpu_info.py`); the double buffer is that of XLA's and Pallas' pipelines.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device
from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.keys import Free, Keys
from hw_models.memory import traffic
from hw_models.precision import Run
from hw_models.roofline import Times, ceil_div, gemm, on_vector_unit, overlapped, round_up
from hw_models.workload import Op, Workload

DATAFLOWS = ("ws", "os", "is")
VECTOR_BITS = 32
BUFFERS = 2

KEYS = Keys(
    required=("compute.vector_macs_per_cycle",),
    optional=("compute.lanes", "memory.depthwise_efficiency"),
    or_zero=("compute.serial_share",),
    cells=("compute.array_rows", "compute.array_cols"),
    free=(
        Free("compute.efficiency"),
        Free("compute.vector_macs_per_cycle"),
        Free("compute.op_overhead_s"),
        Free("compute.image_overhead_s", start=1e-5),
        Free("compute.serial_share", start=0.3),
        Free("memory.efficiency"),
        Free("memory.depthwise_efficiency", start=0.5),
        Free("memory.sram_bytes_per_s"),
    ),
)


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


def resident(device: Device, layers: Workload) -> Array:
    """Layers whose maps of one image stay in the vector memory, bool `[..., L]`."""
    lanes = device.compute.get("lanes", 1.0)
    bits = jnp.where(layers.op == int(Op.CONV), layers.act_bits, jnp.maximum(layers.act_bits, VECTOR_BITS))
    before = layers.input_elements / layers.in_channels * round_up(layers.in_channels, lanes)
    after = layers.output_elements / layers.out_channels * round_up(layers.out_channels, lanes)
    return BUFFERS * (before + after) * bits / 8 <= device.memory["sram_bytes"]


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: Any = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    compute, memory = device.compute, device.memory
    size = gemm(layers, batch)
    rows, cols = compute["array_rows"], compute["array_cols"]
    cycles = systolic_cycles_traced(size.m, size.k, size.n, rows, cols) * size.groups
    dense = cycles * rows * cols / run.macs_per_s
    macs = size.m * size.k * size.n * size.groups
    vector = macs / (compute["vector_macs_per_cycle"] * compute["clock_hz"] * compute["units"])
    depthwise = on_vector_unit(layers)
    compute_s = layers.multiplies * jnp.where(depthwise, vector, dense)
    stays = resident(device, layers)
    moved = traffic(device, layers, gain, batch, stays)
    share = jnp.where(depthwise & ~stays, memory.get("depthwise_efficiency", 1.0), 1.0)
    memory_s = moved.memory_s / share
    overhead_s = jnp.ones_like(compute_s) * compute["op_overhead_s"]
    work_s = overlapped(compute_s, memory_s, compute.get("serial_share", 0.0))
    return Times(compute_s, memory_s, overhead_s, work_s + overhead_s, moved.dram_bytes)


def resource_fraction(device: Device) -> Array:
    """No hard resource besides the shared ones."""
    del device
    return jnp.float32(0.0)
