"""Prices by measured tables: sums of rows, what is missing and how it is filled, what was measured."""

from __future__ import annotations

import math

import pytest

from hw_models import InputError, Layer, LookupTable, Op, Workload, estimate, load_device, load_table
from hw_models.interpolation import estimate as between
from hw_models.interpolation import fit, left_out
from hw_models.lookup import interpolation_error, price
from hw_models.lookup_table import Row
from hw_models.table_keys import block_key, parse_key
from hw_models.workload import Dtype

HEAD = "conv 8x8x16>8x8x64 + global_pool 8x8x64>1x1x64 + linear 1x1x64>1x1x10"
TIMES = {
    "conv 8x8x3>8x8x16 k3": 4.0,
    "conv 8x8x16>8x8x16 k3 + add 8x8x16>8x8x16": 2.0,
    "conv 8x8x16>8x8x64": 1.0,
    "global_pool 8x8x64>1x1x64 + linear 1x1x64>1x1x10": 0.5,
}
DIFFERENCES = {
    "conv 8x8x3>8x8x16 k3": None,
    "conv 8x8x16>8x8x16 k3 + add 8x8x16>8x8x16": 2.0,
    HEAD: None,
}


def table(
    rows: dict[str, float | None], level: str = "block", precision: str = "float32", **more: object
) -> LookupTable:
    """A table in milliseconds; None is a part of the baseline."""
    values = "difference" if None in rows.values() else "time"
    made = {key: Row(0.0 if ms is None else ms * 1e-3, baseline=ms is None) for key, ms in rows.items()}
    return LookupTable("mine", "Board", "cpu", level, values, precision, "r", 1, "s", "MIT", "2026-11-25", made, **more)  # type: ignore[arg-type]


def network(*keys: str) -> list[Layer]:
    return [layer._replace(group=i) for i, key in enumerate(keys) for layer in parse_key(key)]


def test_the_latency_is_the_sum_of_the_rows() -> None:
    block = "conv 8x8x16>8x8x16 k3 + add 8x8x16>8x8x16"
    cost = price(table(TIMES), network("conv 8x8x3>8x8x16 k3", block, block, "conv 8x8x16>8x8x64"))
    assert cost == (pytest.approx(9e-3), 1.0, ())


def test_rows_of_parts_make_up_a_block_where_it_has_none() -> None:
    assert price(table(TIMES), network(HEAD)).latency_s == pytest.approx(1.5e-3)
    # the fewest parts win: a longer row knows what layers save together
    rows = TIMES | {"global_pool 8x8x64>1x1x64": 9.0, "linear 1x1x64>1x1x10": 9.0}
    assert price(table(rows), network(HEAD)).latency_s == pytest.approx(1.5e-3)
    assert price(table(rows | {HEAD: 0.25}), network(HEAD)).latency_s == pytest.approx(0.25e-3)


def test_a_table_of_operators_prices_layer_by_layer() -> None:
    rows = {"conv 8x8x16>8x8x64": 1.0, "global_pool 8x8x64>1x1x64": 0.25, "linear 1x1x64>1x1x10": 0.5}
    assert price(table(rows, "operator"), network(HEAD)).latency_s == pytest.approx(1.75e-3)


def test_layers_run_in_the_precision_of_the_table_unless_they_have_their_own() -> None:
    rows = {"linear 1x1x64>1x1x10": 1.0, "linear 1x1x64>1x1x10 w4a8": 0.5}
    (layer,) = network("linear 1x1x64>1x1x10")
    whole = layer._replace(weight_dtype=Dtype.INT, weight_bits=8, act_dtype=Dtype.INT, act_bits=8)
    assert price(table(rows, precision="int8"), [layer]).latency_s == pytest.approx(1e-3)
    assert price(table(rows, precision="int8"), [whole]).latency_s == pytest.approx(1e-3)
    assert price(table(rows, precision="int8"), [whole._replace(weight_bits=4)]).latency_s == pytest.approx(0.5e-3)
    with pytest.raises(InputError, match="no row for 1 of 1 different blocks: 'linear 1x1x64>1x1x10 int8'"):
        price(table(rows), [whole])


def test_a_missing_row_is_an_error_that_names_it() -> None:
    layers = network(
        "conv 8x8x3>8x8x16 k3", "conv 8x8x16>8x8x24", "conv 8x8x24>8x8x24", "linear 1x1x9>1x1x8", "add 1x1x1>1x1x1"
    )
    with pytest.raises(InputError) as caught:
        price(table(TIMES), layers)
    said = str(caught.value)
    assert "table mine has no row for 4 of 5 different blocks: 'conv 8x8x16>8x8x24'" in said
    assert "and 1 more" in said and "missing=interpolate" in said and "missing=analytic" in said
    with pytest.raises(InputError, match="did you mean 'error'"):
        price(table(TIMES), layers, "erorr")


def test_the_analytic_model_fills_in_and_says_how_much() -> None:
    device = load_device("raspberry_pi_4")
    known, new = "conv 8x8x3>8x8x16 k3", "conv 8x8x16>8x8x24"
    cost = price(table(TIMES), network(known, new), "analytic", device)
    model = float(estimate(device, Workload.of(parse_key(new))).latency_s)
    assert cost.latency_s == pytest.approx(4e-3 + model, rel=1e-5)
    assert cost.covered == pytest.approx(4e-3 / (4e-3 + model), rel=1e-5) and cost.missing == (new,)
    with pytest.raises(InputError, match="needs a device"):
        price(table(TIMES), network(new), "analytic")


def test_a_device_of_another_kind_or_without_the_precision_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"of kind cpu \(Board\), device zcu102 of kind fpga: give a device of kind cpu"
    ):
        price(table(TIMES), network("conv 8x8x3>8x8x16 k3"), device=load_device("zcu102"))
    with pytest.raises(InputError, match="'w2a2' is not supported by raspberry_pi_4"):
        price(
            table(TIMES, precision="w2a2"),
            network(HEAD + " + add 1x1x1>1x1x1"),
            "analytic",
            load_device("raspberry_pi_4"),
        )


def test_differences_start_from_the_baseline() -> None:
    mine = table(DIFFERENCES, constant_s=7e-3, constant_meaning="stem and head")
    stem, block, head = DIFFERENCES
    assert price(mine, network(stem, head)) == (pytest.approx(7e-3), 1.0, ())
    assert price(mine, network(stem, block, block, head)).latency_s == pytest.approx(11e-3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([HEAD], "one block 8x8x3>8x8x16, and here are 0"),
        (["conv 8x8x3>8x8x16 k3", "conv 8x8x3>8x8x16 k3", HEAD], "and here are 2"),
        (["conv 8x8x3>8x8x16 k3", "conv 8x8x16>8x8x24", HEAD], "no block 8x8x16>8x8x24"),
    ],
)
def test_differences_are_refused_for_networks_without_the_baseline(keys: list[str], message: str) -> None:
    mine = table(DIFFERENCES, constant_s=7e-3, constant_meaning="stem and head", notes="small networks")
    for missing in ("error", "interpolate", "analytic"):
        with pytest.raises(InputError) as caught:
            price(mine, network(*keys), missing, load_device("pixel_3"))
        assert message in str(caught.value) and "(small networks)" in str(caught.value)


def test_the_model_fills_in_differences_as_differences() -> None:
    device = load_device("raspberry_pi_4")
    mine = table(DIFFERENCES, constant_s=7e-3, constant_meaning="stem and head")
    stem, block, head = DIFFERENCES
    wide, other = stem.replace("k3", "k5"), block.replace("k3", "k5")

    def modelled(key: str) -> float:
        return float(estimate(device, Workload.of(parse_key(key))).latency_s)

    cost = price(mine, network(wide, other, head), "analytic", device)
    added = [modelled(wide) - modelled(stem), modelled(other)]  # nothing stands where the shape stays
    assert cost.latency_s == pytest.approx(7e-3 + sum(added), rel=1e-5)
    assert cost.covered == pytest.approx(7e-3 / (7e-3 + sum(map(abs, added))), rel=1e-5)


def test_positions_cannot_be_priced_as_layers() -> None:
    with pytest.raises(InputError, match="is of positions in the space proxylessnas"):
        price(load_table("pixel1_proxylessnas"), network(HEAD))


def conv(hw: int, channels: int, kernel: int = 3) -> list[Layer]:
    return [Layer(Op.CONV, hw, hw, hw, hw, channels, channels, kernel, kernel)]


def test_interpolation_recovers_a_power_law_between_and_near_rows() -> None:
    def law(layers: list[Layer]) -> float:
        (layer,) = layers
        moved = layer.in_h * layer.in_w * (layer.in_channels + layer.out_channels)
        return 1e-9 * layer.macs**0.6 * moved**0.3 * layer.weights**0.1

    model = fit([(conv(hw, c), law(conv(hw, c))) for hw in (8, 16, 32) for c in (8, 16, 32)])
    for hw, channels in ((12, 24), (8, 24), (40, 40)):
        assert between(model, conv(hw, channels)) == pytest.approx(law(conv(hw, channels)), rel=0.03)
    assert between(model, conv(16, 16)) == pytest.approx(law(conv(16, 16)), rel=0.03)
    assert between(model, conv(16, 16, 5)) is None, "another structure"
    assert between(model, conv(400, 400)) is None, "too far"


def test_interpolated_rows_are_told_apart() -> None:
    rows = {block_key(conv(hw, 16)): hw**2 * 0.01 for hw in (8, 16, 32)}
    measured, new = conv(16, 16), conv(20, 16)
    cost = price(table(rows), [measured[0], new[0]._replace(group=1)], "interpolate")
    assert cost.latency_s == pytest.approx((2.56 + 4.0) * 1e-3, rel=0.03)
    assert cost.covered == pytest.approx(2.56e-3 / cost.latency_s) and cost.missing == (block_key(new),)
    with pytest.raises(InputError, match="no rows near enough to interpolate 1 of 2 different blocks: 'conv 16x16x16"):
        price(table(rows), [measured[0], conv(16, 16, 5)[0]._replace(group=1)], "interpolate")
    both = [measured[0], new[0]]  # one block of two layers, for which only rows of its parts are near
    assert price(table(rows), both, "interpolate").latency_s == pytest.approx(cost.latency_s)


# Median relative error of rows estimated from the others, measured on 2026-11-25, and a margin.
LEFT_OUT = {
    "raspi4_fbnet_cifar100": 0.166,
    "pixel3_fbnet_cifar100": 0.078,
    "eyeriss_fbnet_cifar100": 0.146,
    "fpga_fbnet_cifar100": 0.043,
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_rows_left_out_are_estimated_as_well_as_measured_before(name: str) -> None:
    error = interpolation_error(load_table(name))
    assert error is not None and error == pytest.approx(LEFT_OUT[name], abs=0.01)
    assert interpolation_error(load_table("pixel1_proxylessnas")) is None


def test_left_out_rows_do_not_see_themselves() -> None:
    rows = [(conv(8, 8), 1.0), (conv(16, 8), 4.0), (conv(32, 8), 1e6)]
    guesses = left_out(rows)
    assert guesses[2] is not None and guesses[2] < 100
    assert left_out([(conv(8, 8), 1.0)]) == [None]
    assert all(math.isfinite(guess) for guess in guesses if guess is not None)
