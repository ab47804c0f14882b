"""A strategy around a policy: it samples networks, learns which were good, and keeps the best.

What a reward is depends on the objective. Where one number says it all (a reward of `nas.rewards`, or one objective)
its negative is the reward. Several objectives that nothing joins are rewarded by `nas.improvement`: by what a network
adds to the best known ones or, where the policy takes a direction, by what it adds along that.

Costs are compared by their logarithms; how far they reach is known from a few hundred priced networks before any is
evaluated. How far errors reach is what was seen, so that no unit and no range has to be given.

Shape letters: `P` candidates, `D` decisions, `A` rows of the archive, `M` objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from hw_models.errors import number
from nas.advantages import Level, advantages, no_level
from nas.improvement import Box, along, around, directions, empty_box, improvement
from nas.policy import Policy
from nas.population import MAX_OBJECTIVES, Population, check_size, survive, unknown
from nas.types import Feedback, Key, Proposal, Strategy

ARCHIVE = 64  # least number of rows: a front of one or two networks says little about the next
PRICED = 256  # networks priced to see how far costs reach, before any is evaluated


class Drawn(NamedTuple):
    """Samples as the policy drew them.

    Attributes:
        genes: `int32 [P, D]`, not canonical.
        logs: `float32 [P, D]`, how probable their decisions were when they were drawn, as logarithms.
        directions: `float32 [P, W]`, what the policy was asked for.
    """

    genes: Array
    logs: Array
    directions: Array


class Learner(NamedTuple):
    """What a policy search knows.

    Attributes:
        parameters: of the policy.
        optimiser: state of the optimiser.
        level: which rewards are usual.
        box: what objectives were seen.
        archive: the best networks, A rows.
        first: `int32 [P, D]`, the first proposal.
        told: `int32 []`, how often something was told.
    """

    parameters: Any
    optimiser: Any
    level: Level
    box: Box
    archive: Population
    first: Array
    told: Array


# (parameters, samples, advantages [P], rows that count [P], steps so far []) -> the loss
Loss = Callable[[Any, Drawn, Array, Array, Array], Array]
# (policy) -> its loss
MakeLoss = Callable[[Policy], Loss]


def policy_options(
    space: Any,
    population: Any,
    learning_rate: Any,
    entropy: Any,
    entropy_halving: Any,
    memory: Any,
    imitation: Any,
) -> dict[str, Any]:
    """The options that all policy searches have, checked.

    Raises:
        InputError: one is out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> policy_options(ToySpace(), 8, 0.1, 0, None, 0.9, 0.1)["entropy"]
        0.0
    """
    return {
        "population": check_size(population, space),
        "learning_rate": number("learning_rate", learning_rate, 0),
        "entropy": number("entropy", entropy, 0, lowest=True),
        "entropy_halving": None if entropy_halving is None else number("entropy_halving", entropy_halving, 0),
        "memory": number("memory", memory, 0, 0.9999, lowest=True),
        "imitation": number("imitation", imitation, 0, lowest=True),
    }


def policy_search(
    space: Any,
    make_policy: Callable[[Any, int], Policy],
    make_loss: MakeLoss,
    *,
    name: str,
    describe: Mapping[str, Any],
    epochs: int = 1,
    directed: bool = False,
    objective: Any = None,
) -> Strategy:
    """The strategy that proposes samples of a policy and moves it by Adam down its loss, `epochs` times a step.

    `make_policy` takes the space and the length of a direction: the number of objectives with `directed` where nothing
    joins them, else 0. `describe` holds `population`, `learning_rate`, `memory` (that of `nas.advantages`) and
    `imitation`.

    The first proposal are samples of the fresh policy, which is uniform. Networks handed in by `start` take their place
    as if it had drawn them: they are uniform samples of the networks that meet the limits, so their importance ratios
    are one constant, which the scale of the advantages swallows.

    Where one number says it all, the best network so far is added to every batch with an advantage that weighs as much
    as `imitation` of the batch: the most probable network then ends where the best one is, and not nearby.

    Example:
        >>> from nas.policy import factorised
        >>> from nas.toy import ToySpace
        >>> described = {"population": 4, "learning_rate": 0.1, "memory": 0.9, "imitation": 0.0}
        >>> loss = regularised(0.1, None, lambda logs, drawn, worth: logs.sum(axis=1) * worth)
        >>> plan = policy_search(ToySpace(), factorised, loss, name="example", describe=described)
        >>> plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))[1].genes.shape
        (4, 6)
    """
    size, memory, imitation = describe["population"], describe["memory"], describe["imitation"]
    optimiser = optax.adam(describe["learning_rate"])
    rows = max(size, ARCHIVE)
    canonical = jax.vmap(space.canonical)
    joined = objective is not None and objective.joined
    wide = 0 if objective is None or joined or not directed else len(objective.minimize)
    policy = make_policy(space, wide)
    loss = make_loss(policy)
    relative = np.zeros(MAX_OBJECTIVES, bool)
    if objective is not None:
        relative[: len(objective.minimize)] = [cost != "error" for cost in objective.minimize]

    def comparable(objectives: Array) -> Array:
        """Logarithms of the costs, so that a tenth less is worth the same everywhere; errors as they are."""
        tiny = jnp.finfo(jnp.float32).tiny
        return jnp.where(relative[: objectives.shape[1]], jnp.log(jnp.maximum(objectives, tiny)), objectives)

    def init(key: Key) -> Learner:
        make, draw, price = jax.random.split(key, 3)
        parameters = policy.init(make)
        genes = jax.vmap(policy.sample, (None, None, 0))(parameters, jnp.zeros(wide), jax.random.split(draw, rows))
        box = empty_box()
        if objective is not None and not joined:
            priced = jax.vmap(objective.price_one)(jax.vmap(space.sample)(jax.random.split(price, PRICED)))
            nothing = jnp.full(PRICED, jnp.nan, jnp.float32)
            columns = [nothing if cost == "error" else priced.costs[cost] for cost in objective.minimize]
            values = comparable(jnp.stack(columns, axis=1))
            for m, cost in enumerate(objective.minimize):
                if cost != "error":
                    usable = (priced.violation == 0) & jnp.isfinite(values[:, m])
                    one = around(empty_box(), values[:, m : m + 1], usable)
                    box = Box(box.low.at[m].set(one.low[0]), box.high.at[m].set(one.high[0]))
        return Learner(
            parameters,
            optimiser.init(parameters),
            no_level(),
            box,
            unknown(canonical(genes)),
            genes[:size],
            jnp.int32(0),
        )

    def start(state: Learner, genes: Array) -> Learner:
        return state._replace(first=genes.astype(jnp.int32))

    def ask(key: Key, state: Learner) -> tuple[Learner, Proposal]:
        draw, wish = jax.random.split(key)
        wishes = directions(wish, size, wide) if wide else jnp.zeros((size, 0), jnp.float32)
        genes = jax.vmap(policy.sample, (None, 0, 0))(state.parameters, wishes, jax.random.split(draw, size))
        genes = jnp.where(state.told == 0, state.first, genes)
        logs = jax.vmap(policy.score, (None, 0, 0))(state.parameters, wishes, genes)[0]
        return state, Proposal(canonical(genes), aux=Drawn(genes, logs, wishes))

    def rewarded(state: Learner, wishes: Array, feedback: Feedback, trusted: Array) -> tuple[Box, Array]:
        if joined:
            return state.box, -feedback.scalar
        count = feedback.objectives.shape[1]
        if count == 1:
            return state.box, -feedback.objectives[:, 0]
        values = comparable(feedback.objectives)
        box = around(state.box, values, trusted)
        known = state.archive.known & (state.archive.violation == 0)
        if wide:
            return box, along(wishes, values, comparable(state.archive.objectives[:, :count]), known, box)
        return box, improvement(values, comparable(state.archive.objectives[:, :count]), known, box)

    def imitated(
        state: Learner, archive: Population, drawn: Drawn, worth: Array, rows: Array
    ) -> tuple[Drawn, Array, Array]:
        """The batch with the best network appended."""
        best, nowhere = archive.genes[:1], jnp.zeros((1, 0), jnp.float32)
        logs = policy.score(state.parameters, nowhere[0], best[0])[0][None]
        appended = jax.tree.map(lambda many, one: jnp.concatenate([many, one]), drawn, Drawn(best, logs, nowhere))
        some = (archive.violation[:1] == 0) & rows.any()
        weight = jnp.where(some, imitation * rows.sum(), 0.0)
        return appended, jnp.concatenate([worth, weight]), jnp.concatenate([rows, some])

    def tell(state: Learner, proposal: Proposal, feedback: Feedback) -> Learner:
        if joined:  # the archive goes by the one number, too
            feedback = feedback._replace(objectives=feedback.scalar[:, None])
        trusted = feedback.done & feedback.valid & jnp.isfinite(feedback.objectives).all(axis=1)
        box, rewards = rewarded(state, proposal.aux.directions, feedback, trusted)
        level, worth = advantages(state.level, rewards, trusted, feedback.violation, feedback.done, memory)
        archive = survive(state.archive, proposal.genes, feedback)
        drawn, rows = proposal.aux, feedback.done
        if imitation and feedback.objectives.shape[1] == 1:
            drawn, worth, rows = imitated(state, archive, drawn, worth, rows)
        known = (state.parameters, state.optimiser)

        def epoch(known: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            slopes = jax.grad(loss)(known[0], drawn, worth, rows, state.told)
            updates, moments = optimiser.update(slopes, known[1])
            return (optax.apply_updates(known[0], updates), moments), None

        learnt = epoch(known, None)[0] if epochs == 1 else jax.lax.scan(epoch, known, length=epochs)[0]
        some = feedback.done.any()
        parameters, moments = jax.tree.map(lambda new, old: jnp.where(some, new, old), learnt, known)
        return Learner(parameters, moments, level, box, archive, state.first, state.told + some.astype(jnp.int32))

    def final(state: Learner) -> Array:
        return state.archive.genes[:size]

    def bind(goal: Any) -> Strategy:
        return policy_search(
            space,
            make_policy,
            make_loss,
            name=name,
            describe=describe,
            epochs=epochs,
            directed=directed,
            objective=goal,
        )

    return Strategy(init, ask, tell, final, name=name, start=start, describe=describe, bind=bind, fair_start=True)


def regularised(entropy: float, halving: float | None, gain: Callable[[Array, Array, Array], Array]) -> MakeLoss:
    """The loss of samples: minus the mean over `rows` of `gain`, minus `entropy` times the entropy of live decisions.

    `gain(logs [P, D], drawn logs [P, D], advantages [P]) -> [P]`. The weight of the entropy halves every `halving`
    steps, or stays.

    Example:
        >>> from nas.policy import factorised
        >>> from nas.toy import ToySpace
        >>> loss = regularised(0.1, None, lambda logs, drawn, worth: logs.sum(axis=1) * worth)(factorised(ToySpace()))
        >>> drawn = Drawn(jnp.zeros((2, 6), jnp.int32), jnp.zeros((2, 6)), jnp.zeros((2, 0)))
        >>> round(float(loss(jnp.zeros((1, 6, 4)), drawn, jnp.zeros(2), jnp.ones(2, bool), jnp.int32(0))), 4)
        -0.5545
    """

    def make(policy: Policy) -> Loss:
        def loss(parameters: Any, drawn: Drawn, worth: Array, rows: Array, told: Array) -> Array:
            logs, spread = jax.vmap(policy.score, (None, 0, 0))(parameters, drawn.directions, drawn.genes)
            weight = entropy if halving is None else entropy * jnp.exp2(-told / halving)
            each = gain(logs, drawn.logs, worth) + weight * spread.sum(axis=1)
            return -jnp.where(rows, each, 0.0).sum() / jnp.maximum(rows.sum(), 1)

        return loss

    return make
