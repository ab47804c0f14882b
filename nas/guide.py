"""What strategies that are guided by a predictor share: what they remember, how they learn from it, what they foresee.

Costs are known before anything is evaluated, so only the error is predicted, by `nas.gaussian_process`, in logarithms
where all errors are above 0.

Shape letters: `N` networks remembered, `Q` networks asked about, `D` decisions, `M` objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import InputError, whole
from nas import gaussian_process as gp
from nas import offspring
from nas.pareto import best_of
from nas.population import MAX_OBJECTIVES, Population, check_size, fingerprints, repeats, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy

MEMORY = 384  # networks that the predictor learns from; beyond that the best are kept


class Learned(NamedTuple):
    """A fitted predictor; `logarithmic []` says that it predicts logarithms of errors."""

    model: gp.Fitted
    logarithmic: Array


class Guide(NamedTuple):
    """Functions over a space and an objective; pure and jittable.

    Attributes:
        remember: `(archive, genes [P, D], feedback) -> archive`; its first M objectives are what counts, the next is
            the error. Best rows first.
        learn: `archive -> Learned`.
        foresee: `(learned, genes [Q, D]) -> gaussian_process.Predicted`.
        late: `error [...] -> [...]`, by how much it exceeds the limit on errors, 0 where there is none.
        join: `(error [...], costs of [...]) -> objectives [..., M]`, one number where the objective is joined.
        price: `genes [Q, D] -> Priced` with leaves `[Q]`.
        width: M.
    """

    remember: Callable[[Population, Array, Feedback], Population]
    learn: Callable[[Population], Learned]
    foresee: Callable[[Learned, Array], gp.Predicted]
    late: Callable[[Array], Array]
    join: Callable[[Array, Any], Array]
    price: Callable[[Array], Any]
    width: int


def guide(name: str, space: Any, objective: Any) -> Guide:
    """The guide of a strategy called `name`.

    Raises:
        InputError: the error is not among what is minimised, so that there is nothing to predict.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> guide("mine", ToySpace(), toy_objective(ToySpace())).width
        2
    """
    if "error" not in objective.minimize:
        raise InputError(
            f"{name} predicts the error and minimize names {', '.join(objective.minimize)} only: minimise error as "
            "well, or search with nsga2"
        )
    if len(objective.minimize) >= MAX_OBJECTIVES:
        raise InputError(f"{name} minimises at most {MAX_OBJECTIVES - 1} objectives: leave some out")
    place = objective.minimize.index("error")
    count = 1 if objective.joined else len(objective.minimize)
    features = jax.vmap(gp.features_of(space, objective))
    price = jax.vmap(objective.price_one)

    def select(objectives: Array, violation: Array, usable: Array, size: int) -> tuple[Array, Array, Array]:
        return best_of(objectives[:, :count], violation, usable, size)

    def remember(archive: Population, genes: Array, feedback: Feedback) -> Population:
        error = feedback.objectives[:, place]
        what = feedback.scalar[:, None] if objective.joined else feedback.objectives
        return survive(
            archive, genes, feedback._replace(objectives=jnp.concatenate([what, error[:, None]], axis=1)), None, select
        )

    def learn(archive: Population) -> Learned:
        usable = archive.known & (archive.violation == 0)
        error = archive.objectives[:, count]
        logarithmic = jnp.where(usable, error > 0, True).all()
        safe = jnp.where(usable, error, 1.0)
        observed = jnp.where(logarithmic, jnp.log(jnp.where(safe > 0, safe, 1.0)), safe)
        return Learned(gp.fit(features(archive.genes), observed, usable), logarithmic)

    def join(error: Array, costs: Any) -> Array:
        if objective.joined:
            return jnp.asarray(objective.scalar_of(error, costs))[..., None]
        columns = [error if each == "error" else jnp.broadcast_to(costs[each], error.shape)
                   for each in objective.minimize]  # fmt: skip
        return jnp.stack(columns, axis=-1)

    return Guide(
        remember,
        learn,
        lambda learned, genes: gp.predict(learned.model, features(genes)),
        objective.late_by,
        join,
        price,
        count,
    )


def fresh(archive: Population, genes: Array) -> Array:
    """Which of `genes [Q, D]`, canonical, are neither remembered nor repeat one before themselves. `bool [Q]`

    Example:
        >>> from nas.population import unknown
        >>> archive = unknown(jnp.zeros((1, 2), jnp.int32))._replace(known=jnp.ones(1, bool))
        >>> fresh(archive, jnp.asarray([[0, 0], [0, 1], [0, 1]])).tolist()
        [False, True, False]
    """
    count = archive.genes.shape[0]
    prints = fingerprints(jnp.concatenate([archive.genes, genes]))
    usable = jnp.concatenate([archive.known, jnp.ones(genes.shape[0], bool)])
    return ~repeats(prints, usable)[count:]


def check_guided(space: Any, population: Any, initial: Any, memory: Any, mutation_rate: float | None) -> dict[str, Any]:
    """The options that guided strategies share, checked and filled in; `initial=None` is 16 networks, or a population.

    Raises:
        InputError: one of them is out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> check_guided(ToySpace(), 8, None, 384, 0.5)
        {'population': 8, 'initial': 16, 'memory': 384, 'mutation_rate': 0.5}
    """
    size = check_size(population, space)
    least = max(16, size) if initial is None else whole("initial", initial, 2, 100_000)
    whole("memory", memory, 16, 2048)
    rate = offspring.mutation_rate(space, mutation_rate)
    return {"population": size, "initial": least, "memory": max(memory, size), "mutation_rate": rate}


class State(NamedTuple):
    """The random networks that come first, `int32 [I, D]`, the steps done, `int32 []`, and the memory, best first."""

    first: Array
    step: Array
    memory: Population


def guided(
    name: str,
    space: Any,
    objective: Any,
    by: Guide,
    settings: dict[str, Any],
    picked: Callable[[Key, Population], Array],
) -> Strategy:
    """A strategy that evaluates random networks first, and then what `picked` of a key and the memory says. `[P, D]`

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> space, goal = ToySpace(), toy_objective(ToySpace())
        >>> settings = check_guided(space, 4, None, 64, None)
        >>> guided("mine", space, goal, guide("mine", space, goal), settings, lambda key, memory: memory.genes[:4]).name
        'mine'
    """
    size = settings["population"]
    canonical = jax.vmap(space.canonical)

    def init(key: Key) -> State:
        first = canonical(offspring.first_genes(space, key, -(-settings["initial"] // size) * size, objective))
        return State(first, jnp.int32(0), unknown(jnp.zeros((settings["memory"], space.num_decisions), jnp.int32)))

    def start(state: State, genes: Array) -> State:
        return state._replace(first=state.first.at[:size].set(genes.astype(jnp.int32)))

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        def waiting(key: Key, state: State) -> Array:
            return jax.lax.dynamic_slice_in_dim(state.first, state.step * size, size)

        early = state.step * size < state.first.shape[0]
        genes = jax.lax.cond(early, waiting, lambda key, state: picked(key, state.memory), key, state)
        return state, Proposal(genes)

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        memory = by.remember(state.memory, proposal.genes, feedback)
        return state._replace(step=state.step + 1, memory=memory)

    def final(state: State) -> Array:
        return state.memory.genes[:size]

    return Strategy(init, ask, tell, final, name=name, start=start, describe=settings)


def needs_prices(name: str, settings: dict[str, Any], bind: Callable[[Any], Strategy]) -> Strategy:
    """The strategy as long as it is not bound: it says what is missing when it is used.

    Example:
        >>> plan = needs_prices("mine", {}, lambda objective: plan)
        >>> plan.init(jax.random.key(0))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: mine goes by prices: use it through search, or bound(strategy, objective)
    """

    def refuse(*_: Any) -> Any:
        raise InputError(f"{name} goes by prices: use it through search, or bound(strategy, objective)")

    return Strategy(refuse, refuse, refuse, refuse, name=name, describe=settings, bind=bind)
