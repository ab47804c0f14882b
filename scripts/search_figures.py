"""Figures of kept searches: how the hypervolume grows, and the fronts, one picture per problem.

    python scripts/search_figures.py DIR [--out FOLDER] [--only NAMES]    writes search_<problem>.png

Fronts of three objectives are surfaces: those of four searches are shown, every network as a marker at its error and
its first cost.

Shape letters: `S` seeds, `C` counts of evaluations, `N` networks, `M` objectives, `F` points of a front.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import search_judges
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
# on `accel_both` those that are made for three objectives take the place of others
SHOWN_OF_THREE = tuple({"reinforce": "nsga3", "qdax": "pymoo_nsga3"}.get(who, who) for who in SHOWN)
MARKED = ("surrogate_bo", "nsga3", "pymoo_nsga3", "random_search")  # four surfaces can be told apart
MARKERS = "o^sx"
FIRST = 20  # evaluations from which curves are drawn
OUT = Path(__file__).parents[1] / "docs/results"
AXES = {
    "genes45": ("latency, ms", "error, %"),
    "macro": ("million MACs", "CIFAR-10 error, %"),
    **{name: ("latency, ms (log)", "predicted ImageNet error, %") for name in search_judges.ACCEL},
    search_judges.BOTH: (
        "latency on ZCU102, ms (log): fronts in error and the latencies on ZCU102 and A100",
        "predicted ImageNet error, %",
    ),
}


def curves(kept: Kept, name: str, who: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[C]` and hypervolumes `[C, S]`; a search that ended earlier keeps what it had reached."""
    results = kept.of(name, who)
    if name == "genes45":
        counts = np.asarray([count for count in results[0]["counts"] if count >= FIRST])
        return counts, np.stack([search_summary.genes45_at(results, count) for count in counts])
    problem = search_judges.load(name)
    counts = np.unique(np.geomspace(FIRST, max(len(each["rows"]) for each in results), 60).astype(int))
    every = [problem.measured(search_summary.points_of(each)) for each in results]
    volumes = [[search_judges.hypervolume(points[:count], problem.reference) for points in every] for count in counts]
    return counts, np.asarray(volumes) / search_summary.whole_of(kept, name)


def shown_front(kept: Kept, name: str, who: str, volumes: np.ndarray) -> np.ndarray:
    """The front of the search that ends in the median, cost and error as `AXES` says. `[C, S] -> [F, 2]`"""
    result = kept.of(name, who)[int(np.argsort(volumes[-1])[volumes.shape[1] // 2])]
    if name == "genes45":
        return np.asarray(result["front"])
    return in_units(name, search_summary.points_of(result))


def in_units(name: str, points: np.ndarray) -> np.ndarray:
    """The front of `[error, *costs]` as first cost and error in the units of `AXES`. `[N, M] -> [F, 2]`"""
    front = search_judges.front(points[:, [1, 0, *range(2, points.shape[1])]])[:, :2]
    return front * ((1e-6 if name == "macro" else 1e3), 100)


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
def figure(kept: Kept, name: str, only: Sequence[str] | None = None) -> Any:
    """Median over seeds with the range of all of them, and fronts of the median seeds; of `only` these, if given."""
    import matplotlib.pyplot as plt
    from matplotlib import ticker

    picture, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    shown = [who for who in search_summary.everybody(kept, name) if only is None or who in only]
    marker = dict(zip([who for who in MARKED if who in shown] or shown, MARKERS, strict=False))
    for who, style in styles(shown):
        counts, volumes = curves(kept, name, who)
        left.fill_between(counts, volumes.min(1), volumes.max(1), color=style["color"], alpha=0.1, linewidth=0)
        left.plot(counts, np.median(volumes, axis=1), label=who, **style)
        front = shown_front(kept, name, who, volumes)
        if name != search_judges.BOTH:
            right.step(*front.T, where="post", **style)
        elif who in marker:
            look = {"color": style["color"], "marker": marker[who], "s": 6, "linewidths": 0.6}
            right.scatter(*front.T, label=f"{who}: front", **look)
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
    # curves and steps look alike and stand there once; what only the right side shows follows
    handles, labels = (
        a + b for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    )
    picture.legend(handles, labels, fontsize=8, loc="outside right center")
    return picture


def main() -> None:
    """Draw every problem that has results."""
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, metavar="DIR", help="where `benchmark.py search --keep DIR` put results")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=OUT, help="%(default)s unless given")
    parser.add_argument("--only", metavar="NAMES", help="who is shown (a choice of a dozen unless given)")
    arguments = parser.parse_args()
    kept = Kept(arguments.kept)
    for name in ("genes45", *search_judges.FRONTS):
        if kept.who(name):
            chosen = SHOWN_OF_THREE if name == search_judges.BOTH else SHOWN
            only = arguments.only.split(",") if arguments.only else chosen
            picture, drawn = figure(kept, name, only), io.BytesIO()
            picture.savefig(drawn, format="png", dpi=100)
            plt.close(picture)
            disk.replace(arguments.out / f"search_{name}.png", drawn.getvalue())
            print(arguments.out / f"search_{name}.png")


if __name__ == "__main__":
    main()
