"""The contracts of a search: what a strategy, an evaluator and the loop say to each other.

Shape letters, stated once and used everywhere:

    P  candidates proposed at one step        L  layers of a network
    D  decisions of a space                   S  slots (block positions)
    C  options of the widest decision         V  variants of a slot
    M  objectives, all minimised              K  cost fields

`genes` are `int32 [D]` (one option index per decision), `gates` are `float32 [D, C]` (one probability per option). A
`State` is any PyTree of arrays: the loop stores it without knowing what is inside. Functions of a strategy are pure and
jittable, so the same key and state give the same answer, on which resuming a run rests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jax import Array

Key = Array  # a typed key, `jax.random.key(seed)`
State = Any  # any PyTree of arrays

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class CandidateFailure(Exception):
    """Raised by an evaluator for a candidate that cannot be evaluated (it diverged, it ran out of memory).

    The loop records the candidate as failed and goes on; where a chunk held several rows it evaluates them one by one,
    so that only the culprit fails. Any other exception is a mistake in a program: it ends the search, after a snapshot.

    Example:
        >>> raise CandidateFailure("the loss was not finite after 3 steps")
        Traceback (most recent call last):
        ...
        nas.types.CandidateFailure: the loss was not finite after 3 steps
    """


class Proposal(NamedTuple):
    """What a strategy asks to have evaluated.

    Attributes:
        genes: `int32 [P, D]`, canonical and in range. For relaxed strategies the network that each row stands for,
            such as its most probable options.
        gates: `float32 [P, D, C]`, probabilities of the options of each decision, 0 for options that a decision does
            not have; or None for strategies that propose genes only.
        aux: whatever `tell` needs to remember of this `ask` (noise, parents); any PyTree, or None.
        judge: `bool [P]`, beside gates: rows whose network (`genes`) is judged at this step as an ordinary candidate;
            None for all of them. At the last step of a search all are, whatever stands here.
        share: `float32 [P]`, above 0 to 1, how much of its training each row gets; None for all of it. Rows that get
            less are judged for comparison only and are no answer.
    """

    genes: Array
    gates: Array | None = None
    aux: Any = None
    judge: Array | None = None
    share: Array | None = None


class Feedback(NamedTuple):
    """What became of a proposal, one row per candidate.

    Attributes:
        objectives: `float32 [P, M]`, minimised; `+inf` where `valid` is False.
        scalar: `float32 [P]`, one number to minimise, for strategies that rank by one; `+inf` where `valid` is False.
        violation: `float32 [P]`, 0 where every limit is met, above 0 the summed relative excess, `+inf` for a candidate
            that failed or fits no device.
        valid: `bool [P]`, evaluated, finite and within every limit.
        done: `bool [P]`, rows this feedback is about; the others are still being evaluated and must be ignored.
        gate_grads: `float32 [P, D, C]`, gradient of the scalar and of the violation with respect to the gates, or
            None; NaN in rows that failed. Feedback on gates is about the relaxed rows, never about their networks.
    """

    objectives: Array
    scalar: Array
    violation: Array
    valid: Array
    done: Array
    gate_grads: Array | None = None


class Strategy(NamedTuple):
    """How to choose what to evaluate next: four pure functions (after optax and its `init / update`).

    Attributes:
        init: `key -> state`. Shapes and dtypes of the state never change afterwards.
        ask: `(key, state) -> (state, proposal)`.
        tell: `(state, proposal, feedback) -> state`; ignores rows that are not `done`.
        final: `state -> genes [P, D]`, the answer.
        name: what reports call it.
        needs_gradients: whether `tell` reads `feedback.gate_grads`.
        start: `(state, genes [P, D]) -> state`, replaces the first proposal, or None where the strategy has no initial
            population. The loop hands in networks that meet the limits on costs.
        describe: settings as plain JSON values, kept with the run.
        bind: `objective -> strategy`, the same strategy with what it can know of the objective: prices (before it
            proposes anything), limits, targets, how many objectives there are. None where that changes nothing. Raises
            `InputError` where strategy and objective do not go together. See `bound`.
        needs_shares: whether proposals have shares below 1.
        fair_start: whether `start` takes its networks for a fair sample of those that meet the limits, so that they
            must not be chosen.
    """

    init: Callable[[Key], State]
    ask: Callable[[Key, State], tuple[State, Proposal]]
    tell: Callable[[State, Proposal, Feedback], State]
    final: Callable[[State], Array]
    name: str = ""
    needs_gradients: bool = False
    start: Callable[[State, Array], State] | None = None
    describe: Mapping[str, Any] = _NOTHING
    bind: Callable[[Any], Strategy] | None = None
    needs_shares: bool = False
    fair_start: bool = False


def bound(strategy: Strategy, objective: Any) -> Strategy:
    """The strategy as it is used with an `nas.objectives.Objective`.

    Raises:
        InputError: the two do not go together.

    Example:
        >>> from nas.strategies import random_search
        >>> from nas.toy import ToySpace, toy_objective
        >>> bound(random_search.strategy(ToySpace()), toy_objective(ToySpace())).name
        'random_search'
    """
    return strategy if strategy.bind is None else strategy.bind(objective)


class Quality(NamedTuple):
    """How good candidates are.

    Attributes:
        error: `float32 [P]`, a fraction from 0 to 1 for classifiers; NaN or infinite counts as failed.
        error_grads: `float32 [P, D, C]`, gradient of the error with respect to the gates, or None.
    """

    error: Any
    error_grads: Any = None


class Evaluator(NamedTuple):
    """How good a network is: shared weights, a table, a proxy, training from scratch.

    Attributes:
        init: `key -> state`, what all candidates share (weights, statistics); cheap.
        train: `(key, state) -> (state, metrics)`, one training round; metrics are numbers such as `loss`.
        rounds: how many training rounds come before the search; 0 for none.
        evaluate: `(key, state, genes [P, D], index [P]) -> Quality`, rows independent of each other, the key of a row
            is `fold_in(key, index)`. An evaluator that gives gradients gets `gates [P, D, C]` in place of genes for
            relaxed candidates, and answers one-hot gates as it does the genes, or by the loss that stands for that.
        version: `state -> str`, a hash of what a result depends on besides the genes (the weights).
        chunk: `evaluate` is called with 1 to `chunk` rows at a time, so that records flow.
        name: what reports call it.
        gives_gradients: whether `Quality.error_grads` is filled for gates.
        describe: settings as plain JSON values, kept with the run.
        follow: `(key, state, gates [P, D, C]) -> (state, metrics)`, called once at every relaxed step before its gates
            are evaluated: trains the shared weights under them (bi-level search). None where the state is frozen after
            the training rounds; otherwise every step has another `version`, and errors hold for their step only.
        shortened: `share -> evaluator`, the same with that share of every candidate's training, with the same state.
            None where candidates are not trained one by one.
    """

    init: Callable[[Key], State]
    train: Callable[[Key, State], tuple[State, dict[str, float]]]
    rounds: int
    evaluate: Callable[[Key, State, Any, Any], Quality]
    version: Callable[[State], str]
    chunk: int
    name: str
    gives_gradients: bool = False
    describe: Mapping[str, Any] = _NOTHING
    follow: Callable[[Key, State, Any], tuple[State, dict[str, float]]] | None = None
    shortened: Callable[[float], Evaluator] | None = None
