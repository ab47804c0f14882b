"""What a search tells whoever is watching, and who carries its evaluations out: two small protocols with defaults."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nas.types import CandidateFailure, Evaluator, Key, State


class Progress(Protocol):
    """Methods that the loop calls; the order is that of the methods. Exceptions end the search."""

    def start_training(self, total: int) -> None:
        """`total` training rounds come; called only where there are any."""

    def training(self, round: int, metrics: Mapping[str, float]) -> None:
        """A training round is done; rounds count from 0."""

    def start_search(self, total: int) -> None:
        """`total` steps come."""

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """A record is on the disk."""

    def front(self, records: Sequence[Mapping[str, Any]]) -> None:
        """A step is done; the front so far, by the first objective."""

    def message(self, text: str) -> None:
        """Something the user should know, in one sentence."""

    def close(self) -> None:
        """The search ended, in whatever way."""


class Silent:
    """The default: tells nobody.

    Example:
        >>> Silent().message("nothing happens")
    """

    def start_training(self, total: int) -> None: ...
    def training(self, round: int, metrics: Mapping[str, float]) -> None: ...
    def start_search(self, total: int) -> None: ...
    def evaluated(self, record: Mapping[str, Any]) -> None: ...
    def front(self, records: Sequence[Mapping[str, Any]]) -> None: ...
    def message(self, text: str) -> None: ...
    def close(self) -> None: ...


class Outcome(NamedTuple):
    """What became of some rows handed to an executor.

    Attributes:
        rows: `int [N]`, positions in the arrays that were handed over.
        error: `float [N]`, NaN for rows that failed.
        failures: why a row failed, or None, one per row.
        worker: who evaluated them.
        attempts: how often they were started.
        seconds: wall time they took together.
        error_grads: `float [N, D, C]`, or None.
    """

    rows: np.ndarray
    error: np.ndarray
    failures: tuple[str | None, ...]
    worker: str
    attempts: int
    seconds: float
    error_grads: Any = None


class Executor(Protocol):
    """Carries evaluations out. Outcomes come in any order, each row exactly once."""

    def map_chunks(self, evaluator: Evaluator, key: Key, state: State, genes: Any, index: Any) -> Iterator[Outcome]:
        """Evaluate `genes [N, D]` (or gates `[N, D, C]`) with `index [N]`, at most `evaluator.chunk` rows at a time."""


class InProcess:
    """Evaluates here, one chunk after another.

    Example:
        >>> import jax
        >>> from nas.toy import ToySpace, toy_evaluator
        >>> judge = toy_evaluator(ToySpace())
        >>> key = jax.random.key(0)
        >>> done = InProcess().map_chunks(judge, key, judge.init(key), np.zeros((3, 6), np.int32), np.arange(3))
        >>> [len(outcome.rows) for outcome in done]
        [3]
    """

    def map_chunks(self, evaluator: Evaluator, key: Key, state: State, genes: Any, index: Any) -> Iterator[Outcome]:
        """See `Executor`. A chunk with a `CandidateFailure` is evaluated again row by row."""
        for start in range(0, len(index), evaluator.chunk):
            rows = np.arange(start, min(start + evaluator.chunk, len(index)))
            yield from evaluate_rows(evaluator, key, state, genes, index, rows, "local")


def evaluate_rows(
    evaluator: Evaluator, key: Key, state: State, genes: Any, index: Any, rows: np.ndarray, worker: str
) -> Iterator[Outcome]:
    """One chunk, and where a candidate in it fails, each of its rows alone. For executors to build on.

    Example:
        >>> import jax
        >>> from nas.toy import ToySpace, toy_evaluator
        >>> judge = toy_evaluator(ToySpace())
        >>> key = jax.random.key(0)
        >>> genes, rows = np.zeros((1, 6), np.int32), np.arange(1)
        >>> next(evaluate_rows(judge, key, judge.init(key), genes, rows, rows, "me")).worker
        'me'
    """
    began = time.perf_counter()
    try:
        quality = evaluator.evaluate(key, state, genes[rows], np.asarray(index)[rows])
        error = np.asarray(quality.error, np.float32).reshape(-1)
    except CandidateFailure as failure:
        if len(rows) > 1:
            for row in rows:
                yield from evaluate_rows(evaluator, key, state, genes, index, np.asarray([row]), worker)
            return
        spent = time.perf_counter() - began
        reason = str(failure) or "the evaluation failed"
        yield Outcome(rows, np.full(1, np.nan, np.float32), (reason,), worker, 1, spent)
        return
    if error.shape != (len(rows),):
        raise ValueError(f"evaluator {evaluator.name} returned {error.size} errors for {len(rows)} candidates")
    grads = None if quality.error_grads is None else np.asarray(quality.error_grads)
    yield Outcome(rows, error, (None,) * len(rows), worker, 1, time.perf_counter() - began, grads)
