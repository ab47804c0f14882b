"""Prices of one network on devices, as plain rows: what `flynas cost` and `flynas explain` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.config import allow_working_directory
from hw_models import Costs, Device, Workload, load_device
from hw_models.estimate import MAX_BATCH, apply_precision, fits, layer_costs, resource_shares, total
from hw_models.estimate import explain as explain_layers
from search_spaces.texts import Resolved, resolve

MEASURES = (*(name for name in Costs._fields if name not in ("params", "macs", "compute_s")), "mac_utilization")
# unknown where a network does not fit: it cannot run there, so there is no such time
ONLY_IF_IT_FITS = ("latency_s", "energy_j", "mac_utilization")


class Prepared(NamedTuple):
    """A network as layers in the precision it runs in on a device, and why that one."""

    name: str
    layers: list[Any]
    device: Device
    workload: Workload
    precision: str
    note: str


def prepare(network: str, device: str, precision: str | None = None, fallback: bool = False) -> Prepared:
    """A network text and the name of a device, ready to be priced.

    Raises:
        InputError: unknown network or device, a space in place of a network, a precision that the device lacks.

    Example:
        >>> prepare("mobilenet_v3_small", "zcu102").precision
        'int8'
    """
    machine = load_device(device)
    found = resolved(network)
    layers = found.network().lower()
    workload, chosen, note = apply_precision(machine, Workload.of(layers), precision, fallback)
    return Prepared(found.name, layers, machine, workload, chosen, note)


def resolved(network: str) -> Resolved:
    """What a network text stands for; a dotted name may be that of a module in the working directory.

    Raises:
        InputError: see `search_spaces.texts.resolve`.

    Example:
        >>> resolved("mobilenet_v2").space.classes
        1000
    """
    if "." in network.partition(":")[0]:
        allow_working_directory()
    return resolve(network)


def price(prepared: Prepared, batch: int = 1) -> dict[str, Any]:
    """Costs of a network on a device; what is not known is None.

    `params` and `macs` are exact integers, `macs` of one image; latency, energy and peak memory are for `batch` images.
    `scarcest` names the resource that `resource_fraction` is of, None where no resource is limited.

    Raises:
        InputError: `batch` below 1 or too large.

    Example:
        >>> price(prepare("mobilenet_v3_small", "raspberry_pi_4"))["params"]
        2542856
    """
    check_batch(batch)

    @jax.jit
    def priced(device: Device, workload: Workload) -> tuple[Costs, dict[str, Any]]:
        layers = layer_costs(device, workload, batch)
        return total(device, layers, batch), resource_shares(device, layers, batch)

    costs, shares = priced(prepared.device, prepared.workload)
    fit = bool(fits(costs))
    scarcest = max(shares, key=lambda name: float(shares[name]))
    numbers = {name: _number(getattr(costs, name)) for name in MEASURES}
    return {
        "name": prepared.name,
        "device": prepared.device.name,
        "precision": prepared.precision,
        "precision_note": prepared.note,
        "batch": batch,
        "params": sum(int(layer.params) for layer in prepared.layers),
        "macs": sum(int(layer.macs) for layer in prepared.layers),
        **{name: None if name in ONLY_IF_IT_FITS and not fit else value for name, value in numbers.items()},
        "fits": fit,
        "scarcest": scarcest if float(shares[scarcest]) > 0 else None,
    }


def layer_rows(prepared: Prepared, batch: int = 1) -> list[dict[str, Any]]:
    """One row per layer, in the order of execution: see `hw_models.estimate.explain`.

    Raises:
        InputError: `batch` below 1 or too large.

    Example:
        >>> layer_rows(prepare("mobilenet_v3_small", "raspberry_pi_4"))[0]["name"]
        'conv3x3 224x224x3 -> 112x112x16'
    """
    check_batch(batch)
    rows = explain_layers(prepared.device, prepared.workload, batch)
    for row, layer in zip(rows, prepared.layers, strict=True):
        row["macs"], row["params"] = int(layer.macs), int(layer.params)
    return rows


def check_batch(batch: int) -> None:
    """Raise InputError unless `batch` is one that can be priced.

    Example:
        >>> check_batch(1)
    """
    from hw_models.errors import InputError

    if not 1 <= batch <= MAX_BATCH:
        raise InputError(f"--batch {batch} is not allowed: give a whole number from 1 to {MAX_BATCH}")


def _number(value: Any) -> float | None:
    single = np.float32(value)
    # the shortest decimal that stands for this float32: the digits after it would be noise
    return float(str(single)) if math.isfinite(single) else None


def default_devices(given: Sequence[str] | None) -> tuple[str, ...]:
    """The devices asked for, each once; every shipped one unless any is.

    Example:
        >>> default_devices(["zcu102"])
        ('zcu102',)
    """
    from hw_models import device_names

    return tuple(dict.fromkeys(given)) if given else device_names()
