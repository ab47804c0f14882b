"""What the kept results of searches say: numbers with intervals, rows of the benchmark, and tables in Markdown.

    python scripts/search_summary.py DIR        prints the tables of the results kept in DIR

Shape letters: `S` seeds, `N` evaluated networks, `M` objectives, `F` points of a front.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import search_judges
from benchmark_rows import Row, row
from benchmark_search import PACKAGES, parts_of
from search_kept import Kept

from nas.comparison import spread

GENES45_COUNTS = (200, 1000, 2000, 5000, 10_000)
ACCEL_COUNTS = (50, 100, 200, 500, 1000)
SHARES = (0.99, search_judges.STOP)
# evaluations per second of the processor, seconds of compiling, hypervolume after 1,000: what the first strategy is to
# reach; after 10,000 it is what pymoo reaches in the same run
GOALS = {"per_s": 100_000, "compile_s": 3.0, "at_1000": 0.69}


def everybody(kept: Kept, name: str) -> list[str]:
    """All that have results: ours, then packages."""
    return sorted(kept.who(name), key=lambda who: (who in PACKAGES, who))


def points_of(result: dict[str, Any]) -> np.ndarray:
    """Objectives of all evaluated networks in their order, `[N, M]`."""
    return np.asarray(result["rows"], float)[:, 1:]


def genes45_at(results: list[dict[str, Any]], count: int) -> list[float]:
    """Hypervolume after so many evaluations, of all searches that were as long."""
    return [each["hypervolume"][each["counts"].index(count)] for each in results if count in each["counts"]]


def until_share(results: list[dict[str, Any]], share: float) -> list[tuple[int, int, bool]]:
    """Networks and proposals until a share of the true front's hypervolume of `macro`, and whether it was reached."""
    problem = search_judges.load("macro")

    def arrived(result: dict[str, Any], count: int) -> bool:
        volume = search_judges.hypervolume(points_of(result)[:count], problem.reference)
        return bool(volume >= share * problem.whole)

    found = []
    for result in results:
        if not arrived(result, len(result["rows"])):
            found.append((len(result["rows"]), result["proposals"], False))
            continue
        low, high = 1, len(result["rows"])
        while low < high:  # the hypervolume only grows
            middle = (low + high) // 2
            low, high = (low, middle) if arrived(result, middle) else (middle + 1, high)
        found.append((low, int(result["rows"][low - 1][0]), True))
    return found


def typical(found: Sequence[tuple[int, int, bool]], place: int) -> list[float]:
    """Networks (`place` 0) or proposals (1) by seed, infinite for searches that did not arrive. `[S]`"""
    return [each[place] if each[2] else float("inf") for each in found]


def of_budgets(kept: Kept, who: str) -> list[tuple[int, int, bool]]:
    """Per seed: networks and proposals summed over the ten budgets, and whether every one was reached. `[S]`"""
    sums: dict[int, list[tuple[int, int, bool]]] = {}
    for name in search_judges.BUDGETS:
        wanted = search_judges.load(name).wanted
        for seed, result in kept.by_seed(name, who).items():
            errors = points_of(result)[:, 0] if result["rows"] else np.ones(0)
            good = np.flatnonzero(errors <= wanted)
            if len(good):
                one = (int(good[0]) + 1, int(result["rows"][good[0]][0]), True)
            else:
                one = (len(errors), result["proposals"], False)
            sums.setdefault(seed, []).append(one)
    whole = [each for each in sums.values() if len(each) == len(search_judges.BUDGETS)]
    return [(sum(b[0] for b in one), sum(b[1] for b in one), all(b[2] for b in one)) for one in whole]


@functools.cache
def best_known(kept: Kept, name: str) -> np.ndarray:
    """The front of everything that anybody evaluated, as `measured`. `[F, M]`"""
    problem = search_judges.load(name)
    every = [points_of(each) for who in kept.who(name) for each in kept.of(name, who)]
    return search_judges.front(problem.measured(np.concatenate(every)))


@functools.cache
def whole_of(kept: Kept, name: str) -> float:
    """Hypervolume of the true front, or of the best known one."""
    problem = search_judges.load(name)
    return problem.whole or search_judges.hypervolume(best_known(kept, name), problem.reference)


def share_at(kept: Kept, name: str, result: dict[str, Any], proposals: int) -> float:
    """Hypervolume after so many proposals, divided by that of the best known front."""
    problem = search_judges.load(name)
    made = [line[1:] for line in result["rows"] if line[0] <= proposals]
    if not made:
        return 0.0
    volume = search_judges.hypervolume(problem.measured(np.asarray(made)), problem.reference)
    return volume / whole_of(kept, name)


def shares_at(kept: Kept, name: str, who: str, proposals: int) -> list[float]:
    """The same of all seeds whose search was as long. `[S]`"""
    return [share_at(kept, name, each, proposals) for each in kept.of(name, who) if each["proposals"] >= proposals]


def rows(kept: Kept, problems: Sequence[str], strategies: Sequence[str], packages: Sequence[str]) -> list[Row]:
    """Rows of the benchmark; goals are those of the first strategy."""
    found: list[Row] = []

    def add(name: str, who: str, values: Iterable[float], goal: float | None = None, also: str = "mean") -> None:
        known = list(values)
        if not known:
            return
        value = float(np.median(known)) if also == "median" else float(np.mean(known))
        if not np.isfinite(value):
            return  # most did not arrive, which another row says
        ours = who in strategies
        goal = goal if who == strategies[0] else None
        at_most = name.endswith("_compile_s") or None
        found.append(row(f"{name}_of_{who}", value if ours else None, None if ours else value, goal, at_most=at_most))

    all_of_them = (*strategies, *packages)
    if "genes45" in problems:
        ten = GENES45_COUNTS[-1]
        pymoo = [genes45_at(kept.of("genes45", who), ten) for who in packages if who.startswith("pymoo")]
        theirs = [float(np.mean(values)) for values in pymoo if values]
        for who in all_of_them:
            results = kept.of("genes45", who)
            speeds = [each["evaluations"] / each["cpu_s"] for each in results]
            add("genes45_evaluations_per_cpu_second", who, speeds, GOALS["per_s"], "median")
            compiled = [each["compile_s"] for each in results if each["compile_s"] is not None]
            add("genes45_compile_s", who, compiled, GOALS["compile_s"], "median")
            for count in GENES45_COUNTS:
                goal = {1000: GOALS["at_1000"], ten: max(theirs, default=None)}.get(count)
                add(f"genes45_hypervolume_at_{count}", who, genes45_at(results, count), goal)
            looped = [each["evaluations"] / each["loop_s"] for each in results if "loop_s" in each]
            add("genes45_loop_evaluations_per_cpu_second", who, looped, also="median")
    if "macro" in problems:
        for who in all_of_them:
            for share in SHARES:
                found_until = until_share(kept.of("macro", who), share)
                label = f"macro_networks_until_{100 * share:g}_percent"
                add(label, who, typical(found_until, 0), also="median")
                add(label.replace("networks_until", "reached"), who, [reached for _, _, reached in found_until])
            sums = of_budgets(kept, who)
            add("macro_budgets_networks", who, typical(sums, 0), also="median")
            add("macro_budgets_proposals", who, typical(sums, 1), also="median")
            add("macro_budgets_reached", who, [reached for _, _, reached in sums])
    for name in (part for problem in problems if problem.startswith("accel") for part in parts_of(problem)):
        for count in ACCEL_COUNTS:
            for who in all_of_them:
                add(f"{name}_hypervolume_at_{count}", who, shares_at(kept, name, who, count))
    return found


def tables(kept: Kept) -> str:
    """Markdown tables of all problems: means over seeds with half their 95 % interval, or median, least and most."""
    parts = []
    if who := everybody(kept, "genes45"):
        head = ["", "evaluations per CPU second", "compiling, s", *(f"HV at {count:,}" for count in GENES45_COUNTS)]
        lines = []
        for one in who:
            results = kept.of("genes45", one)
            speed = np.median([each["evaluations"] / each["cpu_s"] for each in results])
            compiled = [each["compile_s"] for each in results if each["compile_s"] is not None]
            cells = [f"{speed:,.0f}", f"{np.median(compiled):.1f}" if compiled else ""]
            lines.append([one, *cells, *(cell(genes45_at(results, count), 4) for count in GENES45_COUNTS)])
        parts.append(_table("genes45", head, lines))
    if who := everybody(kept, "macro"):
        head = ["", *(f"{what} until {100 * share:g} %" for share in SHARES for what in ("networks", "proposals"))]
        head += ["networks, ten budgets", "proposals, ten budgets"]
        lines = []
        for one in who:
            cells = []
            for found in (*(until_share(kept.of("macro", one), share) for share in SHARES), of_budgets(kept, one)):
                cells += [_range(typical(found, place)) for place in (0, 1)]
            lines.append([one, *cells])
        parts.append(_table("macro", head, lines))
    for name in search_judges.FRONTS[1:]:
        if who := everybody(kept, name):
            lines = [[one, *(cell(shares_at(kept, name, one, c), 3) for c in ACCEL_COUNTS)] for one in who]
            parts.append(_table(name, ["", *(f"HV at {count:,}" for count in ACCEL_COUNTS)], lines))
    return "\n\n".join(parts)


def cell(values: Sequence[float], digits: int) -> str:
    """Mean with half its 95 % interval over seeds; empty without a value. `[S]`

    Example:
        >>> cell([1.0, 2.0, 3.0], 1)
        '2.0 ± 2.5'
    """
    if not len(values):
        return ""
    mean, low, high, _ = spread(values)
    return f"{mean:,.{digits}f}" + ("" if np.isnan(low) else f" ± {(high - low) / 2:,.{digits}f}")


def _range(values: Sequence[float]) -> str:
    """Median, least and most; `never` where a search did not arrive."""
    if not len(values):
        return ""
    least, middle, most = (
        "never" if np.isinf(v) else f"{v:,.0f}" for v in np.quantile(values, (0, 0.5, 1), method="lower")
    )
    return middle if least == most else f"{middle} ({least} to {most})"


def _table(name: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *lines]
    return f"`{name}`\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in ruled)


if __name__ == "__main__":
    print(tables(Kept(Path(sys.argv[1]))))
