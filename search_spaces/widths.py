"""Width rules: channel counts of a whole network from a few numbers, which may be searched.

Source: Schindler 2021, "Compressing and Mapping Deep Neural Networks on Edge Computing Systems" (dissertation,
Heidelberg), section 7.6.3.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hw_models.errors import InputError
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice, options

LARGEST_WIDTH = 2**16
STEEPEST = 12.0  # beyond it one block is wider than LARGEST_WIDTH times the one before


@dataclass(frozen=True)
class ConstantRatio:
    """Every stage is `alpha` times as wide as the one before: `w_s = first * alpha**s`, a multiple of `divisor`.

    The hand rule of section 7.6.3 (alpha about 1.5 to 2.5; its beta, the ratio of inner to outer width, is the field
    `expand` of the residual blocks). ResNet has alpha 2 and beta 0.25.

    Example:
        >>> [ConstantRatio(256, 2.0).at({}, number, stage) for number, stage in ((0, 0), (3, 1), (7, 2), (13, 3))]
        [256, 512, 1024, 2048]
    """

    kind: ClassVar[str] = "constant_ratio"

    first: int | Choice
    alpha: float | Choice
    divisor: int = 8

    def at(self, values: Mapping[str, Any], number: int, stage: int) -> int:
        """Width of block `number` of the network, which lies in `stage`; `values` are those of searched fields."""
        first, alpha = (values.get(name, getattr(self, name)) for name in ("first", "alpha"))
        return make_divisible(min(first * min(alpha**stage, 2.0 * LARGEST_WIDTH), 2.0 * LARGEST_WIDTH), self.divisor)


@dataclass(frozen=True)
class Exponential:
    """Width grows with every block: `w_n = a * exp(n * b) + c`, a multiple of `divisor`; n counts blocks from 0.

    With negative `a` and `b` it grows ever more slowly, towards `c`.

    The found rule of section 7.6.3: three numbers in place of one width per stage.

    Example:
        >>> [Exponential(16.0, 0.25, 8.0).at({}, number, 0) for number in range(6)]
        [24, 32, 32, 40, 48, 64]
    """

    kind: ClassVar[str] = "exponential"

    a: float | Choice
    b: float | Choice
    c: float | Choice
    divisor: int = 8

    def at(self, values: Mapping[str, Any], number: int, stage: int) -> int:
        """Width of block `number` of the network, which lies in `stage`; `values` are those of searched fields."""
        a, b, c = (values.get(name, getattr(self, name)) for name in ("a", "b", "c"))
        return make_divisible(min(a * math.exp(min(number * b, 50.0)) + c, 2.0 * LARGEST_WIDTH), self.divisor)


Rule = ConstantRatio | Exponential
RULES: dict[str, type[Rule]] = {rule.kind: rule for rule in (ConstantRatio, Exponential)}


def searched(rule: Rule) -> dict[str, Choice]:
    """The numbers of `rule` that are to be searched, in the order of definition.

    Example:
        >>> list(searched(Exponential(Choice(8.0, 16.0), 0.2, Choice(0.0, 8.0))))
        ['a', 'c']
    """
    fields = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    return {name: value for name, value in fields.items() if isinstance(value, Choice)}


def check(rule: Rule) -> None:
    """Raise InputError unless every number of `rule` can be used.

    Example:
        >>> check(ConstantRatio(16, -1.0))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: widths/alpha=-1.0 is not allowed: give a number above 0
    """
    for field in dataclasses.fields(rule):
        for value in options(getattr(rule, field.name)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
            if not number or (value <= 0 and field.name in ("first", "alpha", "divisor")):
                above = "" if field.name in ("a", "b", "c") else " above 0"
                raise InputError(f"widths/{field.name}={value!r} is not allowed: give a number{above}")
    if not isinstance(rule.divisor, int):
        raise InputError(f"widths/divisor={rule.divisor!r} is not allowed: give a whole number")


class Fit(NamedTuple):
    """`a * exp(n * b) + c` fitted to widths, and the root mean square of what is left."""

    a: float
    b: float
    c: float
    rmse: float


def fit_exponential(widths: Sequence[float]) -> Fit:
    """Least-squares fit of the exponential rule to the widths of blocks 0, 1, 2, ...

    For a given `b` the best `a` and `c` solve a linear problem, so only `b` is searched.

    Raises:
        InputError: fewer than three widths, or one that is not a positive number.

    Example:
        >>> fit = fit_exponential([16 * math.exp(0.25 * n) + 8 for n in range(10)])
        >>> round(fit.a, 3), round(fit.b, 3), round(fit.c, 3)
        (16.0, 0.25, 8.0)
    """
    from scipy.optimize import minimize_scalar

    try:
        values = np.asarray(widths, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"widths {widths!r} cannot be fitted: give at least three positive numbers") from None
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all() or (values <= 0).any():
        raise InputError(f"widths {values.tolist()} cannot be fitted: give at least three positive numbers")
    number = np.arange(len(values))

    def solved(b: float) -> tuple[np.ndarray, float]:
        basis = np.stack([np.exp(b * (number - number[-1])), np.ones(len(values))], axis=1)
        solution = np.linalg.lstsq(basis, values, rcond=None)[0]
        return solution, float(np.square(basis @ solution - values).sum())

    # The error may have several valleys: the best of a grid says in which one to look.
    grid = np.concatenate([-np.geomspace(STEEPEST, 1e-3, 80), np.geomspace(1e-3, STEEPEST, 80)])
    best = int(np.argmin([solved(b)[1] for b in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(lambda b: solved(b)[1], bounds=(low, high), method="bounded", options={"xatol": 1e-10})
    b = float(found.x)
    (scaled, c), left = solved(b)
    return Fit(float(scaled * math.exp(-b * number[-1])), b, float(c), math.sqrt(left / len(values)))
