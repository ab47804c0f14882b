"""The page on strategies against each other, from the searches that `judge_strategies.py` kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from search_summary import interval

from nas.pareto import hypervolume, non_dominated

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


def shown(values: Sequence[float]) -> str:
    """Mean and 95 % interval over seeds.

    Example:
        >>> shown([1.0, 2.0, 3.0])
        '2.0000 (-0.4841 to 4.4841)'
    """
    mean, half = interval(values)
    return f"{mean:.4f}" if np.isnan(half) else f"{mean:.4f} ({mean - half:.4f} to {mean + half:.4f})"


def write(found: dict[str, Any], out: Path, marks: Sequence[int]) -> None:
    """`strategies.json` with the numbers, `strategies.png`, and the tables of the page on standard output."""
    every = np.concatenate([_points(rows)[:, 1:] for rows in found.values()])
    front = every[non_dominated(every)]
    corner = [float(front[:, 0].max()) * 1.2, REFERENCE_S]
    best = hypervolume(front, corner)
    numbers: dict[str, Any] = {"reference": corner, "best_known": best, "front": front.tolist(), "rows": {}}
    for question in ("front", "number"):
        names = list(dict.fromkeys(key.split("/")[1] for key in found if key.startswith(question + "/")))
        print(f"\n| {question} | " + " | ".join(map(str, marks)) + " | seeds |\n|---|" + "---|" * (len(marks) + 1))
        rows = {}
        for name in names:
            runs = [rows for key, rows in sorted(found.items()) if key.startswith(f"{question}/{name}/")]
            measure = (lambda run, mark: volume(run, mark, corner) / best) if question == "front" else lowest
            rows[name] = {str(mark): [measure(run, mark) for run in runs] for mark in marks}
        last = str(marks[-1])
        order = sorted(rows, key=lambda name: np.mean(rows[name][last]), reverse=question == "front")
        for name in order:
            cells = [shown(rows[name][str(mark)]) for mark in marks]
            print(f"| `{name}` | " + " | ".join(cells) + f" | {len(rows[name][last])} |")
        numbers["rows"][question] = {name: rows[name] for name in order}
    (out / "strategies.json").write_text(json.dumps(numbers, indent=0) + "\n")
    _figure(found, out / "strategies.png", marks[-1], corner, best, numbers)


def _figure(found: dict[str, Any], path: Path, last: int, corner: Any, best: float, numbers: Any) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    grid = np.unique(np.geomspace(10, last, 40).astype(int))
    for axis, question, label in (
        (axes[0], "front", "share of the best hypervolume known"),
        (axes[1], "number", "lowest MnasNet number found"),
    ):
        for place, name in enumerate(numbers["rows"].get(question, {})):
            runs = [rows for key, rows in found.items() if key.startswith(f"{question}/{name}/")]
            if question == "front":
                values = [[volume(run, until, corner) / best for until in grid] for run in runs]
            else:
                values = [[lowest(run, until) for until in grid] for run in runs]
            colour = "black" if name == "random_search" else plt.get_cmap("tab10")(place % 10)
            middle = np.nanmean(values, axis=0)
            axis.plot(grid, middle, color=colour, label=name, linewidth=2 if name == "random_search" else 1.4)
        axis.set(xlabel="evaluations", ylabel=label, xscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylim(0.6, 1.0)
    figure.savefig(path, dpi=130)
    plt.close(figure)
