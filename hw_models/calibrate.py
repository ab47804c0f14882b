"""Calibration: a device's free constants fitted to a handful of measured networks.

The constants are numbers of the device file itself (`Keys.free` of its kind): rates, shares and overheads that no data
sheet tells. They are searched on a logarithmic scale, so that they stay positive, by least squares of the logarithm of
predicted over measured time, with the file's own values as the prior:

    minimise  sum_n (log(t_n(theta) / y_n) / s)^2 + sum_i (log(theta_i / start_i) / PRIOR_WIDTH)^2

`s` is the error that remains, estimated by repeating the fit (empirical Bayes). With few networks the file decides what
they cannot tell, with many they overrule it. Shares are at most 1.

Shape letters: `N` networks, `L` layers, `P` constants.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.optimize import least_squares

from hw_models.device import Device
from hw_models.errors import InputError
from hw_models.estimate import estimate
from hw_models.formats import parse_format
from hw_models.keys import is_share, keys_of
from hw_models.precision import carrier
from hw_models.workload import Workload

PRIOR_WIDTH = 2.0  # of a factor e: two thirds of the constants within 4.5 times of what the file says
FOLDS = 5
FIRST_ERROR = 0.2  # relative error assumed before the first fit
LEAST_ERROR = 0.003  # no set of timings is better than this
ROUNDS = 4
STEPS = 200  # of one search; most end after a third of them
WIDEST = 12.0  # of a logarithm: a constant may fall to 6e-6 of what the file says
BELOW_BOUND = 1e-6  # of a logarithm: the search must start inside its bounds


class Constant(NamedTuple):
    """One number to fit: `section.key`, of which precision if the key has several, and where the search starts."""

    key: str
    precision: str | None
    start: float

    @property
    def name(self) -> str:
        """As a person writes it."""
        return self.key if self.precision is None else f"{self.key}.{self.precision}"

    @property
    def most(self) -> float:
        """Largest value allowed."""
        return 1.0 if is_share(self.key) else np.inf


def constants(device: Device, precision: str) -> list[Constant]:
    """The free constants of `device` for networks that run in `precision`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> constants(load_device("a100"), "float16")[0].name
        'compute.efficiency.float16'
    """
    if precision not in device.precisions:  # kinds that honour any width have numbers for the one that holds it
        precision = carrier(device, parse_format(precision)) or device.default_precision
    found = []
    for free in keys_of(device.kind).free:
        value = device.number(free.key)
        if isinstance(value, dict):
            found.append(Constant(free.key, precision, float(value[precision])))
        else:
            found.append(Constant(free.key, None, float(value) if value else float(free.start or 0.0)))
    return found


def with_constants(device: Device, names: Sequence[str], values: Any) -> Device:
    """`device` with other values `[P]` of the constants called `names`; works on traced values."""
    changed = device.replaced({name: values[i] for i, name in enumerate(names)})
    # What stays on the chip is never slower than what leaves it, or larger maps would be faster.
    reached = changed.memory["dram_bytes_per_s"] * changed.memory["efficiency"]
    return changed.replaced({"memory.sram_bytes_per_s": jnp.maximum(changed.memory["sram_bytes_per_s"], reached)})


@jax.jit
def predict(device: Device, networks: Workload, batch: Array, busy: ArrayLike = False) -> Array:
    """Seconds of one run of each network, `[N, L]` and batch `[N]` -> `[N]`.

    Of a `busy` device they are the time from one run to the next, which its throughput says: shorter than a run takes
    where the next one begins before the last one has ended.

    Example:
        >>> from hw_models.testing import chains, device_named
        >>> predict(device_named("raspberry_pi_4"), chains(20), jnp.ones(20)).shape
        (20,)
    """

    def seconds(work: Workload, images: Array) -> Array:
        costs = estimate(device, work, images)
        return jnp.where(busy, images * costs.interval_s, costs.latency_s)

    return jax.vmap(seconds)(networks, batch)


class Fit(NamedTuple):
    """A calibrated device, its constants with their values, and the relative error that remains on what was fitted."""

    device: Device
    constants: list[Constant]
    values: np.ndarray
    error: float


def calibrate(
    device: Device, networks: Workload, batch: ArrayLike, measured_s: ArrayLike, precision: str, busy: bool = False
) -> Fit:
    """Fit the free constants of `device` to seconds measured per run.

    Args:
        device: where the constants start.
        networks: `[N, L]`, in the precision they ran in.
        batch: images per run, `[N]`.
        measured_s: seconds per run, `[N]`.
        precision: name of that precision, for constants of which there is one each.
        busy: whether seconds are the inverse of a throughput, see `predict`.

    Raises:
        InputError: fewer networks than constants, or a time that is not positive.

    Example:
        >>> from hw_models.testing import chains, device_named
        >>> board, networks = device_named("raspberry_pi_4").with_numbers(compute__op_overhead_s=1e-4), chains(20)
        >>> measured_s = predict(board, networks, jnp.ones(20))
        >>> fit = calibrate(device_named("raspberry_pi_4"), networks, 1, measured_s, "float32")
        >>> bool(fit.error < 0.05)  # a twentieth of the time remains unexplained
        True
    """
    return _fit(device, networks, batch, measured_s, precision, np.ones(np.shape(measured_s), bool), busy)


def _fit(
    device: Device,
    networks: Workload,
    batch: ArrayLike,
    measured_s: ArrayLike,
    precision: str,
    seen: np.ndarray,
    busy: bool,
) -> Fit:
    """`calibrate` on the networks that are `seen`, bool `[N]`: the others count for nothing, but keep the shapes."""
    fitted = constants(device, precision)
    target, count = np.asarray(measured_s, float), int(seen.sum())
    if count < len(fitted):
        raise InputError(
            f"{count} measured networks cannot fit the {len(fitted)} constants of {device.name} "
            f"({', '.join(constant.name for constant in fitted)}): measure at least {len(fitted)}"
        )
    if not np.all(np.isfinite(target) & (target > 0)):
        raise InputError("measured times must be positive and finite: correct the rows that are not")
    names = tuple(constant.name for constant in fitted)
    bound = np.log([constant.most for constant in fitted])
    start = np.minimum(np.log([constant.start for constant in fitted]), bound - BELOW_BOUND)
    # One structure and no texts: one program for every fit of a kind.
    given = with_constants(device, names, np.exp(start)).unnamed()
    images = jnp.asarray(np.broadcast_to(np.asarray(batch, np.float32), target.shape))
    log_target, counted = jnp.asarray(np.log(target), jnp.float32), jnp.asarray(seen, jnp.float32)

    def call(function: Callable[..., Array], x: np.ndarray) -> np.ndarray:
        values = function(given, names, networks, images, busy, log_target, counted, jnp.asarray(x, jnp.float32))
        return np.asarray(values, float)

    x, error = start, FIRST_ERROR
    for _ in range(ROUNDS):
        x = _most_likely(partial(call, _log_ratio), partial(call, _slopes), x, start, bound, error / PRIOR_WIDTH)
        # The prior holds many of the constants: half of them are taken as free.
        spare = max(count - len(fitted) / 2, 1)
        error = max(float(np.sqrt(np.sum(call(_log_ratio, x) ** 2) / spare)), LEAST_ERROR)
    found = jax.tree.map(float, with_constants(device, names, np.exp(x)))
    return Fit(found, fitted, np.asarray([found.number(name) for name in names]), error)


def _most_likely(
    ratio: Callable[[np.ndarray], np.ndarray],
    slopes: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    start: np.ndarray,
    bound: np.ndarray,
    weight: float,
) -> np.ndarray:
    """Logarithms `[P]` that minimise the squares of `ratio`, `[N]`, and of the `weight`ed distance from `start`."""

    def residual(x: np.ndarray) -> np.ndarray:
        return np.concatenate([ratio(x), weight * (x - start)])

    def jacobian(x: np.ndarray) -> np.ndarray:
        return np.concatenate([slopes(x), weight * np.eye(len(x))])

    bounds = (start - WIDEST, bound)
    # Steps scaled by the columns of the jacobian: with equal ones some fits end in a valley three times as high.
    found: np.ndarray = least_squares(residual, x, jacobian, bounds, x_scale="jac", max_nfev=STEPS, xtol=1e-7).x
    return found


def held_out(
    device: Device,
    networks: Workload,
    batch: ArrayLike,
    measured_s: ArrayLike,
    precision: str,
    seed: int = 0,
    busy: bool = False,
) -> np.ndarray:
    """Seconds predicted for each network by a fit that has not seen it (five folds, drawn by `seed`), `[N]`.

    Networks with the same layers and batch are in one fold, or a fit would have seen what it is judged on.

    Raises:
        InputError: as `calibrate`; or fewer networks than constants remain without a fold.

    Example:
        >>> from hw_models.testing import chains, device_named
        >>> board, networks = device_named("raspberry_pi_4").with_numbers(compute__op_overhead_s=1e-4), chains(20)
        >>> measured_s = predict(board, networks, jnp.ones(20))
        >>> guess = held_out(device_named("raspberry_pi_4"), networks, 1, measured_s, "float32")
        >>> bool(np.max(np.abs(guess / measured_s - 1)) < 0.1)
        True
    """
    target = np.asarray(measured_s, float)
    fitted = len(constants(device, precision))
    least = next(n for n in itertools.count(fitted) if n - math.ceil(n / FOLDS) >= fitted)
    if len(target) < least:
        raise InputError(
            f"{len(target)} measured networks cannot fit the {fitted} constants of {device.name} while a fifth of them "
            f"is held out to judge the fit: measure at least {least}"
        )
    images = jnp.asarray(np.broadcast_to(np.asarray(batch, np.float32), target.shape))
    network = same_network(networks, images)
    fold = (np.random.default_rng(seed).permutation(int(network.max()) + 1) % FOLDS)[network]
    predicted = np.empty(len(target))
    for each in np.unique(fold):
        unseen = fold == each
        fit = _fit(device, networks, images, target, precision, ~unseen, busy)
        predicted[unseen] = np.asarray(predict(fit.device.unnamed(), networks, images, busy))[unseen]
    return predicted


def same_network(networks: Workload, batch: ArrayLike) -> np.ndarray:
    """A number for each network `[N, L]` that those with the same layers and batch share, from 0 on, `[N]`.

    Example:
        >>> from hw_models.workload import Layer, Op
        >>> small, large = (Layer(Op.CONV, 8, 8, 8, 8, 8, out) for out in (8, 16))
        >>> same_network(Workload.stack([[small], [large], [small]]), 1).tolist()
        [0, 1, 0]
    """
    columns = np.stack([np.asarray(leaf, np.float64) for leaf in networks], axis=-1)
    told = np.concatenate([columns.reshape(len(columns), -1), np.broadcast_to(batch, len(columns))[:, None]], axis=1)
    _, first, network = np.unique(told, axis=0, return_index=True, return_inverse=True)
    order = np.empty(len(first), int)
    order[np.argsort(first)] = np.arange(len(first))
    return order[network.reshape(-1)]


def rows(networks: Workload, index: Any) -> Workload:
    """Some of the networks `[N, L]`.

    Example:
        >>> from hw_models.workload import Layer, Op
        >>> rows(Workload.stack([[Layer(Op.CONV, 8, 8, 8, 8, 8, out)] for out in (8, 16)]), 1).out_channels.tolist()
        [16.0]
    """
    return Workload(*(leaf[index] for leaf in networks))


def _log_of(
    device: Device,
    names: tuple[str, ...],
    networks: Workload,
    batch: Array,
    busy: ArrayLike,
    log_target: Array,
    counted: Array,
    x: Array,
) -> Array:
    """Logarithms of predicted over measured time, 0 where a network is not `counted`, `[N]`."""
    return counted * (jnp.log(predict(with_constants(device, names, jnp.exp(x)), networks, batch, busy)) - log_target)


_log_ratio = partial(jax.jit, static_argnums=1)(_log_of)
_slopes = partial(jax.jit, static_argnums=1)(jax.jacfwd(_log_of, argnums=7))
