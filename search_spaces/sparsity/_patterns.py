"""Structures: which weights of a layer share one decision to be kept or dropped.

Weights are `kernel [h, w, I, O]` of a convolution (`I` input channels of a group), `kernel [I, O]` of a linear layer,
or `filters [h, w, C, M]` of a depthwise one with `M` heads. `D` stands for the shape of the decisions: that of the
weights with length 1 along the axes that share one, and

    output_channel  of a grouped convolution: the channels of one group, the same in all, so that groups stay equal
    channel         of a depthwise convolution: `C`, input and output being the same; its heads share the decision
    block           blocks of 4 input and 4 output channels at one tap, the last of either smaller
    split           `[S]`, from the inside: the diagonal blocks of the finest split, then for each coarser split what
                    its diagonal blocks hold besides. A convolution of 2 ** n groups keeps the first `S - n`,
                    one that is removed keeps none

Every weight is in one structure. `column` to `layer` are those of Schindler, dissertation (Heidelberg 2021), section
6.4 and 7.4 (which leaves open which blocks of a split share a parameter); `connection` is one kernel from one input to
one output channel (Guerra Fernandez, thesis (Monash 2024), section 4.3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError, whole
from hw_models.workload import Pattern

BLOCK = 4  # channels of a block, along inputs and outputs
N_M_CHANNELS = 4  # input channels among which `n_m` chooses
SPLITS = (1, 2, 4, 8, 16, 32)


class Kind(NamedTuple):
    """Axes along which decisions differ: height, width, input, group, output of a group, head. And what devices see."""

    apart: str
    pattern: Pattern


KINDS: dict[str, Kind] = {
    "weight": Kind("hwigom", Pattern.UNSTRUCTURED),
    "n_m": Kind("hwigom", Pattern.N_M),
    "block": Kind("hwigom", Pattern.BLOCK),
    "column": Kind("hwi", Pattern.COLUMN),
    "input_channel": Kind("i", Pattern.CHANNEL),
    "output_channel": Kind("o", Pattern.CHANNEL),
    "connection": Kind("igom", Pattern.KERNEL),
    "kernel": Kind("hw", Pattern.KERNEL),
    # what is left of these is dense: a smaller kernel, a grouped convolution, or all of the layer
    "horizontal_slice": Kind("h", Pattern.NONE),
    "vertical_slice": Kind("w", Pattern.NONE),
    "split": Kind("", Pattern.NONE),
    "layer": Kind("", Pattern.NONE),
}
SLICES = ("horizontal_slice", "vertical_slice")


@dataclass(frozen=True)
class Structure:
    """The structures of one `kind` in weights of one `shape`; static, and the same for all weights of that shape.

    Raises:
        InputError: an unknown kind, or one that such weights do not have.

    Example:
        >>> columns = Structure("column", (3, 3, 8, 16))
        >>> columns.decisions, columns.pattern.name
        ((3, 3, 8, 1), 'COLUMN')
    """

    kind: str
    shape: tuple[int, ...]
    depthwise: bool = False
    groups: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("structure", self.kind, KINDS)
        if len(self.shape) != 4 and (self.depthwise or len(self.shape) != 2):
            raise InputError(
                f"weights of shape {self.shape} have no structures: give [h, w, I, O], or [I, O] if linear"
            )
        whole("groups", self.groups, 1, 1 if self.depthwise else self.shape[-1])
        if self.shape[-1] % self.groups:
            raise InputError(f"groups={self.groups} do not divide {self.shape[-1]} output channels: give a divisor")
        if self.depthwise and self.kind in ("n_m", "block", "split"):
            raise InputError(
                f"structure {self.kind} needs a layer that mixes channels, not a depthwise one: give channels"
            )
        if self.kind == "split" and self.groups > 1:
            raise InputError(
                f"structure split needs a layer of one group, not of {self.groups}: give another structure"
            )
        if len(self.shape) == 2 and self.kind in ("kernel", *SLICES):
            raise InputError(f"structure {self.kind} needs a convolution, not a linear layer: give channels or weights")
        if self.kind == "n_m":
            check_divisible(self.shape[-2], N_M_CHANNELS)

    @property
    def pattern(self) -> Pattern:
        """How cost models name the zeros that are left (`hw_models.workload.Pattern`)."""
        return KINDS[self.kind].pattern

    @property
    def levels(self) -> int:
        """Decisions of a split: as many as there are splits into 1, 2, 4, ... groups, at most 32, of equal channels."""
        return sum(self.shape[-2] % split == 0 and self.shape[-1] % split == 0 for split in SPLITS)

    @property
    def decisions(self) -> tuple[int, ...]:
        """`D`, the shape of scores, masks and structure parameters."""
        if self.kind == "split":
            return (self.levels,)
        height, width, inputs, groups, outputs = self._reduced
        return (height, width, inputs, groups * outputs)[-len(self.shape) :]

    @property
    def count(self) -> int:
        """Decisions of the layer."""
        return math.prod(self.decisions)

    @property
    def sizes(self) -> Array:
        """Weights of each structure, int32 `D`."""
        if self.kind == "split":
            inside = math.prod(self.shape) // 2 ** np.arange(self.levels)[::-1]
            return jnp.asarray(np.diff(inside, prepend=0), jnp.int32)
        if self.kind == "block":
            rows, columns = (np.minimum(BLOCK, length - np.arange(0, length, BLOCK)) for length in self._full[2::2])
            sizes = np.broadcast_to(rows[:, None, None] * columns, self._reduced)
            return jnp.asarray(sizes.reshape(self.decisions), jnp.int32)
        return jnp.full(self.decisions, math.prod(self.shape) // self.count, jnp.int32)

    @property
    def _full(self) -> tuple[int, ...]:
        """All weights as height, width, input, group, output of a group (heads, of a depthwise one)."""
        taps = self.shape[:2] if len(self.shape) == 4 else (1, 1)
        return (*taps, self.shape[-2], self.groups, self.shape[-1] // self.groups)

    @property
    def _apart(self) -> tuple[bool, ...]:
        """Which axes of `_full` have decisions of their own."""
        axes = ("h", "w", "io", "g", "m") if self.depthwise else ("h", "w", "i", "g", "o")
        return tuple(any(letter in KINDS[self.kind].apart for letter in axis) for axis in axes)

    @property
    def _reduced(self) -> tuple[int, ...]:
        """The decisions along the axes of `_full`."""
        reduced = [length if own else 1 for length, own in zip(self._full, self._apart, strict=True)]
        if self.kind == "block":
            reduced[2], reduced[4] = -(-reduced[2] // BLOCK), -(-reduced[4] // BLOCK)
        return tuple(reduced)

    @property
    def _level(self) -> Array:
        """The decision of a split that each pair of channels belongs to, int32 `[I, O]`; those inside come first."""
        inputs, outputs = self.shape[-2:]
        level = jnp.full((inputs, outputs), self.levels - 1, jnp.int32)
        for split in SPLITS[1 : self.levels]:
            row, column = jnp.arange(inputs) // (inputs // split), jnp.arange(outputs) // (outputs // split)
            level -= row[:, None] == column[None]
        return level

    def summed(self, x: Array) -> Array:
        """Sum of `x`, of the shape of the weights, over each structure: `D`.

        Example:
            >>> Structure("input_channel", (2, 3)).summed(jnp.ones((2, 3))).tolist()
            [[3.0], [3.0]]
        """
        x = x.reshape(self._full)
        if self.kind == "split":
            pairs, level = x.sum((0, 1)).reshape(self.shape[-2:]), self._level
            return jnp.stack([jnp.where(level == each, pairs, 0).sum() for each in range(self.levels)])
        if self.kind == "block":
            height, width, inputs, groups, outputs = self._reduced
            missing = [(0, 0), (0, 0), (0, inputs * BLOCK - x.shape[2]), (0, 0), (0, outputs * BLOCK - x.shape[4])]
            x = jnp.pad(x, missing).reshape(height, width, inputs, BLOCK, groups, outputs, BLOCK).sum((3, 6))
            return x.reshape(self.decisions)
        shared = tuple(axis for axis, own in enumerate(self._apart) if not own)
        return x.sum(shared).reshape(self.decisions)

    def expand(self, values: Array) -> Array:
        """Values of structures, `D`, as values of weights, of the shape of the weights.

        Example:
            >>> Structure("input_channel", (2, 3)).expand(jnp.asarray([[True], [False]])).tolist()
            [[True, True, True], [False, False, False]]
        """
        if self.kind == "split":
            return jnp.broadcast_to(values[self._level], self.shape)
        values = values.reshape(self._reduced)
        if self.kind == "block":
            values = values.repeat(BLOCK, 2)[:, :, : self._full[2]].repeat(BLOCK, 4)[..., : self._full[4]]
        return jnp.broadcast_to(values, self._full).reshape(self.shape)

    def rows(self, x: Array) -> Array:
        """`x`, of the shape of the weights, one structure a row: `[count, size]`.

        Raises:
            InputError: blocks or a split, which differ in size.

        Example:
            >>> Structure("output_channel", (2, 3)).rows(jnp.arange(6).reshape(2, 3)).tolist()
            [[0, 3], [1, 4], [2, 5]]
        """
        if self.kind in ("block", "split"):
            raise InputError(f"structure {self.kind} has no rows, its sizes differ: give another structure")
        order = sorted(range(5), key=lambda axis: not self._apart[axis])
        return x.reshape(self._full).transpose(order).reshape(self.count, -1)

    def norm(self, x: Array, p: float = 2) -> Array:
        """The norm `(sum |x| ** p) ** (1 / p)` over each structure, `D`; its gradient is 0 where it is 0.

        Source: Liang et al. 2021 (survey of pruning and quantization), equation 5.

        Example:
            >>> Structure("layer", (1, 2)).norm(jnp.asarray([[3.0, 4.0]])).tolist()
            [[5.0]]
        """
        if p == 1 or self.kind in ("weight", "n_m"):
            return self.summed(magnitude(x))
        total = self.summed(magnitude(x) ** p)
        some = total > 0  # a root has no derivative at 0
        return jnp.where(some, jnp.where(some, total, 1.0) ** (1 / p), 0.0)

    def per_channel(self, values: Array) -> Array:
        """Values of channels, `[channels]`, as values of channel structures, `D`: the mean of those that share one.

        Channels are those a layer writes, for `input_channel` those it reads; a group's stand together.

        Raises:
            InputError: another number of channels.

        Example:
            >>> shared = Structure("output_channel", (1, 1, 2, 4), groups=2)
            >>> shared.per_channel(jnp.asarray([1.0, 2.0, 3.0, 6.0])).ravel().tolist()
            [2.0, 4.0]
        """
        channels = self.count * self.groups
        if values.shape != (channels,):
            raise InputError(f"values of shape {values.shape} do not go with {channels} channels: give one for each")
        return values.reshape(-1, self.count).mean(0).reshape(self.decisions)


def magnitude(x: Array) -> Array:
    """`|x|` with derivative 0 at 0, where that of `jnp.abs` is 1: what is zero must be let alone.

    Example:
        >>> import jax
        >>> jax.grad(magnitude)(0.0).item(), jax.grad(jnp.abs)(0.0).item()
        (0.0, 1.0)
    """
    return x * jnp.sign(x)


def check_divisible(channels: int, m: int) -> None:
    """Raise InputError unless `channels` is a multiple of `m`; the nearest multiple is named.

    Example:
        >>> check_divisible(6, 4)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: 6 input channels are no multiple of 4: give one (nearest: 8)
    """
    if channels % m:
        nearest = max(1, math.floor(channels / m + 0.5)) * m
        raise InputError(f"{channels} input channels are no multiple of {m}: give one (nearest: {nearest})")


def structure_of(kind: str, weight: Any, depthwise: bool = False, groups: int = 1) -> Structure:
    """The structures of `kind` in a weight array.

    Raises:
        InputError: as of `Structure`.

    Example:
        >>> structure_of("kernel", jnp.ones((3, 3, 8, 1)), depthwise=True).decisions
        (3, 3, 1, 1)
    """
    return Structure(kind, tuple(weight.shape), depthwise, groups)
