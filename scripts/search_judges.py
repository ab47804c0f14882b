"""The problems whose networks are judged in this process: `macro`, its ten budgets, and `accel` on two devices.

`macro`: error (mean of the published runs) and MACs of NAS-Bench-Macro, all of whose networks are known.
`macro_budget_1` to `_10`: the error alone, within the MACs that 10 % to 100 % of the encodings stay within.
`accel_zcu102`, `accel_a100`: the space of Accel-NASBench, its error by a surrogate fitted to all published accuracies,
and our latency.
`accel_both`: the same error and the latencies on both devices at once, three objectives.

Shape letters: `P` candidates, `D` decisions, `M` objectives, `N` proposals, `F` points of a front.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import search_problems

from nas import pareto
from nas.evaluators import surrogate, tabular
from nas.objectives import Objective
from search_spaces.spaces import macro as macro_space
from search_spaces.spaces import mnasnet

DEVICES = ("zcu102", "a100")
BUDGETS = tuple(f"macro_budget_{tenth}" for tenth in range(1, 11))
ACCEL = tuple(f"accel_{device}" for device in DEVICES)
BOTH = "accel_both"
FRONTS = ("macro", *ACCEL, BOTH)
NEAR = 0.0015  # of the error: 0.15 points of accuracy
BEYOND = 1.01  # the reference lies 1 % beyond the worst of all networks
STOP = 0.999  # of the true front's hypervolume
BATCH = 64  # rows priced at once: packages ask one by one, and every other number would be compiled


@dataclass
class Judged:
    """One problem.

    Attributes:
        objective: prices and limits.
        error_of: errors `[P]` of canonical genes `[P, D]`.
        evaluations: proposals at most.
        largest: what objectives are divided by when packages are told, `[M]`.
        reference: of the hypervolume, in terms of `measured`.
        measured: objectives `[N, M]` as hypervolumes and fronts show them.
        whole: hypervolume of the true front, or None where it is not known.
        wanted: error at which a search with a budget has arrived, or None.
    """

    name: str
    objective: Objective
    error_of: Callable[[np.ndarray], np.ndarray]
    evaluations: int
    largest: np.ndarray
    reference: tuple[float, ...] = ()
    measured: Callable[[np.ndarray], np.ndarray] = np.asarray
    whole: float | None = None
    wanted: float | None = None

    def judge(self, genes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Canonical genes `[P, D]`, objectives `[P, M]` (infinite beyond limits) and violations `[P]` of any genes."""
        space = self.objective.space
        genes = np.asarray([space.check(row) for row in genes], np.int32)
        objectives = np.full((len(genes), len(self.objective.minimize)), np.inf)
        violation = np.zeros(len(genes))
        for start in range(0, len(genes), BATCH):
            rows = genes[start : start + BATCH]
            priced = self.objective.price(np.pad(rows, ((0, BATCH - len(rows)), (0, 0))))
            violation[start : start + BATCH] = np.asarray(priced.violation)[: len(rows)]
            for m, name in enumerate(self.objective.minimize):
                if name != "error":
                    objectives[start : start + BATCH, m] = np.asarray(priced.costs[name])[: len(rows)]
        met = violation == 0
        objectives[~met] = np.inf
        if met.any():
            objectives[met, self.objective.minimize.index("error")] = self.error_of(genes[met])
        return genes, objectives, violation


@dataclass
class Seen:
    """What a search has evaluated: every network once, however often it was proposed.

    `rows` are `[proposal, *objectives]` of networks in the order of their first proposal, counted from 1.
    """

    problem: Judged
    rows: list[list[float]] = field(default_factory=list)
    known: set[bytes] = field(default_factory=set)
    proposals: int = 0

    def add(self, genes: np.ndarray, objectives: np.ndarray) -> bool:
        """Take canonical proposals `[P, D]` with objectives `[P, M]`; whether the search is over."""
        before = len(self.rows)
        for row, values in zip(np.asarray(genes, np.int32), np.asarray(objectives, float), strict=True):
            self.proposals += 1
            if self.proposals > self.problem.evaluations:
                break
            if np.isfinite(values).all() and row.tobytes() not in self.known:
                self.known.add(row.tobytes())
                self.rows.append([self.proposals, *values.tolist()])
        return self.proposals >= self.problem.evaluations or (len(self.rows) > before and self._arrived())

    def _arrived(self) -> bool:
        problem, points = self.problem, np.asarray(self.rows)[:, 1:]
        if problem.wanted is not None:
            return bool(points.min() <= problem.wanted)
        if problem.whole is None:
            return False
        return hypervolume(problem.measured(points), problem.reference) >= STOP * problem.whole


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Volume that points dominate below the reference, of any number of objectives. `[N, M] -> float`

    Areas are those of `search_problems`, by which every published number was computed.
    """
    if len(reference) == 2:
        return search_problems.hypervolume(points, reference)
    return pareto.hypervolume(points, reference)


def front(points: np.ndarray) -> np.ndarray:
    """The points that no other one dominates, once each, by the first objective. `[N, M] -> [F, M]`"""
    points = np.asarray(points, float)
    if points.shape[1] == 2:
        return search_problems.front(points)
    return pareto.merged_front([points])[0]


@functools.cache
def load(name: str) -> Judged:
    """A problem by its name."""
    if name == "macro":
        return _macro()
    if name in BUDGETS:
        return _budget(BUDGETS.index(name))
    return _accel(name, DEVICES if name == BOTH else (name.removeprefix("accel_"),))


@functools.cache
def every_macro() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All encodings of `macro`, their errors and MACs: `[6561, 8]`, `[6561]` twice."""
    space = macro_space.space()
    genes = np.asarray(list(itertools.product(range(3), repeat=space.num_decisions)), np.int32)
    judge = tabular.evaluator(space)
    chunks = np.array_split(genes, -(-len(genes) // judge.chunk))
    errors = np.concatenate([np.asarray(judge.evaluate(None, (), chunk, None).error) for chunk in chunks])
    objective = Objective(space, "raspberry_pi_4", minimize=("error", "macs"))
    return genes, errors, np.asarray(objective.price(genes).costs["macs"])


def _error_of_macro(genes: np.ndarray) -> np.ndarray:
    digits = 3 ** np.arange(7, -1, -1)
    return every_macro()[1][np.asarray(genes) @ digits]


def _macro() -> Judged:
    _, errors, macs = every_macro()
    points = np.stack([errors, macs], 1).astype(float)
    reference = tuple((BEYOND * points.max(0)).tolist())
    return Judged(
        "macro",
        Objective(macro_space.space(), "raspberry_pi_4", minimize=("error", "macs")),
        _error_of_macro,
        4000,
        points.max(0),
        reference,
        whole=search_problems.hypervolume(points, reference),
    )


def _budget(place: int) -> Judged:
    _, errors, macs = every_macro()
    budget = float(np.quantile(macs, (place + 1) / len(BUDGETS), method="lower"))
    return Judged(
        BUDGETS[place],
        Objective(macro_space.space(), "raspberry_pi_4", minimize="error", limits={"macs": budget}),
        _error_of_macro,
        4000,
        errors.max(keepdims=True),
        wanted=float(errors[macs <= budget].min()) + NEAR,
    )


@functools.cache
def _surrogate() -> Callable[[np.ndarray], np.ndarray]:
    """Errors by the ensemble of all published networks; every network is predicted once."""
    space = mnasnet.space(activation="relu")
    judge = surrogate.evaluator(space, base="tabular", samples=len(tabular.networks(space)), rounds=1)
    state, _ = judge.train(jax.random.key(0), judge.init(jax.random.key(0)))
    known: dict[bytes, float] = {}

    def error_of(genes: np.ndarray) -> np.ndarray:
        genes = np.asarray(genes, np.int32)
        new = {row.tobytes(): row for row in genes if row.tobytes() not in known}
        if new:
            rows = np.stack(list(new.values()))
            known.update(zip(new, judge.evaluate(None, state, rows, None).error.tolist(), strict=True))
        return np.asarray([known[row.tobytes()] for row in genes], np.float32)

    return error_of


def _accel(name: str, devices: tuple[str, ...]) -> Judged:
    space = mnasnet.space(activation="relu")
    latencies = ("latency_s",) if len(devices) == 1 else tuple(f"latency_s@{device}" for device in devices)
    objective = Objective(space, devices, minimize=("error", *latencies))
    draw = jax.jit(jax.vmap(space.sample))
    genes = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    costs = objective.price(genes).costs
    worst = np.asarray([_surrogate()(genes).max(), *(np.asarray(costs[each]).max() for each in latencies)], float)

    def measured(points: np.ndarray) -> np.ndarray:
        # latencies lie a factor of ten apart, and a tenth less is worth as much to a fast network as to a slow one
        points = np.asarray(points, float)
        return np.concatenate([points[:, :1], np.log10(1e3 * points[:, 1:])], axis=1)

    reference = tuple(measured(worst[None])[0].tolist())
    return Judged(name, objective, _surrogate(), 1000, worst, reference, measured)
