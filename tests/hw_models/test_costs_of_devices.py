"""What hangs on the numbers of devices: costs in order of work and bits, bounds, units, comparisons with measurements.

`golden/priced_networks.json` freezes what the models say today; after a deliberate change write it again with
`{device: {network: {field: value}}}` from the loop in `test_priced_networks`.
"""

from __future__ import annotations

import csv
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
from hw_models.costs import LayerCosts
from hw_models.estimate import fits
from hw_models.formats import parse_format
from hw_models.precision import apply_precision
from hw_models.testing import LENGTH, device_named, price, price_layers, stored

GOLDEN = Path(__file__).parents[1] / "golden"
DEVICES = device_names()
SLACK = 1 + 1e-5  # float32 rounding
FEW = settings(max_examples=10, deadline=None)  # 512 layers more on every device in one program
ONE_OF_EACH_KIND = ("pixel_3", "a100", "zcu102", "tpu_v2", "zcu104_dataflow", "stm32h743")

price_alone = jax.jit(estimate)


def cost_of(device: Device, layer: Layer, batch: int = 1) -> Costs:
    return jax.tree.map(float, price_alone(device.unnamed(), Workload.of([layer]), jnp.float32(batch)))


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


def many_layers(seed: int = 0, count: int = LENGTH) -> tuple[list[Layer], list[Layer], np.ndarray]:
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


def priced(device: Device, layers: list[Layer], precision: str) -> LayerCosts:
    rows = Workload.of([stored(layer, precision) for layer in layers])
    return jax.tree.map(np.asarray, price_layers(device, rows, BATCHES))


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


@pytest.mark.parametrize("name", [name for name in DEVICES if "int8" in load_device(name).precisions])
def test_weights_below_eight_bits_are_never_slower_than_int8(name: str) -> None:
    device = device_named(name)
    rows = [Layer(Op.CONV, 56, 56, 56, 56, 64, 64), Layer(Op.LINEAR, 1, 1, 1, 1, 1280, 1000)]
    for batch in (1, 8):
        whole = [cost_of(device, stored(row, "int8"), batch).latency_s for row in rows]
        for bits in (2, 4, 7):
            narrow = [cost_of(device, stored(row, f"w{bits}a8"), batch).latency_s for row in rows]
            assert all(few <= many * SLACK for few, many in zip(narrow, whole, strict=True)), bits


def test_one_row_is_not_padded_on_processors() -> None:
    device, row = device_named("raspberry_pi_4"), Layer(Op.LINEAR, 1, 1, 1, 1, 1280, 1000)
    one, four = (cost_of(device, row, batch) for batch in (1, 4))
    assert one.latency_s < 0.5 * four.latency_s  # it waits for its weights


@pytest.mark.parametrize("batch", [np.float32(-3), np.int64(0), np.asarray([1.0, 0.0])])
def test_batches_of_numpy_are_checked_as_well(batch: Any) -> None:
    with pytest.raises(InputError, match="not allowed"):
        estimate(device_named("a100"), Workload.of([Layer(Op.LINEAR, 1, 1, 1, 1, 8, 8)] * 2), batch)


@pytest.mark.parametrize("name", DEVICES)
def test_priced_networks(name: str, networks: dict[str, Workload]) -> None:
    golden = json.loads((GOLDEN / "priced_networks.json").read_text())
    for network, work in networks.items():
        device = device_named(name)
        costs = price(device, apply_precision(device, work)[0])
        for field, value in golden[name][network].items():
            assert float(getattr(costs, field)) == pytest.approx(value, rel=1e-4), (network, field)
