"""The candidates of one step on their way to records: what needs no evaluation, what was evaluated, what repeats.

A step of a relaxed strategy has two batches: its gates, and the networks that stand for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hw_models.errors import InputError
from nas.objectives import Objective, Priced
from nas.progress import Outcome, Progress
from nas.run import Record
from nas.run_files import SCHEMA
from nas.store import Folder

Judged = tuple[int | float, ...]  # genes, and a share of the training where it is not all of it


def judged_as(genes: tuple[int, ...], share: float = 1.0) -> Judged:
    """What tells evaluations apart: the network, and how much of its training it got.

    Example:
        >>> judged_as((0, 2)), judged_as((0, 2), 0.5)
        ((0, 2), (0, 2, 0.5))
    """
    return genes if share == 1.0 else (*genes, share)


class Batch:
    """One step's candidates, P of them. `error [P]` and `evaluated [P]` fill up as outcomes arrive.

    `first` is the index of the record of row 0, `share [P]` how much of its training a row gets. With `relaxed` the
    rows are gates: no limit screens them and none of them is known from before, because limits are penalties on gates,
    and an error belongs to gates and not to genes.
    """

    def __init__(
        self,
        space: Any,
        objective: Objective,
        folder: Folder,
        progress: Progress,
        step: int,
        genes: np.ndarray,
        priced: Priced,
        version: str,
        first: int = 0,
        relaxed: bool = False,
        share: np.ndarray | None = None,
    ):
        self.space, self.objective, self.folder, self.progress = space, objective, folder, progress
        self.step, self.genes, self.version = step, genes, version
        self.first, self.relaxed = first, relaxed
        self.share = np.ones(len(genes), np.float32) if share is None else np.asarray(share, np.float32)
        self.costs = {name: np.asarray(value) for name, value in priced.costs.items()}
        self.excess = np.asarray(priced.violation)
        self.error = np.full(len(genes), np.nan, np.float32)
        self.evaluated = np.zeros(len(genes), bool)
        self.twins: list[tuple[int, int]] = []

    def sort_out(self, known: Mapping[Judged, float], rows: np.ndarray | None = None) -> np.ndarray:
        """Record what needs no evaluation; returns the rows that do, `int [N]`.

        `known` holds the error of every network evaluated at earlier steps; `rows` are those to be judged (None: all).

        Raises:
            InputError: a record of this step is about another network.
        """
        waiting, ready = [], []
        first: dict[Judged, int] = {}
        for row in range(len(self.genes)) if rows is None else rows.tolist():
            vector = tuple(self.genes[row].tolist())
            old = self.folder.records.get((self.step, self.first + row))
            if old is not None and tuple(old["genes"]) != vector:
                raise InputError(
                    f"{self.folder.path}: the record of step {self.step} index {self.first + row} is about another "
                    "network than the one asked now, so other code made this run: give another folder (--out), or "
                    "remove this one"
                )
            judged = judged_as(vector, float(self.share[row]))
            if self.relaxed:
                waiting.append(row)
            elif self.excess[row] > 0:
                ready.append(self._record(row, "infeasible"))
            elif judged in known:
                ready.append(self._settle(row, known[judged]))
            elif judged in first:
                self.twins.append((row, first[judged]))
            elif old is not None:
                first[judged] = row
                value = old["objectives"]["error"]
                self.evaluated[row], self.error[row] = True, np.nan if value is None else value
            else:
                first[judged] = row
                waiting.append(row)
        self._write(ready)
        return np.asarray(waiting, np.int32)

    def take(self, outcome: Outcome, waiting: np.ndarray) -> None:
        """Record the rows of an outcome."""
        records = []
        for position, error, failure in zip(outcome.rows, outcome.error, outcome.failures, strict=True):
            row = int(waiting[position])
            self.evaluated[row], self.error[row] = True, error
            each = outcome.seconds / max(len(outcome.rows), 1)
            record = self._record(row, self._status(row), each, outcome.worker, outcome.attempts)
            if record["status"] == "failed":
                record["error"] = failure or f"the error is {float(error)}"
            records.append(record)
        self._write(records)

    def finish(self) -> None:
        """Records for candidates that repeat another one of the same step."""
        self._write([self._settle(row, float(self.error[first])) for row, first in self.twins])

    def _settle(self, row: int, error: float) -> Record:
        self.evaluated[row], self.error[row] = True, error
        status = self._status(row)
        record = self._record(row, "cached" if status == "ok" else status)
        if status == "failed":
            record["error"] = "the same network failed at this step"
        return record

    def _status(self, row: int) -> str:
        if not math.isfinite(self.error[row]):
            return "failed"
        if self.relaxed:
            return "relaxed"
        if self.share[row] < 1:
            return "partial"
        late = self.objective.late(self.error[row])
        return "infeasible" if late else "ok"

    def _write(self, records: list[Record]) -> None:
        fresh = [record for record in records if (record["step"], record["index"]) not in self.folder.records]
        self.folder.append(fresh)
        for record in fresh:
            self.progress.evaluated(record)

    def _record(
        self, row: int, status: str, seconds: float = 0.0, worker: str | None = None, attempts: int = 0
    ) -> Record:
        genes = self.genes[row]
        error = float(self.error[row])
        known = {"error": error if math.isfinite(error) else None}
        costs = {name: float(value[row]) if math.isfinite(value[row]) else None for name, value in self.costs.items()}
        objectives = {name: ({**costs, **known})[name] for name in self.objective.minimize}
        partial = {"training_share": float(self.share[row])} if self.share[row] < 1 else {}
        return partial | {
            "schema": SCHEMA,
            "step": self.step,
            "index": self.first + row,
            "network": self.space.text(genes),
            "genes": genes.tolist(),
            "names": dict(self.space.decode(genes)),
            "objectives": objectives | known,
            "costs": costs,
            "status": status,
            "attempts": attempts,
            "error": None,
            "worker": worker,
            "seconds": seconds,
            "evaluator_version": self.version,
        }
