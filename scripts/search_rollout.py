"""Any of our strategies on a problem: step by step, or the whole search as one compiled program.

Shape letters: `N` proposals in their order, `D` decisions, `M` objectives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models import discover
from hw_models.errors import InputError
from hw_models.programs import for_hundreds_of_runs
from nas.loop import ASK, INIT, stage_key
from nas.objectives import Objective
from nas.screen import first_networks
from nas.types import Evaluator, Key, Quality, Strategy, bound
from search_spaces.options import annotation_of, bracketed, typed


class Rollout(NamedTuple):
    """All proposals: `genes [N, D]`, `objectives [N, M]` (infinite where not evaluated) and `violation [N]`."""

    genes: np.ndarray
    objectives: np.ndarray
    violation: np.ndarray


def strategy_of(text: str, space: Any, population: int) -> Strategy:
    """The strategy of a text such as `nsga2[crossover_rate=0.5]`.

    `population` is what the text does not say, for strategies that have such an option.

    Raises:
        InputError: an unknown strategy or option.

    Example:
        >>> from nas.toy import ToySpace
        >>> strategy_of("random_search", ToySpace(), 8).describe["population"]
        8
    """
    name, given = bracketed(text, "strategy")
    make = discover.load("nas.strategies", name, "strategy", "strategy")
    known = inspect.signature(make).parameters
    options = {}
    for option, value in given.items():
        if option not in known:
            raise discover.unknown(f"option of strategy {name}", option, list(known)[1:])
        options[option] = typed(f"{name}.{option}", value, annotation_of(known[option]))
    if "population" in known:
        options.setdefault("population", population)
    return make(space, **options)


def first_state(plan: Strategy, objective: Objective, key: Key) -> Any:
    """The state of a search that has not asked yet, begun as `nas.loop` does it."""
    state = jax.jit(plan.init)(stage_key(key, INIT, 1))
    if plan.start is None:
        return state
    count = jax.eval_shape(plan.ask, key, state)[1].genes.shape[0]
    genes = first_networks(objective.space, objective, count, stage_key(key, INIT, 2))
    return jax.jit(plan.start)(state, jnp.asarray(genes))


def rollout(
    plan: Strategy,
    objective: Objective,
    error_of: Callable[[np.ndarray], np.ndarray],
    evaluations: int,
    key: Key,
    *,
    programs: tuple[Any, Any] | None = None,
    enough: Callable[[Rollout], bool] = lambda step: False,
) -> Rollout:
    """A search of so many proposals, the last step cut off where they do not divide.

    Args:
        plan: a strategy that is bound to the objective.
        objective: prices, limits and judges.
        error_of: errors of networks that meet the limits, `[P, D] -> [P]`, on the host.
        evaluations: proposals, N, known and refused ones included.
        key: typed random key.
        programs: the compiled `ask` and `tell` of an earlier call with the same plan.
        enough: is told every step's own rows, and ends the search by True.

    Example:
        >>> from nas.toy import ToySpace, toy_error, toy_objective
        >>> space, goal = ToySpace(), toy_objective(ToySpace())
        >>> errors = jax.jit(jax.vmap(toy_error))
        >>> rollout(strategy_of("nsga2", space, 8), goal, errors, 20, jax.random.key(0)).genes.shape
        (20, 6)
    """
    ask, tell = programs or (for_hundreds_of_runs(plan.ask), for_hundreds_of_runs(plan.tell))
    state, parts, count = first_state(plan, objective, key), [], 0
    while count < evaluations:
        state, proposal = ask(stage_key(key, ASK, len(parts)), state)
        priced = objective.price(proposal.genes)
        genes, allowed = np.asarray(proposal.genes), np.asarray(priced.violation) == 0
        error = np.full(len(genes), np.nan, np.float32)
        if allowed.any():
            error[allowed] = np.asarray(error_of(genes[allowed]))
        feedback = objective.feedback(error, priced, allowed)
        state = tell(state, proposal, feedback)
        parts.append(Rollout(genes, np.asarray(feedback.objectives, float), np.asarray(feedback.violation)))
        count += len(genes)
        if enough(parts[-1]):
            break
    return Rollout(*(np.concatenate(column)[:evaluations] for column in zip(*parts, strict=True)))


def scanned(
    plan: Strategy, objective: Objective, error_of: Callable[[Any], Any], evaluations: int
) -> Callable[[Key], Any]:
    """The whole search as one program, `key -> objectives [N, M]`, for errors that compile.

    It begins with what the strategy proposes by itself: networks that meet limits are priced on the host.
    """

    def one(state: Any, key: Key) -> tuple[Any, Any]:
        state, proposal = plan.ask(key, state)
        priced = jax.vmap(objective.price_one)(proposal.genes)
        error = error_of(proposal.genes)
        feedback = objective.feedback(error, priced, priced.violation == 0)
        return plan.tell(state, proposal, feedback), feedback.objectives

    def whole(key: Key) -> Any:
        state = plan.init(stage_key(key, INIT, 1))
        many = jax.eval_shape(plan.ask, key, state)[1].genes.shape[0]
        keys = jax.random.split(stage_key(key, ASK, 0), -(-evaluations // many))
        found = jax.lax.scan(one, state, keys)[1]
        return found.reshape(-1, found.shape[-1])[:evaluations]

    return whole


def judge_of(name: str, error_of: Callable[[np.ndarray], Any], chunk: int) -> Evaluator:
    """The errors of a problem for `nas.loop`: `error_of` takes genes `[P, D]` and nothing is trained.

    Example:
        >>> judge_of("ones", lambda genes: np.ones(len(genes)), 8).evaluate(None, (), np.zeros((2, 6)), None).error
        array([1., 1.])
    """
    return Evaluator(
        init=lambda key: (),
        train=lambda key, state: (state, {}),
        rounds=0,
        evaluate=lambda key, state, genes, index: Quality(error_of(np.asarray(genes))),
        version=lambda state: name,
        chunk=chunk,
        name=name,
    )


def plan_of(text: str, objective: Objective, population: int) -> Strategy:
    """The strategy of a text, bound to the objective and its space.

    Raises:
        InputError: as `strategy_of`; strategy and objective do not go together; it needs gradients.
    """
    plan = bound(strategy_of(text, objective.space, population), objective)
    if plan.needs_gradients:
        raise InputError(f"strategy {plan.name} needs gradients of the error, which these problems do not have")
    return plan
