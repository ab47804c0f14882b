"""Bytes: what must be kept at once, and what travels to and from the main memory."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from hw_models.compression import moved_weight_bytes
from hw_models.device import Device
from hw_models.workload import Workload


class Traffic(NamedTuple):
    """Bytes that one layer moves and the seconds that they take; every leaf `[..., L]`.

    `output_dram_bytes` and `output_s` are those of the output alone, written or read once.
    """

    dram_bytes: Array
    memory_s: Array
    output_dram_bytes: Array
    output_s: Array


def peak_memory_bytes(layers: Workload, batch: ArrayLike = 1) -> Array:
    """Activations alive while a layer runs: its input, its output, and those held for later. `[..., L]`

    The largest of them is the network's peak. Buffers of the runtime are not counted.
    """
    elements = layers.input_elements + layers.output_elements + layers.held_elements * layers.count
    return elements * batch * layers.act_bits / 8


def onchip_bytes(layers: Workload, gain: Array, batch: ArrayLike = 1) -> Array:
    """Bytes that pass the on-chip memory if it serves every operand once: input, output and weights. `[..., L]`

    A lower bound: an array that is smaller than the layer reads operands again.

    Example:
        >>> from hw_models.workload import Layer, Op
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 16, 32, 3, 3)])
        >>> onchip_bytes(work, jnp.ones(1)).tolist() == [4 * (64 * 16 + 64 * 32 + 9 * 16 * 32)]
        True
    """
    activations = (layers.input_elements + layers.output_elements) * batch * layers.act_bits / 8
    return activations + moved_weight_bytes(layers, gain)


def traffic(device: Device, layers: Workload, gain: Array, batch: ArrayLike = 1, stays: Array | None = None) -> Traffic:
    """Bytes from and to main memory: weights once a run, and the activations of layers too large for on-chip memory.

    Activations that fit in `memory.sram_bytes` move at the on-chip rate instead; kinds that decide otherwise what stays
    on the chip give `stays`, bool `[..., L]`. Zeros in weights travel unless the device skips them (`gain` above 1).
    `[..., L]`
    """
    weights = moved_weight_bytes(layers, gain)
    output = layers.output_elements * batch * layers.act_bits / 8
    activations = layers.input_elements * batch * layers.act_bits / 8 + output
    if stays is None:
        stays = peak_memory_bytes(layers, batch) <= device.memory["sram_bytes"]
    reached = device.memory["dram_bytes_per_s"] * device.memory["efficiency"]
    per_byte = jnp.where(stays, 1 / device.memory["sram_bytes_per_s"], 1 / reached)
    return Traffic(
        dram_bytes=weights + jnp.where(stays, 0.0, activations),
        memory_s=weights / reached + activations * per_byte,
        output_dram_bytes=jnp.where(stays, 0.0, output),
        output_s=output * per_byte,
    )
