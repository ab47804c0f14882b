"""Masks of weights at a traced density: the structures of largest magnitude are kept, of equal ones the first.

Gradients pass to weights that are left out as well, so that they may return. Shapes: weights are `[h, w, I, O]` or
`[I, O]`, `I` input channels of a group; `where` is bool, broadcastable to them, and says which part counts (all, when
None): the others come back as they are. `K` densities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from search_spaces.channels import is_soft
from search_spaces.density import BLOCK, Sparsity
from search_spaces.quantizers._quantizer import straight_through


class Mask(NamedTuple):
    """What a layer keeps: `limits [K]` structures at each density, and which density is in use.

    `index` is traced, an int32 or a share for each density (relaxed execution); None where there is one density.
    """

    sparsity: Sparsity
    limits: Array
    index: Array | None = None

    def applied(self, weight: Array, where: Array | None, function: Callable[[Array, Array], Array]) -> Array:
        """`function(weight, kept)` with zeros for what is not `kept` (bool, of the shape of `weight`), or the mixture.

        Example:
            >>> half = Mask(Sparsity("unstructured"), jnp.asarray([2]))
            >>> half.applied(jnp.asarray([[1.0, -4.0], [3.0, 2.0]]), None, lambda weight, kept: weight).tolist()
            [[0.0, -4.0], [3.0, 0.0]]
        """

        def at(limit: Array) -> Array:
            counts = keeps(self.sparsity, weight, limit, where)
            left_out = ~counts if where is None else where & ~counts
            return function(straight_through(weight, jnp.where(left_out, 0, weight)), counts)

        if self.index is None:
            return at(self.limits[0])
        if is_soft(self.index):
            return sum(self.index[place] * at(limit) for place, limit in enumerate(self.limits))  # type: ignore[return-value]
        return at(self.limits[self.index])


def keeps(sparsity: Sparsity, weight: Array, limit: Array, where: Array | None = None) -> Array:
    """Which weights are among the `limit` (traced) largest structures of the part that counts, bool.

    Of `n:m` among the `limit` largest of every `m` input channels.

    Example:
        >>> keeps(Sparsity("1:2"), jnp.asarray([[1.0], [-4.0], [3.0], [2.0]]), jnp.int32(1)).ravel().tolist()
        [False, True, True, False]
    """
    counts = jnp.ones(weight.shape, bool) if where is None else jnp.broadcast_to(where, weight.shape)
    sizes = jnp.where(counts, jnp.abs(lax.stop_gradient(weight).astype(jnp.float32)), 0)
    if sparsity.n_m is not None:
        return counts & _in_groups(sizes, limit, sparsity.n_m[1])
    total, there = sizes, counts
    if sparsity.pattern == "column":
        total, there = sizes.sum(-1, keepdims=True), counts.any(-1, keepdims=True)
    elif sparsity.pattern == "kernel":
        total, there = sizes.sum((0, 1), keepdims=True), counts.any((0, 1), keepdims=True)
    elif sparsity.pattern == "block":
        total, there = _blocks(sizes).sum((-3, -1)), _blocks(counts).any((-3, -1))
    chosen = largest(jnp.where(there, total, -1), limit)
    if sparsity.pattern == "block":
        chosen = chosen.repeat(BLOCK, -2).repeat(BLOCK, -1)[..., : weight.shape[-2], : weight.shape[-1]]
    return counts & chosen


def largest(scores: Array, count: Array) -> Array:
    """The `count` (traced, at least 1) largest of `scores`, of equal ones the first; negative ones never. bool

    The bits of floating-point numbers from 0 on are in their order, so that the least score that is kept is found bit
    by bit: 31 sums, where XLA sorts 2.4 million numbers in a second.

    Example:
        >>> largest(jnp.asarray([2.0, 0.0, 2.0, 2.0, -1.0]), jnp.int32(2)).tolist()
        [True, False, True, False, False]
    """
    codes = lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32).ravel()
    count = jnp.ceil(count).astype(jnp.int32)

    def longer(place: Array, least: Array) -> Array:
        candidate = least | (1 << (30 - place))
        return jnp.where((codes >= candidate).sum() >= count, candidate, least)

    least = lax.fori_loop(0, 31, longer, jnp.int32(0))
    above, equal = codes > least, codes == least
    left = count - above.sum()
    return (above | (equal & (jnp.cumsum(equal) <= left))).reshape(scores.shape)


def _in_groups(sizes: Array, limit: Array, m: int) -> Array:
    """The `limit` largest of every `m` neighbours along the inputs, by how many are larger: `m` is small."""
    inputs = sizes.shape[-2]
    whole = jnp.pad(sizes, [*[(0, 0)] * (sizes.ndim - 2), (0, -inputs % m), (0, 0)], constant_values=-1)
    groups = whole.reshape(*whole.shape[:-2], -1, m, whole.shape[-1])
    place, ahead = jnp.arange(m)[:, None], jnp.zeros(groups.shape, jnp.int32)
    for other in range(m):
        rival = groups[..., other : other + 1, :]
        ahead += (rival > groups) | ((rival == groups) & (other < place))
    return (ahead < limit).reshape(whole.shape)[..., :inputs, :]


def _blocks(x: Array) -> Array:
    """`[..., I, O]` as `[..., I / 4, 4, O / 4, 4]`, filled up with zeros."""
    inputs, outputs = x.shape[-2:]
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (0, -inputs % BLOCK), (0, -outputs % BLOCK)])
    return x.reshape(*x.shape[:-2], x.shape[-2] // BLOCK, BLOCK, x.shape[-1] // BLOCK, BLOCK)
