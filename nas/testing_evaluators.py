"""Checks that every evaluator must pass, on a space and with options that make it quick. For third parties as well:

    from nas.testing_evaluators import EVALUATOR_CHECKS, prepared
    @pytest.mark.parametrize("check", EVALUATOR_CHECKS)
    def test_my_evaluator(check):
        check(prepared(space, my_lab.early_stopping.evaluator(space)))

A check takes a `Prepared` and raises AssertionError.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nas.plain import arrays_of, dumps, tree_from
from nas.run_files import read_snapshot
from nas.store import Folder
from nas.types import Evaluator, State

ROWS = 3
COMPILING = "/jax/core/compile/"  # what JAX calls the time it takes to trace, lower and compile


class Prepared(NamedTuple):
    """An evaluator, its state before and after its training rounds, and `genes [ROWS, D]` that it can judge.

    `compiled` is what JAX traced and compiled in the second training round, by its names for that.
    """

    space: Any
    judge: Evaluator
    begun: State
    state: State
    genes: np.ndarray
    compiled: tuple[str, ...] = ()


def prepared(space: Any, judge: Evaluator, genes: Any = None, seed: int = 0) -> Prepared:
    """What the checks take; `genes` are drawn from `space` unless given.

    That training is compiled once is only seen with two rounds or more.

    Example:
        >>> from nas.toy import ToySpace, toy_evaluator
        >>> prepared(ToySpace(), toy_evaluator(ToySpace(), rounds=2)).genes.shape
        (3, 6)
    """
    root = jax.random.key(seed)
    if genes is None:
        keys = jax.random.split(jax.random.fold_in(root, 1), ROWS)
        genes = np.asarray(jax.jit(jax.vmap(space.sample))(keys))
    begun = judge.init(jax.random.fold_in(root, 2))
    state, compiled = _trained(judge, begun, root)
    return Prepared(space, judge, begun, state, np.asarray(genes, np.int32), compiled)


def _trained(judge: Evaluator, state: State, root: Any) -> tuple[State, tuple[str, ...]]:
    """The state after all rounds, and what the second one compiled: the first with a state that training has made."""
    compiled: tuple[str, ...] = ()
    for round in range(judge.rounds):
        key = jax.random.fold_in(jax.random.fold_in(root, 3), round)
        with Compilations() as seen:
            state, metrics = judge.train(key, state)
        if round == 1:
            compiled = tuple(seen.events)
        assert all(isinstance(value, float | int) for value in metrics.values()), f"metrics are no numbers: {metrics}"
    return state, compiled


def _errors(case: Prepared, rows: Any, state: State | None = None, seed: int = 5) -> np.ndarray:
    """Errors of some of the networks, each with the index it has among all."""
    index = np.asarray(rows, np.int32)
    chosen = case.state if state is None else state
    return np.asarray(case.judge.evaluate(jax.random.key(seed), chosen, case.genes[index], index).error)


def check_description(case: Prepared) -> None:
    """A name, whole numbers of rounds and rows, and settings that are JSON."""
    judge = case.judge
    assert judge.name and isinstance(judge.name, str)
    assert isinstance(judge.rounds, int) and judge.rounds >= 0, judge.rounds
    assert isinstance(judge.chunk, int) and judge.chunk >= 1, judge.chunk
    settings = dict(judge.describe)
    assert settings, "describe is empty: a run cannot say how its errors came about"
    assert json.loads(json.dumps(settings, allow_nan=False)) == json.loads(dumps(settings)), "describe is no plain JSON"


def check_errors(case: Prepared) -> None:
    """One finite number for each network."""
    for count in range(1, min(case.judge.chunk, len(case.genes)) + 1):
        errors = _errors(case, range(count))
        assert errors.shape == (count,) and np.issubdtype(errors.dtype, np.floating), (errors.shape, errors.dtype)
        assert np.isfinite(errors).all(), errors


def check_same_key(case: Prepared) -> None:
    """The same key and state give the same errors, and evaluating changes no state."""
    before = arrays_of(case.state)
    first, again = (_errors(case, [0]) for _ in range(2))
    assert np.array_equal(first, again), f"one key, two errors: {first} and {again}"
    after = arrays_of(case.state)
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before), "evaluating wrote a state"


def check_rows(case: Prepared) -> None:
    """An error depends on its own network and index: not on the others, their number, or their order."""
    count, most = len(case.genes), min(case.judge.chunk, len(case.genes))
    alone = np.concatenate([_errors(case, [row]) for row in range(count)])
    for size in range(2, most + 1):
        parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
        together = np.concatenate([_errors(case, part) for part in parts])
        assert np.array_equal(alone, together), f"chunks of {size}: {together} instead of {alone}"
    if most > 1:
        backwards = list(range(most))[::-1]
        assert np.array_equal(_errors(case, backwards), alone[backwards]), "the order of rows changes their errors"


def check_version(case: Prepared) -> None:
    """The version is text, the same for the same state, and another one where training changed the state."""
    version = case.judge.version
    assert version(case.state) and isinstance(version(case.state), str)
    assert version(case.state) == version(case.state)
    old, new = arrays_of(case.begun), arrays_of(case.state)
    changed = any(not np.array_equal(old[name], new[name], equal_nan=True) for name in old)
    assert changed == bool(case.judge.rounds), "training rounds change the state, and nothing else does"
    assert (version(case.begun) != version(case.state)) == changed, "the version does not follow the state"


def check_no_recompilation(case: Prepared) -> None:
    """Nothing is compiled by a second training round, and nothing for networks that were evaluated before.

    Nor for other networks, where networks share a program.
    """
    assert not case.compiled, f"the second training round compiled again: {case.compiled}"
    rows = range(min(case.judge.chunk, len(case.genes)))
    _errors(case, [0])
    others = case.judge.describe.get("execution") != "alone"
    if others:
        _errors(case, rows)
    with Compilations() as seen:
        _errors(case, rows if others else [0], seed=6)
        if others:
            _errors(case, [len(case.genes) - 1])
    assert not seen.events, f"compiled again: {seen.events}"


class Compilations:
    """Counts what JAX traces and compiles inside; `events` are its names for that.

    Example:
        >>> with Compilations() as seen:
        ...     _ = jax.jit(lambda x: x + 1)(1.0)
        >>> len(seen.events) > 0
        True
    """

    def __enter__(self) -> Compilations:
        self.events: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event: str, *_: Any, **__: Any) -> None:
        if event.startswith(COMPILING):
            self.events.append(event)


def check_snapshot(case: Prepared) -> None:
    """A state that was written to a run folder and read again gives the same errors and version."""
    with tempfile.TemporaryDirectory() as name:
        Folder(Path(name), {}).save(case.judge.rounds, 0, case.state, ())
        stored = read_snapshot(name)
    assert stored is not None
    state = tree_from(case.begun, stored.evaluator)
    assert case.judge.version(state) == case.judge.version(case.state), "the version changes on the way to the disk"
    assert np.array_equal(_errors(case, [0], state), _errors(case, [0])), "the error changes on the way to the disk"


EVALUATOR_CHECKS: tuple[Callable[[Prepared], None], ...] = (
    check_description,
    check_errors,
    check_same_key,
    check_rows,
    check_version,
    check_no_recompilation,
    check_snapshot,
)
