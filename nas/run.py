"""What a search leaves behind, to be read, filtered and compared.

A record is a plain dict, one per candidate: `schema, step, index, network, genes, names, objectives, costs, status,
attempts, error, worker, seconds, evaluator_version`. `status` is `ok` (evaluated, every limit met), `cached` (the
same, known from an earlier candidate), `infeasible` (a limit is exceeded), `failed` (`error` says why), `partial`
(trained for `training_share` of its training only) or `relaxed` (probabilities of options: its error is a loss under
them, its costs are expected ones, `genes` name the network that stands for it, which has a record of its own where it
was judged). Numbers that are not known or not finite are None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hw_models.costs import Costs
from hw_models.discover import unknown
from hw_models.errors import InputError
from nas import pareto

Record = dict[str, Any]

USABLE = ("ok", "cached")
UNFINISHED = ("relaxed", "partial")  # whose error is none of a trained network
UNSTABLE = ("worker", "attempts", "seconds")  # what may differ between two runs that are equal


def value_of(record: Mapping[str, Any], name: str) -> float:
    """An objective or a cost of a record by name; NaN where it is not known.

    Raises:
        InputError: no such name.

    Example:
        >>> value_of({"objectives": {"error": 0.25}, "costs": {"latency_s": None}}, "latency_s")
        nan
    """
    known = {**record["costs"], **record["objectives"]}
    if name not in known:
        field = name.partition("@")[0]
        if field in Costs._fields and field not in {each.partition("@")[0] for each in known}:
            raise InputError(f"a record of the run has no {field}, it is older than that cost: search again for it")
        raise unknown("objective or cost", name, known)
    return math.nan if known[name] is None else float(known[name])


def front_of(records: Sequence[Record], objectives: Sequence[str]) -> list[Record]:
    """Records that no other dominates, each network once, by the first objective. Failed and infeasible ones never.

    Example:
        >>> row = {"status": "ok", "genes": [0], "objectives": {"error": 0.5}, "costs": {}}
        >>> front_of([row, {**row, "genes": [1], "objectives": {"error": 0.4}}], ["error"])[0]["genes"]
        [1]
    """
    usable = each_once(records)
    if not usable:
        return []
    table = [[value_of(record, name) for name in objectives] for record in usable]
    keep = pareto.non_dominated(table)
    order = sorted((row for row in range(len(usable)) if keep[row]), key=lambda row: (table[row], usable[row]["genes"]))
    return [usable[row] for row in order]


def each_once(records: Sequence[Record]) -> list[Record]:
    """Usable records, one per network: the last time it was evaluated, which matters where weights go on learning.

    Example:
        >>> first = {"status": "ok", "genes": [0], "objectives": {"error": 0.5}}
        >>> later = {"status": "ok", "genes": [0], "objectives": {"error": 0.4}}
        >>> each_once([first, later, {**first, "status": "cached"}])[0]["objectives"]
        {'error': 0.4}
    """
    once: dict[tuple[int, ...], Record] = {}
    for record in records:
        genes = tuple(record["genes"])
        if record["status"] in USABLE and (genes not in once or record["status"] == "ok"):
            once[genes] = record
    return list(once.values())


@dataclass(frozen=True)
class Pick:
    """One network of a run. `pick["genes"]` and the like read its record."""

    record: Record
    run: Run

    def __getitem__(self, name: str) -> Any:
        return self.record[name]

    @property
    def network(self) -> str:
        """The network as text, which every command and `space.parse` accept."""
        return str(self.record["network"])


@dataclass(frozen=True)
class Run:
    """A finished or unfinished search.

    Attributes:
        folder: where it is kept, or None for a search without a folder.
        meta: the contents of `run.json`.
        records: one per candidate, by step and index.
        messages: what the reader should know, such as a half-written record that was dropped.
    """

    folder: Path | None
    meta: dict[str, Any]
    records: list[Record]
    messages: tuple[str, ...] = ()

    @property
    def space_text(self) -> str:
        """The space as text, such as `mobilenet_v2[classes=10]`."""
        return str(self.meta["space"]["text"])

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of what was minimised."""
        return tuple(self.meta["objective"]["minimize"])

    def front(self, objectives: Sequence[str] | None = None) -> list[Record]:
        """Non-dominated records in the given objectives or costs (default: what was minimised), by the first of them.

        Raises:
            InputError: an unknown name.
        """
        names = (objectives,) if isinstance(objectives, str) else objectives
        return front_of(self.records, self.objectives if names is None else tuple(names))

    def nothing_usable(self) -> str:
        """Why no candidate can be picked, with the nearest error where the limit on it is the cause.

        Example:
            >>> record = {"status": "infeasible", "objectives": {"error": 0.25}}
            >>> Run(None, {"objective": {"limits": {"error": 0.1}}}, [record]).nothing_usable()
            'no candidate of the run has error of at most 0.1: the lowest is 0.25, raise that limit'
        """
        where = self.folder or "the run"
        errors = [record["objectives"]["error"] for record in self.records if record["status"] not in UNFINISHED]
        known = [error for error in errors if error is not None]
        most = self.meta["objective"]["limits"].get("error")
        if most is not None and known:
            lowest = f"the lowest is {min(known):.6g}, raise that limit"
            return f"no candidate of {where} has error of at most {most:g}: {lowest}"
        if self.records and all(record["status"] in UNFINISHED for record in self.records):
            return f"all {len(self.records)} candidates of {where} were trained in part only: give more steps"
        failed = sum(record["status"] == "failed" for record in self.records)
        return f"no candidate of {where} was evaluated within its limits: {failed} of {len(self.records)} failed"

    def pick(
        self,
        which: str | int = "knee",
        under: Mapping[str, float] | None = None,
        objectives: Sequence[str] | None = None,
    ) -> Pick:
        """One network of the front: the `knee`, the `best` in the first objective, or the one of that number.

        `scalar` is the network with the lowest, for searches that joined error and costs.

        `under` keeps only networks of at most the given values, before the front is taken, so that the best network
        within a budget is found even where it is not on the front of the whole run.

        Raises:
            InputError: no such pick, an unknown name, nothing within the budget.
        """
        names = self.objectives if objectives is None else tuple(objectives)
        usable = [record for record in self.records if record["status"] in USABLE]
        if not usable:
            raise InputError(f"nothing to pick: {self.nothing_usable()}")
        for name, most in (under or {}).items():
            inside = [record for record in usable if value_of(record, name) <= most]
            if not inside:
                near = min(value_of(record, name) for record in usable)
                raise InputError(f"no network has {name} of at most {most:g}: the lowest is {near:.6g}, ask for that")
            usable = inside
        if which == "scalar":
            return Pick(min(each_once(usable), key=self._scalar()), self)
        front = front_of(usable, names)
        if which == "best":
            return Pick(front[0], self)
        if which == "knee":
            return Pick(front[pareto.knee([[value_of(record, name) for name in names] for record in front])], self)
        number = int(which) if str(which).lstrip("-").isdigit() else None
        if number is None:
            raise unknown("pick", str(which), ("knee", "best", "scalar", f"0 to {len(front) - 1}"))
        if not 0 <= number < len(front):
            raise InputError(f"pick {number} is not on the front: give 0 to {len(front) - 1}, knee or best")
        return Pick(front[number], self)

    @property
    def has_reward(self) -> bool:
        """Whether a reward of `nas.rewards` joined error and costs."""
        from nas.rewards import DEFAULTS

        return self.meta["objective"]["scalar"].partition("[")[0] in DEFAULTS

    def _scalar(self) -> Callable[[Record], float]:
        from nas.rewards import reward

        settings = self.meta["objective"]
        if not self.has_reward:
            raise InputError(
                "pick scalar is for searches with a scalar of nas.rewards, this has none: give knee or best"
            )
        costs = list(self.records[0]["costs"])
        join = reward(settings["scalar"], costs, settings.get("targets", {}))
        return lambda record: float(join({name: np.float32(value_of(record, name)) for name in ("error", *costs)}))  # type: ignore[misc]


class Gap(NamedTuple):
    """What the last step of a relaxed search reached: `soft`, its lowest loss under gates, and `network`, the lowest
    error among the networks that stand for them; NaN where none was finite."""

    soft: float
    network: float

    def __str__(self) -> str:
        return f"soft loss {self.soft:.4g}, network {self.network:.4g}"


def gap(run: Run) -> Gap | None:
    """How far the discretised networks of the last step are from the gates they stand for; None for other searches.

    Example:
        >>> soft = {"step": 3, "status": "relaxed", "objectives": {"error": 0.231}}
        >>> print(gap(Run(None, {}, [soft, {"step": 3, "status": "ok", "objectives": {"error": 0.244}}])))
        soft loss 0.231, network 0.244
    """
    steps = [record["step"] for record in run.records if record["status"] == "relaxed"]
    if not steps:
        return None
    last = [record for record in run.records if record["step"] == max(steps)]

    def lowest(relaxed: bool) -> float:
        errors = [record["objectives"]["error"] for record in last if (record["status"] == "relaxed") == relaxed]
        return min((error for error in errors if error is not None), default=math.nan)

    return Gap(lowest(True), lowest(False))


def differences(first: Run, second: Run) -> list[str]:
    """What differs between the records of two runs, in words; empty for equal runs.

    Worker, attempts and seconds do not count. The first ten differences are given.

    Example:
        >>> differences(Run(None, {}, []), Run(None, {}, []))
        []
    """
    found: list[str] = []
    if len(first.records) != len(second.records):
        found.append(f"{len(first.records)} records against {len(second.records)}")
    for one, other in zip(first.records, second.records, strict=False):
        for name in sorted({*one, *other} - set(UNSTABLE)):
            if one.get(name) != other.get(name):
                place = f"step {one['step']} index {one['index']}"
                found.append(f"{place}: {name} is {one.get(name)!r} against {other.get(name)!r}")
    return found[:10]


def same(first: Run, second: Run) -> bool:
    """Whether two runs are equal in everything but worker, attempts and seconds.

    Example:
        >>> same(Run(None, {}, []), Run(None, {}, []))
        True
    """
    return not differences(first, second)
