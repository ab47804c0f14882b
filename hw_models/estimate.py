"""The single entry point: what a workload costs on a device.

Every function is pure: it can be jitted, differentiated (with respect to shapes and device numbers) and mapped over
leading axes. The time of a layer comes from the file of the device's kind in `hw_models/analytic`, everything else is
shared.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from hw_models.compression import kept_channels, reduces, speedup, weight_bytes
from hw_models.costs import BOUNDS, Costs, LayerCosts, combine
from hw_models.costs import fits as fits
from hw_models.device import Device
from hw_models.discover import load, load_optional
from hw_models.energy import energy_j
from hw_models.errors import InputError
from hw_models.memory import onchip_bytes, peak_memory_bytes
from hw_models.precision import Run, choose
from hw_models.precision import apply_precision as apply_precision
from hw_models.programs import for_few_runs
from hw_models.remarks import computes_in, remarks
from hw_models.roofline import bound
from hw_models.workload import Op, Workload

ANALYTIC = "hw_models.analytic"
MAX_BATCH = 2**24  # whole numbers up to here are exact in float32


def run_of(device: Device, layers: Workload) -> Run:
    """The precision that each layer computes in, before its zeros make it faster, `[..., L]`."""
    found: Run = load_optional(ANALYTIC, device.kind, "run", choose)(device, layers)
    return found


def check_batch(batch: ArrayLike) -> None:
    """Raise InputError where `batch` is known, not traced, and below 1 or above `MAX_BATCH`.

    Example:
        >>> check_batch(64)
    """
    known = isinstance(batch, int | float | np.generic | np.ndarray)  # not traced
    if known and not np.all((np.asarray(batch) >= 1) & (np.asarray(batch) <= MAX_BATCH)):
        raise InputError(f"batch {batch!r} is not allowed: give 1 to {MAX_BATCH:,}")


def layer_costs(device: Device, workload: Workload, batch: ArrayLike = 1) -> LayerCosts:
    """Costs of each layer on `device`; every leaf `[..., L]`, rows with `count` 0 cost nothing.

    Layers that no precision of the device can hold are priced at its widest one and do not fit
    (`resource_fraction` > 1): use `apply_precision` first for workloads whose precision nobody chose.

    Raises:
        InputError: `batch` is a known number (not a traced one) below 1 or above `MAX_BATCH`.
    """
    check_batch(batch)
    layer_times = load(ANALYTIC, device.kind, "layer_times")
    count = workload.count
    # A layer is priced once and then repeated; where the device removes zero channels, without them.
    one = kept_channels(device, workload._replace(count=jnp.ones_like(count)))
    run = run_of(device, one)
    gain, reduced = speedup(device, one, run), reduces(device, one, run)
    run = run._replace(
        macs_per_s=run.macs_per_s * gain,
        peak_macs_per_s=run.peak_macs_per_s * gain,
        converted=run.converted & ~reduced,
    )
    times = layer_times(device, one, run, gain, batch)
    macs = one.macs * batch
    # Reduce and scale adds one activation per non-zero weight and multiplies nothing.
    add_j = device.sparsity["ternary"]["add_j"] if "ternary" in device.sparsity else 0.0
    executed, each_j = jnp.where(reduced, macs * one.density, macs / gain), jnp.where(reduced, add_j, run.mac_j)
    onchip = onchip_bytes(one, gain, batch)
    there = count > 0
    alive = peak_memory_bytes(one, batch) if times.peak_memory_bytes is None else times.peak_memory_bytes
    return LayerCosts(
        latency_s=count * times.latency_s,
        energy_j=count * energy_j(device, executed, each_j, times.dram_bytes, times.latency_s, onchip),
        peak_memory_bytes=jnp.where(there, alive, 0.0),
        weight_bytes=weight_bytes(workload),
        params=workload.params,
        macs=workload.macs,
        activations=workload.multiplies * workload.output_elements,
        compute_s=count * macs / run.peak_macs_per_s,
        resource_fraction=jnp.where(there, run.excess, 0.0),
        bound=bound(times.compute_s, times.memory_s, times.overhead_s),
        sums={name: count * leaf for name, leaf in times.sums.items()},
        maxima={name: jnp.where(there, leaf, 0.0) for name, leaf in times.maxima.items()},
    )


def once_s(device: Device, batch: ArrayLike = 1) -> Any:
    """Seconds that one run of `batch` images takes besides its layers: `run_overhead_s` and `image_overhead_s` each."""
    compute = device.compute
    return compute.get("run_overhead_s", 0.0) + batch * compute.get("image_overhead_s", 0.0)


def _network(device: Device, layers: LayerCosts, batch: ArrayLike) -> tuple[Costs, dict[str, Array]]:
    """Costs of the network, and the share of each hard resource that it needs, by the resource's name."""
    parts = combine(layers)
    costs, own = parts.costs(batch), {}
    network = load_optional(ANALYTIC, device.kind, "network")
    if network:
        costs, own = network(device, parts, batch)
    once = once_s(device, batch)
    latency_s = costs.latency_s + once
    idle_j = (latency_s - parts.latency_s if network else once) * device.energy["static_w"]
    costs = costs._replace(
        latency_s=latency_s, interval_s=costs.interval_s + once / batch, energy_j=costs.energy_j + idle_j
    )
    shares = {"unsupported layers": costs.resource_fraction, **own}
    logic = load_optional(ANALYTIC, device.kind, "resource_fraction")
    if logic:
        shares["programmable logic"] = logic(device)
    if "dram_bytes" in device.memory:
        shares["main memory"] = (costs.weight_bytes + costs.peak_memory_bytes) / device.memory["dram_bytes"]
    if "flash_bytes" in device.memory:
        shares.setdefault("flash", costs.weight_bytes / device.memory["flash_bytes"])
    return costs, shares


def resource_shares(device: Device, layers: LayerCosts, batch: ArrayLike = 1) -> dict[str, Array]:
    """Share of each hard resource that the network needs, by the resource's name; above 1 it does not fit. `[...]`

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer
        >>> board = load_device("edge_tpu")
        >>> work, _, _ = apply_precision(board, Workload.of([Layer(Op.LINEAR, 1, 1, 1, 1, 4000, 4000)]))
        >>> float(resource_shares(board, layer_costs(board, work))["flash"])
        2.0
    """
    return _network(device, layers, batch)[1]


def total(device: Device, layers: LayerCosts, batch: ArrayLike = 1) -> Costs:
    """Costs of the network from those of its layers, `[..., L] -> [...]`, and the shares of hard resources they take.

    Main memory must hold weights and peak activations, flash the weights; the kind of the device adds its own (DSP and
    memory blocks of an FPGA). Kinds whose layers work at the same time also give the latency (`network`).
    """
    costs, shares = _network(device, layers, batch)
    largest, *others = shares.values()
    for share in others:
        largest = jnp.maximum(largest, share)
    return costs._replace(resource_fraction=largest)


def estimate(device: Device, workload: Workload, batch: ArrayLike = 1) -> Costs:
    """What `workload` costs on `device`; leaves `[...]`, in seconds, joules and bytes for one run of `batch` images.

    Raises:
        InputError: `batch` is a known number (not a traced one) below 1 or above `MAX_BATCH`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer
        >>> work = Workload.of([Layer(Op.CONV, 56, 56, 56, 56, 64, 64, 3, 3)])
        >>> costs = estimate(load_device("raspberry_pi_4"), work)
        >>> bool(costs.latency_s > costs.compute_s), bool(fits(costs))
        (True, True)
    """
    return total(device, layer_costs(device, workload, batch), batch)


@for_few_runs
def _costs_and_run(device: Device, workload: Workload, batch: ArrayLike) -> tuple[LayerCosts, Run]:
    return layer_costs(device, workload, batch), run_of(device, workload)


def explain(device: Device, workload: Workload, batch: int = 1) -> list[dict[str, Any]]:
    """One row per layer for a person to read: what it is, what it costs, what holds it back, its share of the time.

    `precision` names what the layer computes in; `note` says where it is stored otherwise, and what its zeros gain or
    why they gain nothing.

    `workload` has one axis, `[L]`. Padding rows are left out.

    Raises:
        InputError: `workload` has more than one axis, or a batch that `layer_costs` refuses.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer
        >>> work = Workload.of([Layer(Op.CONV, 56, 56, 56, 56, 64, 64, 3, 3)])
        >>> row = explain(load_device("raspberry_pi_4"), work)[0]
        >>> row["name"], row["macs"], row["bound"]
        ('conv3x3 56x56x64 -> 56x56x64', 115605504, 'compute')
    """
    if workload.op.ndim != 1:
        raise InputError(f"explain takes one workload [L], not one of shape {workload.op.shape}: index it first")
    check_batch(batch)
    costs, run = _costs_and_run(device.unnamed(), workload, jnp.float32(batch))
    costs = jax.tree.map(np.asarray, costs)
    rows = jax.tree.map(np.asarray, workload)
    once = float(once_s(device, batch))
    whole = float(costs.latency_s.sum()) + once
    precisions, notes = computes_in(device, workload, run), remarks(device, workload, run)
    table = []
    for i in np.flatnonzero(rows.count > 0):
        table.append(
            {
                "name": _title(jax.tree.map(lambda leaf, i=i: int(leaf[i]), rows)),
                "macs": int(costs.macs[i]),
                "weight_bytes": float(costs.weight_bytes[i]),
                "latency_s": float(costs.latency_s[i]),
                "energy_j": float(costs.energy_j[i]),
                "bound": BOUNDS[int(costs.bound[i])],
                "share": float(costs.latency_s[i]) / whole if whole else 0.0,
                "precision": precisions[i],
                "note": notes[i],
            }
        )
    if once:
        table.append(
            {
                "name": "once per run",
                "macs": 0,
                "weight_bytes": 0.0,
                "latency_s": once,
                "energy_j": once * device.energy["static_w"],
                "bound": "overhead",
                "share": once / whole,
                "precision": "",
                "note": "",
            }
        )
    return table


def _title(row: Any) -> str:
    """Operation, kernel, and the maps that go in and come out, of one row of whole numbers."""
    kernel = f"{row.kernel_h}x{row.kernel_w}" if row.kernel_h * row.kernel_w > 1 else ""
    inside = f"{row.in_h}x{row.in_w}x{row.in_channels}"
    outside = f"{row.out_h}x{row.out_w}x{row.out_channels}"
    return f"{Op(row.op).name.lower()}{kernel} {inside} -> {outside}"
