"""CPU: vector lanes, cores, and a slower depthwise kernel.

Equations:
    work    = round_up(n, channel_tile) * round_up(m, pixel_tile) * k * groups         (padded multiply-accumulates)
    rate    = clock * macs_per_cycle * efficiency * units;  depthwise: that times depthwise_efficiency
    convert = elements whose stored width is not the computing width / convert_elements_per_cycle / clock / units

Sources: channel and pixel tiles as in XNNPACK's microkernels (8 channels, 4 or 6 rows); depthwise runs at 30-50 % of
the dense rate on Arm cores (Pixel 1 block table: 2.4 against 6.4 GMAC/s). `efficiency` is the share of the peak that
whole dense layers reach in practice and is calibrated per device; the files say from which measurement.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device, Keys
from hw_models.precision import Run
from hw_models.roofline import gemm, on_vector_unit, round_up
from hw_models.workload import Op, Workload

KEYS = Keys(
    required=(
        "compute.channel_tile",
        "compute.pixel_tile",
        "compute.depthwise_efficiency",
        "compute.convert_elements_per_cycle",
    )
)


def compute_time(device: Device, layers: Workload, run: Run, batch: Any = 1) -> Array:
    """Seconds the arithmetic of each layer takes, `[..., L]`."""
    compute = device.compute
    size = gemm(layers, batch)
    dense = round_up(size.n, compute["channel_tile"]) * round_up(size.m, compute["pixel_tile"]) * size.k * size.groups
    channels = jnp.where(
        layers.op == int(Op.DEPTHWISE), round_up(layers.out_channels, compute["channel_tile"]), layers.out_channels
    )
    depthwise = channels * size.m * size.k / compute["depthwise_efficiency"]
    work = jnp.where(on_vector_unit(layers), depthwise, dense)
    elements = layers.weights + batch * (layers.input_elements + layers.output_elements)
    rate = compute["convert_elements_per_cycle"] * compute["clock_hz"] * compute["units"]
    convert = jnp.where(run.converted, elements / rate, 0.0)
    return layers.multiplies * (work / run.macs_per_s + convert)


def resource_fraction(device: Device) -> Array:
    """No hard resource besides the shared ones."""
    del device
    return jnp.float32(0.0)
