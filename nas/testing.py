"""Checks that every strategy must pass, on the toy problem of `nas.toy`. For third parties as well:

    from nas.testing import STRATEGY_CHECKS
    @pytest.mark.parametrize("check", STRATEGY_CHECKS)
    def test_my_strategy(check):
        check(my_lab.hill_climb.strategy)

A check takes `make(space, population=...) -> Strategy` and raises AssertionError. A strategy that names its batch
otherwise is wrapped in a lambda.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas.objectives import Objective
from nas.pareto import hypervolume
from nas.plain import arrays_of, tree_from
from nas.toy import ToySpace, toy_error, toy_objective
from nas.types import Feedback, Key, Proposal, Strategy, bound

Make = Callable[..., Strategy]

_goal = functools.cache(toy_objective)  # compiled once for all checks
_errors = jax.jit(jax.vmap(toy_error))


def _judged(objective: Objective, genes: Array, done: Any = None, broken: Any = None) -> Feedback:
    error = _errors(genes)
    if broken is not None:
        error = jnp.where(jnp.asarray(broken), jnp.nan, error)
    priced = objective.price(genes)
    return objective.feedback(error, priced, priced.violation == 0, done)


def _rollout(plan: Strategy, objective: Objective, steps: int, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """State, all objectives `[N, M]` (infinite where not valid) and all genes after `steps` steps."""
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    root = jax.random.key(seed)
    state = jax.jit(plan.init)(jax.random.fold_in(root, 0))
    seen, genes = [], []
    for t in range(steps):
        state, proposal = ask(jax.random.fold_in(root, t + 1), state)
        feedback = _judged(objective, proposal.genes)
        state = tell(state, proposal, feedback)
        seen.append(np.asarray(feedback.objectives))
        genes.append(np.asarray(proposal.genes))
    return state, np.concatenate(seen), np.concatenate(genes)


def _equal(first: Any, second: Any) -> bool:
    one, other = arrays_of(first), arrays_of(second)
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def _legal(space: Any, genes: Any) -> bool:
    table = np.asarray(genes)
    inside = (table >= 0).all() and (table < space.cardinality).all()
    return bool(inside and np.array_equal(table, np.asarray(jax.vmap(space.canonical)(jnp.asarray(table)))))


def check_genes(make: Make) -> None:
    """Proposals and answers are in range, canonical, integers of the right shape, for small and large populations."""
    space = ToySpace()
    for population in (1, 33):
        plan = bound(make(space, population=population), _goal(space))
        state, _, genes = _rollout(plan, _goal(space), 4)
        assert genes.shape[1:] == (space.num_decisions,) and np.issubdtype(genes.dtype, np.integer), genes.dtype
        assert _legal(space, genes), "a proposal is out of range or not canonical"
        assert _legal(space, plan.final(state)), "the answer is out of range or not canonical"


def check_same_key(make: Make) -> None:
    """The same keys give the same search, another key gives another one, and asking changes nothing it was given."""
    space = ToySpace()
    plan = bound(make(space, population=8), _goal(space))
    runs = [_rollout(plan, _goal(space), 3, seed) for seed in (0, 0, 1)]
    assert np.array_equal(runs[0][2], runs[1][2]) and _equal(runs[0][0], runs[1][0]), "one seed, two searches"
    assert not np.array_equal(runs[0][2], runs[2][2]), "two seeds, one search"


def check_no_recompilation(make: Make) -> None:
    """`ask` and `tell` jit, and are traced once however often they are called."""
    space = ToySpace()
    plan = bound(make(space, population=8), _goal(space))
    traces = {"ask": 0, "tell": 0}

    def ask(key: Key, state: Any) -> Any:
        traces["ask"] += 1
        return plan.ask(key, state)

    def tell(state: Any, proposal: Proposal, feedback: Feedback) -> Any:
        traces["tell"] += 1
        return plan.tell(state, proposal, feedback)

    _rollout(plan._replace(ask=ask, tell=tell), _goal(space), 3)
    assert traces == {"ask": 1, "tell": 1}, f"traced again: {traces} (a weakly typed leaf in init?)"


def check_all_invalid(make: Make) -> None:
    """A generation of nothing but failures neither crashes nor stops the search, nor one without an answer."""
    space, goal = ToySpace(), _goal(ToySpace())
    plan = bound(make(space, population=8), goal)
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    state = jax.jit(plan.init)(jax.random.key(0))
    for t in range(4):
        state, proposal = ask(jax.random.key(t), state)
        assert _legal(space, proposal.genes), "a proposal after failures is out of range"
        state = tell(state, proposal, _judged(goal, proposal.genes, broken=jnp.full(8, t < 3)))
    final = np.asarray(plan.final(state))
    good = {tuple(row) for row in np.asarray(proposal.genes).tolist()}
    assert good & {tuple(row) for row in final.tolist()}, "the only valid candidates are not in the answer"


def check_nan_never_wins(make: Make) -> None:
    """A candidate that fails is never preferred to one that does not, even where its feedback holds a NaN."""
    space, goal = ToySpace(), _goal(ToySpace())
    plan = bound(make(space, population=8), goal)
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    state = jax.jit(plan.init)(jax.random.key(0))
    bad: set[tuple[int, ...]] = set()
    good: set[tuple[int, ...]] = set()
    for t in range(6):
        state, proposal = ask(jax.random.key(t), state)
        broken = np.asarray([sum(row) % 2 == 1 for row in np.asarray(proposal.genes).tolist()])
        feedback = _judged(goal, proposal.genes, broken=broken)
        if t % 2:
            nan = jnp.where(jnp.asarray(broken)[:, None], jnp.nan, feedback.objectives)
            feedback = feedback._replace(objectives=nan)
        state = tell(state, proposal, feedback)
        for row, failed in zip(np.asarray(proposal.genes).tolist(), broken, strict=True):
            (bad if failed else good).add(tuple(row))
    final = {tuple(row) for row in np.asarray(plan.final(state)).tolist()}
    assert not final & bad or len(good) < 8, "a failed candidate is in the answer in place of a good one"


def check_infeasible_lose(make: Make) -> None:
    """With a limit on costs the answer holds networks within it, though random networks mostly exceed it."""
    space = ToySpace()
    goal = toy_objective(space, limits={"params": 7.0})
    plan = bound(make(space, population=16), goal)
    state, _, _ = _rollout(plan, goal, 30)
    violation = np.asarray(goal.price(plan.final(state)).violation)
    assert (violation == 0).mean() >= 0.5, f"only {(violation == 0).sum()} of {violation.size} answers meet the limit"


def check_partial_tell(make: Make) -> None:
    """Rows that are not done are ignored, whatever stands in them."""
    space, goal = ToySpace(), _goal(ToySpace())
    plan = bound(make(space, population=8), goal)
    state, proposal = jax.jit(plan.ask)(jax.random.key(1), jax.jit(plan.init)(jax.random.key(0)))
    done = jnp.arange(8) < 4
    told = []
    for junk in (0.0, jnp.nan, jnp.inf):
        feedback = _judged(goal, proposal.genes, done)
        objectives = jnp.where(done[:, None], feedback.objectives, junk)
        feedback = feedback._replace(objectives=objectives, scalar=jnp.where(done, feedback.scalar, junk))
        told.append(jax.jit(plan.tell)(state, proposal, feedback))
    asked = [np.asarray(jax.jit(plan.ask)(jax.random.key(2), after)[1].genes) for after in told]
    assert np.array_equal(asked[0], asked[1]) and np.array_equal(asked[0], asked[2]), "unfinished rows were read"
    none = jax.jit(plan.tell)(state, proposal, feedback._replace(done=jnp.zeros(8, bool)))
    assert _legal(space, jax.jit(plan.ask)(jax.random.key(3), none)[1].genes)


def check_resume(make: Make) -> None:
    """A state that went to plain arrays and back continues exactly; state shapes and dtypes never change."""
    space, goal = ToySpace(), _goal(ToySpace())
    plan = bound(make(space, population=8), goal)
    ask, tell = jax.jit(plan.ask), jax.jit(plan.tell)
    fresh = jax.jit(plan.init)(jax.random.key(0))
    straight = resumed = fresh
    for t in range(4):
        resumed = tree_from(fresh, arrays_of(resumed))
        pair = []
        for state in (straight, resumed):
            state, proposal = ask(jax.random.key(t), state)
            pair.append(tell(state, proposal, _judged(goal, proposal.genes)))
        straight, resumed = pair
        assert _equal(straight, resumed), f"the resumed search differs at step {t}"


def check_large_population(make: Make) -> None:
    """A population of 1,024 works, in a space that has only four networks as well."""
    for space in (ToySpace(), ToySpace(decisions=4, options=2)):
        plan = bound(make(space, population=1024), _goal(space))
        _, _, genes = _rollout(plan, _goal(space), 2)
        assert _legal(space, genes)


STRATEGY_CHECKS: tuple[Callable[[Make], None], ...] = (
    check_genes,
    check_same_key,
    check_no_recompilation,
    check_all_invalid,
    check_nan_never_wins,
    check_infeasible_lose,
    check_partial_tell,
    check_resume,
    check_large_population,
)


def check_beats_random(make: Make, seeds: Sequence[int] = (0, 1, 2, 3, 4), margin: float = 0.005) -> None:
    """Dominates more than random search with an equal budget: mean hypervolume over seeds higher by `margin`, relative.

    On a toy of 12 decisions of 4 options, 20 steps of 16 candidates.
    """
    from nas.strategies import random_search

    space = ToySpace(decisions=12, options=4)
    goal = _goal(space)
    corner = [1.1, 60.0]

    def mean(factory: Make) -> float:
        plan = bound(factory(space, population=16), goal)
        return float(np.mean([hypervolume(_rollout(plan, goal, 20, seed)[1], corner) for seed in seeds]))

    ours, theirs = mean(make), mean(random_search.strategy)
    assert ours > theirs * (1 + margin), f"hypervolume {ours:.4g} against {theirs:.4g} of random search"
