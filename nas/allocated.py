"""Bits and densities of one architecture, block by block, by an integer program on measured errors.

The architecture is given, and what a block loses by fewer bits or by a lower density is measured with that block alone
changed, each of its decisions alone: losses are taken to add up over blocks and over the decisions of a block. Prices
are not taken apart like that: every combination of a block is priced in the whole network. It is what is done where
the architecture was searched first, and what a search of everything at once is compared with.

Shape letters: `P` candidates, `D` decisions, `L` blocks, `B` combinations of a block.

Sources: Hubara et al. 2020 (AdaQuant), https://arxiv.org/abs/2006.10518 (the program); Schindler, dissertation
(Heidelberg 2021), chapter 6 (densities beside bits).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from hw_models.errors import InputError
from nas.bit_allocation import front
from search_spaces.block import everywhere_field


class Blocks(NamedTuple):
    """What may be changed in one architecture, and what it costs.

    Attributes:
        decisions: of each block, the places of its bits and of its density among the genes.
        options: of each block, `int [B, fields]`: genes of its combinations.
        loss: float `[L, B]`, the summed rises of the error; infinite beyond the combinations that a block has.
        cost: float `[L, B]`, what a combination adds to the price of the network without changes.
    """

    decisions: tuple[tuple[int, ...], ...]
    options: tuple[np.ndarray, ...]
    loss: np.ndarray
    cost: np.ndarray


def compressible(space: Any, genes: ArrayLike) -> dict[str, tuple[int, ...]]:
    """The bits and the density of every block in use, as places among the genes `[D]`, by the block's name.

    Blocks that have no weights in this network (skips, pooling) are left out: nothing of them is rounded or pruned.

    Raises:
        InputError: there are none.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4/8a8", sparsity="channel")
        >>> {name: [space.names[place] for place in places]
        ...  for name, places in compressible(space, [0] * space.num_decisions).items()}["stages/0/0"]
        ['stages/0/0/weight_bits', 'stages/0/0/density']
    """
    weighted = _with_weights(space, np.asarray(space.check(genes)))
    found: dict[str, list[int]] = {}
    for place, name in enumerate(space.names):
        if everywhere_field(name) and place in weighted:
            found.setdefault(name.rpartition("/")[0], []).append(place)
    if not found and any(everywhere_field(name) for name in space.names):
        raise InputError(f"network {space.text(genes)} has no block with weights whose bits or density are decided: "
                         "give another one")  # fmt: skip
    if not found:
        raise InputError(f"space {space.name} decides no bits and no densities: give bits=mixed or sparsity=channel")
    return {block: tuple(places) for block, places in found.items()}


def _with_weights(space: Any, genes: np.ndarray) -> set[int]:
    """Places of the decisions of all blocks that have weights in the network `genes [D]`."""
    found: set[int] = set()
    for slot in (space.resolutions[genes[-1]] if space.resolutions else space).slots:
        if slot.depth is None or int(genes[slot.depth[0]]) in slot.depth[1]:
            case = slot.cases[0 if slot.kind_decision is None else genes[slot.kind_decision]]
            widths = (width.chosen(space.decisions, genes) for width in (slot.inp, slot.out))
            if any(layer.weights for layer in case.chosen(space.decisions, genes).lower(slot.io(*widths))):
                found.update(place for _, place in case.decisions)
    return found


def _changed(genes: np.ndarray, places: Sequence[int], values: Sequence[int]) -> np.ndarray:
    row = genes.copy()
    row[list(places)] = values
    return row


def single_changes(space: Any, genes: ArrayLike) -> np.ndarray:
    """The network itself and all that differ from it by one gene of `compressible`: what is to be evaluated. `[P, D]`

    Example:
        >>> from search_spaces.spaces import tiny
        >>> single_changes(tiny.space(bits="w4/8a8"), [0] * 9).shape
        (3, 9)
    """
    base = np.asarray(space.check(genes), np.int32)
    rows = [base]
    for places in compressible(space, base).values():
        for place in places:
            others = [option for option in range(int(space.cardinality[place])) if option != base[place]]
            rows += [_changed(base, [place], [option]) for option in others]
    return np.stack(rows)


def measured(
    space: Any,
    genes: ArrayLike,
    judge: Callable[[np.ndarray], ArrayLike],
    price: Callable[[np.ndarray], ArrayLike],
) -> Blocks:
    """Losses and costs of all combinations of every block of the network `genes [D]`.

    Args:
        space: the space.
        genes: the network without changes, as a rule that of most bits and of density 1.
        judge: genes `[P, D]` to errors `[P]`, called once with `single_changes`.
        price: genes `[P, D]` to costs `[P]`, such as latencies in seconds, called once.

    Raises:
        InputError: an error or a price of the network without changes that is not finite.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4/8a8")
        >>> bits = [place for place, name in enumerate(space.names) if name.endswith("weight_bits")]
        >>> fewer = lambda rows: (rows[:, bits] == 0).sum(1)
        >>> found = measured(space, [1] * space.num_decisions, lambda rows: 0.1 + 0.01 * fewer(rows),
        ...                  lambda rows: 4.0 - fewer(rows))
        >>> found.loss.round(3)[0].tolist(), found.cost[0].tolist()
        ([0.01, 0.0], [-1.0, 0.0])
    """
    base = np.asarray(space.check(genes), np.int32)
    rows = single_changes(space, base)
    errors = np.asarray(judge(rows), np.float64)
    rise = {}
    for row, error in zip(rows, errors, strict=True):
        (place,) = np.flatnonzero(row != base) if (row != base).any() else (-1,)
        rise[place, int(row[place])] = max(error - errors[0], 0.0) if np.isfinite(error) else np.inf
    blocks = compressible(space, base)
    options = tuple(
        np.asarray(list(itertools.product(*(range(int(space.cardinality[place])) for place in places))), np.int32)
        for places in blocks.values()
    )
    every = [
        _changed(base, places, values)
        for places, table in zip(blocks.values(), options, strict=True)
        for values in table
    ]
    prices = np.asarray(price(np.stack([base, *every])), np.float64)
    for what, value in (("error", errors[0]), ("price", prices[0])):
        if not np.isfinite(value):
            raise InputError(f"the {what} of the network without changes is {value}: give one that fits the device")
    widest = max(map(len, options))
    loss, cost = np.full((2, len(options), widest), np.inf)
    ends = np.cumsum([1, *map(len, options)])
    for block, (places, table) in enumerate(zip(blocks.values(), options, strict=True)):
        loss[block, : len(table)] = [
            sum(rise.get((place, int(value)), 0.0) for place, value in zip(places, values, strict=True))
            for values in table
        ]
        above = prices[ends[block] : ends[block + 1]] - prices[0]
        cost[block, : len(table)] = np.where(np.isfinite(above), above, np.inf)
    return Blocks(tuple(blocks.values()), options, loss, cost)


def allocated(genes: ArrayLike, blocks: Blocks, whole_price: float, budgets: Sequence[float]) -> Iterator[np.ndarray]:
    """Genes `[D]` of the least summed loss under each of `budgets`, prices of the whole network.

    `whole_price` is that of the network without changes. Prices of blocks are taken to add up; those of a pipeline do
    not, and what is found is to be priced again.

    Raises:
        InputError: a budget that cannot be met, with the least that can.

    Example:
        >>> blocks = Blocks(((0,), (1,)), (np.asarray([[0], [1]]),) * 2, np.asarray([[0.3, 0.0], [0.1, 0.0]]),
        ...                 np.asarray([[-1.0, 0.0], [-1.0, 0.0]]))
        >>> [genes.tolist() for genes in allocated([1, 1], blocks, 4.0, [4.0, 3.0, 2.0])]
        [[1, 1], [1, 0], [0, 0]]
    """
    base = np.asarray(genes, np.int32)
    shared = blocks.cost + whole_price / len(blocks.options)
    for found in front(blocks.loss, {"price": shared}, "price", budgets):
        row = base
        for places, table, choice in zip(blocks.decisions, blocks.options, found.choice, strict=True):
            row = _changed(row, places, table[choice])
        yield row


def least(blocks: Blocks, whole_price: float) -> float:
    """The least price that `allocated` can be asked for, by what blocks gain alone; in a pipeline maybe below 0.

    Example:
        >>> least(Blocks((), (), np.zeros((1, 2)), np.asarray([[-1.0, 0.0]])), 4.0)
        3.0
    """
    return whole_price + float(np.where(np.isfinite(blocks.loss), blocks.cost, np.inf).min(1).sum())


def raised(
    space: Any, genes: ArrayLike, price: Callable[[np.ndarray], ArrayLike], tolerance: float = 1e-6
) -> np.ndarray:
    """The network `genes [D]` with all the bits and channels that cost nothing, block by block.

    Devices compute in a few widths and in whole tiles, so that fewer bits or channels often gain nothing; a search that
    goes by errors of shared weights cannot tell such networks apart, and a trained one may lose by them.

    Args:
        space: the space.
        genes: the network.
        price: genes `[P, D]` to costs `[P]` or `[P, M]`; all of them are held.
        tolerance: by which share a price may rise, for rounding.

    Raises:
        InputError: a price of the network that is not finite.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4/8a2/8")
        >>> bits = [place for place, name in enumerate(space.names) if name.endswith("weight_bits")]
        >>> found = raised(space, [0] * space.num_decisions, lambda rows: rows[:, bits].sum(1))
        >>> [space.decode(found)[f"stages/0/0/{field}"] for field in ("weight_bits", "act_bits")]
        [4, 8]
    """
    row = np.asarray(space.check(genes), np.int32)
    for places in compressible(space, row).values():
        for place in places:
            options = np.argsort(space.decisions[place].values)[::-1]
            tried = np.stack([row, *(_changed(row, [place], [option]) for option in options)])
            prices = np.asarray(price(tried), np.float64).reshape(len(tried), -1)
            if not np.isfinite(prices[0]).all():
                raise InputError(f"the price of the network is {prices[0].tolist()}: give one that fits the device")
            same = (prices[1:] <= prices[0] * (1 + tolerance)).all(1)
            row = tried[1 + int(np.argmax(same))]  # the value it has is among them
    return row
