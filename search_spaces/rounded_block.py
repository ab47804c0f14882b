"""One block of a network in one call: pruned and rounded where it has a density or bits, by what is in use of the
shared weights.

Shape letters: `V` combinations of what decides which part is in use, `K` densities.
"""

from __future__ import annotations

import itertools
import math
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from search_spaces.block import FROZEN, Block, BlockIO, Selection, variable_shapes
from search_spaces.channels import is_soft
from search_spaces.choice import Choice, options
from search_spaces.density import kept
from search_spaces.kernels.rounding import Box
from search_spaces.masking import Mask
from search_spaces.precision import rounds
from search_spaces.rounding import mixes, rounding_of, watched

WEIGHT_NAMES = ("kernel", "filters")


def applied(block: Block, io: BlockIO, variables: Any, x: Array, selection: Selection, mode: str) -> tuple[Array, Any]:
    """The output of `block.net(io)`, pruned and rounded where the block is, and the statistics that it made.

    Example:
        >>> from search_spaces.block import FROZEN
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> block, io, x = ConvNorm(act_bits=2), BlockIO(4, 4, 1, 2), jnp.linspace(0, 1, 16).reshape(1, 4, 4, 1)
        >>> shapes = variable_shapes(block, io)
        >>> variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
        >>> applied(block, io, variables, x, FROZEN, "calibrate")[1]["batch_stats"]["conv"]["input_high"].tolist()
        [1.0]
    """
    with compressed(block, io, selection, mode):
        # Statistics are mutable only so that training needs none; the compiler drops what nobody reads.
        y, made = block.net(io).apply(variables, x, selection, mode, mutable=["batch_stats"])
    return y, dict(made)


def compressed(
    block: Block, io: BlockIO, selection: Selection, mode: str, within: tuple[str, ...] = ()
) -> AbstractContextManager[Any]:
    """Within it the layers of `block`, whose module has the path `within`, are called pruned and rounded."""
    prunes = block.pruning(io) is not None
    if not prunes and not rounds(block):
        return watched(None)
    parts = Parts(block, io, selection, len(within))
    return watched(rounding_of(block, io, selection, mode, parts.used, parts.mask if prunes else None))


class Parts:
    """Which part of each shared weight is in use, where widths or masked fields decide it, and what of it is kept.

    Paths of layers begin with `outside` names that are not the block's.
    """

    def __init__(self, block: Block, io: BlockIO, selection: Selection, outside: int = 0):
        self.block, self.io, self.outside = block, io, outside
        self.table, fields = _sizes(block, io)
        searched = self.table is not None and not isinstance(io.in_channels, int)
        self.index = selection.joined(selection.width if searched else None, fields)
        self.density = selection.field("density") if len(options(block.density)) > 1 else None
        if block.pruning(io) is not None:
            kept_structures(block, io)  # before calls are watched: to find shapes it initialises the block itself

    def used(self, path: tuple[str, ...], name: str, axes: tuple[int, ...]) -> Box | None:
        """The part along `axes` of the weight `name` at `path`, None for all of it; under shares, what any uses."""
        if self.table is None or self.index is None:
            return None
        edges, shape = self.table["/".join((*path[self.outside :], name))]
        full = np.stack([np.zeros(len(shape), int), np.asarray(shape)])
        edges = np.where(np.isin(np.arange(len(shape)), axes), edges, full)
        return None if (edges == full).all() else Box(edges, shape, self.index)

    def mask(self, path: tuple[str, ...], name: str) -> Mask | None:
        """What is kept of the weight `name` at `path`; None where it stays dense."""
        limits = kept_structures(self.block, self.io).get("/".join((*path[self.outside :], name)))
        if limits is None:
            return None
        assert self.io.sparsity is not None
        rows = jnp.asarray(limits)
        if self.index is None:
            row = rows[0]
        elif is_soft(self.index):
            row = (self.index[:, None] * rows).sum(0)  # a matrix product would round on some accelerators
        else:
            row = rows[self.index]
        return Mask(self.io.sparsity, row, self.density)


@lru_cache(maxsize=1024)
def kept_structures(block: Block, io: BlockIO) -> dict[str, np.ndarray]:
    """How many structures each weight `kernel` keeps, int32 `[V, K]`; those that stay dense in every case are missing.

    Weights of layers that do not mix channels are among them: shapes alone do not say which they are.

    Example:
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> from search_spaces.density import Sparsity
        >>> io = BlockIO(4, 4, 8, 2, sparsity=Sparsity("2:4"))
        >>> kept_structures(ConvNorm(density=Choice(0.5, 1)), io)["conv/kernel"].tolist()
        [[2, 4]]
    """
    sparsity, densities = io.sparsity, options(block.pruning(io))
    assert sparsity is not None
    combinations = [_weights(*each) for each in _combinations(block, io)]
    found = {}
    for path in dict.fromkeys(path for row in combinations for path in row):
        rows, prunes = np.zeros((len(combinations), len(densities)), np.int32), False
        for number, row in enumerate(combinations):
            if path not in row or not path.endswith("kernel"):
                continue
            *taps, inputs, outputs = row[path]
            units = sparsity.units(math.prod(taps), inputs, outputs)
            # of a layer that stays dense no more can be kept than there is
            rows[number] = [kept(units, density) for density in densities] if units else math.prod(row[path])
            prunes |= bool((rows[number] < units).any())
        if prunes:
            found[path] = rows
    return found


def pruned(block: Block, io: BlockIO, params: Any) -> Any:
    """`params` of one block with everything decided, with zeros for the weights that it leaves out.

    Example:
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> from search_spaces.density import Sparsity
        >>> block, io = ConvNorm(kernel=1, density=0.5), BlockIO(4, 4, 2, 1, sparsity=Sparsity("1:2"))
        >>> params = {"conv": {"kernel": jnp.asarray([[[[3.0], [4.0]]]])}}
        >>> pruned(block, io, params)["conv"]["kernel"].ravel().tolist()
        [0.0, 4.0]
    """
    if block.pruning(io) is None:
        return params
    parts, mixing = Parts(block, io, FROZEN), _mixing(block, io)

    def leaf(path: Any, weight: Any) -> Any:
        *within, name = (str(part.key) for part in path)
        mask = parts.mask(tuple(within), name) if (*within, name) in mixing else None
        return weight if mask is None else mask.applied(jnp.asarray(weight), None, lambda weight, kept: weight)

    return jax.tree_util.tree_map_with_path(leaf, params)


def _mixing(block: Block, io: BlockIO) -> set[tuple[str, ...]]:
    """Paths of the weights of layers that mix channels."""
    found = set()

    def noted(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__" and mixes(context.module, block.HEAD):
            found.add((*context.module.path, "kernel"))
        return call(*args, **kwargs)

    x = jax.ShapeDtypeStruct((1, io.in_h, io.in_w, io.in_channels), jnp.float32)
    with nn.intercept_methods(noted):  # the plain form: compiled kernels take the place of some layers
        jax.eval_shape(lambda x: block.net(replace(io, depthwise="xla")).init({}, x, FROZEN, "train"), x)
    return found


def _combinations(block: Block, io: BlockIO) -> list[tuple[Block, BlockIO]]:
    """The block with every combination of the pairs of widths of `io` and of what else decides the sizes of weights."""
    if isinstance(io.in_channels, int) or isinstance(io.out_channels, int):
        pairs = [(io.in_channels, io.out_channels)]
    else:
        pairs = list(zip(io.in_channels, io.out_channels, strict=True))
    fields = _fields(block, io)
    return [
        (
            block.with_values(**dict(zip(fields, values, strict=True))),
            replace(io, in_channels=inp, out_channels=out),
        )
        for (inp, out), values in itertools.product(pairs, itertools.product(*fields.values()))
    ]


def _fields(block: Block, io: BlockIO) -> dict[str, tuple[Any, ...]]:
    """The masked fields that `block` still searches, and its density where that is a width.

    Where all weights of a tensor share a scale, those that are elastic (heads) as well.
    """
    tensor = io.scheme is not None and io.scheme.granularity == "tensor"
    elastic = tuple(name for name in block.searched() if tensor and name in block.ELASTIC)
    names = (*block.masked(), *elastic, *(("density",) if isinstance(block.thinning(io), Choice) else ()))
    return {name: options(getattr(block, name)) for name in names}


@lru_cache(maxsize=1024)
def _sizes(block: Block, io: BlockIO) -> tuple[dict[str, Any] | None, dict[str, int]]:
    """Of each weight, the box in use in every combination, `[V, 2, rank]`, and its whole shape.

    The numbers of values of the fields among what is combined come second. None where there is one combination only.
    """
    counts = {name: len(values) for name, values in _fields(block, io).items()}
    combinations = _combinations(block, io)
    if len(combinations) == 1 and not counts:
        return None, {}
    whole, found = _weights(block, io), [_weights(*each) for each in combinations]
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
