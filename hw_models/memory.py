"""Bytes: what must be kept at once, and what travels to and from the main memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from hw_models.compression import dense_weight_bytes, weight_bytes
from hw_models.device import Device
from hw_models.workload import Workload


class Traffic(NamedTuple):
    """Bytes that one layer moves and the seconds that they take; every leaf `[..., L]`."""

    dram_bytes: Array
    memory_s: Array


def peak_memory_bytes(layers: Workload, batch: Any = 1) -> Array:
    """Activations alive while a layer runs: its input, its output, and those held for later. `[..., L]`

    The largest of them is the network's peak. Buffers of the runtime are not counted.
    """
    elements = layers.input_elements + layers.output_elements + layers.held_elements * layers.count
    return elements * batch * layers.act_bits / 8


def traffic(device: Device, layers: Workload, gain: Array, batch: Any = 1) -> Traffic:
    """Bytes from and to main memory: weights once a run, and the activations of layers too large for on-chip memory.

    Activations that fit in `memory.sram_bytes` move at the on-chip rate instead. Zeros in weights travel unless the
    device skips them (`gain` above 1). `[..., L]`
    """
    weights = jnp.where(gain > 1, weight_bytes(layers), dense_weight_bytes(layers))
    activations = (layers.input_elements + layers.output_elements) * batch * layers.act_bits / 8
    stays = peak_memory_bytes(layers, batch) <= device.memory["sram_bytes"]
    dram_bytes = weights + jnp.where(stays, 0.0, activations)
    rest = jnp.where(stays, activations, 0.0)
    reached = device.memory["dram_bytes_per_s"] * device.memory["efficiency"]
    memory_s = dram_bytes / reached + rest / device.memory["sram_bytes_per_s"]
    return Traffic(dram_bytes, memory_s)
