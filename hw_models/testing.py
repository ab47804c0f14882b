"""Prices for tests: workloads of one length, so that the tests of all files share one program per kind of device."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hw_models.costs import Costs, LayerCosts
from hw_models.device import Device
from hw_models.device_file import load_device
from hw_models.estimate import layer_costs, total
from hw_models.formats import parse_format
from hw_models.workload import Layer, Op, Workload

LENGTH = 512  # layers of a padded workload
device_named = functools.cache(load_device)
_layer_costs = jax.jit(layer_costs)


def stored(layer: Layer, precision: str) -> Layer:
    """The layer with weights and activations held in `precision`.

    Example:
        >>> stored(Layer(Op.CONV, 8, 8, 8, 8, 3, 4), "w4a8").weight_bits
        4
    """
    return layer._replace(**parse_format(precision)._asdict())


def chains(count: int, seed: int = 0) -> Workload:
    """Networks of four convolutions with random sizes, `[count, 4]`.

    Example:
        >>> chains(20).op.shape
        (20, 4)
    """
    random, networks = np.random.default_rng(seed), []
    for _ in range(count):
        size, widths = int(random.integers(7, 57)), [int(width) for width in random.integers(3, 129, 5)]
        kernels = (int(kernel) for kernel in random.choice([1, 3, 5], 4))
        ends = zip(widths, widths[1:], kernels, strict=False)
        networks.append([Layer(Op.CONV, size, size, size, size, a, b, k, k) for a, b, k in ends])
    return Workload.stack(networks)


def price_layers(device: Device, work: Workload, batch: ArrayLike = 1) -> LayerCosts:
    """Costs of each layer of a workload, `[..., L]`, at one batch or at `[L]`.

    Example:
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 3, 4)], LENGTH)
        >>> int(price_layers(device_named("a100"), work).macs.sum())
        768
    """
    batches = jnp.broadcast_to(jnp.asarray(batch, jnp.float32), work.op.shape[-1:])
    return _layer_costs(device.unnamed(), work, batches)


def price(device: Device, work: Workload, batch: float = 1) -> Costs:
    """Costs of a workload, `[...]`.

    Example:
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 3, 4)], LENGTH)
        >>> int(price(device_named("a100"), work).macs)
        768
    """
    return total(device, price_layers(device, work, batch), jnp.float32(batch))


def prices(device: Device, rows: Sequence[Layer]) -> LayerCosts:
    """Costs of up to `LENGTH` layers at batch 1, numpy `[len(rows)]`.

    Example:
        >>> prices(device_named("a100"), [Layer(Op.CONV, 8, 8, 8, 8, 3, 4)]).macs.tolist()
        [768.0]
    """
    costs = price_layers(device, Workload.of(list(rows), LENGTH))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(rows)], costs)
