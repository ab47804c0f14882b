"""The page on strategies against each other, from the searches that `judge_strategies.py` kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.plots import COLOURS, INK, styled
from nas.comparison import chance, spread
from nas.pareto import epsilon_indicator, hypervolume, merged_front
from nas.plain import dumps

REFERENCE_S = 3e-3  # the limit on latency: where hypervolumes end
TARGET_S = 2e-3


def _points(rows: Any) -> np.ndarray:
    return np.asarray(rows, np.float64).reshape(-1, 3)


def volume(rows: Any, until: int, corner: Sequence[float]) -> float:
    """Hypervolume of what was evaluated `until` then, error times seconds below `corner`."""
    table = _points(rows)
    return hypervolume(table[table[:, 0] <= until][:, 1:], corner) if len(table) else 0.0


def lowest(rows: Any, until: int) -> float:
    """The lowest MnasNet number, minus accuracy times (latency / target)^-0.07, that was evaluated `until` then."""
    table = _points(rows)
    table = table[table[:, 0] <= until]
    if not len(table):
        return float("nan")
    return float(((table[:, 1] - 1) * (table[:, 2] / TARGET_S) ** -0.07).min())


def behind(rows: Any, until: int, front: np.ndarray) -> float:
    """Epsilon indicator of what was evaluated `until` then, in shares of the extent of `front [F, 2]`."""
    table = _points(rows)
    return epsilon_indicator(table[table[:, 0] <= until][:, 1:], front)


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds.

    Example:
        >>> shown([1.0, 2.0, 3.0])
        '2.0000 (-0.4841 to 4.4841)'
    """
    mean, low, high, _ = spread(values)
    return f"{mean:.4f}" if np.isnan(low) else f"{mean:.4f} ({low:.4f} to {high:.4f})"


def write(found: dict[str, Any], out: Path, marks: Sequence[int]) -> None:
    """`strategies.json` with the numbers, `strategies.png`, and the tables of the page on standard output.

    Besides the value after so many evaluations there is, at the last mark, how far a search is behind the front of all
    of them (epsilon indicator), and how likely it is that seeds alone tell it from random search (Mann and Whitney).
    """
    front, _ = merged_front([_points(rows)[:, 1:] for rows in found.values()])
    corner = [float(front[:, 0].max()) * 1.2, REFERENCE_S]
    best = hypervolume(front, corner)
    numbers: dict[str, Any] = {"reference": corner, "best_known": best, "front": front.tolist(), "rows": {}}
    numbers["behind"], last = {}, str(marks[-1])
    for question in ("front", "number"):
        names = list(dict.fromkeys(key.split("/")[1] for key in found if key.startswith(question + "/")))
        rows = {}
        for name in names:
            runs = of(found, question, name)
            measure = measure_of(question, corner, best)
            rows[name] = {str(mark): [measure(run, mark) for run in runs] for mark in marks}
            if question == "front":
                numbers["behind"][name] = [behind(run, marks[-1], front) for run in runs]
        order = sorted(rows, key=lambda name: np.mean(rows[name][last]), reverse=question == "front")
        numbers["rows"][question] = {name: rows[name] for name in order}
        print(_table(question, numbers))
    (out / "strategies.json").write_text(dumps(numbers, indent=0) + "\n")
    _figure(found, marks[-1], corner, best, numbers).savefig(out / "strategies.png", dpi=100)


def measure_of(question: str, corner: Sequence[float], best: float) -> Callable[[Any, int], float]:
    """What a search had after so many evaluations: a share of the `best` volume, or the lowest number."""
    return (lambda run, until: volume(run, until, corner) / best) if question == "front" else lowest


def of(found: dict[str, Any], question: str, name: str) -> list[Any]:
    """The searches of one strategy, one per seed."""
    return [rows for key, rows in sorted(found.items()) if key.startswith(f"{question}/{name}/")]


def _table(question: str, numbers: dict[str, Any]) -> str:
    rows = numbers["rows"][question]
    marks = list(next(iter(rows.values()), {}))
    more = ["behind"] * (question == "front") + ["by chance, beside random", "seeds"]
    lines = [[question, *marks, *more], ["---"] * (1 + len(marks) + len(more))]
    for name, values in rows.items():
        cells = [shown(values[mark]) for mark in marks]
        if question == "front":
            cells.append(shown(numbers["behind"][name]))
        random = rows.get("random_search", {}).get(marks[-1], [])
        known = name != "random_search" and random and not np.isnan([*random, *values[marks[-1]]]).any()
        cells.append(f"{chance(values[marks[-1]], random):.3f}" if known else "")
        lines.append([f"`{name}`", *cells, str(len(values[marks[-1]]))])
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


@styled
def _figure(found: dict[str, Any], last: int, corner: Any, best: float, numbers: Any) -> Any:
    """Means over seeds; the range of all seeds where it is asked who wins, of random search and of the best."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2)
    grid = np.unique(np.geomspace(10, last, 40).astype(int))
    everybody = dict.fromkeys(name for rows in numbers["rows"].values() for name in rows if name != "random_search")
    place = {name: number for number, name in enumerate(everybody)}
    for axis, question, label in (
        (axes[0], "front", "hypervolume / best known front's"),
        (axes[1], "number", "lowest MnasNet number found"),
    ):
        rows = numbers["rows"].get(question, {})
        for name in rows:
            runs = of(found, question, name)
            measure = measure_of(question, corner, best)
            table = np.asarray([[measure(run, until) for until in grid] for run in runs])
            known = ~np.isnan(table).all(axis=0)  # where no search has found anything yet there is nothing to draw
            spent, table = grid[known], table[:, known]
            if name == "random_search":
                style: dict[str, Any] = {"color": INK, "linewidth": 2.2}
            else:
                round_, colour = divmod(place[name], len(COLOURS))
                style = {"color": COLOURS[colour], "linestyle": ("-", (0, (4, 1.5)))[round_ % 2], "linewidth": 1.4}
            if name in ("random_search", next(iter(rows))):
                low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
                axis.fill_between(spent, low, high, color=style["color"], alpha=0.1, linewidth=0)
            axis.plot(spent, np.nanmean(table, axis=0), label=name, **style)
        axis.set(xlabel="evaluations", ylabel=label, xscale="log")
        axis.legend(fontsize=7, ncols=2, loc="lower right" if question == "front" else "upper right")
    axes[0].set_ylim(0.4, 1.0)
    return figure
