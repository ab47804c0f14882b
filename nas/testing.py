"""Checks that every strategy must pass, on the toy problem of `nas.toy`. For third parties as well:

    from nas.testing import STRATEGY_CHECKS
    @pytest.mark.parametrize("check", STRATEGY_CHECKS)
    def test_my_strategy(check):
        check(my_lab.hill_climb.strategy)

A check takes `make(space, population=...) -> Strategy` and raises AssertionError. Strategies are used bound to the
objective, as a search uses them; how many candidates a step has is theirs to say.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from hw_models.programs import for_few_runs
from nas.objectives import Objective
from nas.pareto import hypervolume
from nas.plain import arrays_of, tree_from
from nas.toy import ToySpace, toy_error, toy_gate_error, toy_objective
from nas.types import Feedback, Key, Proposal, Strategy, bound

Make = Callable[..., Strategy]

_errors = jax.jit(jax.vmap(toy_error))
_soft_errors = jax.jit(jax.vmap(jax.value_and_grad(toy_gate_error)))


def _weighed(values: Any) -> Any:
    """One number, for strategies that descend gradients; the others are checked with two objectives."""
    return values["error"] + 0.02 * values["latency_s"]


@functools.cache  # compiled once for all checks
def _aim(space: Any, joined: bool) -> Objective:
    return toy_objective(space, scalar=_weighed if joined else None)


def _goal(make: Make, space: Any) -> Objective:
    return _aim(space, make(space, population=1).needs_gradients)


@functools.cache
def _canonical(space: Any) -> Callable[[Array], Array]:
    return jax.jit(jax.vmap(space.canonical))


@functools.lru_cache(maxsize=64)  # one object per size for all checks, because each is compiled anew
def _bound(make: Make, space: Any, objective: Objective, population: int) -> Strategy:
    return bound(make(space, population=population), objective)


def _judged(objective: Objective, proposal: Proposal, done: Any = None, broken: Any = None) -> Feedback:
    """What the loop would tell of a proposal: of its gates where it has some, of its genes otherwise."""
    if proposal.gates is not None:
        return _judged_gates(objective, proposal.gates, done, broken)
    error = _errors(proposal.genes)
    if broken is not None:
        error = jnp.where(jnp.asarray(broken), jnp.nan, error)
    priced = objective.price(proposal.genes)
    return objective.feedback(error, priced, priced.violation == 0, done)


def _judged_gates(objective: Objective, gates: Array, done: Any, broken: Any) -> Feedback:
    error, grads = _soft_errors(gates)
    if broken is not None:
        error = jnp.where(jnp.asarray(broken), jnp.nan, error)
        grads = jnp.where(jnp.asarray(broken)[:, None, None], jnp.nan, grads)
    gate_grads = objective.gate_grads(jnp.nan_to_num(error), grads, gates)
    evaluated = jnp.ones(len(error), bool)
    return objective.feedback(error, objective.price_gates(gates), evaluated, done, gate_grads)


def _rollout(plan: Strategy, objective: Objective, steps: int, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """State, all objectives `[N, M]` (infinite where not valid) and all genes after `steps` steps."""
    ask, tell = for_few_runs(plan.ask), for_few_runs(plan.tell)
    root = jax.random.key(seed)
    state = for_few_runs(plan.init)(jax.random.fold_in(root, 0))
    seen, genes = [], []
    for t in range(steps):
        state, proposal = ask(jax.random.fold_in(root, t + 1), state)
        feedback = _judged(objective, proposal)
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
    return bool(inside and np.array_equal(table, np.asarray(_canonical(space)(jnp.asarray(table)))))


def check_genes(make: Make) -> None:
    """Proposals and answers are in range, canonical, integers of the right shape, also for a population of one."""
    space = ToySpace()
    for population in (1, 8):
        plan = _bound(make, space, _goal(make, space), population)
        state, _, genes = _rollout(plan, _goal(make, space), 4)
        assert genes.shape[1:] == (space.num_decisions,) and np.issubdtype(genes.dtype, np.integer), genes.dtype
        assert _legal(space, genes), "a proposal is out of range or not canonical"
        assert _legal(space, plan.final(state)), "the answer is out of range or not canonical"


def check_same_key(make: Make) -> None:
    """The same keys give the same search."""
    space = ToySpace()
    runs = [_rollout(_bound(make, space, _goal(make, space), 8), _goal(make, space), 3) for _ in range(2)]
    assert np.array_equal(runs[0][2], runs[1][2]) and _equal(runs[0][0], runs[1][0]), "one seed, two searches"


def check_other_key(make: Make) -> None:
    """Another key gives another search. Not for strategies without chance."""
    space = ToySpace()
    runs = [_rollout(_bound(make, space, _goal(make, space), 8), _goal(make, space), 3, seed) for seed in (0, 1)]
    assert not np.array_equal(runs[0][2], runs[1][2]), "two seeds, one search"


def check_no_recompilation(make: Make) -> None:
    """`ask` and `tell` jit, and are traced once however often they are called."""
    space = ToySpace()
    plan = _bound(make, space, _goal(make, space), 8)
    traces = {"ask": 0, "tell": 0}

    def ask(key: Key, state: Any) -> Any:
        traces["ask"] += 1
        return plan.ask(key, state)

    def tell(state: Any, proposal: Proposal, feedback: Feedback) -> Any:
        traces["tell"] += 1
        return plan.tell(state, proposal, feedback)

    _rollout(plan._replace(ask=ask, tell=tell, bind=None), _goal(make, space), 3)
    assert traces == {"ask": 1, "tell": 1}, f"traced again: {traces} (a weakly typed leaf in init?)"


def check_all_invalid(make: Make) -> None:
    """A generation of nothing but failures neither crashes nor stops the search, nor one without an answer."""
    space, goal = ToySpace(), _goal(make, ToySpace())
    plan = _bound(make, space, goal, 8)
    ask, tell = for_few_runs(plan.ask), for_few_runs(plan.tell)
    state = for_few_runs(plan.init)(jax.random.key(0))
    for t in range(4):
        state, proposal = ask(jax.random.key(t), state)
        assert _legal(space, proposal.genes), "a proposal after failures is out of range"
        state = tell(state, proposal, _judged(goal, proposal, broken=jnp.full(len(proposal.genes), t < 3)))
    final = np.asarray(plan.final(state))
    good = {tuple(row) for row in np.asarray(proposal.genes).tolist()}
    assert good & {tuple(row) for row in final.tolist()}, "the only valid candidates are not in the answer"


def check_nan_never_wins(make: Make) -> None:
    """A candidate that fails is never preferred to one that does not, even where its feedback holds a NaN."""
    space, goal = ToySpace(), _goal(make, ToySpace())
    plan = _bound(make, space, goal, 8)
    ask, tell = for_few_runs(plan.ask), for_few_runs(plan.tell)
    state = for_few_runs(plan.init)(jax.random.key(0))
    bad: set[tuple[int, ...]] = set()
    good: set[tuple[int, ...]] = set()
    for t in range(6):
        state, proposal = ask(jax.random.key(t), state)
        broken = np.asarray([sum(row) % 2 == 1 for row in np.asarray(proposal.genes).tolist()])
        feedback = _judged(goal, proposal, broken=broken)
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
    joined = make(space, population=16).needs_gradients
    goal = toy_objective(space, limits={"params": 7.0}, scalar=_weighed if joined else None)
    plan = _bound(make, space, goal, 16)
    state, _, _ = _rollout(plan, goal, 30)
    violation = np.asarray(goal.price(plan.final(state)).violation)
    assert (violation == 0).mean() >= 0.5, f"only {(violation == 0).sum()} of {violation.size} answers meet the limit"


def check_partial_tell(make: Make) -> None:
    """Rows that are not done are ignored, whatever stands in them."""
    space, goal = ToySpace(), _goal(make, ToySpace())
    plan = _bound(make, space, goal, 8)
    state, proposal = for_few_runs(plan.ask)(jax.random.key(1), for_few_runs(plan.init)(jax.random.key(0)))
    rows = len(proposal.genes)
    done = jnp.arange(rows) < rows // 2
    told = []
    for junk in (0.0, jnp.nan, jnp.inf):
        feedback = _judged(goal, proposal, done)
        objectives = jnp.where(done[:, None], feedback.objectives, junk)
        feedback = feedback._replace(objectives=objectives, scalar=jnp.where(done, feedback.scalar, junk))
        if feedback.gate_grads is not None:
            grads = jnp.where(done[:, None, None], feedback.gate_grads, junk)
            feedback = feedback._replace(gate_grads=grads)
        told.append(for_few_runs(plan.tell)(state, proposal, feedback))
    asked = [np.asarray(for_few_runs(plan.ask)(jax.random.key(2), after)[1].genes) for after in told]
    assert np.array_equal(asked[0], asked[1]) and np.array_equal(asked[0], asked[2]), "unfinished rows were read"
    none = for_few_runs(plan.tell)(state, proposal, feedback._replace(done=jnp.zeros(rows, bool)))
    assert _legal(space, for_few_runs(plan.ask)(jax.random.key(3), none)[1].genes)


def check_resume(make: Make) -> None:
    """A state that went to plain arrays and back continues exactly; state shapes and dtypes never change."""
    space, goal = ToySpace(), _goal(make, ToySpace())
    plan = _bound(make, space, goal, 8)
    ask, tell = for_few_runs(plan.ask), for_few_runs(plan.tell)
    fresh = for_few_runs(plan.init)(jax.random.key(0))
    straight = resumed = fresh
    for t in range(4):
        resumed = tree_from(fresh, arrays_of(resumed))
        pair = []
        for state in (straight, resumed):
            state, proposal = ask(jax.random.key(t), state)
            pair.append(tell(state, proposal, _judged(goal, proposal)))
        straight, resumed = pair
        assert _equal(straight, resumed), f"the resumed search differs at step {t}"


def check_large_population(make: Make, population: int = 4096) -> None:
    """A large population works; one that is larger than the space is refused, with the size it has."""
    space = ToySpace()
    _, _, genes = _rollout(_bound(make, space, _goal(make, space), population), _goal(make, space), 2)
    assert _legal(space, genes)
    try:
        make(ToySpace(decisions=4, options=2), population=17)
    except InputError as error:
        assert "16" in str(error), f"the refusal does not say how many networks there are: {error}"
    else:
        raise AssertionError("a population larger than the space is not refused")


STRATEGY_CHECKS: tuple[Callable[[Make], None], ...] = (
    check_genes,
    check_same_key,
    check_other_key,
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

    Strategies that descend one number are compared by the lowest of it among the networks they proposed. On a toy of
    12 decisions of 4 options, 320 candidates, a population of 16.
    """
    from nas.strategies import random_search

    space = ToySpace(decisions=12, options=4)
    goal = _goal(make, space)
    ours, theirs = (_worth(factory, space, goal, tuple(seeds)) for factory in (make, random_search.strategy))
    if goal.joined:
        assert ours > theirs + margin * abs(theirs), f"lowest value {-ours:.4g} against {-theirs:.4g} of random search"
    else:
        assert ours > theirs * (1 + margin), f"hypervolume {ours:.4g} against {theirs:.4g} of random search"


@functools.cache  # that of random search is the same for all others
def _worth(make: Make, space: Any, goal: Objective, seeds: tuple[int, ...]) -> float:
    """What 320 candidates found, mean over seeds: the hypervolume, or minus the lowest value of one number."""
    plan = _bound(make, space, goal, 16)
    per_step = len(jax.eval_shape(lambda key: plan.ask(key, plan.init(key)), jax.random.key(0))[1].genes)
    found = []
    for seed in seeds:
        _, objectives, genes = _rollout(plan, goal, 320 // per_step, seed)
        if goal.joined:
            found.append(-float(_judged(goal, Proposal(jnp.asarray(genes))).scalar.min()))
        else:
            found.append(hypervolume(objectives, [1.1, 60.0]))
    return float(np.mean(found))
