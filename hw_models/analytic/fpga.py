"""FPGA: an overlay processor (DPU) with fixed input, output and pixel parallelism, one image per core.

Equations (cycles of one image on one core):
    dense       = ceil(c_in / input_parallel) * ceil(c_out / output_parallel) * ceil(w_out / pixel_parallel)
                  * kernel * h_out, per group;  scaled by the rate of the precision
    depthwise   = ceil(channels / output_parallel) * round_up(w_out, pixel_parallel / 2) / depthwise_pixel_parallel
                  * kernel * h_out
    elementwise = elements read and written, channels padded to output_parallel, / elementwise_per_cycle
                  * (1 + spill_factor where a map exceeds sram_bytes)
    memory      = (weights + activations that do not stay in sram_bytes) / min(dram, cores at work * port)
                  + those that do / sram rate;  weights of linear layers: at linear_efficiency of that
    layer       = max(compute, memory) + serial_share * min(compute, memory) + op_overhead
    batch       = ceil(batch / units) images one after another; the cores share the main memory
    resources   = units * dsp_per_unit / dsp,  units * bram36_per_unit / bram36;
                  dsp_per_unit = macs_per_cycle / macs_per_dsp_cycle
The cores load the weights for each image again. Pooling and scaling wait for a whole map and run on a unit of their
own; maps larger than the on-chip memory pass through it in strips. Additions and products of maps, concatenations and
activations follow the convolution before them tile by tile: they only bring the other operand.

Sources: AMD PG338 (DPU architecture: B4096 is 16 x 16 channels x 8 pixels = 2048 MACs a cycle; "the parallelism of
depthwise convolution is half that of the pixel parallelism"); AMD WP486 (two int8 products per DSP48E2 and cycle; the
DPU clocks its DSPs twice a cycle).
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
from hw_models.roofline import Times, ceil_div, on_vector_unit, overlapped, padded_maps, round_up
from hw_models.workload import Op, Workload

PIPELINED = (Op.ADD, Op.MULTIPLY, Op.CONCAT, Op.ACTIVATION)

KEYS = Keys(
    required=(
        "compute.depthwise_pixel_parallel",
        "compute.elementwise_per_cycle",
        "compute.dsp",
        "compute.bram36",
        "compute.bram36_per_unit",
        "memory.port_bytes_per_s",
    ),
    per_precision=("compute.macs_per_dsp_cycle",),
    optional=("memory.linear_efficiency",),
    or_zero=("compute.serial_share", "compute.spill_factor"),
    cells=("compute.input_parallel", "compute.output_parallel", "compute.pixel_parallel"),
    free=(
        Free("compute.efficiency"),
        Free("compute.depthwise_pixel_parallel"),
        Free("compute.elementwise_per_cycle"),
        Free("compute.spill_factor", start=1.0),
        Free("compute.op_overhead_s"),
        Free("compute.run_overhead_s", start=1e-4),
        Free("compute.serial_share", start=0.3),
        Free("memory.efficiency"),
        Free("memory.linear_efficiency", start=0.5),
        Free("memory.sram_bytes_per_s"),
    ),
)
TERMS = {
    "depthwise unit": {"compute.depthwise_pixel_parallel": UNLIMITED},
    "pooling and scaling": {"compute.elementwise_per_cycle": UNLIMITED},
    "maps in strips": {"compute.spill_factor": 0.0},
    "traffic of maps and weights": {
        "memory.dram_bytes_per_s": UNLIMITED,
        "memory.port_bytes_per_s": UNLIMITED,
        "memory.sram_bytes_per_s": UNLIMITED,
    },
    "start of a layer": {"compute.op_overhead_s": NOTHING},
}


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    compute, memory = device.compute, device.memory
    rounds = ceil_div(batch, compute["units"])
    compute_s = rounds * _image_s(device, layers, run)

    moved = traffic(device, layers, gain)
    ports = jnp.minimum(batch, compute["units"]) * memory["port_bytes_per_s"]
    reached = memory["dram_bytes_per_s"] * memory["efficiency"]
    slower = moved.dram_bytes * (1 / jnp.minimum(ports, reached) - 1 / reached)
    share = jnp.where(layers.op == int(Op.LINEAR), memory.get("linear_efficiency", 1.0), 1.0)
    beside = jnp.where(_pipelined(layers), moved.output_s / moved.memory_s, 1.0)
    memory_s = batch * (moved.memory_s + slower) * beside / share
    dram_bytes = moved.dram_bytes * batch * beside
    overhead_s = jnp.ones_like(compute_s) * compute["op_overhead_s"] * rounds
    work_s = overlapped(compute_s, memory_s, compute.get("serial_share", 0.0))
    return Times(compute_s, memory_s, overhead_s, work_s + overhead_s, dram_bytes)


def _pipelined(layers: Workload) -> Array:
    return jnp.isin(layers.op, jnp.asarray(PIPELINED))


def _image_s(device: Device, layers: Workload, run: Run) -> Array:
    """Seconds that one core computes on one image, `[..., L]`."""
    compute = device.compute
    taps = layers.kernel_h * layers.kernel_w
    steps = (
        ceil_div(layers.in_channels / layers.groups, compute["input_parallel"])
        * ceil_div(layers.out_channels / layers.groups, compute["output_parallel"])
        * ceil_div(layers.out_w, compute["pixel_parallel"])
    )
    parallel = compute["input_parallel"] * compute["output_parallel"] * compute["pixel_parallel"]
    dense = steps * layers.groups * taps * layers.out_h * parallel / (run.macs_per_s / compute["units"])

    cycle_s = 1 / compute["clock_hz"]
    tiles = ceil_div(layers.out_channels, compute["output_parallel"])
    channel_steps = jnp.where(layers.op == int(Op.DEPTHWISE), tiles, layers.out_channels)
    # Depthwise pixel parallelism may be any share of a step once it is fitted: pixels pad to the half of dense ones.
    columns = round_up(layers.out_w, compute["pixel_parallel"] / 2) / compute["depthwise_pixel_parallel"]
    vector = channel_steps * columns * taps * layers.out_h * cycle_s

    spills = layers.input_elements * layers.act_bits / 8 > device.memory["sram_bytes"]
    strips = 1 + compute.get("spill_factor", 0.0) * jnp.where(spills, 1.0, 0.0)
    before, after = padded_maps(layers, compute["output_parallel"])
    elementwise = (before + after) * cycle_s / compute["elementwise_per_cycle"] * strips

    multiplied = jnp.where(on_vector_unit(layers), vector, dense)
    return jnp.where(layers.multiplies > 0, multiplied, jnp.where(_pipelined(layers), 0.0, elementwise))


def resource_fraction(device: Device) -> Array:
    """Share of DSP slices and memory blocks that the processor's cores take, `[]`."""
    compute = device.compute
    shares = [
        compute["units"] * compute["macs_per_cycle"][name] / compute["macs_per_dsp_cycle"][name] / compute["dsp"]
        for name in device.precisions
    ]
    blocks = compute["units"] * compute["bram36_per_unit"] / compute["bram36"]
    return jnp.max(jnp.stack([jnp.asarray(share, jnp.float32) for share in [*shares, blocks]]))
