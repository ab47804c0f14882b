"""The first networks of a search: drawn until enough meet the limits on costs, a bounded number of times.

Shape letters: `P` candidates wanted, `D` decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from nas.objectives import Objective
from nas.types import Key
from search_spaces.block import EVERYWHERE, everywhere_field

NEAR = 0.02  # how far from a target a network still lands on it, relative
ROUNDS = 8
BATCH = 512  # 8 rounds of 512: at most 4,096 candidates are priced (more only for a population above 512)
PARENTS = 32


def _short(value: float) -> str:
    return f"{value:.6g}"


def first_networks(space: Any, objective: Objective, count: int, key: Key) -> np.ndarray:
    """Distinct networks that meet the limits on costs, as many as can be found. `-> int32 [count, D]`

    Half of the draws are uniform; the others, made only where those do not suffice, mutate the networks nearest to the
    limits, so that limits which few networks meet are still found. What is missing is filled with the networks that
    exceed the limits least.

    Raises:
        InputError: nothing drawn meets the limits; names the limit, the nearest value and its network.

    Example:
        >>> from nas.toy import ToyDevice, ToySpace, toy_table
        >>> space = ToySpace()
        >>> goal = Objective(space, ToyDevice(), limits={"params": 12.0}, table=toy_table)
        >>> genes = first_networks(space, goal, 4, jax.random.key(0))
        >>> genes.shape, float(goal.price(genes).violation.max())
        ((4, 6), 0.0)
    """

    def excess(genes: np.ndarray) -> np.ndarray:
        return np.asarray(objective.price(genes).violation)

    pool, over = _approached(space, objective, excess, min(count, space.size), max(BATCH, count), key)
    if not (over == 0).any():
        raise _nothing_meets(space, objective, pool[int(np.argmin(over))], len(pool))
    chosen = np.argsort(over, kind="stable")
    return pool[chosen[np.arange(count) % len(chosen)]]


def evenly_compressed(space: Any, objective: Objective, genes: np.ndarray, key: Key) -> np.ndarray:
    """First networks `[P, D]` of a space that searches bits or densities, alike all over: `int32 [P, D]`, canonical.

    Drawn block by block nearly all networks have about the same bits on average, and a search never sees what 8 bits or
    4 everywhere are worth. So every other network has most bits and all channels, and the rest one level of each,
    drawn, in all blocks. Networks stay as they were drawn where they would then exceed a limit on costs by more, or be
    one that is there already.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2/4/8a8")
        >>> drawn = np.stack([space.sample(jax.random.key(seed)) for seed in range(2)])
        >>> first = evenly_compressed(space, Objective(space, "pynq_z1_dataflow"), drawn, jax.random.key(0))
        >>> {value for name, value in space.decode(first[0]).items() if name.endswith("weight_bits")}
        {8}
    """
    fields = [everywhere_field(name) for name in space.names]
    searched = [field for field in EVERYWHERE if field in fields]
    if not searched:
        return genes
    place = np.array(jax.random.uniform(key, (len(genes), len(searched))))
    place[::2] = 1.0
    found = np.array(genes)
    for column, (field, decision) in enumerate(zip(fields, space.decisions, strict=True)):
        if field is not None:
            ordered = np.argsort(decision.values)
            level = (place[:, searched.index(field)] * len(ordered)).astype(int)
            found[:, column] = ordered[np.minimum(level, len(ordered) - 1)]
    found = np.array(jax.vmap(space.canonical)(found), np.int32)
    within = np.asarray(objective.price(found).violation) <= np.asarray(objective.price(genes).violation)
    taken = {tuple(row) for row in np.asarray(genes).tolist()}
    for number, row in enumerate(found):
        if not within[number] or tuple(row.tolist()) in taken:
            found[number] = genes[number]
        taken.add(tuple(found[number].tolist()))
    return found


def check_targets(space: Any, objective: Objective, key: Key) -> None:
    """Look for a network that meets the limits and lands within 2 % of every target of a reward that lands.

    Raises:
        InputError: nothing drawn lands there; names the target, the nearest value and its network.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> goal = toy_objective(ToySpace(), scalar="absolute", targets={"latency_s": 500.0})
        >>> check_targets(ToySpace(), goal, jax.random.key(0))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: target latency_s=500 cannot be reached: of ... the nearest has latency_s=...
    """
    if not objective.landings:
        return

    def far(genes: np.ndarray) -> np.ndarray:
        priced = objective.price(genes)
        off = np.asarray([np.abs(np.asarray(priced.costs[name]) / aim - 1) for name, aim in objective.landings.items()])
        beyond = np.where(off.max(0) > NEAR, off.sum(0), 0.0)
        return np.nan_to_num(beyond + np.asarray(priced.violation), nan=np.inf)

    pool, distance = _approached(space, objective, far, 1, BATCH, key)
    best = int(np.argmin(distance))
    if distance[best] == 0:
        return
    costs = {name: float(value[0]) for name, value in objective.price(pool[best][None]).costs.items()}
    name = max(objective.landings, key=lambda name: abs(costs[name] / objective.landings[name] - 1))
    raise InputError(
        f"target {name}={_short(objective.landings[name])} cannot be reached: of {len(pool)} different networks priced "
        f"the nearest has {name}={_short(costs[name])} ({space.text(pool[best])}): ask for that, or widen the space"
    )


def _approached(
    space: Any, objective: Objective, distance_of: Callable[[np.ndarray], np.ndarray], enough: int, batch: int, key: Key
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct networks, until `enough` of them have distance 0 or the rounds are over: genes `[N, D]`, distance `[N]`.

    The first half of the rounds draws, the second mutates the nearest.
    """
    place = np.arange(batch)
    # every other child takes a larger step, or a search for the nearest network would end in the first valley
    rates = jnp.asarray(np.minimum(np.where(place % 2 == 0, 1.0, 4.0) / space.num_decisions, 1.0), jnp.float32)
    pool = np.zeros((0, space.num_decisions), np.int32)
    distance = np.zeros((0,), np.float32)
    for turn in range(ROUNDS):
        keys = jax.random.split(jax.random.fold_in(key, turn), batch)
        if turn < ROUNDS // 2:
            drawn = np.array(objective.sample(keys), np.int32)
        else:
            nearest = np.argsort(distance, kind="stable")[:PARENTS]
            parents = jnp.asarray(pool[nearest[place % len(nearest)]])
            drawn = np.array(objective.mutate(keys, parents, rates), np.int32)
        pool, first = np.unique(np.concatenate([pool, drawn]), axis=0, return_index=True)
        every = np.concatenate([distance, distance_of(drawn)])
        # np.unique sorts; the order of drawing is kept, so that the first networks are a fair sample
        order = np.argsort(first)
        pool, distance = pool[order], every[first][order]
        if (distance == 0).sum() >= enough:
            break
    return pool, distance


def _nothing_meets(space: Any, objective: Objective, genes: np.ndarray, priced: int) -> InputError:
    costs = {name: float(value[0]) for name, value in objective.price(genes[None]).costs.items()}
    name, limit, value = objective.broken_limit(costs)
    fix = "raise the limit" if name in objective.limits else "choose a larger device or a smaller space"
    return InputError(
        f"limit {name}={_short(limit)} cannot be met: of {priced} different networks priced the nearest has "
        f"{name}={_short(value)} ({space.text(genes)}): {fix}, or widen the space"
    )
