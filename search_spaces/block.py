"""The `Block` interface: what a file in `search_spaces/blocks/` defines.

A block is a frozen dataclass whose fields may be `Choice`s. It answers three questions about one position of a
network: which plain layers it is (`lower`, for cost models), which Flax module computes it (`net`), and which part of
the shared weights a concrete choice uses (`cut`).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces.choice import Choice, options
from search_spaces.layers import ACTIVATIONS


@dataclass(frozen=True)
class BlockIO:
    """Where a block sits: the shapes around it.

    `in_channels` and `out_channels` are ints in a frozen network and may be `Choice`s in a supernet. `tied` says that
    both are one decision, so that they are always equal. `depthwise` names the implementation of depthwise
    convolution (see `search_spaces.kernels.depthwise`).
    """

    in_h: int
    in_w: int
    in_channels: int | Choice
    out_channels: int | Choice
    stride: int = 1
    group: int = 0
    tied: bool = False
    depthwise: str = "auto"

    @property
    def out_h(self) -> int:
        """Rows after the stride, padding as XLA's SAME."""
        return -(-self.in_h // self.stride)

    @property
    def out_w(self) -> int:
        """Columns after the stride, padding as XLA's SAME."""
        return -(-self.in_w // self.stride)


class Selection(NamedTuple):
    """Traced indices of what is decided inside a branch; all None in a frozen network.

    `fields` maps the names of a block's elastic fields to the index of the chosen value.
    """

    inp: Array | None = None
    out: Array | None = None
    fields: dict[str, Array] | None = None

    def field(self, name: str) -> Array | None:
        """The index chosen for an elastic field, None when it is not searched."""
        return None if self.fields is None else self.fields.get(name)


FROZEN = Selection()


@dataclass(frozen=True)
class Block(ABC):
    """Base of all blocks. Subclasses are final, frozen dataclasses.

    Class attributes:
        kind: the name of the file and of the block.
        BRANCHES: fields whose values become true-size branches of the supernet (kernel, expand).
        ELASTIC: fields decided by traced operands inside a branch (heads, attention).
    """

    kind: ClassVar[str]
    BRANCHES: ClassVar[tuple[str, ...]] = ()
    ELASTIC: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def lower(self, io: BlockIO) -> list[Layer]:
        """The plain layers of this block; every field and width concrete."""

    @abstractmethod
    def net(self, io: BlockIO) -> nn.Module:
        """The Flax module, called as `net(x [N,H,W,C], selection, mode)`; `BRANCHES` fields concrete."""

    def check(self, io: BlockIO) -> None:
        """Raise InputError where this block cannot be built; called for every concrete variant of a space.

        Here: fields that mean the same in every block. Subclasses check their own besides.
        """
        kernel, expand = getattr(self, "kernel", 1), getattr(self, "expand", 1)
        activation = getattr(self, "activation", "identity")
        if not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
            raise InputError(f"kernel={kernel!r} is not allowed: give an odd whole number from 1")
        if not isinstance(expand, int | float) or not expand >= 1:
            raise InputError(f"expand={expand!r} is not allowed: give a number from 1")
        if activation not in ACTIVATIONS:
            raise unknown("activation", str(activation), ACTIVATIONS)

    def cut(self, variables: Any, io: BlockIO) -> Any:
        """The part of the shared `variables` that this block uses: centre of kernels, leading channels.

        `variables` may hold both collections or one. Linear in them, so the transpose writes statistics back.
        """
        shapes = variable_shapes(self, io)
        return cut_to(variables, {name: shapes[name] for name in variables})

    def searched(self) -> dict[str, Choice]:
        """The fields that are `Choice`s, in the order of definition."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Choice)}

    def with_values(self, **values: Any) -> Block:
        """The same block with some fields replaced."""
        return dataclasses.replace(self, **values)

    def largest(self) -> Block:
        """The variant whose weights contain all others: the largest value of every branch field."""
        return self.with_values(**{name: max(options(getattr(self, name))) for name in self.BRANCHES})


def cut_to(source: Any, shapes: Any) -> Any:
    """Slice the leaves of `source` to those of `shapes`, matched by path.

    Leaves of rank 4 are convolution kernels `[kh, kw, ...]`: their centre is taken; all other axes keep the leading
    entries.

    Example:
        >>> cut_to({"w": jnp.ones((7, 7, 4, 1))}, {"w": jax.ShapeDtypeStruct((3, 3, 2, 1), jnp.float32)})["w"].shape
        (3, 3, 2, 1)
    """
    if isinstance(shapes, dict):
        return {name: cut_to(source[name], shape) for name, shape in shapes.items()}
    starts = [(have - want) // 2 if len(shapes.shape) == 4 and axis < 2 else 0
              for axis, (have, want) in enumerate(zip(source.shape, shapes.shape, strict=True))]  # fmt: skip
    window = tuple(slice(start, start + want) for start, want in zip(starts, shapes.shape, strict=True))
    return source[window]


@lru_cache(maxsize=4096)
def variable_shapes(block: Block, io: BlockIO) -> Any:
    """Shapes of `{"params": ..., "batch_stats": ...}` of `block.net(io)`, without computing anything."""
    zero = jnp.int32(0)
    selection = Selection(zero, zero, {name: zero for name in block.ELASTIC})
    # Shapes do not depend on the kernel's implementation; XLA's own is the quickest to trace.
    net = block.net(dataclasses.replace(io, depthwise="xla"))

    def variables(x: Array) -> Any:
        made = net.init({"params": jax.random.key(0)}, x, selection, "train")
        return {"params": made.get("params", {}), "batch_stats": made.get("batch_stats", {})}

    return jax.eval_shape(
        variables, jax.ShapeDtypeStruct((1, io.in_h, io.in_w, max(options(io.in_channels))), jnp.float32)
    )


def require_concrete(block: Block, io: BlockIO) -> None:
    """Raise InputError when something is still searched: costs and frozen networks need concrete values."""
    open_fields = list(block.searched())
    open_fields += [name for name in ("in_channels", "out_channels") if isinstance(getattr(io, name), Choice)]
    if open_fields:
        raise InputError(f"block {block.kind} still searches {', '.join(open_fields)}: freeze the space first")
