"""Depthwise convolution in plain JAX: sums of shifted slices. Needs no compiler.

Written for short compile times (a search compiles many shapes), with its own derivatives: XLA's are up to ten times
slower. The gradient of the input is a convolution of the output's gradient with the reversed kernel, one for each
phase of the stride. The gradient of the weights is a loop over kernel rows and blocks of image rows that adds up
products of rows before it sums over batch and columns, because XLA does not vectorise a sum over a product of slices.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

ROWS_AT_ONCE = 8


def depthwise(x: Array, w: Array, stride: int, active: Array | None) -> Array:
    """Depthwise convolution `[N, H, W, C] * [kh, kw, C] -> [N, Ho, Wo, C]`, SAME padding.

    Example:
        >>> depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2)), 1, jnp.int32(1))[0, 1, 1]
        Array([9., 0.], dtype=float32)
    """
    if active is not None:
        # The derivative of the selection also keeps the weights' gradient of idle channels at zero.
        w = jnp.where(jnp.arange(x.shape[-1]) < active, w, jnp.zeros((), w.dtype))
    # sums of bfloat16 in bfloat16 would lose most of their digits
    return _convolution(stride, x.astype(jnp.float32), w.astype(jnp.float32)).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolution(stride: int, x: Array, w: Array) -> Array:
    pad_h = _padding(x.shape[1], w.shape[0], stride)
    pad_w = _padding(x.shape[2], w.shape[1], stride)
    out_h, out_w = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    return _valid(_pad(x, pad_h, pad_w), w, out_h, out_w, stride)


def _forward(stride: int, x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(stride, x, w), (x, w)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    return _input_gradient(g, w, stride, x.shape), _weight_gradient(x, g, w.shape, stride)


_convolution.defvjp(_forward, _backward)


def _padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    """Zeros around the image; negative amounts cut."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


def _valid(x: Array, w: Array, out_h: int, out_w: int, stride: int) -> Array:
    """`y[h, w] = sum_ij x[h * stride + i, w * stride + j] * w[i, j]`, for an `x` with its border in place."""
    span_h, span_w = (out_h - 1) * stride + 1, (out_w - 1) * stride + 1
    # One sum of static slices compiles to one vectorised loop, in 0.1 s even for 7 x 7 taps; in a loop over kernel
    # rows, with slices at a traced place, the same sum takes ten times as long.
    y = jnp.zeros((x.shape[0], out_h, out_w, x.shape[3]), x.dtype)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            y = y + x[:, i : i + span_h : stride, j : j + span_w : stride] * w[i, j]
    return y


def _input_gradient(g: Array, w: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """With `h + pad = stride * q + phase`, input row `h` receives tap `phase + stride * m` from output row `q - m`."""
    batch, in_h, in_w, channels = shape
    low_h, low_w = _padding(in_h, w.shape[0], stride)[0], _padding(in_w, w.shape[1], stride)[0]
    quotients_h, quotients_w = -(-(in_h + low_h) // stride), -(-(in_w + low_w) // stride)
    phases = []
    for phase_h in range(stride):
        for phase_w in range(stride):
            taps = w[phase_h::stride, phase_w::stride][::-1, ::-1]
            if taps.shape[0] == 0 or taps.shape[1] == 0:
                phases.append(jnp.zeros((batch, quotients_h, quotients_w, channels), g.dtype))
                continue
            rows = (taps.shape[0] - 1, quotients_h - g.shape[1])
            columns = (taps.shape[1] - 1, quotients_w - g.shape[2])
            phases.append(_valid(_pad(g, rows, columns), taps, quotients_h, quotients_w, 1))
    if stride == 1:
        full = phases[0]
    else:
        full = jnp.stack(phases).reshape(stride, stride, batch, quotients_h, quotients_w, channels)
        full = full.transpose(2, 3, 0, 4, 1, 5)
        full = full.reshape(batch, quotients_h * stride, quotients_w * stride, channels)
    return full[:, low_h : low_h + in_h, low_w : low_w + in_w]


def _weight_gradient(x: Array, g: Array, shape: tuple[int, ...], stride: int) -> Array:
    kernel_h, kernel_w, channels = shape
    batch, out_h, out_w, _ = g.shape
    at_once = min(ROWS_AT_ONCE, out_h)
    blocks = -(-out_h // at_once)
    spare = blocks * at_once - out_h
    low_h, high_h = _padding(x.shape[1], kernel_h, stride)
    x = _pad(x, (low_h, high_h + spare * stride), _padding(x.shape[2], kernel_w, stride))
    g = _pad(g, (0, spare), (0, 0))
    span_h, span_w = (at_once - 1) * stride + 1, (out_w - 1) * stride + 1

    def kernel_row(i: Array) -> Array:
        def add_block(block: Array, sums: list[Array]) -> list[Array]:
            g_rows = lax.dynamic_slice_in_dim(g, block * at_once, at_once, 1)
            x_rows = lax.dynamic_slice_in_dim(x, block * at_once * stride + i, span_h, 1)
            for j in range(kernel_w):
                for r in range(at_once):
                    sums[j] = sums[j] + x_rows[:, r * stride, j : j + span_w : stride] * g_rows[:, r]
            return sums

        start = [jnp.zeros((batch, out_w, channels), g.dtype)] * kernel_w
        sums = lax.fori_loop(0, blocks, add_block, start)
        return jnp.stack([jnp.sum(each, axis=(0, 1)) for each in sums])

    return lax.map(kernel_row, jnp.arange(kernel_h))
