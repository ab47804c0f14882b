"""What strategies that descend gradients share: gates from logits, the way back, schedules, and the strategy around it.

A policy is one matrix of logits `[D, C]`; its gates are the softmax over the options that a decision has (of `psp`
their own shares). The loop evaluates gates and hands back the gradient of the scalar with respect to them; each
strategy pulls that back to its logits by its own rule, and Adam moves them.

Shape letters: `P` candidates of a step, `R` policies, `D` decisions, `C` options.

Sources: Liu et al. 2019 (DARTS), https://arxiv.org/abs/1806.09055. Kingma & Ba 2015 (Adam),
https://arxiv.org/abs/1412.6980.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from hw_models.errors import InputError, number, whole
from nas.objectives import Objective
from nas.population import check_size, legal_options
from nas.rounding import Round, landing, most_probable
from nas.types import Feedback, Key, Proposal, State, Strategy

START = 1e-3  # standard deviation of the first logits: near to equal chances, and another search for another seed


class Descent(NamedTuple):
    """The state of a strategy that descends gradients.

    Attributes:
        logits: `float32 [R, D, C]`.
        moments: Adam's.
        step: steps told, int32 `[]`.
        genes: `int32 [P, D]`, the networks of the rows that were told last.
        soft: `float32 [P]`, the scalar of those rows under their gates; `+inf` beyond a limit.
        told: `bool [P]`, rows that were ever told.
    """

    logits: Array
    moments: Any
    step: Array
    genes: Array
    soft: Array
    told: Array


class Settings(NamedTuple):
    """Options that all of these strategies have. Temperatures fall from the first to the last by equal factors.

    Attributes:
        population: rows of a step, P.
        learning_rate: Adam's.
        warmup: steps during which logits do not move.
        temperature: of the softmax, first and last.
        anneal_steps: over how many steps after the warm-up it falls.
        judge_every: networks are judged at every so manyth step.
    """

    population: int
    learning_rate: float
    warmup: int
    temperature: tuple[float, float]
    anneal_steps: int
    judge_every: int


def settings(
    space: Any,
    population: int,
    learning_rate: float,
    warmup: int,
    temperature: float,
    last_temperature: float,
    anneal_steps: int,
    judge_every: int,
) -> Settings:
    """The options, checked.

    Raises:
        InputError: one is out of range.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> settings(tiny.space(), 1, 0.1, 0, 1.0, 0.1, 50, 1).temperature
        (1.0, 0.1)
    """
    check_size(population, space)
    ends = (number("temperature", temperature, 1e-3, 1e3), number("last_temperature", last_temperature, 1e-3, 1e3))
    return Settings(
        population,
        number("learning_rate", learning_rate, 0.0, 100.0),
        whole("warmup", warmup, 0, 1_000_000),
        ends,
        whole("anneal_steps", anneal_steps, 1, 1_000_000),
        whole("judge_every", judge_every, 1, 1_000_000),
    )


def softmax(logits: Array, legal: Any, temperature: Array | float = 1.0) -> Array:
    """Gates `[..., D, C]` of logits: probabilities over the legal options, 0 elsewhere.

    Example:
        >>> softmax(jnp.zeros((1, 3)), jnp.asarray([[True, True, False]])).tolist()
        [[0.5, 0.5, 0.0]]
    """
    return jax.nn.softmax(jnp.where(legal, logits / temperature, -jnp.inf), axis=-1)


def pulled(gates_of: Callable[[Array], Array], logits: Array, gradient: Array) -> Array:
    """The gradient with respect to `logits` of what has `gradient` with respect to `gates_of(logits)`.

    Example:
        >>> double = pulled(lambda x: 2 * x, jnp.zeros(2), jnp.asarray([1.0, 3.0]))
        >>> double.tolist()
        [2.0, 6.0]
    """
    return jax.vjp(gates_of, logits)[1](gradient)[0]


def annealed(chosen: Settings, step: Array) -> Array:
    """The temperature at a step, float32 `[]`.

    Example:
        >>> chosen = Settings(1, 0.1, 10, (1.0, 0.25), 10, 1)
        >>> [round(float(annealed(chosen, jnp.int32(step))), 6) for step in (0, 10, 15, 20, 30)]
        [1.0, 1.0, 0.5, 0.25, 0.25]
    """
    first, last = chosen.temperature
    share = jnp.clip((step - chosen.warmup) / chosen.anneal_steps, 0.0, 1.0)
    return jnp.float32(first) * jnp.float32(last / first) ** share


class Draw(NamedTuple):
    """Gates of a step `[P, D, C]`, scores `[P, D, C]` whose highest name each row's network, and what `pull` needs."""

    gates: Array
    scores: Array
    aux: Any = None


def descent(
    space: Any,
    name: str,
    chosen: Settings,
    draw: Callable[[Key, Array, Array], Draw],
    pull: Callable[[Array, Array, Any, Array], Array],
    *,
    policies: int = 1,
    first: float = 0.0,
    after: Callable[[Array, Array, Any], Array] | None = None,
    scored: Callable[[Array], Array] = lambda logits: logits,
    describe: Mapping[str, Any],
) -> Strategy:
    """The strategy `name` around a rule that draws gates and one that pulls gradients back.

    `draw` is `(key, logits [R, D, C], temperature) -> Draw`. `pull` is `(logits, temperature, aux, gradient
    [P, D, C]) -> [P, D, C]`, the gradient with respect to each row's policy; with one policy the mean over rows moves
    it, with P policies (`policies`) each row moves its own. Logits begin near `first`. `after` is `(old, new, aux) ->
    new` logits. `scored` makes scores of logits, those of `draw` without noise, for the answer before anything was
    told. Rows that are not done, and those whose gradient is not finite, are left out.

    Once bound to an objective, networks are rounded to its limits and targets by `nas.rounding.landing`.

    Example:
        >>> from nas.strategies import darts
        >>> from nas.toy import ToySpace
        >>> plan = darts.strategy(ToySpace())  # made by this
        >>> plan.init(jax.random.key(0)).logits.shape
        (1, 6, 4)
    """
    rows, legal = chosen.population, legal_options(space)
    rule = optax.adam(chosen.learning_rate, b1=0.5, b2=0.999)  # the betas of DARTS, section 3
    take = most_probable(space)

    def init(key: Key) -> Descent:
        logits = first + START * jax.random.normal(key, (policies, *legal.shape), jnp.float32)
        genes = jnp.zeros((rows, legal.shape[0]), jnp.int32)
        soft = jnp.full((rows,), jnp.inf, jnp.float32)
        return Descent(logits, rule.init(logits), jnp.int32(0), genes, soft, jnp.zeros((rows,), bool))

    def ask_by(round_: Round) -> Callable[[Key, State], tuple[Descent, Proposal]]:
        def ask(key: Key, state: Descent) -> tuple[Descent, Proposal]:
            drawn = draw(key, state.logits, annealed(chosen, state.step))
            genes = jax.lax.map(round_, drawn.scores)
            judge = jnp.full((rows,), state.step % chosen.judge_every == 0)
            return state, Proposal(genes, drawn.gates, drawn.aux, judge)

        return ask

    def tell(state: Descent, proposal: Proposal, feedback: Feedback) -> Descent:
        assert feedback.gate_grads is not None
        usable = feedback.done & jnp.isfinite(feedback.gate_grads).all((1, 2))
        grads = jnp.where(usable[:, None, None], feedback.gate_grads, 0.0)
        back = pull(state.logits, annealed(chosen, state.step), proposal.aux, grads)
        back = jnp.where(usable[:, None, None], back, 0.0)
        if policies == 1:
            back = back.sum(0, keepdims=True) / jnp.maximum(usable.sum(), 1)
            moves = jnp.broadcast_to(usable.any(), (1,))
        else:
            moves = usable
        change, moments = rule.update(back, state.moments)
        logits = optax.apply_updates(state.logits, change)
        if after is not None:
            logits = after(state.logits, logits, proposal.aux)
        moves &= state.step >= chosen.warmup
        still = lambda new, old: jnp.where(_like(moves, new), new, old)  # noqa: E731
        return Descent(
            still(logits, state.logits),
            jax.tree.map(still, moments, state.moments),
            state.step + 1,
            jnp.where(usable[:, None], proposal.genes, state.genes),
            jnp.where(usable, jnp.nan_to_num(feedback.scalar, nan=jnp.inf), state.soft),
            state.told | usable,
        )

    def final_by(round_: Round) -> Callable[[State], Array]:
        def final(state: Descent) -> Array:
            # networks as they were proposed: those that the loop has judged
            order = jnp.lexsort((state.soft, ~state.told))
            fresh = jax.lax.map(round_, jnp.broadcast_to(scored(state.logits), (rows, *legal.shape)))
            known = jnp.where(state.told[order][:, None], state.genes[order], state.genes[order[0]])
            return jnp.where(state.told.any(), known, fresh)

        return final

    made = Strategy(
        init, ask_by(take), tell, final_by(take), name=name, needs_gradients=True, describe=described(chosen, describe)
    )

    def bind(objective: Objective) -> Strategy:
        check_joined(name, objective)
        round_ = landing(space, objective)
        return made._replace(ask=ask_by(round_), final=final_by(round_))

    return made._replace(bind=bind)


def described(chosen: Settings, more: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain JSON values.

    Example:
        >>> described(Settings(1, 0.1, 0, (1.0, 0.1), 50, 1), {"paths": 1})["last_temperature"]
        0.1
    """
    first, last = chosen.temperature
    plain = {key: value for key, value in chosen._asdict().items() if key != "temperature"}
    return {**plain, "temperature": first, "last_temperature": last, **more}


def without_temperature(made: Strategy) -> Strategy:
    """A strategy of `descent` whose rule has no temperature: none is described.

    Example:
        >>> from nas.strategies import proxyless_gates
        >>> from nas.toy import ToySpace
        >>> "temperature" in proxyless_gates.strategy(ToySpace()).describe  # made by this
        False
    """
    told = {
        name: value for name, value in made.describe.items() if "temperature" not in name and name != "anneal_steps"
    }
    bind = made.bind
    assert bind is not None
    return made._replace(describe=told, bind=lambda objective: bind(objective)._replace(describe=told))


def check_joined(name: str, objective: Any) -> None:
    """Raise InputError where several objectives are not joined into the one number that a gradient needs.

    Example:
        >>> from nas.toy import ToySpace, toy_objective
        >>> check_joined("darts", toy_objective(ToySpace(), ("error",)))
    """
    if not objective.joined:
        raise InputError(
            f"{name} descends one number and minimize names {', '.join(objective.minimize)}: give scalar=... (absolute "
            "with targets.latency_s=..., product, fbnet, mnasnet_soft), or search with nsga2"
        )


def _like(moves: Array, leaf: Array) -> Array:
    """`moves [R]` against a leaf `[R, ...]` of the state, or whether any moves against Adam's count `[]`."""
    return moves.any() if jnp.ndim(leaf) == 0 else moves.reshape(-1, *[1] * (jnp.ndim(leaf) - 1))
