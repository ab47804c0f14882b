"""The share of a layer's filters that is pruned, found by a Gaussian process in a few evaluations.

Source: Guerra Fernandez, thesis (Monash 2024), section 4.3.4 and "Details on Bayesian optimization" in section 4.4.

Shape letters: `Q` candidates, `E` evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError, check_range, number, whole
from nas.gaussian_process import fit, predict
from search_spaces.options import check

LARGEST = 101  # candidates of one search, so that one program serves every layer
ROUNDING = 1e-9  # a share such as 0.3 of 10 filters must not be one less
SIZE_SHARE = 0.25  # of the weight of parameters: alpha_2 = alpha_1 / 4


@dataclass(frozen=True)
class RatioSearch:
    """Settings of the search in every layer; the defaults are those of the source on CIFAR-10 (8 on ImageNet).

    Attributes:
        low, high: the pruned share of filters, between which is searched.
        initial: evaluations that are evenly spread over it.
        guided: evaluations after them, where the lower confidence bound is lowest.
        kappa: deviations by which that bound lies below the mean.
        params_weight: `alpha_1`, points of error that one percent of the parameters is worth.
        size_weight: `alpha_2`, the same of the size in bits; a quarter of `params_weight` if None.

    Raises:
        InputError: a value of another type or out of range.

    Example:
        >>> RatioSearch().objective(10.0, 80.0, 60.0)
        105.0
        >>> RatioSearch(high=1.4)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: high=1.4 is out of range: give 0.0 to 1
    """

    low: float = 0.0
    high: float = 0.4
    initial: int = 5
    guided: int = 5
    kappa: float = 2.5
    params_weight: float = 1.0
    size_weight: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            check(field.name, getattr(self, field.name), str(field.type))
        check_range("low", self.low, 0, 1)
        check_range("high", self.high, self.low, 1)
        whole("initial", self.initial, 1, LARGEST)
        whole("guided", self.guided, 0, LARGEST)
        for name in ("kappa", "params_weight"):
            number(name, getattr(self, name), 0, lowest=True)
        if self.size_weight is not None:
            number("size_weight", self.size_weight, 0, lowest=True)

    def objective(self, error: float, params: float, size: float) -> float:
        """`y = L_c + alpha_1 L_params + alpha_2 L_size`, which is minimised; all of them in percent.

        `params` and `size` are what is kept, of the whole network before it was pruned, weights counted once and by
        their bits. The term of the size presses on layers of many bits, that of the parameters on the others.

        Source: equation 4.5.
        """
        share = SIZE_SHARE * self.params_weight if self.size_weight is None else self.size_weight
        return error + self.params_weight * params + share * size

    def counts(self, channels: int, name: str = "layer") -> np.ndarray:
        """How many of the `channels` may be pruned, ascending, at most `LARGEST` numbers: `int [Q]`.

        Raises:
            InputError: `high` would leave nothing of the layer, or no whole number of channels lies within the bounds.

        Example:
            >>> RatioSearch(high=0.3).counts(10).tolist()
            [0, 1, 2, 3]
        """
        low, high = math.ceil(self.low * channels - ROUNDING), dropped(self.high, channels)
        if high >= channels:
            raise InputError(f"high={self.high} leaves {name} of {channels} channels empty: give at most "
                             f"{(channels - 1) / channels:.3g}")  # fmt: skip
        if low > high:
            raise InputError(f"low={self.low} to high={self.high} is no whole number of the {channels} channels of "
                             f"{name}: give low of at most {1000 * high // channels / 1000:g}")  # fmt: skip
        return np.unique(np.linspace(low, high, LARGEST).round().astype(int))


def dropped(ratio: float, channels: int) -> int:
    """Channels that a pruned share means, rounded down.

    Example:
        >>> dropped(0.3, 10), dropped(0.29, 10)
        (3, 2)
    """
    return math.floor(ratio * channels + ROUNDING)


def lower_bound(mean: Array, deviation: Array, kappa: float | Array) -> Array:
    """The lower confidence bound `mean - kappa * deviation`: the next evaluation is where it is lowest. `[Q]`

    Source: equation 4.10. Erratum: the source calls it upper bound and takes its maximum (equation 4.11), which would
    be right with `+ kappa` and an objective that is maximised. That of equation 4.5 is a loss.

    Example:
        >>> lower_bound(jnp.asarray([1.0, 1.5]), jnp.asarray([0.0, 1.0]), 2.5).tolist()
        [1.0, -1.0]
    """
    return mean - kappa * deviation


USUAL = RatioSearch()


class Searched(NamedTuple):
    """Candidates in the order of their evaluation, their losses, and the one of the lowest, the first of equals."""

    values: tuple[float, ...]
    losses: tuple[float, ...]
    best: float


def searched(
    judge: Callable[[float], float], candidates: Sequence[float] | np.ndarray, by: RatioSearch = USUAL
) -> Searched:
    """The candidate of the lowest loss that is found in `initial + guided` evaluations, each of another candidate.

    The first are evenly spread, both ends among them (one alone is the lowest). Nothing is drawn: the same losses lead
    to the same candidates.

    Args:
        judge: a candidate to its loss, lower is better.
        candidates: `[Q]`, ascending.
        by: evaluations and kappa.

    Raises:
        InputError: no candidates, more than `LARGEST`, a loss that is not finite.

    Example:
        >>> found = searched(lambda x: (x - 13) ** 2, range(41))
        >>> len(found.values), found.best
        (10, 13.0)
    """
    places = np.asarray(candidates, np.float32)
    if not 1 <= len(places) <= LARGEST:
        raise InputError(f"{len(places)} candidates are not allowed: give 1 to {LARGEST}")
    order = list(dict.fromkeys(np.linspace(0, len(places) - 1, by.initial).round().astype(int).tolist()))
    length = by.initial + by.guided
    table, losses = np.zeros((length, 1), np.float32), np.zeros(length, np.float32)
    asked = np.zeros((LARGEST, 1), np.float32)
    asked[: len(places), 0] = places
    opened = np.arange(LARGEST) < len(places)
    values: list[float] = []
    while order:
        place = order.pop(0)
        loss = float(judge(float(places[place])))
        if not math.isfinite(loss):
            raise InputError(f"the loss at {places[place]:g} is {loss}: give a network and data with a finite one")
        table[len(values)], losses[len(values)], opened[place] = places[place], loss, False
        values.append(loss)
        if not order and len(values) < length and opened.any():
            order = [int(_next(table, losses, np.arange(length) < len(values), asked, opened, np.float32(by.kappa)))]
    tried = tuple(table[: len(values), 0].tolist())
    return Searched(tried, tuple(values), tried[int(np.argmin(values))])


@jax.jit
def _next(table: Array, losses: Array, usable: Array, asked: Array, opened: Array, kappa: Array) -> Array:
    """The open candidate of the lowest bound, its place in `asked`."""
    predicted = predict(fit(table, losses, usable), asked)
    return jnp.argmin(jnp.where(opened, lower_bound(predicted.mean, predicted.deviation, kappa), jnp.inf))
