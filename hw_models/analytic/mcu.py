"""Microcontroller: one core, integers only, weights in flash, activations in SRAM, both of them hard limits.

Equations (cycles of one image; a batch runs image after image):
    dense       = macs / (macs_per_cycle * efficiency)                                  (convolutions, 1x1 included)
    depthwise   = macs / (macs_per_cycle * depthwise_efficiency)
    linear      = macs / (macs_per_cycle * linear_efficiency)
    columns     = output pixels * kernel positions * input channels * column_cycles     (dense kernels above 1x1)
    results     = outputs * output_cycles;  operations without weights: also a cycle per element they read
    layer       = max(the above, weights / flash rate) + op_overhead
    SRAM        = largest over layers of (input + output + held + column buffer) + runtime_sram_bytes
    flash       = weights + runtime_flash_bytes

Peak rates are 2 products a cycle (SMLAD on two 16-bit halves; int8 is widened), which no kernel reaches. A dense kernel
copies each window into a column of 16-bit numbers, two columns at a time, and reuses it for all output channels; a
depthwise kernel has nothing to reuse, so its products cost several times as much. Where `in_place_depthwise` is 1, the
output of a depthwise layer overwrites its input channel by channel and needs room for one channel of its own
(TinyEngine), if it has as many channels as its input and no more pixels. Weights of fewer than 8 bits are stored as
such and multiplied as int8. Floating point is not computed: such layers do not fit.

`memory.dram_bytes_per_s` is the rate of the flash, `memory.sram_bytes` all there is.

Sources: CMSIS-NN (arXiv 1801.06601; `arm_convolve_s8_get_buffer_size`: two columns of 16-bit numbers, rounded up to
four; `arm_depthwise_conv_s8_opt_get_buffer_size`: one). MCUNet (arXiv 2007.10319, arXiv 2110.15352) for depthwise
layers in place, and for flash and SRAM as the two limits. Rates are fitted to four networks of MLPerf Tiny v1.1, see
the device files.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from hw_models.ablation import NOTHING
from hw_models.compression import dense_weight_bytes
from hw_models.costs import Costs, LayerCosts
from hw_models.device import Device
from hw_models.keys import Free, Keys
from hw_models.precision import Run
from hw_models.roofline import Times, on_vector_unit, round_up
from hw_models.workload import Op, Workload

COLUMN_BYTES = 2  # int8 widened to 16 bits
COLUMNS = 2  # at once, in a dense kernel
COLUMN_TILE = 4

KEYS = Keys(
    required=(
        "compute.depthwise_efficiency",
        "compute.linear_efficiency",
        "compute.output_cycles",
        "compute.column_cycles",
        "memory.flash_bytes",
    ),
    or_zero=("memory.runtime_sram_bytes", "memory.runtime_flash_bytes", "memory.in_place_depthwise"),
    free=(
        Free("compute.efficiency"),
        Free("compute.depthwise_efficiency"),
        Free("compute.linear_efficiency"),
        Free("compute.output_cycles"),
        Free("compute.column_cycles"),
        Free("compute.op_overhead_s"),
    ),
)
TERMS = {
    "slower depthwise kernel": {"compute.depthwise_efficiency": 1.0},
    "slower fully connected kernel": {"compute.linear_efficiency": 1.0},
    "requantisation of outputs": {"compute.output_cycles": NOTHING},
    "unrolling of windows": {"compute.column_cycles": NOTHING},
    "calls of operators": {"compute.op_overhead_s": NOTHING},
}


def _unrolled(layers: Workload) -> Array:
    """Dense layers whose windows are copied into columns: kernels above 1x1. bool `[..., L]`"""
    return (layers.op == int(Op.CONV)) & (layers.kernel_h * layers.kernel_w > 1)


def column_bytes(layers: Workload) -> Array:
    """Buffer of windows that a kernel unrolls, `[..., L]`: two columns of a dense kernel, one of a depthwise one."""
    taps = layers.kernel_h * layers.kernel_w
    dense = COLUMNS * COLUMN_BYTES * round_up(taps * layers.in_channels / layers.groups, COLUMN_TILE)
    depthwise = COLUMN_BYTES * taps * layers.in_channels
    return jnp.where(_unrolled(layers), dense, jnp.where(layers.op == int(Op.DEPTHWISE), depthwise, 0.0))


def peak_memory_bytes(device: Device, layers: Workload) -> Array:
    """Bytes of SRAM that one image needs while a layer runs, the runtime apart, `[..., L]`."""
    before, after = layers.input_elements, layers.output_elements
    shrinks = (layers.in_channels == layers.out_channels) & (after <= before)
    allowed = device.memory.get("in_place_depthwise", 0.0) > 0
    in_place = allowed & shrinks & (layers.op == int(Op.DEPTHWISE))
    own = jnp.where(in_place, layers.out_h * layers.out_w, after)
    return (before + own + layers.held_elements) * layers.act_bits / 8 + column_bytes(layers)


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    del gain
    compute = device.compute
    cycle_s = 1 / compute["clock_hz"]
    taps = layers.kernel_h * layers.kernel_w
    slow = run.peak_macs_per_s * compute["depthwise_efficiency"]
    linear = run.peak_macs_per_s * compute["linear_efficiency"]
    depthwise = on_vector_unit(layers)
    reached = jnp.where(depthwise, slow, jnp.where(layers.op == int(Op.LINEAR), linear, run.macs_per_s))
    windows = layers.output_elements / layers.out_channels * taps * layers.in_channels
    columns_s = jnp.where(_unrolled(layers), windows * compute["column_cycles"] * cycle_s, 0.0)
    touched = jnp.where(layers.op == int(Op.POOL), layers.output_elements * taps, layers.input_elements)
    touched_s = jnp.where(layers.multiplies > 0, 0.0, touched * cycle_s)
    results_s = layers.output_elements * compute["output_cycles"] * cycle_s
    compute_s = batch * (layers.macs / reached + columns_s + touched_s + results_s)

    flash_bytes = dense_weight_bytes(layers)
    memory_s = batch * flash_bytes / (device.memory["dram_bytes_per_s"] * device.memory["efficiency"])
    overhead_s = batch * compute["op_overhead_s"] * jnp.ones_like(compute_s)
    return Times(
        compute_s,
        memory_s,
        overhead_s,
        jnp.maximum(compute_s, memory_s) + overhead_s,
        flash_bytes * batch,
        peak_memory_bytes=peak_memory_bytes(device, layers),
    )


def network(device: Device, parts: LayerCosts, batch: ArrayLike = 1) -> tuple[Costs, dict[str, Array]]:
    """The costs as they are, and the shares of SRAM and flash that the network and its runtime need, `[...]`."""
    memory = device.memory
    needed = parts.peak_memory_bytes + memory.get("runtime_sram_bytes", 0.0)
    stored = parts.weight_bytes + memory.get("runtime_flash_bytes", 0.0)
    return parts.costs(batch), {"SRAM": needed / memory["sram_bytes"], "flash": stored / memory["flash_bytes"]}
