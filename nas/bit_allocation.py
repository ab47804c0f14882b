"""Bit widths of layers by an integer linear program: the least summed loss under budgets that add up over layers.

Every layer takes exactly one of `B` options (pairs of weight and activation bits, as a rule); losses and costs of
layers are taken to be independent, so that both are sums. SciPy's HiGHS solves it exactly. What must not be chosen has
an infinite loss or cost.

Shape letters: `L` layers, `B` options of a layer.

Sources: Hubara et al. 2020 (AdaQuant), https://arxiv.org/abs/2006.10518, its integer programming, which maximises what
is saved under a bound on the loss: give the loss as a cost for that form. Guerra Fernandez, thesis (Monash 2024),
section 3.1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from hw_models.discover import unknown
from hw_models.errors import InputError, whole

# HiGHS allows constraints and gaps an absolute error of 1e-6, whatever the unit: seconds and joules would vanish in it.
SCALE = 1e4
ROUNDING = 1e-9  # of a budget: a sum that is equal to it but for rounding meets it

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Allocation(NamedTuple):
    """The options that layers take.

    Attributes:
        choice: int `[L]`, the index of each layer's option.
        loss: their summed loss.
        costs: their summed costs, those without a budget included.
        optimal: whether nothing better exists; False where `time_limit_s` ended the search.
    """

    choice: np.ndarray
    loss: float
    costs: dict[str, float]
    optimal: bool


def allocate(
    loss: ArrayLike,
    costs: Mapping[str, ArrayLike],
    budgets: Mapping[str, float],
    pinned: Mapping[int, int] = _NOTHING,
    time_limit_s: float | None = None,
) -> Allocation:
    """The allocation of least summed loss whose summed costs are within every budget.

    Args:
        loss: `[L, B]`, such as by `nas.sensitivity.sensitivities`.
        costs: `[L, B]` each, in any unit (`weight_bytes`, `latency_s`, `energy_j`); what has no budget is summed only.
        budgets: the most of a cost, in its unit; met to within 1e-9 of it.
        pinned: the option of layers that have no choice, by the layer's index.
        time_limit_s: of the solver; then the best allocation so far is returned.

    Raises:
        InputError: arrays that do not fit each other, NaN, a layer without a finite option, an unknown budget, layer or
            option; a budget that cannot be met, with the least that is possible.

    Example:
        >>> found = allocate([[0.9, 0.0], [0.1, 0.0]], {"bytes": [[1, 2], [2, 4]]}, {"bytes": 4})
        >>> found.choice.tolist(), found.loss, found.costs
        ([1, 0], 0.1, {'bytes': 4.0})
    """
    losses, tables = _checked(loss, costs, budgets)
    allowed = np.isfinite(np.stack([losses, *tables.values()])).all(0)
    layers, options = losses.shape
    for layer, option in pinned.items():
        whole("pinned layer", layer, 0, layers - 1)
        allowed[layer] &= np.arange(options) == whole(f"pinned option of layer {layer}", option, 0, options - 1)
    none = np.flatnonzero(~allowed.any(1))
    if len(none):
        raise InputError(
            f"layer {none[0]} has no option of finite loss and costs: give it one, or another pinned option"
        )
    bounds = {name: (tables[name], budgets[name]) for name in budgets}
    choice, optimal = _solved(losses, bounds, allowed, time_limit_s)
    if choice is None:
        raise _infeasible(bounds, allowed)
    rows = np.arange(layers)
    sums = {name: float(table[rows, choice].sum()) for name, table in tables.items()}
    return Allocation(choice, float(losses[rows, choice].sum()), sums, optimal)


def front(
    loss: ArrayLike,
    costs: Mapping[str, ArrayLike],
    name: str,
    series: Iterable[float],
    budgets: Mapping[str, float] = _NOTHING,
    pinned: Mapping[int, int] = _NOTHING,
) -> Iterator[Allocation]:
    """The allocation for every budget of cost `name` in `series`, one after the other as they are found.

    `budgets` are those of other costs; everything else is as for `allocate`.

    Raises:
        InputError: as `allocate`, when it is a budget's turn.

    Example:
        >>> found = front([[0.9, 0.0], [0.1, 0.0]], {"bytes": [[1, 2], [2, 4]]}, "bytes", [3, 4, 6])
        >>> [allocation.loss for allocation in found]
        [1.0, 0.1, 0.0]
    """
    for budget in series:
        yield allocate(loss, costs, {**budgets, name: budget}, pinned)


def _checked(
    loss: ArrayLike, costs: Mapping[str, ArrayLike], budgets: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    losses = np.asarray(loss, np.float64)
    if losses.ndim != 2 or not losses.size:
        raise InputError(f"loss of shape {losses.shape} is not allowed: give [layers, options]")
    tables = {name: np.asarray(table, np.float64) for name, table in costs.items()}
    for name, table in (("loss", losses), *tables.items()):
        if table.shape != losses.shape:
            raise InputError(f"costs of {name} have shape {table.shape}: give that of the loss, {losses.shape}")
        if np.isnan(table).any() or (table == -np.inf).any():
            raise InputError(f"{name} holds NaN or minus infinity: give numbers, +inf for what must not be chosen")
    for name, budget in budgets.items():
        if name not in tables:
            raise unknown("budget", name, tables)
        if not np.isfinite(budget):
            raise InputError(f"budget {name}={budget} is not allowed: give a finite number, or leave it out for none")
    return losses, tables


def _solved(
    losses: np.ndarray,
    bounds: Mapping[str, tuple[np.ndarray, float]],
    allowed: np.ndarray,
    time_limit_s: float | None = None,
) -> tuple[np.ndarray | None, bool]:
    """The choice, or None where the budgets cannot be met, and whether it is known to be the best."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, eye_array, kron, vstack

    layers, options = losses.shape
    rows = []
    for table, budget in bounds.values():
        # what is above the least, in units of what is left for it
        least = np.where(allowed, table, np.inf).min(1, keepdims=True)
        left = budget + ROUNDING * abs(budget) - least.sum()
        if left < 0:
            return None, True
        above = np.where(allowed, table - least, 0.0)
        allowed = allowed & (above <= left)
        rows.append(np.where(allowed, SCALE * above / (left or 1.0), 0.0).ravel())
    least = np.where(allowed, losses, np.inf).min(1, keepdims=True)
    above = np.where(allowed, losses - least, 0.0)
    one_each = kron(eye_array(layers), np.ones((1, options)))
    matrix = vstack([one_each, csr_array(np.reshape(rows, (len(rows), losses.size)))])
    limit = {} if time_limit_s is None else {"time_limit": time_limit_s}
    found = milp(
        (SCALE * above / (above.max() or 1.0)).ravel(),
        integrality=np.ones(losses.size),
        bounds=Bounds(0, allowed.ravel().astype(float)),
        constraints=LinearConstraint(
            matrix, np.repeat([1.0, -np.inf], [layers, len(rows)]), np.repeat([1.0, SCALE], [layers, len(rows)])
        ),
        options={"mip_rel_gap": 0.0, **limit},
    )
    if found.status == 2:  # infeasible
        return None, True
    if found.x is None:
        raise InputError(f"no allocation was found in time_limit_s={time_limit_s}: give more ({found.message})")
    return found.x.reshape(losses.shape).argmax(1), found.status == 0


def _infeasible(bounds: Mapping[str, tuple[np.ndarray, float]], allowed: np.ndarray) -> InputError:
    """The first budget that cannot be met beside those before it, and the least that can."""
    met: dict[str, tuple[np.ndarray, float]] = {}
    for name, (table, budget) in bounds.items():
        if _solved(table, {**met, name: (table, budget)}, allowed)[0] is None:
            break
        met[name] = (table, budget)
    choice, _ = _solved(table, met, allowed)
    assert choice is not None  # the budgets before it can be met
    least = float(table[np.arange(len(table)), choice].sum())
    within = " within " + ", ".join(f"{other}={bound[1]:g}" for other, bound in met.items()) if met else ""
    return InputError(f"budget {name}={budget:g} cannot be met: the least that is possible{within} is {least:.9g}")
