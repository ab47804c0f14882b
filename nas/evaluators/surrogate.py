"""A surrogate: another evaluator judges some networks, and an ensemble fitted to them predicts all others.

The training rounds draw networks, have them judged, and report how far the ensemble is off on networks it has not seen
(`nas/surrogate.py`). A network that was judged keeps its measured error. After Liu et al. 2018 (PNAS),
https://arxiv.org/abs/1712.00559, and Dai et al. 2021 (FBNetV3), https://arxiv.org/abs/2006.02049, section 3.2.

Gates are judged by sampling networks from them (`nas/multilinear.py`), so that strategies that descend gradients work
with it in any space.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models import discover
from hw_models.errors import InputError, whole
from hw_models.programs import for_few_runs
from nas import multilinear
from nas.progress import InProcess
from nas.surrogate import LEAST, MEMBERS, Ensemble, Prediction, fit
from nas.types import CandidateFailure, Evaluator, Key, Quality
from search_spaces.space import SearchSpace

CHUNK = 1024
_DRAWN = 256  # networks drawn at once, by one compiled program
_FRUITLESS = 50  # draws without a new network after which there is none


class State(NamedTuple):
    """The base's own state, and the networks drawn: `genes [N, D]`, `errors [N]` (NaN: failed, or not yet judged).

    `tried` of them were handed to the base, `round` training rounds are done, its own included; int32 `[]`.
    """

    base: Any
    genes: Array
    errors: Array
    tried: Array
    round: Array


def evaluator(
    space: SearchSpace,
    *,
    base: Any = "supernet",
    samples: int = 200,
    rounds: int = 10,
    seed: int = 0,
    samples_per_gate: int = 8,
    **options: Any,
) -> Evaluator:
    """Evaluator that predicts errors from `samples` networks, judged in `rounds` rounds by `base`.

    `base` is an `Evaluator`, or the name of one, made with `options` and, where it takes one, `seed`. Its own training
    rounds come first. Networks are drawn without repetition by `space.sample`, or, where the base knows a few networks
    only (`tabular`, given by name), from those. A network that fails is left out and counted, and fails again when it
    is asked for; rounds end the search where more than half do. The `metrics` of a round are the out-of-bag `rmse` and
    `kendall_tau`, the networks they rest on, and the failures so far.

    Error and gradient of gates `[P, D, C]` are unbiased estimates from `samples_per_gate` networks drawn from them and
    those that differ from these in one decision; among them one that failed counts with its prediction.

    Raises:
        InputError: an unknown base or option, too few samples, more samples than there are networks; while training,
            too many failures.

    Example:
        >>> from search_spaces.spaces import macro
        >>> judge = evaluator(macro.space(), base="tabular", samples=50, rounds=1)
        >>> state, metrics = judge.train(jax.random.key(0), judge.init(jax.random.key(0)))
        >>> metrics["networks"], metrics["kendall_tau"] > 0.6
        (50.0, True)
    """
    judge, pool = _base(space, base, seed, options)
    if samples < LEAST:
        raise InputError(f"samples={samples} is out of range: give at least {LEAST}")
    if not 1 <= rounds <= samples:
        raise InputError(f"rounds={rounds} is out of range: give 1 to {samples}, the samples")
    whole("samples_per_gate", samples_per_gate, 1, 1024)
    most = min(space.size, len(pool) if pool is not None else space.size)
    if samples > most:
        raise InputError(f"samples={samples} are more than the {most:,} networks of {judge.name}: ask fewer")
    draw = jax.jit(jax.vmap(space.sample)) if pool is None else None

    def init(key: Key) -> State:
        genes = jnp.zeros((samples, space.num_decisions), jnp.int32)
        none = jnp.full((samples,), jnp.nan, jnp.float32)
        return State(judge.init(key), genes, none, jnp.int32(0), jnp.int32(0))

    def train_round(key: Key, state: State) -> tuple[State, dict[str, float]]:
        done = int(state.round)
        if done < judge.rounds:
            own, metrics = judge.train(key, state.base)
            return state._replace(base=own, round=state.round + 1), metrics
        tried, until = int(state.tried), samples * (done - judge.rounds + 1) // rounds
        draw_key, judge_key = jax.random.split(key)
        genes, errors = np.array(state.genes), np.array(state.errors)
        fresh = _unseen(space, draw, pool, draw_key, genes[:tried], until - tried)
        failures: list[str] = []
        index = np.arange(len(fresh), dtype=np.int32)
        for outcome in InProcess().map_chunks(judge, judge_key, state.base, fresh, index):
            errors[tried + outcome.rows] = np.where(np.isfinite(outcome.error), outcome.error, np.nan)
            failures += [failure for failure in outcome.failures if failure]
        genes[tried:until] = fresh
        failed = int(np.isnan(errors[:until]).sum())
        last = done == judge.rounds + rounds - 1
        _check(judge.name, until, failed, failures, last)
        state = State(state.base, jnp.asarray(genes), jnp.asarray(errors), jnp.int32(until), state.round + 1)
        metrics = {"networks": float(until - failed), "failed": float(failed)}
        if until - failed >= LEAST:
            found = ensemble(space, state).quality
            metrics |= {"rmse": found.rmse, "kendall_tau": found.kendall_tau}
        return state, metrics

    canonical = for_few_runs(jax.vmap(space.canonical))

    def judged(state: State, genes: np.ndarray) -> np.ndarray:
        """Errors of genes that need not be canonical; a power of two of them at once, so that few programs do."""
        padded = np.zeros((1 << max(0, len(genes) - 1).bit_length(), genes.shape[1]), np.int32)
        padded[: len(genes)] = genes
        predicted, known = _both(space, state, np.asarray(canonical(padded))[: len(genes)])
        return np.where(np.isfinite(known), known, predicted).astype(np.float32)

    def under(key: Key, state: State, gates: np.ndarray, index: Any) -> Quality:
        words = np.asarray(jax.random.key_data(key)).tolist()
        pairs = [
            multilinear.sampled(
                lambda genes: judged(state, genes),
                row,
                space.cardinality,
                np.random.default_rng([*words, int(i)]),
                samples_per_gate,
            )
            for row, i in zip(gates, index, strict=True)
        ]
        error, grads = (np.asarray(side, np.float32) for side in zip(*pairs, strict=True))
        return Quality(error, grads)

    def evaluate(key: Key, state: State, genes: Any, index: Any) -> Quality:
        if np.ndim(genes) == 3:
            return under(key, state, np.asarray(genes), index)
        array = np.asarray(genes, np.int32)
        predicted, known = _both(space, state, array)
        if np.isnan(known).any():
            network = space.text(array[int(np.isnan(known).argmax())])
            raise CandidateFailure(f"evaluator {judge.name}, which the surrogate stands in for, failed on {network}")
        return Quality(np.where(np.isinf(known), predicted, known).astype(np.float32))

    describe = {
        "base": {"name": judge.name, "rounds": judge.rounds, **judge.describe},
        "samples": samples,
        "rounds": rounds,
        "drawn_from": "the space" if pool is None else f"{len(pool)} networks of the base",
        "members": MEMBERS,
        "samples_per_gate": samples_per_gate,
    }
    for name in ("data", "data_from", "data_source", "train", "validation", "test", "error_is"):
        if name in judge.describe:  # where people and exports look for it
            describe[name] = judge.describe[name]
    fixed = f"surrogate {space.fingerprint} {describe}"

    def version(state: State) -> str:
        digest = hashlib.sha256(f"{fixed} {judge.version(state.base)}".encode())
        for leaf in (state.genes, state.errors):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    return Evaluator(
        init,
        train_round,
        judge.rounds + rounds,
        evaluate,
        version,
        CHUNK,
        "surrogate",
        gives_gradients=True,
        describe=describe,
    )


def _both(space: SearchSpace, state: State, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted errors of canonical `genes [P, D]`, and measured ones: infinite where not judged, NaN where failed."""
    predicted = ensemble(space, state).predict(genes).error
    tried = slice(int(state.tried))
    measured = _measured(
        np.asarray(state.genes)[tried].tobytes(), np.asarray(state.errors)[tried].tobytes(), genes.shape[1]
    )
    return predicted, np.asarray([measured.get(row.tobytes(), np.inf) for row in genes], np.float32)


def predict(space: SearchSpace, state: State, genes: Any) -> Prediction:
    """Predicted errors of `genes [P, D]` and their standard deviations, for strategies that weigh both.

    These are predictions for networks that were judged as well.

    Raises:
        InputError: too few networks are judged.

    Example:
        >>> from search_spaces.spaces import macro
        >>> judge = evaluator(macro.space(), base="tabular", samples=50, rounds=1)
        >>> state, _ = judge.train(jax.random.key(0), judge.init(jax.random.key(0)))
        >>> found = predict(macro.space(), state, np.full((1, 8), 2))
        >>> bool(0.06 < found.error[0] < 0.09), bool(found.deviation[0] < 0.02)
        (True, True)
    """
    return ensemble(space, state).predict(genes)


def ensemble(space: SearchSpace, state: State) -> Ensemble:
    """The ensemble of a state; states are arrays, and equal ones are fitted once.

    Raises:
        InputError: too few networks are judged.
    """
    return _fitted(space, np.asarray(state.genes).tobytes(), np.asarray(state.errors).tobytes())


@lru_cache(maxsize=2)
def _fitted(space: SearchSpace, genes: bytes, errors: bytes) -> Ensemble:
    known = np.frombuffer(errors, np.float32)
    rows = np.frombuffer(genes, np.int32).reshape(len(known), space.num_decisions)
    return fit(space, rows[~np.isnan(known)], known[~np.isnan(known)])


@lru_cache(maxsize=2)
def _measured(genes: bytes, errors: bytes, decisions: int) -> Mapping[bytes, float]:
    known = np.frombuffer(errors, np.float32)
    rows = np.frombuffer(genes, np.int32).reshape(len(known), decisions)
    return {row.tobytes(): value for row, value in zip(rows, known, strict=True)}


def _base(space: SearchSpace, base: Any, seed: int, options: Mapping[str, Any]) -> tuple[Evaluator, np.ndarray | None]:
    """The evaluator that judges, and the only networks that it can, where it says so."""
    if isinstance(base, Evaluator):
        if options:
            raise InputError(f"options {', '.join(options)} are for a base given by name: make the evaluator with them")
        return base, None
    if not isinstance(base, str) or base == "surrogate":
        raise InputError(f"base={base!r} is not allowed: give another evaluator, or the name of one such as 'supernet'")
    factory = discover.load("nas.evaluators", base, "evaluator", "evaluator")
    known = list(inspect.signature(factory).parameters)[1:]
    for name in options:
        if name not in known:
            raise discover.unknown(f"option of evaluator {base}", name, known)
    chosen = {"seed": seed, **options} if "seed" in known else dict(options)
    networks = discover.load_optional("nas.evaluators", base, "networks")
    return factory(space, **chosen), None if networks is None else networks(space, **chosen)


def _unseen(
    space: SearchSpace,
    draw: Callable[[Array], Array] | None,
    pool: np.ndarray | None,
    key: Key,
    seen: np.ndarray,
    count: int,
) -> np.ndarray:
    """`count` networks that are not among `seen`, int32 `[count, D]`."""
    found: list[np.ndarray] = []
    known = {row.tobytes() for row in seen}
    fruitless = turn = 0
    if draw is None:
        assert pool is not None
        order = np.asarray(jax.random.permutation(key, len(pool)))
        return np.asarray([row for row in pool[order] if row.tobytes() not in known][:count], np.int32)
    while len(found) < count:
        before = len(found)
        for row in np.asarray(draw(jax.random.split(jax.random.fold_in(key, turn), _DRAWN))):
            if row.tobytes() not in known and len(found) < count:
                known.add(row.tobytes())
                found.append(row)
        turn, fruitless = turn + 1, 0 if len(found) > before else fruitless + 1
        if fruitless == _FRUITLESS:
            raise InputError(
                f"space {space.name} gave no new network after {len(known)}, {count - len(found)} more are needed: "
                "lower samples"
            )
    return np.asarray(found, np.int32)


def _check(name: str, tried: int, failed: int, failures: list[str], last: bool) -> None:
    reason = f", the last because {failures[-1]}" if failures else ""
    if failed > tried / 2 and tried >= LEAST:
        raise InputError(f"{failed} of {tried} networks failed with evaluator {name}{reason}: mend or change the base")
    if last and tried - failed < LEAST:
        raise InputError(
            f"evaluator {name} judged {tried - failed} of {tried} networks{reason}: a surrogate needs at least "
            f"{LEAST}, raise samples"
        )
