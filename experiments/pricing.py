"""Prices of one network on devices, as plain rows: what `flynas cost` and `flynas explain` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.config import allow_working_directory
from hw_models import Costs, Device, InputError, Layer, Workload, device_names, load_device, load_table
from hw_models.costs import COUNTS
from hw_models.errors import whole
from hw_models.estimate import MAX_BATCH, apply_precision, fits, layer_costs, resource_shares, total
from hw_models.estimate import explain as explain_layers
from hw_models.metrics import metrics
from hw_models.precision import MissingPrecision
from hw_models.programs import for_few_runs
from nas.cost_table import check_bits_of
from search_spaces.texts import Resolved, resolve

# counts are given exactly, by `metrics`
MEASURES = (*(name for name in Costs._fields if name not in (*COUNTS, "compute_s")), "mac_utilization")
# unknown where a network does not fit: it cannot run there, so there is no such time
ONLY_IF_IT_FITS = ("latency_s", "interval_s", "energy_j", "mac_utilization")


class Prepared(NamedTuple):
    """A network as layers in the precision it runs in on a device, and why that one."""

    name: str
    layers: list[Layer]
    device: Device
    workload: Workload
    precision: str
    note: str


def prepare(network: str, device: str, precision: str | None = None, fallback: bool | None = None) -> Prepared:
    """A network text and the name of a device, ready to be priced.

    `fallback` is what a command's `--fallback` says, None for one without it: see `apply_precision`.

    Raises:
        InputError: unknown network or device, a space in place of a network, a precision that the device lacks, bits of
            the network that it cannot run.

    Example:
        >>> prepare("mobilenet_v3_small", "zcu102").precision
        'int8'
    """
    machine = load_device(device)
    found = resolved(network)
    frozen = found.network()
    if precision is None:
        check_bits_of(frozen, machine, only_exact=True)
    layers = frozen.lower()
    try:
        workload, chosen, note = apply_precision(machine, Workload.of(layers), precision, bool(fallback))
    except MissingPrecision as error:
        if fallback is None:
            raise
        raise InputError(f"{error}, or allow a fallback (--fallback)") from error
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

    Counts (see `hw_models.metrics`) are exact integers of one image; latency, energy and peak memory are for `batch`
    images. `latency_error` is the relative error found when the device was calibrated, for the precision and batch it
    was calibrated at. `scarcest` names the resource that `resource_fraction` is of, None where no resource is limited.

    Raises:
        InputError: `batch` below 1 or too large.

    Example:
        >>> price(prepare("mobilenet_v3_small", "raspberry_pi_4"))["params"]
        2542856
    """
    whole("--batch", batch, 1, MAX_BATCH)
    costs, shares = _price(prepared.device.unnamed(), prepared.workload, jnp.float32(batch))
    fit = bool(fits(costs))
    scarcest = max(shares, key=lambda name: float(shares[name]))
    numbers = {name: _number(getattr(costs, name)) for name in MEASURES}
    interval_s = numbers["interval_s"]
    return {
        "name": prepared.name,
        "device": prepared.device.name,
        "precision": prepared.precision,
        "precision_note": prepared.note,
        "batch": batch,
        **metrics(prepared.layers)._asdict(),
        **{name: None if name in ONLY_IF_IT_FITS and not fit else value for name, value in numbers.items()},
        "throughput_per_s": 1 / interval_s if fit and interval_s else None,
        "latency_error": prepared.device.error_at(prepared.precision, batch) if fit else None,
        "fits": fit,
        "scarcest": scarcest if float(shares[scarcest]) > 0 else None,
    }


@for_few_runs
def _price(device: Device, workload: Workload, batch: Any) -> tuple[Costs, dict[str, Any]]:
    layers = layer_costs(device, workload, batch)
    return total(device, layers, batch), resource_shares(device, layers, batch)


def layer_rows(prepared: Prepared, batch: int = 1) -> list[dict[str, Any]]:
    """One row per layer, in the order of execution: see `hw_models.estimate.explain`.

    Raises:
        InputError: `batch` below 1 or too large.

    Example:
        >>> layer_rows(prepare("mobilenet_v3_small", "raspberry_pi_4"))[0]["name"]
        'conv3x3 224x224x3 -> 112x112x16'
    """
    whole("--batch", batch, 1, MAX_BATCH)
    rows = explain_layers(prepared.device, prepared.workload, batch)
    for row, layer in zip(rows, prepared.layers, strict=False):  # one more where a run costs something by itself
        row["macs"], row["params"] = layer.macs, layer.params
    for row in rows[len(prepared.layers) :]:
        row["params"] = 0
    return rows


def price_by_table(
    network: str,
    table: str,
    missing: str = "error",
    device: str | None = None,
    precision: str | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Latency of a network text by a measured table, and with a `device` that of its model beside it.

    `covered` is the share of the latency that was measured, `missing` are the keys that were not, `interpolation_error`
    is the median error of the table's own rows if each is interpolated from the others.

    Raises:
        InputError: as `nas.measured_costs.price_network`; a precision or batch that is not the table's.

    Example:
        >>> row = price_by_table("proxylessnas_mobile", "pixel1_proxylessnas")
        >>> round(1e3 * row["latency_s"], 3), row["covered"], row["licence"]
        (84.416, 1.0, 'Apache-2.0')
    """
    from hw_models.lookup import check_device, interpolation_error
    from nas.measured_costs import check_precision, price_network

    measured = load_table(table)
    check_precision(measured, precision)
    if batch is not None and batch != measured.batch:
        raise InputError(f"--batch {batch} is not that of table {measured.name}, {measured.batch}: leave it out")
    if device is not None:
        check_device(measured, load_device(device))
    prepared = None if device is None else prepare(network, device, measured.key_precision)
    found = resolved(network)
    cost = price_network(measured, found.network(), missing, None if prepared is None else prepared.device)
    row = {
        "name": found.name,
        "table": measured.name,
        "device": measured.device,
        "kind": measured.kind,
        "precision": measured.precision,
        "runtime": measured.runtime,
        "threads": measured.threads,
        "batch": measured.batch,
        "latency_s": cost.latency_s,
        "covered": cost.covered,
        "missing": list(cost.missing),
        "missing_by": missing if cost.missing else None,
        "interpolation_error": interpolation_error(measured) if cost.missing and missing == "interpolate" else None,
        "source": measured.source,
        "licence": measured.licence,
        "date": measured.date,
    }
    if prepared is not None:
        modelled = price(prepared, measured.batch)
        row |= {"model": modelled["device"], "model_latency_s": modelled["latency_s"]}
    return row


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
    return tuple(dict.fromkeys(given)) if given else device_names()
