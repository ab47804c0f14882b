"""Properties that every device model must have, whatever its numbers, and comparisons with measurements.

`golden/priced_networks.json` freezes what the models say today; after a deliberate change write it again with
`{device: {network: {field: value}}}` from the loop in `test_priced_networks`.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models import Costs, Device, InputError, Layer, Op, Workload, device_names, estimate, load_device
from hw_models.analytic import dataflow
from hw_models.costs import BOUNDS, COMBINE, LayerCosts, combine
from hw_models.estimate import explain, fits, layer_costs, total
from hw_models.formats import parse_format
from hw_models.precision import apply_precision
from hw_models.workload import MULTIPLYING, concatenate

GOLDEN = Path(__file__).parents[1] / "golden"
DEVICES = device_names()
SLACK = 1 + 1e-5  # float32 rounding
FEW = settings(max_examples=10, deadline=None)  # 512 layers more on every device in one program

# What the shared code promises needs one device of each kind; what hangs on a device's numbers is tested on all.
ONE_OF_EACH_KIND = ("pixel_3", "a100", "zcu102", "tpu_v2", "zcu104_dataflow", "stm32h743")
IMAGE_BY_IMAGE = ("dataflow", "mcu")  # kinds that keep the maps of one image, whatever the batch
LENGTH = 80  # one length for the reference networks keeps the number of compilations small

_price = jax.jit(estimate)
price_layers = jax.jit(layer_costs)


def price(device: Device, work: Workload, batch: float = 1) -> Costs:
    return _price(device.unnamed(), work, jnp.float32(batch))


@functools.cache
def device_named(name: str) -> Device:
    return load_device(name)


def stored(layer: Layer, precision: str) -> Layer:
    return layer._replace(**parse_format(precision)._asdict())


def cost_of(device: Device, layer: Layer, batch: int = 1) -> Costs:
    return jax.tree.map(float, price(device, Workload.of([layer]), batch))


@st.composite
def layers(draw: Any) -> Layer:
    op = draw(st.sampled_from([Op.CONV, Op.DEPTHWISE, Op.LINEAR, Op.CHANNEL_CONV, Op.ADD, Op.SCALE, Op.POOL]))
    channels = st.integers(1, 600)
    if op is Op.LINEAR:
        return Layer(op, 1, 1, 1, 1, draw(channels), draw(channels), bias=1)
    if op is Op.CHANNEL_CONV:
        count = draw(channels)
        return Layer(op, count, 1, count, 1, 1, 1, draw(st.sampled_from([3, 5])))
    hw, c_in = draw(st.integers(1, 112)), draw(channels)
    if op is Op.CONV:
        kernel = draw(st.sampled_from([1, 3, 5, 7]))
        return Layer(op, hw, hw, hw, hw, c_in, draw(channels), kernel, kernel, norm=1)
    kernel = draw(st.sampled_from([3, 5, 7])) if op in (Op.DEPTHWISE, Op.POOL) else 1
    groups = c_in if op is Op.DEPTHWISE else 1
    return Layer(op, hw, hw, hw, hw, c_in, c_in, kernel, kernel, groups=groups)


def larger(layer: Layer, grow: int) -> list[Layer]:
    """The same layer with more of one thing."""
    grown = [layer._replace(out_h=layer.out_h + grow, in_h=layer.in_h + grow)]
    if layer.op is not Op.CHANNEL_CONV and layer.op is not Op.LINEAR:
        grown.append(layer._replace(out_w=layer.out_w + grow, in_w=layer.in_w + grow))
    if layer.op in (Op.CONV, Op.LINEAR):
        grown.append(layer._replace(in_channels=layer.in_channels + grow))
        grown.append(layer._replace(out_channels=layer.out_channels + grow))
    elif layer.op is not Op.CHANNEL_CONV:
        wider = layer._replace(in_channels=layer.in_channels + grow, out_channels=layer.out_channels + grow)
        grown.append(wider._replace(groups=wider.in_channels) if layer.op is Op.DEPTHWISE else wider)
    if layer.op in (Op.CONV, Op.DEPTHWISE):
        grown.append(layer._replace(kernel_h=layer.kernel_h + 2, kernel_w=layer.kernel_w + 2))
    return grown


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@FEW
@given(layer=layers(), grow=st.integers(1, 64), batch=st.integers(1, 40))
def test_more_work_is_never_cheaper(name: str, layer: Layer, grow: int, batch: int) -> None:
    device = device_named(name)
    layer = stored(layer, device.default_precision)
    small = cost_of(device, layer, batch)
    grown = [cost_of(device, other, batch) for other in larger(layer, grow)]
    for big in [*grown, cost_of(device, layer, batch + grow)]:
        for field in ("latency_s", "energy_j", "peak_memory_bytes", "weight_bytes", "macs", "compute_s"):
            assert getattr(big, field) * SLACK >= getattr(small, field), field


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@FEW
@given(layer=layers(), batch=st.integers(1, 40))
def test_fewer_bits_are_never_slower_where_supported(name: str, layer: Layer, batch: int) -> None:
    device = device_named(name)
    costs = [cost_of(device, stored(layer, precision), batch) for precision in device.precisions]
    widths = [sum(parse_format(precision)[1::2]) for precision in device.precisions]
    assert widths == sorted(widths, reverse=True)
    # A measured table per bit width may say that fewer bits are slower: then its own rates fall as well.
    compute = device.compute
    rates = [compute["macs_per_cycle"][p] * compute["efficiency"][p] for p in device.precisions]
    pairs = zip(costs, costs[1:], widths, widths[1:], rates, rates[1:], strict=False)
    for wide, narrow, more, less, before, after in pairs:
        if less < more and after >= before:
            for field in ("latency_s", "energy_j", "peak_memory_bytes", "weight_bytes"):
                assert getattr(narrow, field) <= getattr(wide, field) * SLACK, field


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@FEW
@given(layer=layers(), batch=st.integers(1, 40))
def test_latency_is_at_least_each_bound(name: str, layer: Layer, batch: int) -> None:
    device = device_named(name)
    for precision in device.precisions:
        costs = cost_of(device, stored(layer, precision), batch)
        row = stored(layer, precision)
        peak = device.compute["clock_hz"] * device.compute["units"] * device.compute["macs_per_cycle"][precision]
        if device.kind == "dataflow":  # logic multiplies besides the DSP slices that the file counts
            peak = float(dataflow.run(device, Workload.of([row])).peak_macs_per_s[0])
        operands = 2 if layer.op is Op.ADD else 1
        reads = operands * layer.in_h * layer.in_w * layer.in_channels
        activations = (reads + layer.out_h * layer.out_w * layer.out_channels) * batch * row.act_bits / 8
        moved = layer.weights * row.weight_bits / 8
        # GPUs stream every map; what stays on the chips of TPUs and FPGAs is decided per image by their own kinds.
        if device.kind == "gpu" or (device.kind == "cpu" and activations > device.memory["sram_bytes"]):
            moved += activations
        assert costs.latency_s * SLACK >= layer.macs * batch / peak
        if device.kind != "dataflow":  # weights and maps stay on the chip
            assert costs.latency_s * SLACK >= moved / device.memory["dram_bytes_per_s"]
        assert costs.latency_s * SLACK >= device.compute["op_overhead_s"]
        assert costs.compute_s == pytest.approx(layer.macs * batch / peak, rel=1e-5)
        assert costs.energy_j * SLACK >= layer.macs * batch * device.energy["mac_j"][precision]
        assert 0 <= costs.mac_utilization <= SLACK


def many_layers(seed: int = 0, count: int = 512) -> tuple[list[Layer], list[Layer], np.ndarray]:
    """Random layers, the same ones with more of one thing, and a batch for each."""
    random = np.random.default_rng(seed)
    small, grown = [], []
    for _ in range(count):
        op = Op(random.choice([Op.CONV, Op.DEPTHWISE, Op.LINEAR, Op.CHANNEL_CONV, Op.ADD, Op.SCALE, Op.POOL]))
        c_in, c_out, hw = (int(random.integers(1, most)) for most in (600, 600, 113))
        kernel = int(random.choice([1, 3, 5, 7])) if op in (Op.CONV, Op.DEPTHWISE, Op.POOL) else 1
        layer = Layer(op, hw, hw, hw, hw, c_in, c_out if op is Op.CONV else c_in, kernel, kernel)
        if op is Op.DEPTHWISE:
            layer = layer._replace(groups=c_in)
        if op is Op.LINEAR:
            layer = Layer(op, 1, 1, 1, 1, c_in, c_out, bias=1)
        if op is Op.CHANNEL_CONV:
            layer = Layer(op, c_in, 1, c_in, 1, 1, 1, 3)
        choices = larger(layer, int(random.integers(1, 65)))
        small.append(layer)
        grown.append(choices[int(random.integers(len(choices)))])
    return small, grown, random.integers(1, 41, count).astype(np.float32)


SMALL, GROWN, BATCHES = many_layers()
_price_many = jax.jit(layer_costs)


def priced(device: Device, layers: list[Layer], precision: str) -> LayerCosts:
    rows = Workload.of([stored(layer, precision) for layer in layers])
    return jax.tree.map(np.asarray, _price_many(device.unnamed(), rows, BATCHES))


@pytest.mark.parametrize("name", DEVICES)
def test_random_layers_are_priced_in_order_of_work_and_bits(name: str) -> None:
    device = device_named(name)
    small, grown = (priced(device, layers, device.default_precision) for layers in (SMALL, GROWN))
    # A layer alone on a streaming design takes all of it, as far as it fits; networks are tested in test_dataflow.py.
    alone = ("latency_s", "energy_j") if device.kind != "dataflow" else ()
    for field in (*alone, "peak_memory_bytes", "weight_bytes", "macs", "compute_s"):
        assert np.all(getattr(grown, field) * SLACK >= getattr(small, field)), field
    every = {precision: priced(device, SMALL, precision) for precision in device.precisions}
    compute = device.compute
    rates = {p: compute["macs_per_cycle"][p] * compute["efficiency"][p] for p in device.precisions}
    for wide, narrow in itertools.pairwise(device.precisions):
        fewer = sum(parse_format(narrow)[1::2]) < sum(parse_format(wide)[1::2])
        if fewer and rates[narrow] >= rates[wide]:
            for field in ("latency_s", "energy_j", "peak_memory_bytes", "weight_bytes"):
                assert np.all(getattr(every[narrow], field) <= getattr(every[wide], field) * SLACK), (narrow, field)
    for precision, costs in every.items():
        peak = compute["clock_hz"] * compute["units"] * compute["macs_per_cycle"][precision]
        macs = np.asarray([layer.macs for layer in SMALL]) * BATCHES
        assert np.all(costs.latency_s * SLACK >= macs / peak) or device.kind == "dataflow"  # logic multiplies as well
        assert np.all(costs.energy_j * SLACK >= macs * device.energy["mac_j"][precision])


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
    hidden = concatenate([tight, Workload.of(rows[: LENGTH - len(rows)])._replace(count=jnp.zeros(LENGTH - len(rows)))])
    for padded in (loose, hidden):
        for field, alone, with_padding in zip(Costs._fields, price(device, tight), price(device, padded), strict=True):
            assert float(alone) == pytest.approx(float(with_padding), rel=1e-5), field
    nothing = price_layers(device, loose)
    for field in COMBINE:
        assert not np.any(np.asarray(getattr(nothing, field))[len(rows) :]), field


def test_no_layers_cost_nothing() -> None:
    costs = estimate(device_named("a100"), Workload.of([]))
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


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("network", ["mobilenet_v3_small", "mobilenet_v2"])
def test_units_are_sane(name: str, network: str, networks: dict[str, Workload]) -> None:
    device = device_named(name)
    work, chosen, _ = apply_precision(device, networks[network])
    costs = price(device, work)
    capacity = device.memory["sram_bytes"] if device.kind == "dataflow" else device.memory.get("flash_bytes", np.inf)
    if float(costs.weight_bytes) > 0.72 * capacity:  # 0.72: what streaming designs plan with and fill
        assert not bool(fits(costs))
        return
    assert 1e-4 < float(costs.latency_s) < 1.0
    assert 0.1 < float(costs.energy_j / costs.latency_s) < 1000  # watts
    assert 0 < float(costs.mac_utilization) < 1
    assert bool(fits(costs))
    bits = parse_format(chosen).weight_bits
    assert float(costs.weight_bytes) == pytest.approx(float(costs.params) * bits / 8, rel=0.05)


def test_hard_limits(networks: dict[str, Workload]) -> None:
    device = device_named("edge_tpu")
    work, _, _ = apply_precision(device, networks["mobilenet_v2"])
    costs = price(device, work)
    assert float(costs.resource_fraction) == pytest.approx(float(costs.weight_bytes) / 8e6)
    assert not bool(fits(price(device.with_numbers(memory__flash_bytes=3e6), work)))
    board = device_named("zcu102")
    assert float(price(board, work).resource_fraction) == pytest.approx(3 * 255 / 912)
    assert not bool(fits(price(board.with_numbers(compute__units=4), work)))
    phone = device_named("pixel_3").with_numbers(memory__dram_bytes=1e6)
    assert not bool(fits(price(phone, work)))


def _measured_rows() -> list[dict[str, str]]:
    text = (GOLDEN / "measured_latency.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in text if not line.startswith("#")))


@pytest.mark.parametrize("row", _measured_rows(), ids=lambda r: f"{r['device']}-{r['network']}-{r['precision']}")
def test_within_a_factor_of_two_of_published_measurements(row: dict[str, str], networks: dict[str, Workload]) -> None:
    device = load_device(row["device"]).with_numbers(compute__units=int(row["threads"]))
    work, _, _ = apply_precision(device, networks[row["network"]], row["precision"])
    predicted_ms = float(price(device, work).latency_s) * 1e3
    assert 0.5 < predicted_ms / float(row["latency_ms"]) < 2.0


@pytest.mark.parametrize("name", DEVICES)
def test_priced_networks(name: str, networks: dict[str, Workload]) -> None:
    golden = json.loads((GOLDEN / "priced_networks.json").read_text())
    for network, work in networks.items():
        device = device_named(name)
        costs = price(device, apply_precision(device, work)[0])
        for field, value in golden[name][network].items():
            assert float(getattr(costs, field)) == pytest.approx(value, rel=1e-4), (network, field)


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
