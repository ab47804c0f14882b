"""The streaming FPGA as candidates are priced: against whole-number designs, measurements, and what it is about."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models import Costs, Device, InputError, Layer, Op, Workload, device_names, estimate, load_device
from hw_models.analytic import dataflow
from hw_models.calibrate import predict
from hw_models.estimate import apply_precision, fits, layer_costs, once_s, resource_shares
from hw_models.folding import choose_folding
from hw_models.formats import parse_format
from hw_models.streaming import accumulator_bits, engines, fill_share, multiplier_luts

GOLDEN = Path(__file__).parents[1] / "golden"
BOARDS = [name for name in device_names() if load_device(name).kind == "dataflow"]
TINY = ("ic", "kws", "vww", "ad", "cnv")
LENGTH = 40  # one length, one compilation

WIDTHS = jnp.arange(1.0, 17.0)

_price = jax.jit(estimate)
_shares = jax.jit(lambda device, work: resource_shares(device, layer_costs(device, work)))
_asked = jax.jit(dataflow.asked)


def price(device: Device, work: Workload, batch: float = 1) -> Costs:
    return _price(device.unnamed(), work, batch)


def shares(device: Device, work: Workload) -> dict[str, jax.Array]:
    return _shares(device.unnamed(), work)


def stored(layers: list[Layer], precision: str) -> list[Layer]:
    return [layer._replace(**parse_format(precision)._asdict()) for layer in layers]


def interval_cycles(device: Device, work: Workload) -> float:
    """Cycles between images of a long batch."""
    one, many = (float(price(device, work, batch).latency_s) for batch in (1, 4097))
    return (many - one) / 4096 * device.compute["clock_hz"]


def test_every_board_is_there() -> None:
    chips = ("pynq_z1", "u250", "ultra96", "zc706", "zcu104")
    assert [f"{chip}_dataflow" for chip in chips] == BOARDS
    for name in BOARDS:
        compute = load_device(name).compute
        for precision, rate in compute["macs_per_cycle"].items():
            assert rate == compute["dsp"] * compute["macs_per_dsp_cycle"][precision]


@given(depth=st.integers(1, 5000), weight_bits=st.integers(1, 16), act_bits=st.integers(1, 16))
@settings(max_examples=50, deadline=None)
def test_traced_formulas_are_those_of_whole_numbers(depth: int, weight_bits: int, act_bits: int) -> None:
    bits = jnp.float32(weight_bits + act_bits)
    exact = accumulator_bits(depth, weight_bits, act_bits)
    assert float(dataflow.accumulator_bits(jnp.float32(depth), bits)) == exact
    assert float(dataflow.multiplier_luts(bits)) == pytest.approx(1.1 * multiplier_luts(weight_bits + act_bits))


@pytest.mark.parametrize("network", TINY)
def test_shares_of_the_input_and_buffers_are_those_of_whole_numbers(
    network: str, tiny_networks: dict[str, list[Layer]]
) -> None:
    rows = stored(tiny_networks[network], "int8")
    shares = dataflow.fill_share(Workload.of(rows))
    np.testing.assert_allclose(shares, [float(fill_share(row)) for row in rows], rtol=1e-5)
    device = load_device("zc706_dataflow")
    bits = _asked(device, Workload.of(rows, LENGTH), jnp.ones(LENGTH)).buffer_bits[: len(rows)]
    exact = [engine.window_bits + engine.fifo_bits for engine in engines(rows)]
    passing = [8 * (row.in_channels + row.out_channels) for row in rows]
    np.testing.assert_allclose(bits, np.add(exact, passing), rtol=1e-3)


@pytest.mark.parametrize("precision", ["int8", "int4", "int1"])
@pytest.mark.parametrize("name", BOARDS)
def test_close_to_designs_in_whole_numbers(name: str, precision: str, tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device(name)
    for network in TINY:
        rows = stored(tiny_networks[network], precision)
        work, design = Workload.of(rows, LENGTH), choose_folding(device, rows)
        costs = price(device, work)
        need = float(costs.resource_fraction)
        if not design.fits:
            assert need > 0.75, network
            continue
        assert need <= 1.1, network
        # Divisors make designs a little slower; leaving logic to the engines that need it, a little faster.
        assert 0.6 < design.interval_cycles / interval_cycles(device, work) < 1.8, network
        streaming_s = float(costs.latency_s) - once_s(device) - len(rows) * device.compute["op_overhead_s"]
        assert 0.4 < design.latency_s / streaming_s < 2.2, network


def _measured() -> list[dict[str, str]]:
    text = (GOLDEN / "streaming_fpga.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in text if not line.startswith("#")))


@pytest.mark.parametrize("row", _measured(), ids=lambda row: f"{row['device']}-{row['network']}-{row['who'][:6]}")
def test_order_of_magnitude_of_measured_designs(row: dict[str, str], tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device(row["device"]).with_numbers(compute__clock_hz=float(row["clock_hz"]))
    work = Workload.of(stored(tiny_networks[row["network"]], row["precision"]), LENGTH)
    costs = price(device, work)
    assert bool(fits(costs))
    assert 1 / 3 < float(costs.latency_s) * 1e6 / float(row["latency_us"]) < 3


@jax.jit
def by_bits(device: Device, work: Workload) -> jax.Array:
    """Latency, share of the chip and energy in every width of weights and activations, `[W, A, 3]`."""

    def one(weight_bits: jax.Array, act_bits: jax.Array) -> jax.Array:
        full = jnp.ones_like(work.op)
        costs = estimate(device, work._replace(weight_bits=full * weight_bits, act_bits=full * act_bits), 100)
        return jnp.stack([costs.latency_s, costs.resource_fraction, costs.energy_j])

    return jax.vmap(lambda w: jax.vmap(lambda a: one(w, a))(WIDTHS))(WIDTHS)


@pytest.mark.parametrize("name", BOARDS)
def test_throughput_falls_with_weight_and_activation_bits_alike(
    name: str, tiny_networks: dict[str, list[Layer]]
) -> None:
    device = load_device(name)
    for network in ("ic", "cnv"):
        table = np.asarray(by_bits(device.unnamed(), Workload.of(stored(tiny_networks[network], "int8"), LENGTH)))
        assert np.all(np.isfinite(table))
        for axis in (0, 1):
            assert np.all(np.diff(table, axis=axis) >= -1e-6 * np.abs(table).max())
    # The dissertation: FPGAs gain down to 4 bits and below (L755); where logic decides, each halving pays.
    if name in ("ultra96_dataflow", "zc706_dataflow"):
        square = [table[bits - 1, bits - 1, 0] for bits in (16, 8, 4, 2, 1)]
        assert all(wide > 1.4 * narrow for wide, narrow in zip(square, square[1:], strict=False))
        # Weights and activations share the cost of a product: neither alone makes it cheap.
        assert table[0, 7, 0] < table[7, 7, 0] and table[7, 0, 0] < table[7, 7, 0]
        assert table[0, 0, 0] < table[0, 7, 0]


def test_any_width_may_be_asked_for_and_floats_may_not() -> None:
    device, work = load_device("ultra96_dataflow"), Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, 3, 3)])
    for precision in ("int1", "int3", "w1a3", "w2a4", "int16"):
        changed, chosen, note = apply_precision(device, work, precision)
        assert (chosen, note) == (precision, f"{precision}: as asked")
        wanted = parse_format(precision)
        run = dataflow.run(device, changed)
        assert float(run.weight_bits[0]) == wanted.weight_bits == float(changed.weight_bits[0])
        assert float(run.act_bits[0]) == wanted.act_bits
        assert bool(run.supported[0]) and not bool(run.converted[0])
    for precision in ("float32", "bfloat16"):
        with pytest.raises(InputError, match=f"precision '{precision}' is not supported by ultra96_dataflow"):
            apply_precision(device, work, precision)
    costs = price(device, work)
    assert not bool(fits(costs))
    assert all(bool(jnp.isfinite(leaf)) for leaf in costs)
    assert float(shares(device, work)["unsupported layers"]) > 1


def test_a_batch_streams(tiny_networks: dict[str, list[Layer]]) -> None:
    device, work = load_device("zc706_dataflow"), Workload.of(stored(tiny_networks["ic"], "int8"), LENGTH)
    costs = [price(device, work, batch) for batch in (1, 2, 11)]
    times = [float(one.latency_s) for one in costs]
    assert times[2] - times[0] == pytest.approx(10 * (times[1] - times[0]), rel=1e-3)
    assert times[1] - times[0] < 0.7 * times[0]  # the second image does not wait for the first
    # the throughput is the pace at which images follow one another, and every run is started anew
    for one, batch in zip(costs, (1, 2, 11), strict=True):
        started = device.compute["run_overhead_s"] / batch
        assert float(one.interval_s) == pytest.approx(times[1] - times[0] + started, rel=1e-3)
    assert float(costs[2].peak_memory_bytes) == float(costs[0].peak_memory_bytes)
    assert float(costs[2].compute_s) == pytest.approx(11 * float(costs[0].compute_s), rel=1e-5)
    assert 0 < float(costs[2].mac_utilization) < 1


def test_a_measured_throughput_is_compared_with_the_pace_and_not_with_the_latency(
    tiny_networks: dict[str, list[Layer]],
) -> None:
    device, work = load_device("zc706_dataflow"), Workload.of(stored(tiny_networks["ic"], "int8"), LENGTH)
    one, batch = jax.tree.map(lambda leaf: leaf[None], work), jnp.asarray([2.0])
    costs = price(device, work, 2)
    assert float(predict(device.unnamed(), one, batch)[0]) == pytest.approx(float(costs.latency_s), rel=1e-5)
    busy = float(predict(device.unnamed(), one, batch, True)[0])
    assert busy == pytest.approx(2 / float(costs.throughput_per_s), rel=1e-5) and busy < 0.8 * float(costs.latency_s)


def test_everything_must_stay_on_the_chip(tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device("pynq_z1_dataflow")
    wide = Workload.of(stored(tiny_networks["cnv"], "int8"), LENGTH)
    taken = {name: float(share) for name, share in shares(device, wide).items()}
    assert max(taken, key=taken.__getitem__) == "on-chip memory"
    weights = sum(layer.weights for layer in tiny_networks["cnv"]) * 8
    assert taken["on-chip memory"] > weights / (280 * 18_432)
    assert bool(fits(price(device, Workload.of(stored(tiny_networks["cnv"], "int1"), LENGTH))))
    # More layers than the logic has room for, whatever their folding.
    many = Workload.of(stored([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, 3, 3)] * 200, "int8"))
    taken = {name: float(share) for name, share in shares(device, many).items()}
    assert taken["logic"] > 1 > taken["on-chip memory"]


def test_strict_devices_refuse_residual_additions(tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device("zc706_dataflow")
    strict = device.with_numbers(compute__refuse_residuals=1)
    with_adds = Workload.of(stored(tiny_networks["ic"], "int8"), LENGTH)
    without = Workload.of(stored(tiny_networks["kws"], "int8"), LENGTH)
    assert bool(fits(price(device, with_adds))) and not bool(fits(price(strict, with_adds)))
    assert bool(fits(price(strict, without)))
    assert float(price(strict, without).latency_s) == float(price(device, without).latency_s)


def roofline_s(layers: list[Layer], macs_per_s: float, bytes_per_s: float) -> float:
    """The plain model: each layer by its arithmetic or by its bytes, whichever is slower; one after another."""
    total = 0.0
    for layer in layers:
        elements = layer.in_h * layer.in_w * layer.in_channels + layer.out_h * layer.out_w * layer.out_channels
        moved = layer.weights * layer.weight_bits / 8 + elements * layer.act_bits / 8
        total += max(layer.macs / macs_per_s, moved / bytes_per_s)
    return total


def test_a_roofline_ranks_wide_linear_layers_wrongly() -> None:
    """`wide_head` (small maps, large linear layers) against `conv_only` (four times the arithmetic, few weights).

    A roofline at the board's DDR rate says that the linear layers wait for their weights, 1.5 MB of them. A streaming
    design has the weights beside the multipliers: only arithmetic counts, and `wide_head` is the faster one.
    """
    device = load_device("zcu104_dataflow")
    wide_head = stored(
        [Layer(Op.CONV, 16, 16, 16, 16, 8, 16, 3, 3)]
        + [Layer(Op.LINEAR, 1, 1, 1, 1, a, b) for a, b in ((1024, 1024), (1024, 512))],
        "int8",
    )
    conv_only = stored([Layer(Op.CONV, 16, 16, 16, 16, 32, 32, 3, 3)] * 3, "int8")
    macs = [sum(layer.macs for layer in rows) for rows in (wide_head, conv_only)]
    assert 3 * macs[0] < macs[1]
    peak = device.compute["macs_per_cycle"]["int8"] * device.compute["clock_hz"]
    wrong = [roofline_s(rows, peak, device.memory["dram_bytes_per_s"]) for rows in (wide_head, conv_only)]
    right = [float(price(device, Workload.of(rows, 4), 100).latency_s) for rows in (wide_head, conv_only)]
    exact = [choose_folding(device, rows).interval_cycles for rows in (wide_head, conv_only)]
    assert wrong[0] > wrong[1]
    assert right[0] < right[1]
    assert exact[0] < exact[1]


def test_a_roofline_ranks_narrow_numbers_wrongly() -> None:
    """`w1a2_wide` (twice the arithmetic, one and two bits) against `w8a8_slim`.

    A roofline computes in the next width that the DSP slices have, so the wider network is slower. Logic multiplies
    one and two bits for a few LUTs a product: the wider network runs at a multiple of the rate.
    """
    device = load_device("ultra96_dataflow")
    wide = stored([Layer(Op.CONV, 32, 32, 32, 32, 64, 64, 3, 3)] * 4, "w1a2")
    slim = stored([Layer(Op.CONV, 32, 32, 32, 32, 64, 32, 3, 3)] * 4, "int8")
    peak = {bits: device.compute["macs_per_cycle"][f"int{bits}"] * device.compute["clock_hz"] for bits in (4, 8)}
    assert sum(row.macs for row in wide) == 2 * sum(row.macs for row in slim)
    for rate in ((peak[8], peak[8]), (peak[4], 2.1 * peak[4])):  # int8 slices for both, or even twice for the slim one
        wrong = [roofline_s(rows, one, 1e18) for rows, one in zip((wide, slim), rate, strict=True)]
        assert wrong[0] > wrong[1]
    right = [float(price(device, Workload.of(rows, 4), 100).latency_s) for rows in (wide, slim)]
    assert 2 * right[0] < right[1]


def test_gradients_reach_bits_and_numbers_of_the_board(tiny_networks: dict[str, list[Layer]]) -> None:
    device, work = load_device("zc706_dataflow"), Workload.of(stored(tiny_networks["cnv"], "w3a5"), LENGTH)

    def latency(device: Device, work: Workload) -> jax.Array:
        return estimate(device, work).latency_s

    by_number, by_shape = jax.jit(jax.grad(latency, (0, 1)))(device, work)
    for leaf in jax.tree.leaves((by_number, by_shape)):
        assert bool(jnp.all(jnp.isfinite(leaf)))
    for key in ("lut", "dsp", "lut_share", "clock_hz"):
        assert float(by_number.compute[key]) < 0, key
    multiplying = np.asarray(work.multiplies * work.count) > 0
    for bits in (by_shape.weight_bits, by_shape.act_bits):
        assert np.all(np.asarray(bits)[multiplying] > 0)
