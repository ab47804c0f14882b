"""Accuracies of a benchmark, looked up: searches that take seconds, with results that others have published.

The tables are described in `nas/accuracy_tables.py`. A network that is not in the table fails, and the search goes on.
A table that holds every network of its space also judges gates, exactly, by its expected error under them
(`nas/multilinear.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas import multilinear
from nas.accuracy_tables import AccuracyTable, table_of
from nas.types import CandidateFailure, Evaluator, Key, Quality
from search_spaces.space import SearchSpace

CHUNK = 1024  # a lookup costs nothing: large enough for any population


def evaluator(space: SearchSpace, *, table: str | None = None, run: int | str = "mean") -> Evaluator:
    """Evaluator that looks the error of a network up in `table` (None: the table of the space).

    `run` is the number of a training run, whose noise is that of one seed, or `mean` of all of them. Genes are looked
    up as they are given, canonical or not: every encoding has the row that was published for it (in NAS-Bench-Macro
    those of one network are equal). Gates `[P, D, C]` are judged where the table has all encodings.

    Raises:
        InputError: an unknown table, one of another space, a run that it does not have.

    Example:
        >>> from search_spaces.spaces import macro
        >>> judge = evaluator(macro.space(), run=0)
        >>> error = judge.evaluate(None, judge.init(None), np.zeros((1, 8), np.int32), np.arange(1)).error
        >>> round(float(error[0]), 4)
        0.5468
    """
    found = table_of(space, table)
    errors = _errors(found, run)
    complete = len(found.genes) == space.size
    # rows are in the order of their genes, the last of them fastest
    grid = errors.reshape(tuple(space.cardinality.tolist())) if complete else None

    def under(gates: np.ndarray) -> Quality:
        if grid is None:
            raise InputError(
                f"table {found.name} holds {len(found.genes):,} of {space.size:,} networks and so cannot judge gates: "
                "search by a surrogate fitted to them (evaluator surrogate, base=tabular)"
            )
        pairs = [multilinear.of_table(grid, row) for row in gates]
        error, grads = (np.asarray(side, np.float32) for side in zip(*pairs, strict=True))
        return Quality(error, grads)

    def evaluate(key: Key, state: Any, genes: Any, index: Any) -> Quality:
        if np.ndim(genes) == 3:
            return under(np.asarray(genes))
        rows = found.rows(genes)
        if (rows < 0).any():
            missing = space.text(np.asarray(genes)[np.flatnonzero(rows < 0)[0]])
            raise CandidateFailure(
                f"{missing} is not among the {len(found.genes):,} networks of table {found.name}: search by a "
                "surrogate fitted to them"
            )
        return Quality(errors[rows])

    describe = {
        "table": found.name,
        "table_hash": found.content,
        "task": found.task,
        "training": found.training,
        "source": found.source,
        "licence": found.licence,
        "networks": len(found.genes),
        "error_is": f"1 - accuracy on {found.task}; {found.training} (table {found.name})",
        "run": run,
    }
    return Evaluator(
        init=lambda key: (),
        train=lambda key, state: (state, {}),
        rounds=0,
        evaluate=evaluate,
        version=lambda state: f"{found.content}-{run}",
        chunk=CHUNK,
        name="tabular",
        gives_gradients=complete,
        describe=describe,
    )


def _errors(table: AccuracyTable, run: int | str) -> np.ndarray:
    """`float32 [N]` of one run, or of their mean."""
    if run == "mean":
        return np.asarray(table.errors.mean(1, dtype=np.float64), np.float32)
    if isinstance(run, bool) or not isinstance(run, int) or not 0 <= run < table.runs:
        runs = ", ".join(map(str, range(table.runs)))
        raise InputError(f"run={run!r} is not in table {table.name}: give mean, or one of {runs}")
    return table.errors[:, run]


def networks(space: SearchSpace, *, table: str | None = None, run: int | str = "mean") -> np.ndarray:
    """The only networks that the evaluator of these options can judge and a search can propose, int32 `[N, D]`.

    Example:
        >>> from search_spaces.spaces import macro
        >>> networks(macro.space()).shape
        (3969, 8)
    """
    import jax

    genes = table_of(space, table).genes
    canonical = np.asarray(jax.jit(jax.vmap(space.canonical))(genes))
    return genes[(canonical == genes).all(1)]
