"""What layers cost, and how each cost combines over layers.

Shape letters: `L` layers; leading axes `[...]` are free. Every field is for one run of the given batch, except
`params`, `macs`, `activations` and `weight_bytes`, which belong to the network whatever the batch, and `interval_s`,
which is the time from one image to the next.

Where the layers of a network share one device at the same time, its time is no sum over layers. Such kinds of devices
give named quantities of each layer that can be added up (`sums`) or of which the largest counts (`maxima`), and work
out the network from the totals (`network` in `hw_models/analytic/<kind>.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

BOUNDS = ("compute", "memory", "overhead")

NO_QUANTITIES: dict[str, Array] = {}  # never written to

COUNTS = ("params", "macs", "activations")  # fields that no device changes

# How a field of several layers becomes that of the network. Nothing else in the project repeats this.
COMBINE = {
    "latency_s": "sum",
    "energy_j": "sum",
    "peak_memory_bytes": "max",
    "weight_bytes": "sum",
    "params": "sum",
    "macs": "sum",
    "activations": "sum",
    "compute_s": "sum",
    "resource_fraction": "max",
}


class Costs(NamedTuple):
    """Costs of a network on a device; every leaf `[...]`. Also used for objectives, all of them minimised.

    `interval_s` is the time per image of a device that is kept busy, the inverse of its throughput: the batch's share
    of the latency, and less where the next image enters before the last one has left. `activations` are the outputs
    of the multiplying layers, summed (`hw_models.metrics`). `compute_s` is the time that the multipliers alone would
    need at the device's peak; `resource_fraction` is the largest used share of a hard resource, and above 1 the network
    does not fit.

    Example:
        >>> Costs(2.0, 2.0, 1.0, 10.0, 5.0, 5.0, 100.0, 20.0, 1.0, 0.5).mac_utilization
        0.5
    """

    latency_s: Array
    interval_s: Array
    energy_j: Array
    peak_memory_bytes: Array
    weight_bytes: Array
    params: Array
    macs: Array
    activations: Array
    compute_s: Array
    resource_fraction: Array

    @property
    def throughput_per_s(self) -> Array:
        """Images per second of a device that is kept busy, `[...]`."""
        return 1 / self.interval_s

    @property
    def mac_utilization(self) -> Array:
        """Share of the time of one run in which the multipliers are busy, `[...]` in 0..1."""
        return self.compute_s / self.latency_s


class LayerCosts(NamedTuple):
    """The same fields per layer, every leaf `[..., L]`, and `bound`, an index into `BOUNDS`; or parts of a network.

    Only a network has an `interval_s`.

    `resource_fraction` here is what one layer alone asks for: 0, or above 1 where no precision of the device can hold
    the layer's operands. The share that all layers take together is added by `hw_models.estimate.total`. `sums` and
    `maxima` are what the kind of device asked for. Layers that were combined have no `bound`.
    """

    latency_s: Array
    energy_j: Array
    peak_memory_bytes: Array
    weight_bytes: Array
    params: Array
    macs: Array
    activations: Array
    compute_s: Array
    resource_fraction: Array
    bound: Array | None = None
    sums: dict[str, Array] = NO_QUANTITIES
    maxima: dict[str, Array] = NO_QUANTITIES

    def costs(self, batch: ArrayLike) -> Costs:
        """The costs alone, of a network whose runs of `batch` images follow one another."""
        return Costs(**{name: getattr(self, name) for name in COMBINE}, interval_s=self.latency_s / batch)


def combine(layers: LayerCosts, axis: int = -1) -> LayerCosts:
    """Costs over the layers of `axis`: sums and maxima as `COMBINE` says, `[..., L] -> [...]`.

    Combining is associative: parts of a network may be combined first, stacked as if they were layers, and combined
    again.

    Example:
        >>> rows = LayerCosts(*[jnp.asarray([1.0, 2.0])] * len(COMBINE))
        >>> costs = combine(rows)
        >>> float(costs.latency_s), float(costs.peak_memory_bytes)
        (3.0, 2.0)
    """

    def over(leaf: Array, how: str) -> Array:
        return jnp.max(leaf, axis=axis, initial=0.0) if how == "max" else jnp.sum(leaf, axis=axis)

    return LayerCosts(
        **{name: over(getattr(layers, name), how) for name, how in COMBINE.items()},
        sums={name: over(leaf, "sum") for name, leaf in layers.sums.items()},
        maxima={name: over(leaf, "max") for name, leaf in layers.maxima.items()},
    )


def fits(costs: Costs) -> Array:
    """Whether every hard resource suffices, bool `[...]`.

    Example:
        >>> bool(fits(Costs(*[jnp.float32(1.0)] * len(Costs._fields))))
        True
    """
    return costs.resource_fraction <= 1
