"""Figures of kept searches: how the hypervolume grows, and the fronts, one picture per problem.

    python scripts/search_figures.py DIR [--out FOLDER] [--only NAMES]    writes search_<problem>.png

Shape letters: `S` seeds, `C` counts of evaluations, `F` points of a front.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import search_judges
import search_problems
import search_summary
from benchmark_search import PACKAGES
from search_kept import Kept

from experiments.plots import COLOURS, INK, styled
from nas import disk

GREYS = ("#222222", "#555555", "#777777", "#999999", "#666666", "#AAAAAA")
DASHES = ((4, 1.5), (1, 1), (6, 1.5, 1, 1.5), (2, 2), (8, 2), (3, 1, 1, 1, 1, 1))
SHOWN = (
    *("surrogate_bo", "predictor_evolution", "nsga2", "regularized_evolution", "reinforce", "random_search"),
    *("pymoo", "optuna_nsga2", "optuna_tpe", "syne_tune", "qdax"),
)
FIRST = 20  # evaluations from which curves are drawn
OUT = Path(__file__).parents[1] / "docs/results"
AXES = {
    "genes45": ("latency, ms", "error, %"),
    "macro": ("million MACs", "CIFAR-10 error, %"),
    **{name: ("latency, ms (log)", "predicted ImageNet error, %") for name in search_judges.FRONTS[1:]},
}


def curves(kept: Kept, name: str, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[C]` and hypervolumes `[C, S]`; a search that ended earlier keeps what it had reached."""
    results = kept.of(name, who)
    if name == "genes45":
        counts = np.asarray([count for count in results[0]["counts"] if count >= FIRST])
        return counts, np.stack([search_summary.genes45_at(results, count) for count in counts])
    problem = search_judges.load(name)
    whole = problem.whole or search_problems.hypervolume(search_summary.best_known(kept, name), problem.reference)
    counts = np.unique(np.geomspace(FIRST, max(len(each["rows"]) for each in results), 60).astype(int))
    columns = [
        search_problems.curve(problem.measured(search_summary.points_of(each)), problem.reference, counts.tolist())
        for each in results
    ]
    return counts, np.stack(columns, axis=1) / whole


def shown_front(kept: Kept, name: str, who: str, volumes: np.ndarray) -> np.ndarray:
    """The front of the search that ends in the median, cost and error as `AXES` says. `[C, S] -> [F, 2]`"""
    result = kept.of(name, who)[int(np.argsort(volumes[-1])[volumes.shape[1] // 2])]
    if name == "genes45":
        return np.asarray(result["front"])
    return in_units(name, search_summary.points_of(result))


def in_units(name: str, points: np.ndarray) -> np.ndarray:
    """The front of `[error, cost]` as cost and error in the units of `AXES`. `[N, 2] -> [F, 2]`"""
    return search_problems.front(points[:, ::-1]) * ((1e-6 if name == "macro" else 1e3), 100)


def styles(everybody: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """Ours in colours, packages in greys and broken lines."""
    found, ours, theirs = [], 0, 0
    for who in everybody:
        if who in PACKAGES:
            style = {"color": GREYS[theirs % len(GREYS)], "linestyle": (0, DASHES[theirs % len(DASHES)])}
            theirs += 1
        else:
            style = {"color": COLOURS[ours % len(COLOURS)], "linestyle": "-" if ours < len(COLOURS) else ":"}
            ours += 1
        found.append((who, {**style, "linewidth": 1.3}))
    return found


@styled
def figure(kept: Kept, name: str, only: list[str] | None = None) -> Any:
    """Median over seeds with the range of all of them, and fronts of the median seeds; of `only` these, if given."""
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    picture, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    for who, style in styles([who for who in search_summary.everybody(kept, name) if only is None or who in only]):
        counts, volumes = curves(kept, name, who)
        left.fill_between(counts, volumes.min(1), volumes.max(1), color=style["color"], alpha=0.1, linewidth=0)
        left.plot(counts, np.median(volumes, axis=1), label=who, **style)
        right.step(*shown_front(kept, name, who, volumes).T, where="post", label=who, **style)
    if name == "macro":
        truth = in_units(name, np.stack(search_judges.every_macro()[1:], 1))
        right.scatter(*truth.T, s=10, color=INK, linewidths=0, zorder=3, label="true front")
    left.set_xscale("log")
    left.set_xlabel("evaluations" if name == "genes45" else "networks evaluated")
    shares = {"genes45": "hypervolume", "macro": "hypervolume / true front's"}
    left.set_ylabel(shares.get(name, "hypervolume / best known front's"))
    # the beginnings are alike, and what is asked is who comes nearest to the top
    top = max(line.get_ydata().max() for line in left.lines)
    left.set_ylim(min(np.median(line.get_ydata()[:3]) for line in left.lines), top + 0.02 * top)
    if name.startswith("accel"):
        right.set_xscale("log")
        right.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter("{x:g}")
        right.xaxis.set_minor_formatter("")
    right.set_xlabel(AXES[name][0])
    right.set_ylabel(AXES[name][1])
    picture.legend(*right.get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return picture


def main() -> None:
    """Draw every problem that has results."""
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, metavar="DIR", help="where `benchmark.py search --keep DIR` put results")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=OUT, help="%(default)s unless given")
    parser.add_argument("--only", metavar="NAMES", default=",".join(SHOWN), help="who is shown (%(default)s)")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    kept = Kept(arguments.kept)
    for name in ("genes45", *search_judges.FRONTS):
        if kept.who(name):
            picture, drawn = figure(kept, name, only), io.BytesIO()
            picture.savefig(drawn, format="png", dpi=100)
            plt.close(picture)
            disk.replace(arguments.out / f"search_{name}.png", drawn.getvalue())
            print(arguments.out / f"search_{name}.png")


if __name__ == "__main__":
    main()
