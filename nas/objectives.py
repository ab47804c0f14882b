"""What a search minimises and what it must not exceed: error and costs joined into one judgement of each candidate.

Names: `error`, and the fields of `hw_models.costs.Costs` (`latency_s`, `energy_j`, `weight_bytes`, ...). With several
devices a field carries its device, `latency_s@raspberry_pi_4`; `params`, `macs` and `activations` belong to the network
and never do.

Shape letters: `P` candidates, `D` decisions, `C` options, `M` objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.costs import COUNTS, Costs
from hw_models.discover import unknown
from hw_models.errors import InputError, whole
from hw_models.estimate import MAX_BATCH
from nas.rewards import Join, reward
from nas.types import Feedback


class Priced(NamedTuple):
    """Costs of candidates by name, each `float32 [P]`, and by how much limits on costs are exceeded, `float32 [P]`."""

    costs: dict[str, Array]
    violation: Array


def _positive(what: str, name: str, value: Any) -> float:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise InputError(f"{what} {name}={value!r} is not allowed: give a finite number above 0")
    return float(value)


def _excess(value: Array, limit: float) -> Array:
    """Relative excess, 0 where the limit is met, `+inf` where the value is not a finite number."""
    edge = np.float32(limit)
    if float(edge) > limit:  # the nearest float32 may lie above what was asked for
        edge = np.nextafter(edge, np.float32(0))
    over = jnp.maximum(value / edge - 1.0, jnp.finfo(jnp.float32).eps)
    return jnp.where(jnp.isfinite(value), jnp.where(value > edge, over, 0.0), jnp.inf)


class Objective:
    """Objectives and limits over a space and one or more devices. Immutable; everything is minimised.

    Args:
        space: the search space.
        devices: a device, its name, or a sequence of either.
        minimize: names of the objectives; the first is the one that `pick("best")` and `scalar` go by.
        limits: largest allowed value by name; a limit on `error` applies once a candidate is evaluated.
        precision: number format that all layers run in, or None for what the space says.
        batch: images per run that costs are for; None is 1, or the batch that a measured table has.
        scalar: joins error and costs, a mapping of names to `[]`, into the one number that strategies with a single
            objective minimise; jittable. Or the text of a reward of `nas.rewards`, such as `mnasnet_soft`. None is the
            first objective, and tells strategies that rank by one number that several objectives were not joined.
        targets: values by name of a cost that a reward lands on, such as `{"latency_s": 0.005}`.
        table: makes the cost table of a space, a device, a precision and, where one is given, a batch;
            `nas.cost_table.cost_table` unless given.

    Raises:
        InputError: an unknown name, a name twice, no objective, a limit that is not a finite number above 0, a batch
            that is no whole number from 1.

    Example:
        >>> from nas.toy import ToyDevice, ToySpace, toy_table
        >>> goal = Objective(ToySpace(), ToyDevice(), minimize=("error", "latency_s"), limits={"params": 20.0},
        ...                  table=toy_table)
        >>> priced = goal.price(jnp.zeros((1, 6), jnp.int32))
        >>> float(priced.costs["latency_s"][0]), float(priced.violation[0])
        (1.0, 0.0)
    """

    def __init__(
        self,
        space: Any,
        devices: Any,
        minimize: Sequence[str] = ("error", "latency_s"),
        limits: Mapping[str, float] | None = None,
        precision: str | None = None,
        *,
        scalar: Join | str | None = None,
        targets: Mapping[str, float] | None = None,
        batch: int | None = None,
        table: Callable[..., Any] | None = None,
    ):
        self.space = space
        self.devices = _devices(devices)
        self.precision = precision
        if table is None:
            from nas.cost_table import cost_table

            table = cost_table
        self.batch = None if batch is None else whole("batch", batch, 1, MAX_BATCH)
        images = () if batch is None else (batch,)
        self.tables = tuple(table(space, device, precision, *images) for device in self.devices)
        self.minimize = (minimize,) if isinstance(minimize, str) else tuple(minimize)
        known = ("error", *self.cost_names)
        if not self.minimize:
            raise InputError(f"nothing to minimise: name at least one of {', '.join(known)}")
        for name in (*self.minimize, *(limits or {})):
            if name not in known:
                raise unknown("objective or limit", str(name), known)
        for name in targets or {}:
            if name not in self.cost_names:
                raise unknown("target", str(name), self.cost_names)
        if len(set(self.minimize)) < len(self.minimize):
            raise InputError(f"minimize {', '.join(self.minimize)} repeats a name: give each once")
        self.limits = {name: _positive("limit", name, value) for name, value in (limits or {}).items()}
        self.targets = {name: _positive("target", name, value) for name, value in (targets or {}).items()}
        if scalar is None and self.targets:
            raise InputError(
                f"targets ({', '.join(self.targets)}) without a scalar aim at nothing: set scalar=absolute"
            )
        if callable(scalar) and self.targets:
            raise InputError(f"targets ({', '.join(self.targets)}) are for rewards by name: a function has its own")
        self.scalar_name = scalar if isinstance(scalar, str) else "first"
        if callable(scalar):
            self.scalar_name = f"function {getattr(scalar, '__name__', 'without a name')}"
        self._scalar = reward(scalar, self.cost_names, self.targets) if isinstance(scalar, str) else scalar
        # compiled functions live here, so that several searches with one objective compile once
        self._price = jax.jit(jax.vmap(self.price_one))
        self._price_gates = jax.jit(jax.vmap(self.price_gates_of_one))
        self.sample = jax.jit(jax.vmap(space.sample))
        self.mutate = jax.jit(jax.vmap(space.mutate))
        self._judge = jax.jit(self._feedback)
        self._gate_grads = jax.jit(self._gate_grads_of)

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Names that `price` returns, in the order of the records."""
        if len(self.devices) == 1:
            return Costs._fields
        per_device = [f for f in Costs._fields if f not in COUNTS]
        return (*(f"{f}@{device.name}" for f in per_device for device in self.devices), *COUNTS)

    @property
    def joined(self) -> bool:
        """Whether one number says it all: a scalar was given, or there is one objective."""
        return self._scalar is not None or len(self.minimize) == 1

    @property
    def landings(self) -> dict[str, float]:
        """Targets that the scalar lands on, and does not merely trade against."""
        return dict(self.targets) if self.scalar_name.partition("[")[0] == "absolute" else {}

    def price_one(self, genes: Array) -> Priced:
        """What one candidate `[D]` costs; pure, for strategies to use inside their own programs."""
        return self._named([table.exact(genes) for table in self.tables])

    def price_gates_of_one(self, gates: Array) -> Priced:
        """Expected costs under `gates [D, C]`, and by how much these exceed the limits; pure."""
        return self._named([table.expected(gates) for table in self.tables])

    def price_gates(self, gates: Any) -> Priced:
        """Expected costs and violations of relaxed candidates. `[P, D, C] -> [P]` each."""
        return self._price_gates(jnp.asarray(gates))

    def scalar_of(self, error: Array, costs: Mapping[str, Array]) -> Array:
        """The one number to minimise, of one candidate; pure."""
        values = {**costs, "error": error}
        return values[self.minimize[0]] if self._scalar is None else self._scalar(values)

    def _named(self, prices: Sequence[Costs]) -> Priced:
        costs = {}
        for name in self.cost_names:
            field, _, at = name.partition("@")
            place = [device.name for device in self.devices].index(at) if at else 0
            costs[name] = jnp.asarray(getattr(prices[place], field), jnp.float32)
        limits = {name: limit for name, limit in self.limits.items() if name != "error"}
        excess = [_excess(costs[name], limit) for name, limit in limits.items()]
        excess += [_excess(jnp.asarray(price.resource_fraction, jnp.float32), 1.0) for price in prices]
        for name in dict.fromkeys((*self.minimize, *self.targets)):
            if name != "error":
                excess.append(jnp.where(jnp.isfinite(costs[name]), 0.0, jnp.inf))
        return Priced(costs, sum(excess, jnp.float32(0.0)))

    def price(self, genes: Any) -> Priced:
        """What candidates cost and by how much they exceed the limits on costs. `[P, D] -> [P]` each.

        The violation sums the relative excess over all limits, and over each device's hard resources
        (`resource_fraction` above 1); a cost that is not finite makes it `+inf`.
        """
        return self._price(jnp.asarray(genes))

    def _feedback(self, error: Array, priced: Priced, evaluated: Array, done: Array, gate_grads: Any) -> Feedback:
        error = jnp.asarray(error, jnp.float32)
        finite = jnp.isfinite(error)
        late = self.late_by(error)
        # what was screened out keeps the violation of its costs; what failed has no finite violation
        violation = priced.violation + jnp.where(evaluated, jnp.where(finite, late, jnp.inf), 0.0)
        violation = jnp.where(~evaluated & (violation == 0), jnp.inf, violation)
        valid = evaluated & finite & (violation == 0)
        columns = [error if name == "error" else priced.costs[name] for name in self.minimize]
        objectives = jnp.where(valid[:, None], jnp.stack(columns, axis=1), jnp.inf)
        scalar = jnp.where(valid, jax.vmap(self.scalar_of)(error, priced.costs), jnp.inf)
        return Feedback(objectives, scalar, violation, valid, done, gate_grads)

    def feedback(
        self, error: Any, priced: Priced, evaluated: Any, done: Any = None, gate_grads: Array | None = None
    ) -> Feedback:
        """Judge candidates. `error [P]` is read where `evaluated [P]`; NaN or infinite error there means failed.

        `done [P]` says which rows the feedback is about (default: all). See `nas.types.Feedback` for the result.
        """
        evaluated = jnp.asarray(evaluated, bool)
        done = jnp.ones_like(evaluated) if done is None else jnp.asarray(done, bool)
        return self._judge(jnp.asarray(error, jnp.float32), priced, evaluated, done, gate_grads)

    def late_by(self, error: Array) -> Array:
        """By how much errors exceed the limit on `error`, relative; 0 where there is none. Pure."""
        return _excess(error, self.limits["error"]) if "error" in self.limits else jnp.zeros_like(error)

    def late(self, error: float) -> bool:
        """Whether a finite error exceeds the limit on `error`, where there is one."""
        return "error" in self.limits and bool(_excess(jnp.float32(error), self.limits["error"]) > 0)

    def gate_grads(self, error: Any, error_grads: Any, gates: Any) -> Array:
        """Gradient of the scalar plus the violation, in expectation, with respect to the gates. `[P, D, C]`

        The chain rule is cut at the gates: `error_grads [P, D, C]` is the evaluator's part, the tables give the rest.
        """
        return self._gate_grads(jnp.asarray(error, jnp.float32), jnp.asarray(error_grads), jnp.asarray(gates))

    def _gate_grads_of(self, error: Array, error_grads: Array, gates: Array) -> Array:
        def loss(error: Array, gates: Array) -> Array:
            priced = self.price_gates_of_one(gates)
            return self.scalar_of(error, priced.costs) + priced.violation + self.late_by(error)

        by_error, by_gates = jax.vmap(jax.grad(loss, (0, 1)))(error, gates)
        return by_error[:, None, None] * error_grads + by_gates

    def broken_limit(self, costs: Mapping[str, float]) -> tuple[str, float, float]:
        """The limit that one candidate exceeds most: name, limit, the candidate's value.

        Example:
            >>> from nas.toy import ToyDevice, ToySpace, toy_table
            >>> goal = Objective(ToySpace(), ToyDevice(), limits={"params": 20.0}, table=toy_table)
            >>> goal.broken_limit({"params": 30.0, "resource_fraction": 0.5})
            ('params', 20.0, 30.0)
        """
        limits = {name: limit for name, limit in self.limits.items() if name != "error"}
        limits |= {name: 1.0 for name in self.cost_names if name.startswith("resource_fraction") and name not in limits}

        def excess(name: str) -> float:
            value = float(costs[name]) / limits[name]
            return value if math.isfinite(value) else math.inf

        worst = max(limits, key=excess)
        return worst, limits[worst], float(costs[worst])

    def describe(self) -> dict[str, Any]:
        """Settings as plain JSON values, kept with the run."""
        measured = [table.measured for table in self.tables if getattr(table, "measured", "")]
        return {
            **({"measured": measured} if measured else {}),
            "devices": [device.name for device in self.devices],
            "minimize": list(self.minimize),
            "limits": dict(self.limits),
            "precision": self.precision,
            **({"batch": self.batch} if self.batch is not None else {}),
            "scalar": self.scalar_name,
            **({"targets": dict(self.targets)} if self.targets else {}),
        }


def _devices(given: Any) -> tuple[Any, ...]:
    items = tuple(given) if isinstance(given, list | tuple) and not hasattr(given, "name") else (given,)
    if not items:
        raise InputError("no device given: name at least one, such as 'raspberry_pi_4'")
    if any(isinstance(item, str) for item in items):
        from hw_models.device_file import load_device

        items = tuple(load_device(item) if isinstance(item, str) else item for item in items)
    names = [device.name for device in items]
    if len(set(names)) < len(names):
        raise InputError(f"devices {', '.join(names)} repeat a name: give each device once")
    return items
