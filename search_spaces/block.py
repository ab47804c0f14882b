"""The `Block` interface: what a file in `search_spaces/blocks/` defines.

A block is a frozen dataclass whose fields may be `Choice`s. It answers three questions about one position of a
network: which plain layers it is (`lower`, for cost models), which Flax module computes it (`net`), and which part of
the shared weights a concrete choice uses (`cut`).
"""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces import precision
from search_spaces.choice import Choice, options
from search_spaces.density import check_density, in_pattern, sparse
from search_spaces.kernels import frame
from search_spaces.layers import ACTIVATIONS
from search_spaces.options import check as check_type
from search_spaces.rounding import rounding_of, watched
from search_spaces.surroundings import FROZEN as FROZEN
from search_spaces.surroundings import BlockIO as BlockIO
from search_spaces.surroundings import Selection as Selection

EVERYWHERE = (*precision.FIELDS, "density")
"""Fields of every block: operands inside its branches, as those in `ELASTIC`."""


def everywhere_field(decision: str) -> str | None:
    """The field of all blocks, bits or density, that a decision is about by its name; None for other decisions.

    Example:
        >>> everywhere_field("stages/0/1/act_bits"), everywhere_field("stages/0/1/kernel")
        ('act_bits', None)
    """
    field = decision.rpartition("/")[2]
    return field if field in EVERYWHERE else None


@dataclass(frozen=True)
class Block(ABC):
    """Base of all blocks. Subclasses are final, frozen dataclasses.

    Class attributes:
        kind: the name of the file and of the block.
        BRANCHES: fields whose values become true-size branches of the supernet (kernel, expand).
        ELASTIC: fields decided by traced operands inside a branch (heads, attention).
        MASKED: those of `BRANCHES` that `net` also takes as a `Choice` and then decides by the selection, at the
            largest size and with masks: `Selection.sizes` and `Selection.largest`. For execution under `vmap`
            (`search_spaces/masked.py`) and for relaxed execution, where the selection has a probability for each value;
            the others run once for every value there. See `masked`.
        TRACED: those of `MASKED` that are no branches where the compiled depthwise kernel runs, but decided inside one:
            kernels of depthwise convolutions, since it computes the window in use and nothing else.
        HEAD: whether the block ends a network: its result are the logits.
        KEEPS_WIDTH: whether the output must have as many channels as the input.
        LEAST_EXPAND: smallest ratio `expand` of hidden channels, where a block has such a field.
        CONTRACT: values of fields under which the block takes any stride and widths, for the checks of
            `search_spaces/testing.py`; empty where the defaults do.
    """

    kind: ClassVar[str]
    BRANCHES: ClassVar[tuple[str, ...]] = ()
    ELASTIC: ClassVar[tuple[str, ...]] = ()
    MASKED: ClassVar[tuple[str, ...]] = ()
    TRACED: ClassVar[tuple[str, ...]] = ()
    LEAST_EXPAND: ClassVar[float] = 1
    HEAD: ClassVar[bool] = False
    KEEPS_WIDTH: ClassVar[bool] = False
    CONTRACT: ClassVar[dict[str, Any]] = {}

    weight_bits: int | Choice | None = dataclasses.field(default=None, kw_only=True)
    act_bits: int | Choice | None = dataclasses.field(default=None, kw_only=True)
    density: float | Choice | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            annotation = " | ".join(part.strip() for part in str(field.type).split("|") if part.strip() != "Choice")
            for value in options(getattr(self, field.name)):
                if isinstance(value, list):
                    raise InputError(f"{self.kind}.{field.name}={value!r} is not allowed: give a tuple, or one value")
                check_type(f"{self.kind}.{field.name}", value, annotation)
                if field.name in precision.FIELDS:
                    precision.check_bits(f"{self.kind}.{field.name}", value)
                elif field.name == "density":
                    check_density(f"{self.kind}.density", value)

    @abstractmethod
    def lower(self, io: BlockIO) -> list[Layer]:
        """The plain layers of this block, in float32; every field and width concrete."""

    @abstractmethod
    def net(self, io: BlockIO) -> nn.Module:
        """The Flax module, called as `net(x [N,H,W,C], selection, mode)`; `BRANCHES` fields concrete.

        But for those that `masked` names, which may be a `Choice`.
        """

    def layers(self, io: BlockIO) -> list[Layer]:
        """The plain layers of this block in its bits and its density."""
        bits = [self.settled(name) for name in precision.FIELDS]
        layers = precision.in_format(self.lower(io), *bits)
        return in_pattern(layers, self.settled("density"), io.sparsity, self.HEAD)

    def thinning(self, io: BlockIO) -> Any:
        """The share of hidden channels that this block is built with, which may be a `Choice`; None for all of them."""
        return self.density if io.sparsity is not None and io.sparsity.channels else None

    def pruning(self, io: BlockIO) -> Any:
        """The share of weights that masks leave in this block, which may be a `Choice`; None for all of them."""
        masked = io.sparsity is not None and not io.sparsity.channels and sparse(self.density)
        return self.density if masked else None

    def output_size(self, io: BlockIO) -> tuple[int, int]:
        """Rows and columns of the result."""
        return io.out_h, io.out_w

    def check(self, io: BlockIO) -> None:
        """Raise InputError where this block cannot be built; called for every concrete variant of a space.

        Here: fields that mean the same in every block. Subclasses check their own besides.
        """
        expand, activation = getattr(self, "expand", 1), getattr(self, "activation", "identity")
        if hasattr(self, "kernel"):
            check_kernel(self.kernel, io)
        if not isinstance(expand, int | float) or isinstance(expand, bool) or not self.LEAST_EXPAND <= expand <= 64:
            raise InputError(f"expand={expand!r} is not allowed: give a number from {self.LEAST_EXPAND} to 64")
        if activation not in ACTIVATIONS:
            raise unknown("activation", str(activation), ACTIVATIONS)
        if self.density is not None and io.sparsity is None:
            raise InputError(
                f"density={self.density} says nothing without a pattern: give the space a Sparsity as well"
            )

    def check_elastic(self, io: BlockIO) -> None:  # noqa: B027
        """Raise InputError where this block cannot serve the pairs of widths of `io` at once."""

    def cut(self, variables: Any, io: BlockIO) -> Any:
        """The part of the shared `variables` that this block uses: centre of kernels, leading channels.

        `variables` may hold both collections or one. Linear in them, so the pullback writes statistics back.
        """
        shapes = variable_shapes(self, io)
        return cut_to(variables, {name: shapes[name] for name in variables}, frame.at_once(io.depthwise))

    def searched(self) -> dict[str, Choice]:
        """The fields that are `Choice`s, in the order of definition."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Choice)}

    def settled(self, name: str, chosen: Any = None) -> Any:
        """`chosen`, a value of the field `name`; without one the field itself, which must then be decided."""
        value = getattr(self, name) if chosen is None else chosen
        assert not isinstance(value, Choice)
        return value

    def with_values(self, **values: Any) -> Block:
        """The same block with some fields replaced."""
        return dataclasses.replace(self, **values)

    def branches(self, without: tuple[str, ...] = ()) -> tuple[Block, ...]:
        """The block once for every combination of its branch fields but those in `without`, first field slowest."""
        return _branches(self, without)

    def traced(self) -> tuple[str, ...]:
        """The searched fields in `TRACED`."""
        return tuple(name for name in self.masked() if name in self.TRACED)

    def masked(self) -> tuple[str, ...]:
        """The searched fields in `MASKED`. A block overrides this where some of its settings allow fewer."""
        return tuple(name for name in self.MASKED if isinstance(getattr(self, name), Choice))

    def forms(self) -> tuple[Block, ...]:
        """The block once for every combination of those branch fields that are not masked, first field slowest."""
        return self.branches(without=self.masked())


@lru_cache(maxsize=4096)
def _branches(block: Block, without: tuple[str, ...]) -> tuple[Block, ...]:
    # Asked for some ten times for each position of a space; every block checks its fields when it is made.
    searched = (name for name in block.BRANCHES if isinstance(getattr(block, name), Choice))
    fields = [name for name in searched if name not in without]
    combinations = itertools.product(*(options(getattr(block, name)) for name in fields))
    return tuple(block.with_values(**dict(zip(fields, values, strict=True))) for values in combinations)


def check_kernel(kernel: Any, io: BlockIO, name: str = "kernel") -> None:
    """Raise InputError unless `kernel` is odd and at most `2 * n - 1` on maps of `n` pixels.

    Beyond that its outermost taps see nothing but padding. (At stride 2 on an even map those on one side of the largest
    kernel do so already, since the padding there is uneven.)

    Example:
        >>> check_kernel(7, BlockIO(2, 2, 8, 8))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: kernel=7 is larger than the padded map (2x2 inside, so that ...): give at most 3
    """
    if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
        raise InputError(f"{name}={kernel!r} is not allowed: give an odd whole number from 1")
    largest = 2 * min(io.in_h, io.in_w) - 1
    if kernel > largest:
        raise InputError(
            f"{name}={kernel} is larger than the padded map ({io.in_h}x{io.in_w} inside, so that its outer taps would "
            f"see nothing but padding): give at most {largest}"
        )


def check_padding(padding: str, kernel: int, io: BlockIO) -> None:
    """Raise InputError unless `padding` is known and a window of `kernel` fits the map.

    Example:
        >>> check_padding("valid", 9, BlockIO(8, 8, 8, 8))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: kernel=9 is larger than the map (8x8, padding valid): give at most 8
    """
    if padding not in ("same", "valid"):
        raise unknown("padding", str(padding), ("same", "valid"))
    if padding == "valid" and kernel > min(io.in_h, io.in_w):
        raise InputError(
            f"kernel={kernel} is larger than the map ({io.in_h}x{io.in_w}, padding valid): give at most "
            f"{min(io.in_h, io.in_w)}"
        )


def cut_to(source: Any, shapes: Any, at_once: bool = False) -> Any:
    """Slice the leaves of `source` to those of `shapes`, matched by path; `at_once` by one compiled call for all.

    Leaves of rank 4 are convolution kernels `[kh, kw, ...]`: their centre is taken; all other axes keep the leading
    entries.

    Example:
        >>> cut_to({"w": jnp.ones((7, 7, 4, 1))}, {"w": jax.ShapeDtypeStruct((3, 3, 2, 1), jnp.float32)})["w"].shape
        (3, 3, 2, 1)
    """
    arrays: list[Array] = []

    def collect(source: Any, shapes: Any) -> None:
        if not isinstance(shapes, dict):
            arrays.append(source)
            return
        for name in sorted(shapes):  # the order of `jax.tree.flatten`
            collect(source[name], shapes[name])

    collect(source, shapes)
    leaves, treedef = jax.tree.flatten(shapes)
    wanted = [leaf.shape for leaf in leaves]
    starts = [_starts(array.shape, shape) for array, shape in zip(arrays, wanted, strict=True)]
    if at_once:
        return jax.tree.unflatten(
            treedef, frame.framed(arrays, wanted, [tuple(-start for start in each) for each in starts])
        )
    windows = [
        tuple(slice(start, start + size) for start, size in zip(each, shape, strict=True))
        for each, shape in zip(starts, wanted, strict=True)
    ]
    return jax.tree.unflatten(treedef, [array[window] for array, window in zip(arrays, windows, strict=True)])


def _starts(have: tuple[int, ...], want: tuple[int, ...]) -> tuple[int, ...]:
    pairs = list(zip(have, want, strict=True))
    return tuple((a - b) // 2 if len(pairs) == 4 and axis < 2 else 0 for axis, (a, b) in enumerate(pairs))


def variable_shapes(block: Block, io: BlockIO) -> Any:
    """Shapes of `{"params": ..., "batch_stats": ...}` of `block.net(io)`, without computing anything."""
    # Shapes depend neither on where the block is nor on the kernel's implementation; XLA's own is quickest to trace.
    return _variable_shapes(block, dataclasses.replace(io, depthwise="xla", group=0))


@lru_cache(maxsize=8192)
def _variable_shapes(block: Block, io: BlockIO) -> Any:
    zero = jnp.int32(0)
    selection = FROZEN if isinstance(io.in_channels, int) else Selection(zero)
    names = (*block.ELASTIC, *block.MASKED, *EVERYWHERE)
    selection = selection._replace(fields={name: zero for name in names})
    net = block.net(io)

    def variables(x: Array) -> Any:
        with watched(rounding_of(block, io, selection, "train")):
            made = net.init({}, x, selection, "train")
        return {"params": made.get("params", {}), "batch_stats": made.get("batch_stats", {})}

    widest = io.in_channels if isinstance(io.in_channels, int) else max(io.in_channels)
    with jax.enable_x64(False):  # the same shapes and types for programs in float64
        return jax.eval_shape(variables, jax.ShapeDtypeStruct((1, io.in_h, io.in_w, widest), jnp.float32))


def shared_shapes(block: Block, io: BlockIO) -> Any:
    """Shapes of the variables that contain those of every branch of `block`: the largest of each."""
    merged: Any = {"params": {}, "batch_stats": {}}
    # the largest kernel has the largest filters: to trace the network for the others is a third of a search's start
    for branch in block.branches(without=block.traced()):
        merged = _larger(merged, variable_shapes(branch, io))
    return merged


def _larger(a: Any, b: Any) -> Any:
    if isinstance(a, dict):
        return {name: _larger(a[name], b[name]) if name in a and name in b else a.get(name, b.get(name))
                for name in (*a, *(name for name in b if name not in a))}  # fmt: skip
    return jax.ShapeDtypeStruct(tuple(map(max, a.shape, b.shape)), a.dtype)


def require_concrete(block: Block, io: BlockIO) -> None:
    """Raise InputError when something is still searched: costs and frozen networks need concrete values."""
    open_fields = list(block.searched())
    open_fields += [name for name in ("in_channels", "out_channels") if not isinstance(getattr(io, name), int)]
    if open_fields:
        raise InputError(f"block {block.kind} still searches {', '.join(open_fields)}: freeze the space first")
