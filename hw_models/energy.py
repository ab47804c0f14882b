"""Joules: arithmetic, main-memory traffic, on-chip accesses, and the power that flows whatever happens.

    E = MACs * energy per MAC + DRAM bytes * energy per byte + on-chip bytes * energy per byte + static power * time

On-chip accesses count where the device's file has `energy.sram_j_per_byte`; elsewhere they are part of its energy per
MAC. The tables below are where files take their numbers from.

Sources: Horowitz, ISSCC 2014 (45 nm, 0.9 V). Eyeriss: Chen et al., ISCA 2016 (65 nm, energies relative to a MAC).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import Array

from hw_models.device import Device

PJ = 1e-12
INT_ADD_J = {8: 0.03 * PJ, 16: 0.05 * PJ, 32: 0.1 * PJ}
INT_MULTIPLY_J = {8: 0.2 * PJ, 32: 3.1 * PJ}
FLOAT_ADD_J = {16: 0.4 * PJ, 32: 0.9 * PJ}
FLOAT_MULTIPLY_J = {16: 1.1 * PJ, 32: 3.7 * PJ}
SRAM_READ_J = {8 * 1024: 10 * PJ, 32 * 1024: 20 * PJ, 1024 * 1024: 100 * PJ}  # capacity in bytes: 64 bits read
DRAM_READ_J = 640 * PJ  # 32 bits
WORD_BYTES = 8  # of an SRAM read
ACCUMULATOR_BITS = 32
EYERISS_RATIOS: Mapping[str, float] = {"mac": 1.0, "register": 1.0, "neighbour": 2.0, "buffer": 6.0, "dram": 200.0}


def int_add_j(bits: float) -> float:
    """Energy of an integer addition: linear in the bits.

    Example:
        >>> round(int_add_j(16) * 1e12, 3)
        0.05
    """
    widths = sorted(INT_ADD_J)
    if bits < widths[0]:
        return INT_ADD_J[widths[0]] * bits / widths[0]
    if bits > widths[-1]:
        return INT_ADD_J[widths[-1]] * bits / widths[-1]
    return float(np.interp(bits, widths, [INT_ADD_J[width] for width in widths]))


def int_multiply_j(weight_bits: float, act_bits: float | None = None) -> float:
    """Energy of an integer multiplication: quadratic in the bits, the product of both widths if they differ.

    The exponent 1.98 makes both entries of the table exact.

    Example:
        >>> round(int_multiply_j(8) * 1e12, 3), round(int_multiply_j(32) * 1e12, 3)
        (0.2, 3.1)
    """
    bits = math.sqrt(weight_bits * (weight_bits if act_bits is None else act_bits))
    exponent = math.log(INT_MULTIPLY_J[32] / INT_MULTIPLY_J[8]) / math.log(32 / 8)
    return INT_MULTIPLY_J[8] * (bits / 8) ** exponent


def int_mac_j(weight_bits: float, act_bits: float | None = None, accumulator_bits: float = ACCUMULATOR_BITS) -> float:
    """Energy of an integer multiplication and the addition of its product to a sum.

    Example:
        >>> round(int_mac_j(8) * 1e12, 3)
        0.3
    """
    return int_multiply_j(weight_bits, act_bits) + int_add_j(accumulator_bits)


def float_mac_j(bits: int) -> float:
    """Energy of a floating-point multiplication and addition of 16 or 32 bits.

    Example:
        >>> round(float_mac_j(32) * 1e12, 3), round(float_mac_j(16) * 1e12, 3)
        (4.6, 1.5)
    """
    return FLOAT_MULTIPLY_J[bits] + FLOAT_ADD_J[bits]


def sram_j_per_byte(capacity_bytes: float) -> float:
    """Energy of a byte read from an on-chip memory of that size: a power of the size between the table's entries.

    Example:
        >>> round(sram_j_per_byte(32 * 1024) * 1e12, 3)
        2.5
    """
    sizes = sorted(SRAM_READ_J)
    size = min(max(capacity_bytes, sizes[0]), sizes[-1])
    word = np.interp(np.log(size), np.log(sizes), np.log([SRAM_READ_J[entry] for entry in sizes]))
    return float(np.exp(word)) / WORD_BYTES


def eyeriss_access_j(level: str, mac_j: float) -> float:
    """Energy of reading one operand from a level of Eyeriss' memories, where a MAC takes `mac_j`.

    Example:
        >>> eyeriss_access_j("dram", 1.0), eyeriss_access_j("buffer", 1.0)
        (200.0, 6.0)
    """
    return EYERISS_RATIOS[level] * mac_j


def energy_j(
    device: Device, macs: Array, mac_j: Array, dram_bytes: Array, latency_s: Array, onchip_bytes: Any = 0.0
) -> Any:
    """Energy of each layer, `[..., L]`."""
    moved = dram_bytes * device.energy["dram_j_per_byte"]
    onchip = onchip_bytes * device.energy.get("sram_j_per_byte", 0.0)
    return macs * mac_j + moved + onchip + latency_s * device.energy["static_w"]
