"""What bits and zeros save: bytes wherever the network is stored, time only where the device opted in.

Sources of the thresholds: XNNPACK's sparse path runs only 1x1 convolutions and only when two thirds of their weights
are zero (tensorflow `lite/delegates/xnnpack/README.md`); 2:4 doubles the peak of NVIDIA's tensor cores from Ampere on
(vendor tables). So the gain is a step, not a straight line.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device
from hw_models.roofline import on_vector_unit
from hw_models.workload import Pattern, Workload

BIAS_BITS = 32
BLOCK_WEIGHTS = 16  # weights of one block of the block pattern: 4 x 4
N_M_INDEX_BITS = 2  # position of a kept weight among four


def _index_bits(layers: Workload) -> Array:
    """Bits that say where the kept weights are, one layer, `[..., L]`."""
    weights = layers.weights
    taps = layers.kernel_h * layers.kernel_w
    per_pattern = {
        Pattern.UNSTRUCTURED: weights,
        Pattern.COLUMN: taps * layers.in_channels / layers.groups,
        Pattern.CHANNEL: layers.out_channels,
        Pattern.KERNEL: weights / taps,
        Pattern.BLOCK: weights / BLOCK_WEIGHTS,
        Pattern.N_M: weights * layers.density * N_M_INDEX_BITS,
    }
    conditions = [layers.pattern == int(pattern) for pattern in per_pattern]
    return jnp.select(conditions, list(per_pattern.values()), 0.0)


def weight_bytes(layers: Workload) -> Array:
    """Bytes that store the weights and biases: kept weights and their positions, or all of them if that is less.

    Weights at the layer's `weight_bits`, biases (batch normalisation folded) at 32 bits. Padding rows store nothing.
    `[..., L]`

    Example:
        >>> from hw_models.workload import Layer, Op
        >>> half = Layer(Op.CONV, 8, 8, 8, 8, 16, 16, weight_bits=16, density=0.5, pattern=Pattern.N_M)
        >>> float(weight_bytes(Workload.of([half])).sum() / weight_bytes(Workload.of([half._replace(pattern=0)])).sum())
        0.5625
    """
    dense = layers.weights * layers.weight_bits
    sparse = dense * layers.density + _index_bits(layers)
    kept = jnp.where(layers.pattern == int(Pattern.NONE), dense, jnp.minimum(sparse, dense))
    return (layers.count * kept + layers.bias_elements * BIAS_BITS) / 8


def dense_weight_bytes(layers: Workload) -> Array:
    """Bytes of weights and biases with every zero stored, `[..., L]`."""
    return (layers.count * layers.weights * layers.weight_bits + layers.bias_elements * BIAS_BITS) / 8


def speedup(device: Device, layers: Workload) -> Array:
    """How many times faster `device` multiplies because of zeros: its factor at or below the threshold, else 1.

    Depthwise layers never gain, and unstructured zeros only in 1x1 convolutions and linear layers. `[..., L]`
    """
    gain = jnp.ones_like(layers.density)
    for name, entry in device.sparsity.items():
        pattern = Pattern[name.upper()]
        uses = (layers.pattern == int(pattern)) & (layers.density <= entry["threshold"]) & ~on_vector_unit(layers)
        if pattern is Pattern.UNSTRUCTURED:
            uses &= layers.kernel_h * layers.kernel_w == 1
        gain = jnp.where(uses, entry["factor"], gain)
    return gain
