"""Joules: multiply-accumulates, main-memory traffic, and the power that flows whatever happens.

E = MACs x energy per MAC + DRAM bytes x energy per byte + static power x time.
"""

from __future__ import annotations

from typing import Any

from jax import Array

from hw_models.device import Device


def energy_j(device: Device, macs: Array, mac_j: Array, dram_bytes: Array, latency_s: Array) -> Any:
    """Energy of each layer, `[..., L]`."""
    moved = dram_bytes * device.energy["dram_j_per_byte"]
    return macs * mac_j + moved + latency_s * device.energy["static_w"]
