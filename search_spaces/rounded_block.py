"""One block of a supernet in one call: rounded where it has bits, by the part of the shared weights that is in use.

Shape letters: `V` combinations of what decides which part is in use.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array

from search_spaces.block import Block, BlockIO, Selection, variable_shapes
from search_spaces.channels import is_soft
from search_spaces.choice import options
from search_spaces.kernels.rounding import Box
from search_spaces.precision import rounds
from search_spaces.rounding import rounding_of, watched

WEIGHT_NAMES = ("kernel", "filters")


def applied(block: Block, io: BlockIO, variables: Any, x: Array, selection: Selection, mode: str) -> tuple[Array, Any]:
    """The output of `block.net(io)`, rounded where the block has bits, and the statistics that it made.

    Example:
        >>> import jax.numpy as jnp
        >>> from search_spaces.block import FROZEN
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> block, io, x = ConvNorm(act_bits=2), BlockIO(4, 4, 1, 2), jnp.linspace(0, 1, 16).reshape(1, 4, 4, 1)
        >>> shapes = variable_shapes(block, io)
        >>> variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
        >>> applied(block, io, variables, x, FROZEN, "calibrate")[1]["batch_stats"]["conv"]["input_high"].tolist()
        [1.0]
    """
    rounding = None
    if rounds(block):
        rounding = rounding_of(block, io, selection, mode, _Parts(block, io, selection).used)
    with watched(rounding):
        # Statistics are mutable only so that training needs none; the compiler drops what nobody reads.
        y, made = block.net(io).apply(variables, x, selection, mode, mutable=["batch_stats"])
    return y, made


class _Parts:
    """Which part of each shared weight is in use, where widths or masked fields decide it."""

    def __init__(self, block: Block, io: BlockIO, selection: Selection):
        tensor = io.scheme is not None and io.scheme.granularity == "tensor"
        self.table, fields = _sizes(block, io, block.ELASTIC if tensor else ())
        index = selection.width if self.table is not None and not isinstance(io.in_channels, int) else None
        for name, count in fields.items():
            chosen = selection.field(name)
            assert chosen is not None
            if index is None:
                index = chosen
            elif is_soft(chosen):
                index = (index[:, None] * chosen).ravel()
            else:
                index = index * count + chosen
        self.index = index

    def used(self, path: tuple[str, ...], name: str, axes: tuple[int, ...]) -> Box | None:
        """The part along `axes` of the weight `name` at `path`, None for all of it; under shares, what any uses."""
        if self.table is None or self.index is None:
            return None
        edges, shape = self.table["/".join((*path, name))]
        full = np.stack([np.zeros(len(shape), int), np.asarray(shape)])
        edges = np.where(np.isin(np.arange(len(shape)), axes), edges, full)
        return None if (edges == full).all() else Box(edges, shape, self.index)


@lru_cache(maxsize=1024)
def _sizes(block: Block, io: BlockIO, elastic: tuple[str, ...]) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """Of each weight, the box in use in every combination, `[V, 2, rank]`, and its whole shape.

    Combinations are those of the pairs of widths of `io` and of the masked and `elastic` fields that `block` still
    searches, whose numbers of values come second. None where there is one combination only.
    """
    names = (*block.masked(), *(name for name in block.searched() if name in elastic))
    fields = {name: options(getattr(block, name)) for name in names}
    counts = {name: len(values) for name, values in fields.items()}
    if isinstance(io.in_channels, int) or isinstance(io.out_channels, int):
        pairs = [(io.in_channels, io.out_channels)]
    else:
        pairs = list(zip(io.in_channels, io.out_channels, strict=True))
    if len(pairs) == 1 and not fields:
        return None, {}
    whole, found = _weights(block, io), []
    for (inp, out), values in itertools.product(pairs, itertools.product(*fields.values())):
        concrete = block.with_values(**dict(zip(fields, values, strict=True)))
        found.append(_weights(concrete, replace(io, in_channels=inp, out_channels=out)))
    table = {}
    for path, shape in whole.items():
        sizes = np.asarray([row.get(path, (0,) * len(shape)) for row in found])
        starts = np.zeros_like(sizes)
        if len(shape) == 4:  # kernels keep their centre
            starts[:, :2] = (np.asarray(shape[:2]) - sizes[:, :2]) // 2
        table[path] = (np.stack([starts, starts + sizes], axis=1), shape)
    return table, counts


def _weights(block: Block, io: BlockIO) -> dict[str, tuple[int, ...]]:
    # bits change no shape of a weight, and to trace what rounds takes longer than all else
    plain = block.with_values(weight_bits=None, act_bits=None)
    leaves = jax.tree_util.tree_leaves_with_path(variable_shapes(plain, replace(io, scheme=None))["params"])
    named = (("/".join(str(part.key) for part in path), leaf.shape) for path, leaf in leaves)
    return {path: shape for path, shape in named if path.rpartition("/")[2] in WEIGHT_NAMES}
