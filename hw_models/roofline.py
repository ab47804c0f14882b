"""Shared arithmetic of the device kinds: layers as matrix products, rounding up, times that overlap, which bound holds.

A convolution is `groups` products of an `m x k` by a `k x n` matrix: m = batch x output pixels, k = kernel positions x
input channels per group, n = output channels per group.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from hw_models.costs import NO_QUANTITIES
from hw_models.device import Device
from hw_models.workload import Op, Workload


class Gemm(NamedTuple):
    """Sizes of a layer's matrix products; every leaf `[..., L]`."""

    m: Array
    k: Array
    n: Array
    groups: Array

    @property
    def macs(self) -> Array:
        """Multiply-accumulates of all of a layer's products."""
        return self.m * self.k * self.n * self.groups


class Times(NamedTuple):
    """Where the time of each layer goes, seconds; every leaf `[..., L]`.

    `latency_s` is what the three take together: how far they overlap is the kind's own physics. `dram_bytes` is what
    crosses the main memory. `sums` and `maxima` are what the kind's `network` needs over all layers (see
    `hw_models.costs`), `peak_memory_bytes` the activations alive where the kind does not keep input and output apart.
    """

    compute_s: Array
    memory_s: Array
    overhead_s: Array
    latency_s: Array
    dram_bytes: Array
    sums: dict[str, Array] = NO_QUANTITIES
    maxima: dict[str, Array] = NO_QUANTITIES
    peak_memory_bytes: Array | None = None


def overlapped(compute_s: Array, memory_s: Array, serial: Any = 0.0) -> Array:
    """Seconds for arithmetic and traffic of which the share `serial` cannot overlap: 0 is a roofline, 1 a sum.

    Example:
        >>> float(overlapped(jnp.float32(2.0), jnp.float32(1.0), 0.5))
        2.5
    """
    return jnp.maximum(compute_s, memory_s) + serial * jnp.minimum(compute_s, memory_s)


def gemm(layers: Workload, batch: ArrayLike = 1) -> Gemm:
    """Matrix products of each layer, `[..., L]`.

    Example:
        >>> from hw_models.workload import Layer
        >>> [int(x[0]) for x in gemm(Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 4, 16, 3, 3, groups=2)]))]
        [64, 18, 8, 2]
    """
    return Gemm(
        m=layers.out_h * batch * layers.out_w,
        k=layers.kernel_h * layers.kernel_w * layers.in_channels / layers.groups,
        n=layers.out_channels / layers.groups,
        groups=layers.groups,
    )


def ceil_div(a: Any, b: Any) -> Array:
    """`a / b` rounded up; its gradient is that of `a / b`, so that sizes stay differentiable.

    Example:
        >>> float(ceil_div(9.0, 4.0))
        3.0
    """
    quotient = jnp.asarray(a, jnp.float32) / b
    return quotient + lax.stop_gradient(jnp.ceil(quotient) - quotient)


def round_up(a: Any, b: Any) -> Array:
    """The smallest multiple of `b` that is at least `a`, with the gradient of `ceil_div`.

    Example:
        >>> float(round_up(9.0, 4.0))
        12.0
    """
    return ceil_div(a, b) * b


def on_vector_unit(layers: Workload) -> Array:
    """Layers that multiply without mixing channels: matrix units gain nothing from them. bool `[..., L]`"""
    return (layers.op == int(Op.DEPTHWISE)) | (layers.op == int(Op.CHANNEL_CONV))


def vector_unit_s(device: Device, size: Gemm) -> Array:
    """Seconds on the ordinary units beside a matrix unit, of kinds with `compute.vector_macs_per_cycle`. `[..., L]`"""
    compute = device.compute
    return size.macs / (compute["vector_macs_per_cycle"] * compute["clock_hz"] * compute["units"])


def padded_maps(layers: Workload, multiple: Any) -> tuple[Array, Array]:
    """Elements of each layer's input and output with channels padded to a `multiple`, `[..., L]`.

    Example:
        >>> from hw_models.workload import Layer
        >>> [float(x[0]) for x in padded_maps(Workload.of([Layer(Op.CONV, 8, 8, 4, 4, 3, 17)]), 16)]
        [1024.0, 512.0]
    """
    before = layers.input_elements / layers.in_channels * round_up(layers.in_channels, multiple)
    after = layers.output_elements / layers.out_channels * round_up(layers.out_channels, multiple)
    return before, after


def bound(compute_s: Array, memory_s: Array, overhead_s: Array) -> Array:
    """Index into `hw_models.costs.BOUNDS` of the largest of the three times, int32 `[..., L]`."""
    return jnp.argmax(jnp.stack([compute_s, memory_s, overhead_s], axis=-1), axis=-1).astype(jnp.int32)
