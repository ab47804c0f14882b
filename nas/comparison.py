"""Several runs together: one run of all their records, and what searches with different seeds say about a strategy.

Shape letters: `S` seeds, `M` objectives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hw_models.errors import InputError
from nas import pareto
from nas.run import Run, each_once, value_of

# what has to be equal for records of several runs to be about the same question, in the run and in its objective
SAME = ("space", "devices")
SAME_PRICES = ("minimize", "batch", "precision", "measured")
REWARD = ("scalar", "targets")
BEYOND = 0.1  # how far beyond the merged front hypervolumes end, in shares of its extent
EXACT = 8  # up to so many seeds on a side every order of them is counted
LEVEL = 0.95  # of intervals


class Spread(NamedTuple):
    """Mean over seeds and its 95 % interval (Student's t), of `seeds` values; one value has no interval (NaN).

    Example:
        >>> print(Spread(0.5, 0.4, 0.6, 5))
        0.5 (0.4 to 0.6)
    """

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + ("" if math.isnan(self.low) else f" ({self.low:.4g} to {self.high:.4g})")


def spread(values: Sequence[float]) -> Spread:
    """Mean and interval of one value per seed. `[S]`

    Raises:
        InputError: no value.

    Example:
        >>> found = spread([1.0, 2.0, 3.0])
        >>> found.mean, round(found.low, 2), round(found.high, 2)
        (2.0, -0.48, 4.48)
    """
    known = np.asarray(values, float)
    if not len(known):
        raise InputError("there is no value to take a mean of: give one per seed")
    mean = float(known.mean())
    if len(known) < 2 or not np.isfinite(known).all():
        return Spread(mean, math.nan, math.nan, len(known))
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return Spread(mean, mean - half, mean + half, len(known))


def chance(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely values at least this different are if seeds alone make them differ: Mann and Whitney's p, two-sided.

    It asks for ranks only, so that no value has to be distributed in a certain way. Every order of up to eight seeds on
    each side is counted, so that equal values are no matter; with three on each side it is at least 0.1 whatever they
    say. `[S], [S] -> float`

    Raises:
        InputError: a side without values, or with one that is not a number.

    Example:
        >>> round(chance([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]), 4)
        0.0079
    """
    sides = np.asarray(first, float), np.asarray(second, float)
    if not all(len(side) and not np.isnan(side).any() for side in sides):
        raise InputError("ranks need numbers on both sides: give the values of finished searches")
    from scipy.stats import PermutationMethod, mannwhitneyu

    few = min(map(len, sides)) > 1 and max(map(len, sides)) <= EXACT
    # as many resamples as there are orders: all of them are counted, and none is drawn
    method: Any = PermutationMethod(n_resamples=math.comb(2 * EXACT, EXACT)) if few else "auto"
    return float(mannwhitneyu(*sides, method=method).pvalue)


def merged(runs: Sequence[Run]) -> Run:
    """One run of the records of all `runs`, in their order, each with the name of its folder under `run`.

    Its front and picks are those of all of them; of runs with different scalars none is picked by. The runs may differ
    in strategy, seed, steps and limits; `messages` say so where their evaluators differ, because then an error is not
    the same in all of them.

    Raises:
        InputError: no run, or runs of different spaces, devices or objectives, or priced in another way.

    Example:
        >>> from nas.toy import toy_run
        >>> both = merged([toy_run(seed=0), toy_run(seed=1)])
        >>> len(both.records), both.records[-1]["run"]
        (32, 'run 1')
    """
    if not runs:
        raise InputError("there is no run to merge: give at least one")
    first = runs[0]
    for number, other in enumerate(runs[1:], 1):
        for part in SAME:
            if first.meta.get(part) != other.meta.get(part):
                names = f"{name_of(first, 0)} and {name_of(other, number)}"
                raise InputError(f"{names} have different {part} and do not go together: give runs of one question")
        for part in SAME_PRICES:
            mine, theirs = (run.meta["objective"].get(part) for run in (first, other))
            if mine != theirs:
                names = f"{name_of(first, 0)} ({mine}) and {name_of(other, number)} ({theirs})"
                raise InputError(f"{names} differ in {part} and do not go together: give runs of one question")
    records = [{**record, "run": name_of(run, number)} for number, run in enumerate(runs) for record in run.records]
    messages = tuple(message for run in runs for message in run.messages)
    judges = {str(record.get("evaluator_version")) for record in records if record["status"] == "ok"}
    if len(judges) > 1:
        messages += (f"errors are those of {len(judges)} evaluators, and not the same thing in all runs",)
    objective = dict(first.meta["objective"])
    if any(run.meta["objective"].get(part) != objective.get(part) for run in runs for part in REWARD):
        objective = {name: value for name, value in objective.items() if name not in REWARD} | {"scalar": "first"}
        messages += ("the runs joined error and costs in different ways: none of them is picked by",)
    return Run(None, {**first.meta, "objective": objective}, records, messages)


def name_of(run: Run, number: int) -> str:
    """What a run is called beside others: its folder, or its number where it has none.

    Example:
        >>> name_of(Run(None, {}, []), 2)
        'run 2'
    """
    return f"run {number}" if run.folder is None else str(run.folder)


class Standing(NamedTuple):
    """What the runs of one name reached: shares of the merged front's hypervolume, and how far they are behind it.

    `hypervolumes` and `behind` (epsilon indicator) have one value per run, `[S]`; the spreads are over them.
    """

    hypervolumes: tuple[float, ...]
    behind: tuple[float, ...]

    @property
    def hypervolume(self) -> Spread:
        """Mean and interval of the hypervolumes."""
        return spread(self.hypervolumes)

    @property
    def epsilon(self) -> Spread:
        """Mean and interval of how far runs are behind."""
        return spread(self.behind)


def standings(
    runs: Mapping[str, Sequence[Run]], objectives: Sequence[str] | None = None, reference: Sequence[float] | None = None
) -> dict[str, Standing]:
    """How runs stand, by a name such as that of their strategy, against the front of all of them together.

    Args:
        runs: the runs of every name, one per seed.
        objectives: names of objectives or costs; those of the first run unless given.
        reference: where hypervolumes end, `[M]`; unless given a tenth of its extent beyond the merged front, and where
            that has no extent, beyond the worst network of all.

    Raises:
        InputError: no runs, a name without one, runs that do not go together or were judged by different evaluators
            (weights that were trained with another seed are taken as equal), none with a usable network.

    Example:
        >>> from nas.toy import toy_run
        >>> found = standings({"nsga2": [toy_run(seed=0), toy_run(seed=1)]})
        >>> 0.5 < found["nsga2"].hypervolume.mean <= 1, found["nsga2"].epsilon.mean >= 0
        (True, True)
    """
    everything = [run for each in runs.values() for run in each]
    for name, each in runs.items():
        if not each:
            raise InputError(f"{name} has no run: leave it out, or give at least one")
    together = merged(everything)
    for number, run in enumerate(everything):
        if _judge(run) != _judge(everything[0]):
            two = f"{name_of(everything[0], 0)} and {name_of(run, number)}"
            raise InputError(
                f"{two} have different evaluators, whose errors do not compare: give runs of one evaluator"
            )
    names = together.objectives if objectives is None else tuple(objectives)
    tables = {name: [points(run, names) for run in each] for name, each in runs.items()}
    every = [table for each in tables.values() for table in each]
    front, _ = pareto.merged_front(every)
    if not len(front):
        raise InputError(f"nothing to compare: {together.nothing_usable()}")
    corner = _corner(front, np.concatenate(every)) if reference is None else reference
    whole = pareto.hypervolume(front, corner)
    if not whole > 0:
        raise InputError(f"reference {list(map(float, corner))} has no network below it: give larger values")

    def standing(each: Sequence[np.ndarray]) -> Standing:
        volumes = tuple(pareto.hypervolume(table, corner) / whole for table in each)
        return Standing(volumes, tuple(pareto.epsilon_indicator(table, front) for table in each))

    return {name: standing(each) for name, each in tables.items()}


def _judge(run: Run) -> dict[str, Any]:
    """The evaluator of a run, seeds apart."""
    return {name: value for name, value in run.meta["evaluator"].items() if name != "seed"}


def _corner(front: np.ndarray, every: np.ndarray) -> np.ndarray:
    """A reference a little beyond `front [F, M]`, also in objectives in which it has no extent."""
    known = every[np.isfinite(every).all(axis=1)]
    extent = np.ptp(front, axis=0)
    spare = np.where(extent > 0, front.max(0), known.max(0))
    size = np.where(extent > 0, extent, np.maximum(np.ptp(known, axis=0), np.abs(spare)))
    return np.asarray(spare + BEYOND * np.where(size > 0, size, 1.0))


def points(run: Run, objectives: Sequence[str]) -> np.ndarray:
    """Objectives or costs of the usable networks of a run, each once. `-> [N, M]`

    Example:
        >>> points(Run(None, {}, []), ["error", "latency_s"]).shape
        (0, 2)
    """
    rows: list[list[Any]] = [[value_of(record, name) for name in objectives] for record in each_once(run.records)]
    return np.asarray(rows, float).reshape(-1, len(objectives))
