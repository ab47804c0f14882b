"""Masks of weights at a traced density: the structures of largest magnitude are kept, of equal ones the first.

Gradients pass to weights that are left out as well, so that they may return. Shapes: weights are `[h, w, I, O]` or
`[I, O]`, `I` input channels of a group; `where` is bool, broadcastable to them, and says which part counts (all, when
None): the others come back as they are. `K` densities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from search_spaces.channels import is_soft
from search_spaces.density import BLOCK, Sparsity
from search_spaces.quantizers._quantizer import straight_through

CODE_BITS = 31  # of a float32 without its sign


class Mask(NamedTuple):
    """What a layer keeps: `limits [K]` structures at each density, and which density is in use.

    `in_use` is traced, an int32 or a share for each density (relaxed execution); None where there is one density.
    """

    sparsity: Sparsity
    limits: Array
    in_use: Array | None = None

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

        if self.in_use is None:
            return at(self.limits[0])
        if is_soft(self.in_use):
            return sum(self.in_use[place] * at(limit) for place, limit in enumerate(self.limits))  # type: ignore[return-value]
        return at(self.limits[self.in_use])


def keeps(sparsity: Sparsity, weight: Array, limit: Array, where: Array | None = None) -> Array:
    """Which weights are among the `limit` (traced) largest structures of the part that counts, bool.

    Of `n:m` among the `limit` largest of every `m` input channels.

    Example:
        >>> keeps(Sparsity("1:2"), jnp.asarray([[1.0], [-4.0], [3.0], [2.0]]), jnp.int32(1)).ravel().tolist()
        [False, True, True, False]
    """
    sizes = jnp.abs(lax.stop_gradient(weight).astype(jnp.float32))
    sizes = sizes if where is None else jnp.where(where, sizes, 0)
    if sparsity.n_m is not None:
        chosen = largest_in_groups(sizes, limit, sparsity.n_m[1])
    else:
        scores = _summed(sparsity.pattern, sizes)
        if where is not None:  # a structure that nothing of is in use must not take the place of one that is
            there = _summed(sparsity.pattern, jnp.broadcast_to(where, weight.shape).astype(jnp.float32))
            scores = jnp.where(there > 0, scores, -1)
        chosen = largest(scores, limit)
    if sparsity.pattern == "block":
        chosen = chosen.repeat(BLOCK, -2).repeat(BLOCK, -1)[..., : weight.shape[-2], : weight.shape[-1]]
    chosen = jnp.broadcast_to(chosen, weight.shape)
    return chosen if where is None else chosen & where


def _summed(pattern: str, x: Array) -> Array:
    """Sums of `x` over the structures of a pattern, with length 1 along axes that share one; blocks of `[I, O]`."""
    if pattern == "column":
        return x.sum(-1, keepdims=True)
    if pattern == "kernel":
        return x.sum((0, 1), keepdims=True)
    return _blocks(x).sum((-3, -1)) if pattern == "block" else x


def largest(scores: Array, count: Array) -> Array:
    """The `count` (traced, at least 1) largest of `scores`, of equal ones the first; negative ones never. bool

    The bits of floating-point numbers from 0 on are in their order, so that the least score that is kept is found bit
    by bit: some 50 sums, where XLA sorts 2.4 million numbers in a second.

    Example:
        >>> largest(jnp.asarray([2.0, 0.0, 2.0, 2.0, -1.0]), jnp.int32(2)).tolist()
        [True, False, True, False, False]
    """
    codes = lax.bitcast_convert_type(scores.astype(jnp.float32), jnp.int32).ravel()
    count = jnp.ceil(count).astype(jnp.int32)

    order, bits = codes.size - 1 - jnp.arange(codes.size), codes.size.bit_length()

    def reach(code: Array, place: Array) -> Array:
        return (codes > code) | ((codes == code) & (order >= place))

    def longer(step: Array, last: tuple[Array, Array]) -> tuple[Array, Array]:
        code = last[0] | jnp.where(step < CODE_BITS, 1 << jnp.maximum(CODE_BITS - 1 - step, 0), 0)
        place = last[1] | jnp.where(step < CODE_BITS, 0, 1 << jnp.maximum(CODE_BITS + bits - 1 - step, 0))
        enough = reach(code, place).sum() >= count
        return jnp.where(enough, code, last[0]), jnp.where(enough, place, last[1])

    # the last that is kept: the bits of its score, then those of its place
    last = lax.fori_loop(0, CODE_BITS + bits, longer, (jnp.int32(0), jnp.int32(0)))
    return reach(*last).reshape(scores.shape)


def largest_in_groups(sizes: Array, limit: Any, m: int) -> Array:
    """The `limit` largest of every `m` neighbours along the inputs of `[..., I, O]`, of equal ones the first, bool.

    By how many are larger, since `m` is small: a fraction of the time of sorting.

    Example:
        >>> largest_in_groups(jnp.asarray([[1.0], [-4.0], [3.0], [2.0]]), 1, 2).ravel().tolist()
        [True, False, True, False]
    """
    inputs = sizes.shape[-2]
    whole = jnp.pad(sizes, [*[(0, 0)] * (sizes.ndim - 2), (0, -inputs % m), (0, 0)], constant_values=-1)
    groups = whole.reshape(*whole.shape[:-2], -1, m, whole.shape[-1])
    rivals, own = groups[..., None, :, :], groups[..., :, None, :]
    earlier = jnp.asarray(np.tri(m, k=-1, dtype=bool))[..., None]
    ahead = ((rivals > own) | ((rivals == own) & earlier)).sum(-2)
    return (ahead < limit).reshape(whole.shape)[..., :inputs, :]


def _blocks(x: Array) -> Array:
    """`[..., I, O]` as `[..., I / 4, 4, O / 4, 4]`, filled up with zeros."""
    inputs, outputs = x.shape[-2:]
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (0, -inputs % BLOCK), (0, -outputs % BLOCK)])
    return x.reshape(*x.shape[:-2], x.shape[-2] // BLOCK, BLOCK, x.shape[-1] // BLOCK, BLOCK)
