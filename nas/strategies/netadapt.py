"""NetAdapt: shrink the largest network step by step, each time where it hurts least.

An iteration proposes one network per decision: the option that lowers the cost by at least the step, and by as little
more as possible. The one with the lowest error becomes the next network. At the bottom it starts again from the top
with half the step, so that a second descent passes through other networks. Every network on the way is a candidate, so
that one descent gives a front.

Differences from the paper: decisions of the space are changed in place of filters of layers, and candidates are judged
by the evaluator in place of short fine-tuning.

References: Yang et al. 2018, https://arxiv.org/abs/1804.03230, algorithm 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError, number
from nas.guide import needs_prices
from nas.population import Population, as_one, check_size, legal_options, survive, trusted_violation, unknown
from nas.types import Feedback, Key, Proposal, Strategy

LEAST_STEP = 1e-3  # of the cost; smaller ones change nothing about which option is next


class State(NamedTuple):
    """Where the descent is, and what it has seen.

    Attributes:
        at: the network that is shrunk, `int32 [D]`.
        step: share of its cost that an iteration takes away, `float32 []`.
        turn: proposals of this iteration so far, `int32 []`.
        better: the best of this iteration, `int32 [D]`, and its error, `float32 []`.
        top: where descents start, `int32 [D]`.
        best: the best seen, P rows.
    """

    at: Array
    step: Array
    turn: Array
    better: Array
    error: Array
    top: Array
    best: Population


def strategy(space: Any, *, population: int | None = None, step: float = 0.15, cost: str | None = None) -> Strategy:
    """Greedy shrinking under prices, for the error and one cost, within limits.

    Args:
        space: the search space.
        population: candidates per step, P; None means one per decision. An iteration takes as many steps as its
            candidates need.
        step: share of the cost that the first descent takes away per iteration, above 0 to 0.9. The paper begins
            with 0.05 and has weeks; a larger one reaches the small networks with a few hundred evaluations.
        cost: what is shrunk; None means the first cost among what is minimised, has a target, or has a limit.

    Raises:
        InputError: an option out of range; when it is bound, an objective without the error, no cost to shrink.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> from nas.types import bound
        >>> plan = bound(strategy(ToySpace()), toy_objective(ToySpace()))
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> proposal.genes.shape
        (6, 6)
    """
    size = check_size(max(1, space.num_decisions) if population is None else population, space)
    settings = {"population": size, "step": number("step", step, 0, 0.9), "cost": cost}

    def bind(objective: Any) -> Strategy:
        return _plan(space, objective, _shrunk(objective, cost), settings)

    return needs_prices("netadapt", settings, bind)


def _shrunk(objective: Any, cost: str | None) -> str:
    if "error" not in objective.minimize:
        named = ", ".join(objective.minimize)
        raise InputError(f"netadapt keeps the error low and minimize names {named} only: minimise error as well")
    if cost is not None:
        if cost not in objective.cost_names:
            from hw_models.discover import unknown as unknown_name

            raise unknown_name("cost", cost, objective.cost_names)
        return cost
    costs = [name for name in (*objective.minimize, *objective.targets, *objective.limits) if name != "error"]
    if not costs:
        raise InputError("netadapt shrinks a cost and there is none: minimise or limit one, or give cost=latency_s")
    return str(costs[0])


def _plan(space: Any, objective: Any, cost: str, settings: dict[str, Any]) -> Strategy:
    size, decisions = settings["population"], space.num_decisions
    place = objective.minimize.index("error")
    counts = np.asarray(space.cardinality)
    options = int(counts.max())
    legal = jnp.asarray(legal_options(space))
    listed = -(-size // decisions) * decisions  # candidates of an iteration
    price = jax.vmap(objective.price_one)

    def neighbours(genes: Array) -> Array:
        """Every network that differs in one decision. `[D] -> int32 [D, C, D]`"""
        each = jnp.broadcast_to(genes, (decisions, options, decisions))
        row = jnp.arange(decisions)
        changed = each.at[row, :, row].set(jnp.minimum(jnp.arange(options), jnp.asarray(counts)[:, None] - 1))
        return changed.astype(jnp.int32)

    def costs_around(genes: Array) -> tuple[Array, Array]:
        """The cost of every neighbour, infinite where there is none, and its violation. `[D, C]` each"""
        priced = price(jax.vmap(space.canonical)(neighbours(genes).reshape(-1, decisions)))
        shape = (decisions, options)
        return (
            jnp.where(legal, priced.costs[cost].reshape(shape), jnp.inf),
            jnp.where(legal, priced.violation.reshape(shape), jnp.inf),
        )

    def top(genes: Array) -> Array:
        """The largest network within the limits: every decision at its dearest, then shrunk until limits are met."""

        def dearest(turn: Array, genes: Array) -> Array:
            around, _ = costs_around(genes)
            d = turn % decisions
            return genes.at[d].set(jnp.where(jnp.isfinite(around[d]), around[d], -jnp.inf).argmax().astype(jnp.int32))

        def over(carry: tuple[Array, Array]) -> Array:
            genes, turn = carry
            return (objective.price_one(space.canonical(genes)).violation > 0) & (turn < int(counts.sum()))

        def shrink(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            genes, turn = carry
            around, violation = costs_around(genes)
            now = objective.price_one(space.canonical(genes)).violation
            # the dearest of those that exceed the limits by a tenth less than now; where none does, the nearest to them
            enough = jnp.where((violation <= 0.9 * now) & jnp.isfinite(around), around, -jnp.inf)
            nearest = jnp.where(violation < now, -violation, -jnp.inf)
            worth = jnp.where(jnp.isfinite(enough).any(), enough, nearest)
            d, c = jnp.unravel_index(worth.argmax(), worth.shape)
            moved = genes.at[d].set(c.astype(jnp.int32))
            return jnp.where(jnp.isfinite(worth.max()), moved, genes), turn + 1

        def grow(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            genes, turn, _ = carry
            around, violation = costs_around(genes)
            now = objective.price_one(space.canonical(genes)).costs[cost]
            worth = jnp.where((violation == 0) & jnp.isfinite(around), around, -jnp.inf)
            d, c = jnp.unravel_index(worth.argmax(), worth.shape)
            more = worth.max() > now * (1 + 1e-6)
            return jnp.where(more, genes.at[d].set(c.astype(jnp.int32)), genes), turn + 1, more

        genes = jax.lax.fori_loop(0, 2 * decisions, dearest, genes)
        genes = jax.lax.while_loop(over, shrink, (genes, jnp.int32(0)))[0]
        # the last steps may have been large: what still fits is put back
        start = (genes, jnp.int32(0), jnp.bool_(True))
        genes = jax.lax.while_loop(lambda carry: carry[2] & (carry[1] < int(counts.sum())), grow, start)[0]
        return space.canonical(genes).astype(jnp.int32)

    def fresh(at: Array, step: Array, start: Array, best: Population) -> State:
        return State(at, step, jnp.int32(0), at, jnp.float32(jnp.inf), start, best)

    def init(key: Key) -> State:
        # the key decides between networks that cost the same
        start = top(space.sample(key).astype(jnp.int32))
        rows = unknown(jnp.zeros((size, decisions), jnp.int32) + start)
        return fresh(start, jnp.float32(settings["step"]), start, rows)

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        around, _ = costs_around(state.at)
        now = objective.price_one(space.canonical(state.at)).costs[cost]
        place_of = state.turn * size + jnp.arange(size)
        d = place_of % decisions
        # a second round over the decisions takes larger steps
        goal = now * jnp.maximum(1.0 - state.step * (1 + place_of // decisions), 0.0)
        row = around[d]
        enough = jnp.where((row <= goal[:, None]) & (row < now), row, -jnp.inf)
        cheapest = jnp.where(row < now, row, jnp.inf)
        choice = jnp.where(jnp.isfinite(enough).any(1), enough.argmax(1), cheapest.argmin(1))
        shrinks = jnp.take_along_axis(row, choice[:, None], axis=1)[:, 0] < now
        genes = state.at[None].repeat(size, 0).at[jnp.arange(size), d].set(choice.astype(jnp.int32))
        genes = jnp.where(shrinks[:, None], genes, state.at[None])
        # the top itself comes first, in place of one of the first candidates
        first = (jnp.arange(size) == 0) & ~state.best.known.any()
        genes, shrinks = jnp.where(first[:, None], state.at[None], genes), shrinks & ~first
        return state, Proposal(jax.vmap(space.canonical)(genes), aux=shrinks)

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        best = survive(state.best, proposal.genes, as_one(feedback) if objective.joined else feedback)
        usable = feedback.done & proposal.aux & (trusted_violation(feedback) == 0)
        error = jnp.where(usable, feedback.objectives[:, place], jnp.inf)
        first = error.argmin()
        wins = error[first] < state.error
        better = jnp.where(wins, proposal.genes[first], state.better)
        lowest = jnp.minimum(error[first], state.error)
        turn = state.turn + 1
        ended = turn * size >= listed
        moved = ended & jnp.isfinite(lowest)
        bottom = ended & ~jnp.isfinite(lowest)
        after = fresh(
            jnp.where(moved, better, jnp.where(bottom, state.top, state.at)),
            jnp.where(bottom, jnp.maximum(state.step / 2, LEAST_STEP), state.step),
            state.top,
            best,
        )
        going = State(state.at, state.step, turn, better, lowest, state.top, best)
        return jax.tree.map(lambda one, other: jnp.where(ended, one, other), after, going)

    def final(state: State) -> Array:
        return state.best.genes

    return Strategy(init, ask, tell, final, name="netadapt", describe=settings | {"cost": cost})
