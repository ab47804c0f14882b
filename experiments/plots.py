"""Figures of runs: each takes runs and returns a matplotlib figure that is as wide as a column of print.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart with any colour vision. Axes are in
the units people use (milliseconds, kilobytes, percent).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.quantities import Scale, full_name, scale_of
from experiments.results import evaluated
from hw_models.errors import InputError
from nas import disk, pareto
from nas.run import USABLE, Run, value_of

SUFFIXES = (".png", ".pdf", ".svg")
INK, FAINT = "#222222", "#B8B8B8"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "savefig.dpi": 300,
    "figure.dpi": 100,
    "svg.fonttype": "none",
}
WIDTH_IN, HEIGHT_IN = 3.4, 2.5


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """`draw` with the style of this file in force, also while the figure is saved."""

    @functools.wraps(draw)
    def in_style(*args: Any, **options: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            made = draw(*args, **options)
        save = made.savefig

        def savefig(*where: Any, **settings: Any) -> None:
            with matplotlib.rc_context(STYLE):
                save(*where, **settings)

        made.savefig = savefig
        return made

    return in_style


def check_picture(out: Path, option: str = "--out") -> None:
    """Raise InputError unless `out` ends as a picture does.

    Example:
        >>> check_picture(Path("front.png"))
    """
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {out} is no picture: end it in {', '.join(SUFFIXES)}")


def write(figure: Any, out: Path, option: str = "--out") -> None:
    """Save a figure, its folder made if needed.

    Raises:
        InputError: it cannot be written there.
    """
    with disk.explained(out, again=f"give another {option}"):
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)


def blank() -> tuple[Any, Any]:
    """A figure as wide as a column of a paper, and its axes.

    Example:
        >>> blank()[0].get_size_inches().tolist()
        [3.4, 2.5]
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # not pyplot: it keeps every figure alive and may open a window
    made = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.add_subplot()


def _legend(axes: Any) -> None:
    """Above the axes, where it covers nothing."""
    if axes.get_legend_handles_labels()[1]:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1}
        axes.legend(frameon=False, ncols=3, handletextpad=0.4, columnspacing=1.2, handlelength=1.6, **place)


def _as_list(runs: Run | Sequence[Run]) -> list[Run]:
    listed = [runs] if isinstance(runs, Run) else list(runs)
    if not listed:
        raise InputError("there is no run to draw: give at least one")
    return listed


def _label(run: Run) -> str:
    return run.folder.name if run.folder is not None else "run"


def front_numbers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The networks of the fronts of runs as plain objects.

    Example:
        >>> record = {"network": "tiny:0", "status": "ok", "genes": [0], "objectives": {"error": 0.1}, "costs": {}}
        >>> front_numbers([Run(None, {"objective": {"minimize": ["error"]}}, [record])])
        [{'name': 'tiny:0', 'run': 'run', 'error': 0.1}]
    """
    return [
        {"name": record["network"], "run": _label(run), **record["costs"], **record["objectives"]}
        for run in runs
        for record in run.front()
    ]


def progress_numbers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What `progress` draws as plain objects, one per run.

    Example:
        >>> record = {"status": "ok", "genes": [0], "objectives": {"error": 0.1}, "costs": {}}
        >>> progress_numbers([Run(None, {"objective": {"minimize": ["error"]}}, [record])])
        [{'name': 'run', 'evaluated': [1], 'hypervolume': [1.0]}]
    """
    return [
        {"name": _label(run), "evaluated": ends.tolist(), "hypervolume": share.tolist()}
        for run, (ends, share) in zip(runs, growth(runs), strict=True)
    ]


def _points(records: Sequence[Any], names: Sequence[str]) -> np.ndarray:
    """Values `[N, len(names)]` of usable records, non-finite rows left out."""
    rows = [[value_of(r, name) for name in names] for r in records if r["status"] in USABLE]
    table = np.asarray(rows, float).reshape(-1, len(names))
    return table[np.isfinite(table).all(axis=1)]


def _scale(name: str, columns: Sequence[np.ndarray]) -> Scale:
    values = np.concatenate([column for column in columns if len(column)])
    return scale_of(name, float(np.median(values)))


@styled
def front(runs: Run | Sequence[Run], x: str | None = None, y: str | None = None) -> Any:
    """The evaluated networks of one or several runs, and the front as a staircase.

    Dominated networks are faint. With one run the knee and the limits are marked, and where a third objective was
    minimised it is the colour of the points; the staircase is the front of the two axes alone.

    Args:
        runs: one run or several.
        x: objective or cost along x; by default the second objective.
        y: along y; by default the first.

    Raises:
        InputError: an unknown name, twice the same, or no evaluated network.

    Example:
        >>> known = {"error": 0.1, "latency_s": 0.002}
        >>> record = {"status": "ok", "genes": [0], "objectives": known, "costs": {}}
        >>> run = Run(None, {"objective": {"minimize": ["error", "latency_s"]}}, [record])
        >>> front(run).axes[0].get_xlabel()
        'latency (ms)'
    """
    listed = _as_list(runs)
    objectives = listed[0].objectives
    down = objectives[0] if y is None else full_name(y)
    others = [name for name in (*objectives, "latency_s", "weight_bytes") if name != down]
    along = others[0] if x is None else full_name(x)
    if along == down:
        raise InputError(f"both axes are {along}: give another --x or --y")
    third = next((name for name in objectives if name not in (along, down)), None) if len(listed) == 1 else None
    clouds = [_points(run.records, (along, down)) for run in listed]
    for run, cloud in zip(listed, clouds, strict=True):
        if not len(cloud):
            raise InputError(f"there is nothing to draw: no network of {_label(run)} was evaluated within its limits")
    scales = _scale(along, [c[:, 0] for c in clouds]), _scale(down, [c[:, 1] for c in clouds])
    unit = np.asarray([scales[0].one, scales[1].one])
    figure, axes = blank()
    edge = np.concatenate(clouds).max(axis=0) / unit
    for number, (run, cloud) in enumerate(zip(listed, clouds, strict=True)):
        colour = COLOURS[number % len(COLOURS)] if len(listed) > 1 else INK
        points = cloud / unit
        faint = {"color": FAINT, "alpha": 0.6} if len(listed) == 1 else {"color": colour, "alpha": 0.25}
        axes.scatter(*points.T, s=7, linewidths=0, zorder=1, **faint)
        corner = points[pareto.non_dominated(points)]
        corner = corner[np.argsort(corner[:, 0])]
        # to the right edge: what is no worse than the last network is still dominated by it
        steps = np.vstack([corner, [edge[0], corner[-1, 1]]])
        label = _label(run) if len(listed) > 1 else None
        axes.plot(*steps.T, drawstyle="steps-post", color=colour, linewidth=1.1, zorder=2, label=label)
        if third is None:
            axes.scatter(*corner.T, s=14, color=colour if len(listed) > 1 else COLOURS[0], linewidths=0, zorder=3)
    if len(listed) == 1:
        if third is not None:
            _colour_third(figure, axes, listed[0], (along, down), third, unit)
        _mark_knee(axes, listed[0], (along, down), unit)
        _mark_limits(axes, listed[0], (along, down), unit)
    _legend(axes)
    axes.set_xlabel(scales[0].axis)
    axes.set_ylabel(scales[1].axis)
    axes.margins(0.06)
    return figure


def _colour_third(figure: Any, axes: Any, run: Run, names: tuple[str, str], third: str, unit: np.ndarray) -> None:
    points = _points(run.front(), (*names, third))
    scale = _scale(third, [points[:, 2]])
    values = points[:, 2] / scale.one
    drawn = axes.scatter(*(points[:, :2] / unit).T, c=values, cmap="viridis", s=16, linewidths=0.3, edgecolors="white",
                         zorder=3)  # fmt: skip
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=28)
    bar.set_label(scale.axis)
    bar.outline.set_linewidth(0.4)


def _mark_knee(axes: Any, run: Run, names: tuple[str, str], unit: np.ndarray) -> None:
    knee = run.pick("knee").record
    place = np.asarray([value_of(knee, name) for name in names]) / unit
    axes.scatter(*place, s=55, facecolors="none", edgecolors=COLOURS[1], linewidths=1.1, zorder=4, label="knee")


def _mark_limits(axes: Any, run: Run, names: tuple[str, str], unit: np.ndarray) -> None:
    limits = run.meta["objective"].get("limits", {})
    for name, one, line in zip(names, unit, (axes.axvline, axes.axhline), strict=True):
        if name in limits:
            line(limits[name] / one, color=COLOURS[1], linewidth=0.9, linestyle=(0, (4, 2)), zorder=1, label="limit")


def growth(runs: Sequence[Run]) -> list[tuple[np.ndarray, np.ndarray]]:
    """What `progress` draws: per run numbers of networks evaluated, and the hypervolume after each.

    Raises:
        InputError: runs with other objectives, or no evaluated network.

    Example:
        >>> record = {"status": "ok", "genes": [0], "objectives": {"error": 0.1, "latency_s": 0.002}, "costs": {}}
        >>> ((counts, share),) = growth([Run(None, {"objective": {"minimize": ["error", "latency_s"]}}, [record])])
        >>> counts.tolist(), float(share[0])
        ([1], 1.0)
    """
    names = runs[0].objectives
    for run in runs:
        if run.objectives != names:
            raise InputError(
                f"{_label(run)} minimises {', '.join(run.objectives)}, not {', '.join(names)}: plot it alone"
            )
    everything = np.concatenate([_points(run.records, names) for run in runs])
    if not len(everything):
        raise InputError("there is nothing to draw: no network was evaluated within the limits")
    low, high = everything.min(axis=0), everything.max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    grown = []
    for run in runs:
        records = evaluated(run.records)
        ends = np.unique(np.linspace(min(1, len(records)), len(records), min(len(records), 200)).astype(int))
        # a hair beyond the worst, so that the ends of the front count as well
        share = [
            pareto.hypervolume((_points(records[:end], names) - low) / extent, [1.01] * len(names)) for end in ends
        ]
        grown.append((ends, np.asarray(share) / 1.01 ** len(names)))
    return grown


@styled
def progress(runs: Run | Sequence[Run], x: str | None = None, y: str | None = None) -> Any:
    """Hypervolume of the front over the number of networks evaluated, as a share of the box it is measured in.

    The box is the same for all runs: from the best of every objective in any of them to the worst. Networks that were
    screened out by their costs, or known already, do not count as evaluated.

    Args:
        runs: one run or several with the same objectives.
        x: must be None.
        y: must be None.

    Raises:
        InputError: an axis is given, runs with other objectives, or no evaluated network.

    Example:
        >>> known = {"error": 0.1, "latency_s": 0.002}
        >>> record = {"status": "ok", "genes": [0], "objectives": known, "costs": {}}
        >>> run = Run(None, {"objective": {"minimize": ["error", "latency_s"]}}, [record])
        >>> progress(run).axes[0].get_xlabel()
        'networks evaluated'
    """
    listed = _as_list(runs)
    if x is not None or y is not None:
        raise InputError("figure progress has its own axes: leave out --x and --y")
    figure, axes = blank()
    for number, (run, (ends, share)) in enumerate(zip(listed, growth(listed), strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(ends, share, color=colour, linewidth=1.2, drawstyle="steps-post", label=_label(run))
    if len(listed) > 1:
        _legend(axes)
    axes.set_xlabel("networks evaluated")
    axes.set_ylabel("hypervolume (share of the box)")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.0)
    return figure


FIGURES: dict[str, Callable[..., Any]] = {"front": front, "progress": progress}
NUMBERS = {"front": front_numbers, "progress": progress_numbers}
