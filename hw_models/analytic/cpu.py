"""CPU: vector lanes, cores, and a slower depthwise kernel.

Equations:
    work    = round_up(n, channel_tile) * rows * k * groups         (padded multiply-accumulates)
    rows    = 1 for m = 1 (a kernel for vectors, which waits for the weights), else round_up(m, pixel_tile)
    rate    = clock * macs_per_cycle * efficiency * units;  depthwise: that times depthwise_efficiency
    convert = activations whose stored width is not the computing width / convert_elements_per_cycle / clock / units
    call    = op_overhead + depthwise: channels * channel_overhead + idle_lanes * lane_overhead
    layer   = max(compute, memory) + serial_share * min(compute, memory) + call

A runtime that handles a depthwise layer channel by channel pays `channel_overhead_s` for each; one whose vector kernel
refuses channels that leave lanes idle (`idle_lanes`, the share of padding once channels are rounded up to whole tiles)
falls back to a slower one, `lane_overhead_s` if all were idle. Both are 0 unless the device's file says otherwise.

Sources: channel and pixel tiles as in XNNPACK's microkernels (8 channels, 4 or 6 rows); depthwise runs at 30-50 % of
the dense rate on Arm cores (Pixel 1 block table: 2.4 against 6.4 GMAC/s). `efficiency` is the share of the peak that
whole dense layers reach in practice and is calibrated per device; the files say from which measurement.
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
from hw_models.roofline import Times, gemm, on_vector_unit, overlapped, round_up
from hw_models.workload import Op, Workload

KEYS = Keys(
    required=(
        "compute.channel_tile",
        "compute.pixel_tile",
        "compute.depthwise_efficiency",
        "compute.convert_elements_per_cycle",
    ),
    or_zero=("compute.channel_overhead_s", "compute.lane_overhead_s", "compute.serial_share"),
    free=(
        Free("compute.efficiency"),
        Free("compute.depthwise_efficiency"),
        Free("compute.op_overhead_s"),
        Free("compute.run_overhead_s", start=1e-4),
        Free("compute.channel_overhead_s", start=1e-7),
        Free("compute.lane_overhead_s", start=1e-5),
        Free("compute.serial_share", start=0.3),
        Free("memory.efficiency"),
        Free("memory.sram_bytes_per_s"),
    ),
)
TERMS = {
    "tiles of channels and pixels": {"compute.channel_tile": 1.0, "compute.pixel_tile": 1.0},
    "slower depthwise kernel": {"compute.depthwise_efficiency": 1.0},
    "traffic of maps and weights": {"memory.dram_bytes_per_s": UNLIMITED, "memory.sram_bytes_per_s": UNLIMITED},
    "calls of operators": {"compute.op_overhead_s": NOTHING},
    "depthwise channel by channel": {"compute.channel_overhead_s": 0.0},
    "idle lanes": {"compute.lane_overhead_s": 0.0},
}


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    compute = device.compute
    size = gemm(layers, batch)
    pixels = jnp.where(size.m <= 1, size.m, round_up(size.m, compute["pixel_tile"]))
    dense = round_up(size.n, compute["channel_tile"]) * pixels * size.k * size.groups
    per_channel = layers.op == int(Op.DEPTHWISE)
    padded = round_up(layers.out_channels, compute["channel_tile"])
    channels = jnp.where(per_channel, padded, layers.out_channels)
    depthwise = channels * size.m * size.k / compute["depthwise_efficiency"]
    work = jnp.where(on_vector_unit(layers), depthwise, dense)
    elements = batch * (layers.input_elements + layers.output_elements)
    rate = compute["convert_elements_per_cycle"] * compute["clock_hz"] * compute["units"]
    convert = jnp.where(run.converted, elements / rate, 0.0)
    compute_s = layers.multiplies * (work / run.macs_per_s + convert)

    idle = 1 - layers.out_channels / padded
    calls = layers.out_channels * compute.get("channel_overhead_s", 0.0) + idle * compute.get("lane_overhead_s", 0.0)
    overhead_s = compute["op_overhead_s"] + jnp.where(per_channel, calls, 0.0)
    moved = traffic(device, layers, gain, batch)
    work_s = overlapped(compute_s, moved.memory_s, compute.get("serial_share", 0.0))
    return Times(compute_s, moved.memory_s, overhead_s, work_s + overhead_s, moved.dram_bytes)
