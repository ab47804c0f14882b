"""Asynchronous successive halving: many networks get a short training, the best of them a longer one.

Trainings have lengths of 1, 1/3, 1/9, ... of the full one, the rungs. Whenever a third of the networks of a rung are
better than the others and were not promoted yet, they are promoted to the next; what is left of a step is filled with
new random networks on the lowest rung. So nobody waits for a rung to be complete, and a search has full trainings from
early on. A network is trained anew on every rung, with a whole schedule of that length.

With several objectives, networks are ranked by fronts and, within a front, by how alone they are.

References: Li et al. 2020, "A system for massively parallel hyperparameter tuning" (ASHA),
https://arxiv.org/abs/1810.05934, algorithm 2. Schmucker et al. 2021, "Multi-objective asynchronous successive halving",
https://arxiv.org/abs/2106.12639 (fronts in place of one number).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hw_models.errors import whole
from nas import offspring
from nas.pareto import best_of
from nas.population import MAX_OBJECTIVES, Population, as_one, check_size, survive, trusted_violation, unknown
from nas.types import Feedback, Key, Proposal, Strategy

REMEMBERED = 1024  # networks; the oldest are forgotten, finished or not


class State(NamedTuple):
    """What every network reached on every rung. `N` networks, `R` rungs, the highest last.

    Attributes:
        genes: `int32 [N, D]`.
        objectives: `float32 [R, N, MAX_OBJECTIVES]`, and violation `float32 [R, N]`, `+inf` where it failed.
        known: `bool [R, N]`, trained on that rung.
        sent: `bool [R, N]`, proposed for that rung.
        next: where the next new network goes, `int32 []`.
        first: the first proposal, `int32 [P, D]`.
        best: the best of those that were trained fully.
    """

    genes: Array
    objectives: Array
    violation: Array
    known: Array
    sent: Array
    next: Array
    first: Array
    best: Population


class _Sent(NamedTuple):
    """The places `[P]` and rungs `[P]` of a proposal."""

    place: Array
    rung: Array


def strategy(space: Any, *, population: int = 9, rungs: int = 3, factor: int = 3) -> Strategy:
    """Successive halving over the length of training, for evaluators that train every candidate.

    Args:
        space: the search space.
        population: candidates per step, P, 1 to 4096 and at most the size of the space.
        rungs: lengths of training, 2 to 8: with 3 rungs and a factor of 3, a ninth, a third and all of it.
        factor: by how much rungs differ in length, and the share of a rung that is promoted, 2 to 16.

    Raises:
        InputError: an option out of range.

    Example:
        >>> from nas.toy import ToySpace
        >>> plan = strategy(ToySpace(), population=4)
        >>> _, proposal = plan.ask(jax.random.key(1), plan.init(jax.random.key(0)))
        >>> [round(share, 3) for share in proposal.share.tolist()]
        [0.111, 0.111, 0.111, 0.111]
    """
    size = check_size(population, space)
    whole("rungs", rungs, 2, 8)
    whole("factor", factor, 2, 16)
    return _plan(space, {"population": size, "rungs": rungs, "factor": factor}, None)


def _plan(space: Any, settings: dict[str, Any], objective: Any) -> Strategy:
    size, rungs, factor = settings["population"], settings["rungs"], settings["factor"]
    kept = max(REMEMBERED, 2 * size)
    joined = objective is not None and objective.joined
    count = MAX_OBJECTIVES if objective is None else 1 if joined else len(objective.minimize)
    shares = jnp.asarray([factor ** -(rungs - 1 - rung) for rung in range(rungs)], jnp.float32)
    canonical = jax.vmap(space.canonical)

    def drawn(key: Key) -> Array:
        return canonical(offspring.first_genes(space, key, size, objective))

    def init(key: Key) -> State:
        genes = jnp.zeros((kept, space.num_decisions), jnp.int32)
        nothing = jnp.zeros((rungs, kept), bool)
        objectives = jnp.full((rungs, kept, MAX_OBJECTIVES), jnp.inf, jnp.float32)
        violation = jnp.full((rungs, kept), jnp.inf, jnp.float32)
        first = drawn(key)
        return State(genes, objectives, violation, nothing, nothing, jnp.int32(0), first, unknown(first))

    def start(state: State, genes: Array) -> State:
        return state._replace(first=genes.astype(jnp.int32), best=unknown(genes))

    def order(objectives: Array, violation: Array, known: Array) -> Array:
        """The place of every network on its rung, 0 for the best. `[N]`"""
        rows, _, _ = best_of(objectives[:, :count], violation, known, kept)
        return jnp.zeros(kept, jnp.int32).at[rows].set(jnp.arange(kept, dtype=jnp.int32))

    def ask(key: Key, state: State) -> tuple[State, Proposal]:
        place = jax.lax.map(
            lambda rung: order(state.objectives[rung], state.violation[rung], state.known[rung]), jnp.arange(rungs - 1)
        )
        quota = state.known[:-1].sum(1) // factor
        good = jnp.isfinite(state.violation[:-1]) & state.known[:-1]
        # the oldest places are about to be given to new networks
        kept_on = (jnp.arange(kept) - state.next) % kept >= size
        ready = good & (place < quota[:, None]) & ~state.sent[1:] & kept_on  # [R - 1, N]
        # the highest rung first, and the best of it
        worth = jnp.where(ready, jnp.arange(rungs - 1)[:, None] * kept + (kept - 1 - place), -1)
        value, which = jax.lax.top_k(worth.ravel(), size)
        promoted = value >= 0
        fresh = (state.next + jnp.cumsum(~promoted) - 1) % kept
        at = jnp.where(promoted, which % kept, fresh).astype(jnp.int32)
        rung = jnp.where(promoted, which // kept + 1, 0).astype(jnp.int32)
        new = jnp.where(state.sent.any(), drawn(key), state.first)
        genes = jnp.where(promoted[:, None], state.genes[at], new)
        renewed = jnp.where(promoted, kept, at)  # beyond the end where nothing is renewed
        sent = state.sent.at[:, renewed].set(False, mode="drop").at[rung, at].set(True)
        after = state._replace(
            genes=state.genes.at[at].set(genes),
            known=state.known.at[:, renewed].set(False, mode="drop"),
            violation=state.violation.at[:, renewed].set(jnp.inf, mode="drop"),
            sent=sent,
            next=(state.next + (~promoted).sum().astype(jnp.int32)) % kept,
        )
        return after, Proposal(genes, aux=_Sent(at, rung), share=shares[rung])

    def tell(state: State, proposal: Proposal, feedback: Feedback) -> State:
        seen = as_one(feedback) if joined else feedback
        violation = trusted_violation(seen)
        width = seen.objectives.shape[1]
        padded = jnp.pad(seen.objectives, ((0, 0), (0, MAX_OBJECTIVES - width)), constant_values=jnp.inf)
        rung, at = proposal.aux.rung, jnp.where(seen.done, proposal.aux.place, kept)
        # a short training is no answer as long as there is a full one
        short = 1.0 - shares[rung]
        partial = seen._replace(
            valid=seen.valid & (short == 0), violation=jnp.where(seen.valid, short, seen.violation + 1.0)
        )
        full = feedback.done & (short == 0)
        # a full training takes the place of the short one of the same network
        again = ((state.best.genes[:, None] == proposal.genes[None]).all(axis=2) & full[None]).any(axis=1)
        best = state.best._replace(known=state.best.known & ~again)
        return state._replace(
            objectives=state.objectives.at[rung, at].set(padded.astype(jnp.float32), mode="drop"),
            violation=state.violation.at[rung, at].set(violation, mode="drop"),
            known=state.known.at[rung, at].set(True, mode="drop"),
            best=survive(best, proposal.genes, partial),
        )

    def final(state: State) -> Array:
        return state.best.genes

    def bind(objective: Any) -> Strategy:
        return _plan(space, settings, objective)

    return Strategy(
        init,
        ask,
        tell,
        final,
        name="successive_halving",
        start=start,
        describe=settings,
        bind=bind,
        needs_shares=True,
    )
