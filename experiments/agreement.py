"""How `flynas validate` and `flynas calibrate` print what they found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.measured import Row
from experiments.output import print_table
from experiments.validation import FIGURES, WORDS
from hw_models.accuracy import Accuracy
from hw_models.calibrate import Fit

RANKS = ("spearman", "kendall")


def watching() -> Callable[[list[Row]], Iterable[Row]]:
    """A bar on the standard error while networks are read, where that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    where = Console(stderr=True)
    if not where.is_terminal:
        return iter
    return lambda rows: track(rows, "networks", console=where, transient=True)


def shown(name: str, value: float) -> str:
    """A figure as people read it: ranks with four digits, shares in percent.

    Example:
        >>> shown("spearman", 0.98765), shown("mape", 0.0123)
        ('0.9877', '1.2 %')
    """
    return f"{value:.4f}" if name in RANKS else f"{100 * value:.1f} %"


def shares(found: Accuracy) -> dict[str, dict[str, float]]:
    """The figures as plain objects."""
    return {name: getattr(found, name)._asdict() for name in FIGURES}


def print_agreement(title: str, found: Accuracy) -> None:
    """A table of figures with their intervals."""
    cells = []
    for name in FIGURES:
        figure = getattr(found, name)
        interval = f"{shown(name, figure.low)} to {shown(name, figure.high)}"
        cells.append((WORDS[name], shown(name, figure.value), interval))
    print_table(("", f"{found.networks:,} networks", "95 % interval"), cells, title)


def print_too_large(device: str, networks: Mapping[str, float], among: int) -> None:
    """A warning of networks that were measured although the device, by its model, cannot hold them.

    Example:
        >>> print_too_large("mine", {"vgg16": 1.4}, 30)
        warning: 1 of 30 networks cannot run on mine by its model, yet was measured (vgg16 needs 1.4 times its ...
    """
    if not networks:
        return
    network, share = max(networks.items(), key=lambda item: item[1])
    verb = "was" if len(networks) == 1 else "were"
    print(
        f"warning: {len(networks):,} of {among:,} networks cannot run on {device} by its model, yet {verb} measured "
        f"({network} needs {share:.2g} times its scarcest resource, see flynas cost): check its file"
    )


def print_draws(title: str, drawn: Sequence[dict[str, float]]) -> None:
    """Means and extremes over draws."""
    cells = []
    for name in FIGURES:
        values = [each[name] for each in drawn]
        cells.append((WORDS[name], *(shown(name, float(f(values))) for f in (np.mean, np.min, np.max))))
    print_table(("", "mean", "least", "most"), cells, title)


def ablation_labels(terms: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the rows of an ablation: the whole model first, multiply-accumulates last, terms left out between.

    Example:
        >>> ablation_labels([{"name": "all terms"}, {"name": "launches"}, {"name": "multiply-accumulates alone"}])
        ['all terms', 'without launches', 'multiply-accumulates alone']
    """
    first, *between, last = (each["name"] for each in terms)
    return [first, *(f"without {name}" for name in between), last]


def print_ablation(title: str, terms: Sequence[dict[str, Any]]) -> None:
    """One line per term that was left out."""
    names = ("spearman", "within_10", "mape")
    cells = [
        (label, *(shown(name, each[name]) for name in names))
        for label, each in zip(ablation_labels(terms), terms, strict=True)
    ]
    print_table(("", *(WORDS[name] for name in names)), cells, title)


def print_constants(fit: Fit) -> None:
    """What each constant was and is."""
    cells = [
        (constant.name, f"{constant.start:.4g}", f"{value:.4g}", f"x {value / constant.start:.3g}")
        for constant, value in zip(fit.constants, fit.values, strict=True)
    ]
    print_table(("constant", "before", "after", ""), cells)
