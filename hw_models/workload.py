"""What a network asks of a device: one `Layer` per operation, and `Workload`, the same as arrays.

Counts of a `Layer` are exact Python integers (reports, golden tests); those of a `Workload` are float32 arrays (cost
models, exact up to 2**24 per layer).

Shape letters: `L` layers; leading axes `[...]` are free (candidates, variants). The arithmetic on layers (MACs,
parameters, bytes) is defined here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError


class Op(IntEnum):
    """Kinds of operation. The first four multiply and hold weights; the others only move and combine data."""

    CONV = 0  # dense or grouped convolution; 1x1 included
    DEPTHWISE = 1  # groups == in_channels; out_channels may be a multiple of it (multi-head)
    LINEAR = 2  # fully connected
    CHANNEL_CONV = 3  # 1-D convolution along the channel axis (ECA): out_h is the channel count
    POOL = 4  # windowed maximum or average
    GLOBAL_POOL = 5  # one number per channel
    ADD = 6  # residual addition
    SCALE = 7  # product with one number per channel (attention)
    REDUCE = 8  # reduction over heads: in_channels -> out_channels
    CONCAT = 9
    ACTIVATION = 10  # stands alone only where it cannot be fused into the layer before it
    RESIZE = 11
    MULTIPLY = 12  # product of two maps (sigmoidal residual)


class Dtype(IntEnum):
    """Number formats. `INT` is any integer width; its bits are in `weight_bits` and `act_bits`."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2
    INT = 3


class Pattern(IntEnum):
    """Where the zeros of a sparse layer lie. A device opts in to each pattern it can gain from."""

    NONE = 0
    UNSTRUCTURED = 1
    COLUMN = 2
    CHANNEL = 3
    KERNEL = 4
    BLOCK = 5
    N_M = 6


MULTIPLYING = (Op.CONV, Op.DEPTHWISE, Op.LINEAR, Op.CHANNEL_CONV)
TWO_OPERANDS = (Op.ADD, Op.MULTIPLY)  # maps of the same shape


def _kernel_weights(row: Layer | Workload) -> Any:
    dense = row.multiplies * row.kernel_h * row.kernel_w * row.in_channels * row.out_channels
    # Rounding division is exact for integers, and has no gradient for arrays.
    return dense // row.groups if isinstance(row, Layer) else dense / row.groups


class Layer(NamedTuple):
    """One concrete layer in plain numbers: what a block author returns from `lower`.

    `norm` says that a batch normalisation follows (two parameters per output channel, folded into a bias when
    deployed), `bias` that the layer has a bias of its own. `held_elements` counts activations that stay alive across
    the layer besides its own input and output (residuals). `group` numbers the block the layer belongs to, so that a
    measured table can price whole blocks.
    """

    op: Op
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    in_channels: int
    out_channels: int
    kernel_h: int = 1
    kernel_w: int = 1
    stride: int = 1
    groups: int = 1
    norm: int = 0
    bias: int = 0
    weight_bits: int = 32
    act_bits: int = 32
    weight_dtype: Dtype = Dtype.FLOAT32
    act_dtype: Dtype = Dtype.FLOAT32
    density: float = 1.0
    pattern: Pattern = Pattern.NONE
    held_elements: int = 0
    group: int = 0

    @property
    def multiplies(self) -> int:
        """1 where the layer multiplies with weights of its own, else 0."""
        return int(self.op in MULTIPLYING)

    @property
    def weights(self) -> int:
        """Weights of the kernel, biases apart."""
        return int(_kernel_weights(self))

    @property
    def input_elements(self) -> int:
        """Activations read, residual operands included."""
        return self.in_h * self.in_w * self.in_channels * (2 if self.op in TWO_OPERANDS else 1)

    @property
    def output_elements(self) -> int:
        """Activations written."""
        return self.out_h * self.out_w * self.out_channels

    @property
    def params(self) -> int:
        """Trainable parameters: weights, biases, two per normalised channel."""
        return self.weights + (2 * self.norm + self.bias) * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference at batch 1 (not FLOPs, which are twice that)."""
        return self.weights * self.out_h * self.out_w


class Workload(NamedTuple):
    """Layers as arrays, every leaf `[..., L]`. `count` repeats a layer; 0 marks padding.

    Example:
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 3, 16, 3, 3, norm=1)])
        >>> int(work.macs.sum()), int(work.params.sum())
        (27648, 464)
    """

    op: Array
    in_h: Array
    in_w: Array
    out_h: Array
    out_w: Array
    in_channels: Array
    out_channels: Array
    kernel_h: Array
    kernel_w: Array
    stride: Array
    groups: Array
    norm: Array
    bias: Array
    weight_bits: Array
    act_bits: Array
    weight_dtype: Array
    act_dtype: Array
    density: Array
    pattern: Array
    held_elements: Array
    group: Array
    count: Array  # type: ignore[assignment]

    @classmethod
    def of(cls, layers: Iterable[Layer], length: int | None = None) -> Workload:
        """Stack `layers`, padded to `length` rows with `count` 0.

        Raises:
            InputError: more layers than `length`.
        """
        rows = list(layers)
        length = len(rows) if length is None else length
        if len(rows) > length:
            raise InputError(f"{len(rows)} layers do not fit a workload of length {length}: raise the length")
        return cls(*(column[0] for column in cls.stack([rows], length)))

    @classmethod
    def stack(cls, networks: Sequence[Sequence[Layer]], length: int | None = None) -> Workload:
        """Several lists of layers at once, `[V, L]`, all padded to the longest (or to `length`).

        Example:
            >>> layer = Layer(Op.CONV, 8, 8, 8, 8, 3, 16, 3, 3)
            >>> Workload.stack([[layer], [layer, layer], []]).count.tolist()
            [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
        """
        length = max((len(rows) for rows in networks), default=0) if length is None else length
        filler = Layer(Op.ADD, 1, 1, 1, 1, 1, 1)
        # One array of all rows: thousands of small ones would take longer than everything that is done with them.
        flat = [row for rows in networks for row in (*rows, *[filler] * (length - len(rows)))]
        table = np.asarray(flat, np.float32).reshape(len(networks), length, len(Layer._fields))
        count = np.arange(length) < np.asarray([len(rows) for rows in networks], int)[:, None]
        columns = dict(zip(Layer._fields, np.moveaxis(table, -1, 0), strict=True))
        return cls(**{name: jnp.asarray(column, jnp.float32) for name, column in (columns | {"count": count}).items()})

    @property
    def multiplies(self) -> Array:
        """1 where the layer multiplies with weights of its own, else 0. `[..., L]`"""
        return jnp.isin(self.op, jnp.asarray(MULTIPLYING)).astype(jnp.float32)

    @property
    def weights(self) -> Array:
        """Weights of the kernel of one layer, biases apart. `[..., L]`"""
        return _kernel_weights(self)

    @property
    def params(self) -> Array:
        """Trainable parameters: weights, biases, two per normalised channel. `[..., L]`"""
        return self.count * (self.weights + (2 * self.norm + self.bias) * self.out_channels)

    @property
    def macs(self) -> Array:
        """Multiply-accumulates of one inference at batch 1 (not FLOPs, which are twice that). `[..., L]`"""
        return self.count * self.weights * self.out_h * self.out_w

    @property
    def input_elements(self) -> Array:
        """Activations read, residual operands included. `[..., L]`"""
        operands = jnp.where(jnp.isin(self.op, jnp.asarray(TWO_OPERANDS)), 2.0, 1.0)
        return self.count * self.in_h * self.in_w * self.in_channels * operands

    @property
    def output_elements(self) -> Array:
        """Activations written. `[..., L]`"""
        return self.count * self.out_h * self.out_w * self.out_channels

    @property
    def bias_elements(self) -> Array:
        """Biases left when batch normalisation is folded. `[..., L]`"""
        return self.count * jnp.maximum(self.norm, self.bias) * self.out_channels

    def with_precision(self, weight_dtype: Dtype, weight_bits: int, act_dtype: Dtype, act_bits: int) -> Workload:
        """The same layers with weights and activations in the given formats."""
        full = jnp.ones_like(self.op)
        return self._replace(
            weight_dtype=full * int(weight_dtype),
            weight_bits=full * weight_bits,
            act_dtype=full * int(act_dtype),
            act_bits=full * act_bits,
        )


def concatenate(parts: Sequence[Workload]) -> Workload:
    """Workloads one after another along the layer axis."""
    return Workload(*(jnp.concatenate(leaves, axis=-1) for leaves in zip(*parts, strict=True)))
