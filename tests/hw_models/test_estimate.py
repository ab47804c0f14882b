"""What the shared code promises of every kind of device: gradients, padding, repeats, axes, batches, explanations."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Costs, Device, InputError, Layer, Op, Workload, estimate
from hw_models.costs import BOUNDS, COMBINE, combine
from hw_models.estimate import explain, total
from hw_models.precision import apply_precision
from hw_models.testing import LENGTH, device_named, price, price_layers, stored
from hw_models.workload import MULTIPLYING, concatenate

SLACK = 1 + 1e-5  # float32 rounding
ONE_OF_EACH_KIND = ("pixel_3", "a100", "zcu102", "tpu_v2", "zcu104_dataflow", "stm32h743")
IMAGE_BY_IMAGE = ("dataflow", "mcu")  # kinds that keep the maps of one image, whatever the batch

_price = jax.jit(estimate)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_gradients_are_finite_and_useful(name: str, networks: dict[str, Workload]) -> None:
    device = device_named(name)
    work, _, _ = apply_precision(device, networks["mobilenet_v3_small"])

    def objective(numbers: Device, shapes: Workload) -> jax.Array:
        costs = estimate(numbers, shapes, 16)
        return costs.latency_s + costs.energy_j + costs.peak_memory_bytes + costs.weight_bytes + costs.resource_fraction

    by_number, by_shape = jax.jit(jax.grad(objective, argnums=(0, 1)))(device, work)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((by_number, by_shape)))
    assert float(by_number.compute["clock_hz"]) < 0 or device.kind == "gpu"  # bound by memory and launches throughout
    assert float(by_number.memory["efficiency"]) < 0 or device.kind == "mcu"  # arithmetic hides its flash
    # Seconds and joules of one overhead, times the layers that show it: all, but for launches that hide behind work.
    shown = float(by_number.compute["op_overhead_s"]) / (1 + device.energy["static_w"])
    runs = {"fpga": np.ceil(16 / device.compute["units"]), "mcu": 16}.get(device.kind, 1)  # images one after another
    layers = float(work.count.sum()) * runs
    assert 0 < shown <= 3 * layers if device.kind == "gpu" else shown == pytest.approx(layers, rel=1e-5)
    assert float(by_shape.out_h[0]) > 0
    assert bool(jnp.all(by_shape.out_channels * work.count >= 0))


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_padding_rows_are_free(name: str, network_layers: dict[str, list[Layer]]) -> None:
    device = device_named(name)
    rows = [stored(row, device.default_precision) for row in network_layers["mobilenet_v3_small"]]
    tight, loose = Workload.of(rows), Workload.of(rows, LENGTH)
    more = [rows[i % len(rows)] for i in range(LENGTH - len(rows))]
    hidden = concatenate([tight, Workload.of(more)._replace(count=jnp.zeros(len(more)))])
    for padded in (loose, hidden):
        for field, alone, with_padding in zip(Costs._fields, price(device, tight), price(device, padded), strict=True):
            assert float(alone) == pytest.approx(float(with_padding), rel=1e-5), field
    nothing = price_layers(device, loose)
    for field in COMBINE:
        assert not np.any(np.asarray(getattr(nothing, field))[len(rows) :]), field


def test_no_layers_cost_nothing() -> None:
    costs = _price(device_named("a100"), Workload.of([]))
    assert (float(costs.latency_s), float(costs.peak_memory_bytes), float(costs.macs)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_count_repeats_a_layer(name: str) -> None:
    device = device_named(name)
    layer = stored(Layer(Op.CONV, 14, 14, 14, 14, 64, 64, 3, 3, norm=1), device.default_precision)
    once = Workload.of([layer] * 3, LENGTH)
    thrice = once._replace(count=jnp.zeros(LENGTH).at[0].set(3.0))
    for field, written_out, counted in zip(Costs._fields, price(device, once), price(device, thrice), strict=True):
        assert float(written_out) == pytest.approx(float(counted), rel=1e-5), field


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_jit_vmap_and_leading_axes_agree(name: str, network_layers: dict[str, list[Layer]]) -> None:
    device = device_named(name)
    alone = [Workload.of([stored(r, device.default_precision) for r in n], LENGTH) for n in network_layers.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[estimate(device, work) for work in alone])
    broadcast = price(device, stacked)
    for got in (broadcast, jax.jit(jax.vmap(estimate, (None, 0)))(device, stacked)):
        for field, a, b in zip(Costs._fields, expected, got, strict=True):
            np.testing.assert_allclose(a, jnp.broadcast_to(b, a.shape), rtol=2e-5, err_msg=field)
    assert broadcast.latency_s.shape == (2,)


def test_second_call_does_not_compile_again(networks: dict[str, Workload]) -> None:
    traces = []

    @jax.jit
    def counted(device: Device, work: Workload) -> Costs:
        traces.append(1)
        return estimate(device, work)

    device = device_named("raspberry_pi_4")
    counted(device, networks["mobilenet_v2"])
    counted(device.with_numbers(compute__clock_hz=1.8e9), networks["mobilenet_v2"])
    assert len(traces) == 1


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_parts_combined_first_give_the_same_network(name: str, networks: dict[str, Workload]) -> None:
    device = device_named(name)
    work, _, _ = apply_precision(device, networks["mobilenet_v3_small"])
    rows = price_layers(device, work)
    parts = [combine(jax.tree.map(lambda leaf, i=i: leaf[i::3], rows)) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    for field, a, b in zip(Costs._fields, total(device, rows), total(device, stacked), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=field)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_batch_costs_less_than_its_images_alone(name: str, networks: dict[str, Workload]) -> None:
    device = device_named(name)
    work, _, _ = apply_precision(device, networks["mobilenet_v2"])
    one, many = price(device, work), price(device, work, 8)
    assert float(one.latency_s) < float(many.latency_s)
    assert float(many.weight_bytes) == float(one.weight_bytes)
    assert float(many.macs) == float(one.macs)
    assert float(many.activations) == float(one.activations)
    assert float(many.throughput_per_s) >= float(one.throughput_per_s) / SLACK
    if device.kind != "dataflow":  # where nothing overlaps, images share the time of their run
        assert float(many.interval_s) == pytest.approx(float(many.latency_s) / 8, rel=1e-5)
    kept = 1 if device.kind in IMAGE_BY_IMAGE else 8
    assert float(many.peak_memory_bytes) == pytest.approx(kept * float(one.peak_memory_bytes))
    # Only the step from on-chip to main memory can make an image of a batch dearer than one alone.
    ample = device.with_numbers(memory__sram_bytes=1e12)
    together, alone = price(ample, work, 8).latency_s, price(ample, work).latency_s
    assert float(together) <= 8 * float(alone) * SLACK


@pytest.mark.parametrize("batch", [0, -1, 0.5])
def test_bad_batch_is_an_input_error(batch: float, networks: dict[str, Workload]) -> None:
    with pytest.raises(InputError, match="batch"):
        estimate(device_named("a100"), networks["mobilenet_v2"], batch)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_explain_adds_up(name: str, networks: dict[str, Workload]) -> None:
    device = device_named(name)
    work, _, _ = apply_precision(device, networks["mobilenet_v3_small"])
    table = explain(device, work)
    costs = price(device, work)
    assert len([row for row in table if row["name"] != "once per run"]) == int(work.count.sum())
    assert sum(row["macs"] for row in table) == 56510400
    if device.kind != "dataflow":  # its layers work at the same time: rows say what each would take alone
        assert sum(row["latency_s"] for row in table) == pytest.approx(float(costs.latency_s), rel=1e-5)
    assert sum(row["share"] for row in table) == pytest.approx(1, rel=1e-5)
    assert {row["bound"] for row in table} <= set(BOUNDS)
    json.dumps(table, allow_nan=False)


def test_explain_refuses_a_stack() -> None:
    work = jax.tree.map(lambda leaf: leaf[None], Workload.of([Layer(Op.ADD, 1, 1, 1, 1, 1, 1)]))
    with pytest.raises(InputError, match="one workload"):
        explain(device_named("a100"), work)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_every_operation_has_a_price(name: str) -> None:
    device = device_named(name)
    every = [Layer(op, 8, 8, 8, 8, 16, 16, groups=16 if op is Op.DEPTHWISE else 1) for op in Op]
    work = Workload.of([stored(layer, device.default_precision) for layer in every], LENGTH)
    costs = jax.tree.map(lambda leaf: leaf[: len(every)], price_layers(device, work))
    multiplying = [op in MULTIPLYING for op in Op]
    assert bool(jnp.all(costs.latency_s >= device.compute["op_overhead_s"] * (1 - 1e-6)))
    assert (costs.macs > 0).tolist() == multiplying
    assert (costs.compute_s > 0).tolist() == multiplying
    assert not bool(jnp.any(costs.resource_fraction))
