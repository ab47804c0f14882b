"""Cycles, utilization and movements of systolic arrays against two published simulators, and what must always hold."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import InputError
from hw_models.systolic import (
    DATAFLOWS,
    mac_utilization,
    mapping_efficiency,
    movements,
    network_cycles,
    systolic_cycles,
    systolic_cycles_traced,
)
from hw_models.workload import Layer, Op, Workload

GOLDEN = Path(__file__).parents[1] / "golden"
SIZES = st.integers(1, 2000)
SIDES = st.sampled_from([1, 8, 12, 32, 128, 256])
ACCUMULATORS = st.one_of(st.none(), st.integers(2, 4096))
PLANS = [(dataflow, overlap) for dataflow in DATAFLOWS for overlap in (False, True)]


def golden(name: str) -> list[dict[str, Any]]:
    lines = (line for line in (GOLDEN / name).read_text().splitlines() if not line.startswith("#"))
    words = ("dataflow", "layer")
    return [
        {key: value if key in words else float(value) if "." in value else int(value) for key, value in row.items()}
        for row in csv.DictReader(lines)
    ]


def sizes(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in ("m", "k", "n", "rows", "cols"))


SCALE_SIM, CAMUY = golden("scalesim_cycles.csv"), golden("camuy_cycles.csv")


def test_every_row_of_the_simulator() -> None:
    assert len(SCALE_SIM) == 135
    plans = {(row["dataflow"], row["rows"], row["cols"]) for row in SCALE_SIM}
    assert plans == {(dataflow, *side) for dataflow in DATAFLOWS for side in ((8, 8), (32, 8), (128, 128))}
    for row in SCALE_SIM:
        dataflow = row["dataflow"]
        assert systolic_cycles(*sizes(row), dataflow) == row["cycles"], row
        assert 100 * mac_utilization(*sizes(row), dataflow) == pytest.approx(row["utilization_pct"], abs=6e-4)
        assert 100 * mapping_efficiency(*sizes(row), dataflow) == pytest.approx(row["mapping_pct"], abs=6e-4)


@pytest.mark.parametrize("row", CAMUY, ids=lambda row: "-".join(map(str, sizes(row))))
def test_equals_the_emulator(row: dict[str, Any]) -> None:
    assert systolic_cycles(*sizes(row), overlap=True) == row["cycles"]
    assert mac_utilization(*sizes(row), overlap=True) == pytest.approx(row["utilization"], abs=5e-4)
    for accumulator in (512, 4096):  # where the stream fits one buffer
        assert systolic_cycles(*sizes(row), overlap=True, accumulator=accumulator) == row["cycles"]


@pytest.mark.parametrize(
    ("layer", "printed"),
    [
        ((3136, 576, 64), "0.9999 0.9994 0.995 0.444 0.181"),
        ((3136, 64, 64), "0.999 0.994 0.959 0.235 0.057"),
        ((3136, 9, 1), "0.035 0.0087 0.0021 0.0005 0.0001"),
    ],
    ids=["dense 3x3", "pointwise", "one channel of depthwise"],
)
def test_utilization_of_one_layer_over_the_side_of_the_array(layer: tuple[int, int, int], printed: str) -> None:
    """56x56 pixels, 64 channels: what the emulator's closed form gave when it was derived."""
    for side, expected in zip((16, 32, 64, 128, 256), printed.split(), strict=True):
        found = mac_utilization(*layer, side, side, overlap=True, accumulator=8192)
        assert f"{found:.{len(expected) - 2}f}" == expected


@given(SIZES, SIZES, SIZES, SIDES, SIDES, st.sampled_from(PLANS), ACCUMULATORS)
def test_bounds(m: int, k: int, n: int, rows: int, cols: int, plan: tuple[str, bool], accumulator: int | None) -> None:
    dataflow, overlap = plan
    accumulator = None if dataflow == "os" else accumulator
    cycles = systolic_cycles(m, k, n, rows, cols, dataflow, overlap, accumulator=accumulator)
    limited = systolic_cycles(m, k, n, rows, cols, dataflow, overlap)
    assert limited <= cycles + 1  # the emulator is a cycle faster where the last block has one row
    # one value per lane and cycle: no edge carries more; the last index is one less than the cycles
    across = n if dataflow != "is" else m
    passes = {"ws": m, "os": k, "is": n}[dataflow] * -(-across // cols)
    assert (cycles + 1) * rows >= passes * (m if dataflow == "os" else k)
    assert (cycles + 1) * rows * cols >= m * k * n
    assert 0 < mac_utilization(m, k, n, rows, cols, dataflow, overlap, accumulator=accumulator) <= 1


@given(SIZES, SIZES, SIZES, SIDES, SIDES, st.sampled_from(DATAFLOWS), ACCUMULATORS)
def test_overlap_never_costs_more(
    m: int, k: int, n: int, rows: int, cols: int, dataflow: str, accumulator: int | None
) -> None:
    """But for the emulator's start-up, which shows where there is next to nothing to hide."""
    accumulator = None if dataflow == "os" else accumulator
    serial, overlapped = (
        systolic_cycles(m, k, n, rows, cols, dataflow, overlap, accumulator=accumulator) for overlap in (False, True)
    )
    start_up = max(9 - rows, 0) if dataflow == "ws" else 0
    assert overlapped <= serial + start_up
    single = {"ws": k <= rows and n <= cols, "os": m <= rows and n <= cols, "is": k <= rows and m <= cols}[dataflow]
    if dataflow != "ws" and single and accumulator is None:
        assert overlapped == serial


@given(SIZES, SIZES, SIZES, SIDES, SIDES, st.booleans(), ACCUMULATORS)
def test_input_stationary_exchanges_the_operands(
    m: int, k: int, n: int, rows: int, cols: int, overlap: bool, accumulator: int | None
) -> None:
    serial = systolic_cycles(m, k, n, rows, cols, "is", accumulator=accumulator)
    assert serial == systolic_cycles(n, k, m, rows, cols, "ws", accumulator=accumulator)
    moves = movements(m, k, n, rows, cols, "is", accumulator=accumulator)
    other = movements(n, k, m, rows, cols, "ws", accumulator=accumulator)
    assert moves == other._replace(activation_reads=other.weight_reads, weight_reads=other.activation_reads)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, SIZES, SIDES, SIDES, ACCUMULATORS)
def test_traced_version_is_equal_where_float32_is_exact(
    m: int, k: int, n: int, rows: int, cols: int, accumulator: int | None
) -> None:
    for dataflow, overlap in PLANS:
        buffer = None if dataflow == "os" else accumulator
        exact = systolic_cycles(m, k, n, rows, cols, dataflow, overlap, accumulator=buffer)
        traced = systolic_cycles_traced(m, k, n, rows, cols, dataflow, overlap, accumulator=buffer)
        assert traced.dtype == jnp.float32
        assert float(traced) == (exact if exact < 2**24 else pytest.approx(exact, rel=1e-6))


@pytest.mark.parametrize(("dataflow", "overlap"), PLANS)
def test_traced_version_broadcasts_under_jit(dataflow: str, overlap: bool) -> None:
    m, k, n = [1, 49, 784], [9, 64], [10, 1000]
    rows, cols = [8, 128], [16, 256]
    price = jax.jit(systolic_cycles_traced, static_argnames=("dataflow", "overlap"))
    axes = (jnp.asarray(values)[(slice(None), *[None] * (4 - i))] for i, values in enumerate((m, k, n, rows, cols)))
    traced = price(*axes, dataflow=dataflow, overlap=overlap)
    exact = [systolic_cycles(*point, dataflow, overlap) for point in product(m, k, n, rows, cols)]
    assert traced.shape == (3, 2, 2, 2, 2)
    assert traced.ravel().tolist() == exact


@pytest.mark.parametrize(("dataflow", "overlap"), PLANS)
@pytest.mark.parametrize("accumulator", [None, 512])
def test_traced_version_has_useful_gradients(dataflow: str, overlap: bool, accumulator: int | None) -> None:
    buffer = None if dataflow == "os" else accumulator

    def cycles(*of: Any) -> jax.Array:
        return systolic_cycles_traced(*of, dataflow, overlap, accumulator=buffer)

    gradient = jax.grad(cycles, argnums=(0, 1, 2, 3, 4))(1030.0, 300.0, 530.0, 8.0, 8.0)
    assert all(bool(jnp.isfinite(g)) for g in gradient)
    assert all(float(g) > 0 for g in gradient[:3])
    assert float(gradient[3]) < 0 or not overlap  # a higher array has fewer folds


def test_large_counts_are_exact_integers() -> None:
    assert systolic_cycles(10**9, 10**6, 10**6, 7, 3) == 142858 * 333334 * (14 + 3 + 10**9 - 2) - 1


def test_movements_of_a_product_counted_by_hand() -> None:
    """70 x 48 by 48 x 40 on 16 x 16, 20 rows of sums in each of two buffers: 3 x 3 tiles, 4 blocks."""
    moves = movements(70, 48, 40, 16, 16, accumulator=40)
    assert moves == (70 * 48 * 3, 48 * 40 * 4, 70 * 40 * 3, 70 * 40, 3 * 70 * 9 * 256, 70 * 9 * (2 * 256 - 16))
    assert movements(70, 48, 40, 16, 16).weight_reads == 48 * 40
    # output stationary: 5 x 3 tiles of the product, every operand once per tile
    assert movements(70, 48, 40, 16, 16, "os")[:4] == (70 * 48 * 3, 48 * 40 * 5, 0, 70 * 40)


def mobile_net() -> Workload:
    """The layers of the simulator's network: depthwise ones as one product per channel."""
    rows = [row for row in SCALE_SIM if (row["dataflow"], row["rows"], row["cols"]) == ("ws", 8, 8)]
    layers = []
    for row in rows:
        op, channels = (Op.DEPTHWISE, row["repeat"]) if row["repeat"] > 1 else (Op.CONV, 1)
        layers.append(Layer(op, row["m"], 1, row["m"], 1, row["k"] if channels == 1 else channels,
                            row["n"] * channels, 1 if channels == 1 else row["k"], groups=channels))  # fmt: skip
    return Workload.of([*layers, Layer(Op.ADD, 16, 16, 16, 16, 24, 24)], 20)


@pytest.mark.parametrize(
    ("side", "totals", "overlapped"),
    [
        ((8, 8), (184_633, 224_649, 375_069), 163_604),
        ((16, 16), (91_125, 143_659, 179_013), 75_060),
        ((32, 32), (84_337, 114_411, 146_833), 63_584),
        ((32, 8), (97_601, 101_157, 444_301), None),
        ((128, 128), (169_400, 122_891, 177_445), 90_525),
    ],
)
def test_a_whole_network_costs_what_the_simulators_total(
    side: tuple[int, int], totals: tuple[int, ...], overlapped: int | None
) -> None:
    """Depthwise layers make an array of 128 x 128 slower than one of 16 x 16."""
    work = mobile_net()
    for dataflow, total in zip(DATAFLOWS, totals, strict=True):
        found = network_cycles(work, *side, dataflow)
        assert float(found.cycles) == total
        macs = float(work.macs.sum())
        assert float(found.mac_utilization) == pytest.approx(macs / (total * side[0] * side[1]), rel=1e-6)
    if overlapped is not None:
        # the last layer has a single row, which the form behind these totals counts a cycle too many
        assert float(network_cycles(work, *side, "ws", True).cycles) == overlapped - 1


def test_networks_and_arrays_are_priced_together() -> None:
    work = mobile_net()
    half = work._replace(count=work.count.at[7:].set(0))
    pair = jax.tree.map(lambda *leaves: jnp.stack(leaves), work, half)
    heights, widths = jnp.asarray([8, 16, 32])[:, None], jnp.asarray([8, 24])
    found = network_cycles(pair, heights, widths, overlap=True, batch=2)
    assert found.cycles.shape == found.mac_utilization.shape == (2, 3, 2)
    for i, rows in enumerate((8, 16, 32)):
        for j, cols in enumerate((8, 24)):
            one = network_cycles(half, rows, cols, overlap=True, batch=2)
            assert float(found.cycles[1, i, j]) == float(one.cycles)
            assert float(found.mac_utilization[1, i, j]) == float(one.mac_utilization)


def test_depthwise_layers_may_go_to_a_vector_unit() -> None:
    work = mobile_net()
    depthwise = work.op == int(Op.DEPTHWISE)
    macs = float((work.macs * depthwise).sum())
    dense = network_cycles(work._replace(count=work.count * ~depthwise), 128, 128)
    both = network_cycles(work, 128, 128, vector_macs_per_cycle=512)
    assert float(both.cycles) == pytest.approx(float(dense.cycles) + macs / 512, rel=1e-6)
    # the array is not busy while the vector unit works
    busy = float(dense.mac_utilization) * float(dense.cycles) / float(both.cycles)
    assert float(both.mac_utilization) == pytest.approx(busy, rel=1e-6)


def test_a_network_without_products_takes_no_cycles() -> None:
    found = network_cycles(Workload.of([Layer(Op.ADD, 8, 8, 8, 8, 8, 8)]), 8, 8)
    assert (float(found.cycles), float(found.mac_utilization)) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [{"m": 0}, {"k": 1.5}, {"rows": -1}, {"n": True}, {"accumulator": 1}])
def test_bad_sizes_are_input_errors(bad: dict[str, Any]) -> None:
    given_sizes: dict[str, Any] = {"m": 4, "k": 4, "n": 4, "rows": 4, "cols": 4} | bad
    for function in (systolic_cycles, mac_utilization, movements):
        with pytest.raises(InputError, match=next(iter(bad))):
            function(**given_sizes, dataflow="ws")


def test_wrong_plans_are_input_errors() -> None:
    layers = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8)])
    for function, first in (
        (systolic_cycles, (1,) * 5),
        (systolic_cycles_traced, (1.0,) * 5),
        (network_cycles, (layers, 8, 8)),
    ):
        with pytest.raises(InputError, match="did you mean 'ws'"):
            function(*first, "wss")
        with pytest.raises(InputError, match="leave it out"):
            function(*first, "os", accumulator=8)
