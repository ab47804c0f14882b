"""TPU: a systolic array that must be filled and drained, a vector unit for depthwise layers, a memory bound.

Equations:
    dense     = cycles of the weight-stationary array, the next weights loaded meanwhile (`hw_models.systolic`)
    vector    = macs / (clock * vector_macs_per_cycle * units)                           (depthwise layers)
    resident  = 2 * (input + output of one image) <= sram_bytes, channels padded to whole lanes, because two buffers
                overlap copying with work; but for convolutions an element takes at least vector_bits (32 where the
                vector unit has no 16-bit arithmetic)
    traffic   = weights / dram + activations / (resident ? sram rate : dram rate);  depthwise and not resident: divided
                by depthwise_efficiency
    layer     = max(compute, memory) + serial_share * min(compute, memory) + op_overhead

A map that is not resident is cut into tiles whose borders are read again, and its windows slide over rows that must be
brought back: depthwise layers suffer most.

Sources: lanes, vector memory and padding from the hardware table of JAX (`jax/_src/pallas/mosaic/tpu_info.py`); the
double buffer is that of Pallas' pipelines.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from hw_models.ablation import NOTHING, UNLIMITED
from hw_models.device import Device
from hw_models.keys import Free, Keys
from hw_models.memory import traffic
from hw_models.precision import Run
from hw_models.roofline import Times, gemm, on_vector_unit, overlapped, padded_maps, vector_unit_s
from hw_models.systolic import systolic_cycles_traced
from hw_models.workload import Op, Workload

BUFFERS = 2  # one is copied while the other is worked on

KEYS = Keys(
    required=("compute.vector_macs_per_cycle",),
    optional=("compute.lanes", "compute.vector_bits", "memory.depthwise_efficiency"),
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
TERMS = {
    "filling the array": {"compute.array_rows": 1.0, "compute.array_cols": 1.0},
    "vector unit": {"compute.vector_macs_per_cycle": UNLIMITED},
    "traffic of maps and weights": {"memory.dram_bytes_per_s": UNLIMITED, "memory.sram_bytes_per_s": UNLIMITED},
    "size of the vector memory": {"memory.sram_bytes": UNLIMITED},
    "padded lanes": {"compute.lanes": 1.0},
    "start of a layer": {"compute.op_overhead_s": NOTHING},
}


def resident(device: Device, layers: Workload) -> Array:
    """Layers whose maps of one image stay in the vector memory, bool `[..., L]`."""
    lanes = device.compute.get("lanes", 1.0)
    vector_bits = jnp.maximum(layers.act_bits, device.compute.get("vector_bits", 0.0))
    bits = jnp.where(layers.op == int(Op.CONV), layers.act_bits, vector_bits)
    before, after = padded_maps(layers, lanes)
    return BUFFERS * (before + after) * bits / 8 <= device.memory["sram_bytes"]


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    compute, memory = device.compute, device.memory
    size = gemm(layers, batch)
    rows, cols = compute["array_rows"], compute["array_cols"]
    cycles = systolic_cycles_traced(size.m, size.k, size.n, rows, cols, overlap=True) * size.groups
    dense = cycles * rows * cols / run.macs_per_s
    depthwise = on_vector_unit(layers)
    compute_s = layers.multiplies * jnp.where(depthwise, vector_unit_s(device, size), dense)
    stays = resident(device, layers)
    moved = traffic(device, layers, gain, batch, stays)
    share = jnp.where(depthwise & ~stays, memory.get("depthwise_efficiency", 1.0), 1.0)
    memory_s = moved.memory_s / share
    overhead_s = jnp.ones_like(compute_s) * compute["op_overhead_s"]
    work_s = overlapped(compute_s, memory_s, compute.get("serial_share", 0.0))
    return Times(compute_s, memory_s, overhead_s, work_s + overhead_s, moved.dram_bytes)
