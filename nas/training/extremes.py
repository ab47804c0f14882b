"""The largest and the smallest network of a space, and the values of each decision from small to large.

The order of a decision's values says nothing, so sizes are counted: multiply-accumulates first, parameters where those
are equal. What makes networks larger does so whatever else is chosen (a wider stage, one more block), apart from fields
that belong to a kind of block; so each decision is set to its best value while it is live, until none improves.

Shape letters: `D` decisions, `C` options of the widest decision.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nas.variants import Variants
from search_spaces.space import SearchSpace

SWEEPS = 8  # two or three suffice; a bound, since nothing proves it


class Extremes(NamedTuple):
    """Sizes of a space.

    Attributes:
        largest, smallest: canonical genes, int32 `[D]`.
        order: int32 `[D, C]`, option indices of each decision from the largest to the smallest, then -1.
    """

    largest: np.ndarray
    smallest: np.ndarray
    order: np.ndarray


def extremes(space: SearchSpace) -> Extremes:
    """The largest and the smallest network of `space`, by multiply-accumulates and then parameters.

    Numbers are ordered as numbers; other values (attention, kinds of block) by the size of the largest network with
    each of them in turn.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> found = extremes(tiny.space())
        >>> [tiny.space().decode(genes)["stages/0/0/kernel"] for genes in (found.largest, found.smallest)]
        [5, 3]
    """
    if space.resolutions:
        sizes = np.asarray([each.image_hw for each in space.resolutions])
        first, last = (extremes(space.resolutions[i]) for i in (int(sizes.argmax()), int(sizes.argmin())))
        row = _row(np.argsort(-sizes), space)
        inner = np.full((space.num_decisions - 1, row.size), -1, np.int32)
        inner[:, : first.order.shape[1]] = first.order
        return Extremes(
            np.append(first.largest, sizes.argmax()).astype(np.int32),
            np.append(last.smallest, sizes.argmin()).astype(np.int32),
            np.concatenate([inner, row[None]]),
        )
    counts = _Counts(space)
    largest, smallest = counts.climb(1), counts.climb(-1)
    order = [_row(counts.ranked(largest, d), space) for d in range(space.num_decisions)]
    return Extremes(
        space.check(largest), space.check(smallest), np.stack(order) if order else np.zeros((0, 1), np.int32)
    )


def _row(options: np.ndarray, space: SearchSpace) -> np.ndarray:
    row = np.full(int(space.cardinality.max(initial=1)), -1, np.int32)
    row[: len(options)] = options
    return row


def _numbers(values: tuple[Any, ...]) -> np.ndarray | None:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.asarray(values, float)
    return None


class _Counts:
    """Sizes of the networks of a space of one resolution, by sums over its variants."""

    def __init__(self, space: SearchSpace):
        self.space = space
        variants = Variants(space)
        rows = [(sum(layer.macs for layer in v.plain), sum(layer.params for layer in v.plain)) for v in variants.rows]
        self.table = np.asarray(rows, np.int64).reshape(-1, 2)
        self.index = jax.jit(jax.vmap(variants.index))
        self.numbers = [_numbers(decision.values) for decision in space.decisions]

    def sizes(self, genes: np.ndarray, decision: int) -> list[tuple[int, ...]]:
        """`(macs, params)` with every option of `decision` in turn; `genes [D]` need not be canonical."""
        count = int(self.space.cardinality[decision])
        rows = np.tile(genes, (int(self.space.cardinality.max()), 1))
        rows[:count, decision] = np.arange(count)
        with jax.ensure_compile_time_eval():  # also where a program is being traced
            index = np.asarray(self.index(jnp.asarray(rows)))
        found = self.table[index].sum(1)
        return [tuple(map(int, row)) for row in found[:count]]

    def live(self, genes: np.ndarray, decision: int) -> np.ndarray:
        """`genes` with the conditions of `decision` met."""
        met = genes.copy()
        for parent, allowed in self.space.decisions[decision].conditions:
            if int(met[parent]) not in allowed:
                met[parent] = max(allowed)
        return met

    def ranked(self, genes: np.ndarray, decision: int) -> np.ndarray:
        """Options of `decision` from the largest to the smallest."""
        numbers = self.numbers[decision]
        if numbers is not None:
            return np.argsort(-numbers, kind="stable")
        sizes = self.sizes(self.live(genes, decision), decision)
        return np.asarray(sorted(range(len(sizes)), key=lambda option: sizes[option], reverse=True))

    def climb(self, sign: int) -> np.ndarray:
        """Genes of the largest network (`sign` 1) or the smallest (-1), fields of other kinds of block included."""
        genes = np.zeros(self.space.num_decisions, np.int32)
        for d, numbers in enumerate(self.numbers):
            if numbers is not None:
                genes[d] = int((sign * numbers).argmax())
        for sweep in range(SWEEPS):
            before = genes.copy()
            for d in range(len(genes)):
                # first every field for itself, as if its kind of block were chosen; then what is chosen
                sizes = self.sizes(self.live(genes, d) if sweep == 0 else genes, d)
                best = max(sizes) if sign > 0 else min(sizes)
                if sizes[genes[d]] != best:
                    genes[d] = sizes.index(best)
            if sweep and (genes == before).all():
                break
        return genes
