"""FPGA: an overlay processor (DPU) with fixed input, output and pixel parallelism, one image per core.

Equations:
    dense cycles     = ceil(c_in / input_parallel) * ceil(c_out / output_parallel) * ceil(w_out / pixel_parallel)
                       * kernel * h_out, per group;  scaled by the rate of the precision
    depthwise cycles = round_up(channels, output_parallel) * kernel * pixels / depthwise_macs_per_cycle
    batch            = ceil(batch / units) images one after another
    resources        = units * dsp_per_unit / dsp,  units * bram36_per_unit / bram36;
                       dsp_per_unit = macs_per_cycle / macs_per_dsp_cycle

Sources: AMD PG338 (DPU architecture: B4096 is 16 x 16 channels x 8 pixels = 2048 MACs a cycle); AMD WP486 (two int8
products per DSP48E2 and cycle; the DPU clocks its DSPs twice a cycle).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device, Keys
from hw_models.precision import Run
from hw_models.roofline import ceil_div, on_vector_unit, round_up
from hw_models.workload import Op, Workload

KEYS = Keys(
    required=(
        "compute.depthwise_macs_per_cycle",
        "compute.dsp",
        "compute.bram36",
        "compute.bram36_per_unit",
    ),
    per_precision=("compute.macs_per_dsp_cycle",),
    cells=("compute.input_parallel", "compute.output_parallel", "compute.pixel_parallel"),
)


def compute_time(device: Device, layers: Workload, run: Run, batch: Any = 1) -> Array:
    """Seconds the arithmetic of each layer takes, `[..., L]`."""
    compute = device.compute
    taps = layers.kernel_h * layers.kernel_w
    steps = (
        ceil_div(layers.in_channels / layers.groups, compute["input_parallel"])
        * ceil_div(layers.out_channels / layers.groups, compute["output_parallel"])
        * ceil_div(layers.out_w, compute["pixel_parallel"])
    )
    parallel = compute["input_parallel"] * compute["output_parallel"] * compute["pixel_parallel"]
    dense = steps * layers.groups * taps * layers.out_h * parallel / (run.macs_per_s / compute["units"])
    channels = jnp.where(
        layers.op == int(Op.DEPTHWISE), round_up(layers.out_channels, compute["output_parallel"]), layers.out_channels
    )
    vector_macs = channels * taps * layers.out_h * layers.out_w
    vector = vector_macs / (compute["depthwise_macs_per_cycle"] * compute["clock_hz"])
    images = ceil_div(batch, compute["units"])
    return layers.multiplies * images * jnp.where(on_vector_unit(layers), vector, dense)


def resource_fraction(device: Device) -> Array:
    """Share of DSP slices and memory blocks that the processor's cores take, `[]`."""
    compute = device.compute
    shares = [
        compute["units"] * compute["macs_per_cycle"][name] / compute["macs_per_dsp_cycle"][name] / compute["dsp"]
        for name in device.precisions
    ]
    blocks = compute["units"] * compute["bram36_per_unit"] / compute["bram36"]
    return jnp.max(jnp.stack([jnp.asarray(share, jnp.float32) for share in [*shares, blocks]]))
