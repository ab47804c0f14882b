"""Microcontrollers: measured inferences, flash and SRAM as hard limits, and what a plain roofline gets wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Device, InputError, Layer, Op, Workload, device_names, estimate, load_device
from hw_models.analytic.mcu import column_bytes
from hw_models.estimate import apply_precision, fits, layer_costs, resource_shares
from hw_models.formats import parse_format

GOLDEN = Path(__file__).parents[1] / "golden"
CHIPS = [name for name in device_names() if load_device(name).kind == "mcu"]
LENGTH = 80

price = jax.jit(estimate)
shares = jax.jit(lambda device, work: resource_shares(device, layer_costs(device, work)))


def stored(layers: list[Layer], precision: str = "int8") -> list[Layer]:
    return [layer._replace(**parse_format(precision)._asdict()) for layer in layers]


def shares_of(device: Device, work: Workload) -> dict[str, float]:
    return {name: float(share) for name, share in shares(device, work).items()}


def macs_of(layers: list[Layer]) -> int:
    return sum(layer.macs for layer in layers)


def _measured() -> list[dict[str, str]]:
    text = (GOLDEN / "mlperf_tiny_microcontrollers.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in text if not line.startswith("#")))


def test_three_classes_of_size() -> None:
    assert CHIPS == ["stm32f446", "stm32f746", "stm32h743"]
    sizes = [(load_device(n).memory["sram_bytes"] / 1024, load_device(n).memory["flash_bytes"] / 2**20) for n in CHIPS]
    assert sizes == [(128, 0.5), (320, 1), (512, 2)]


def test_the_networks_are_those_of_the_benchmark(tiny_networks: dict[str, list[Layer]]) -> None:
    # Banbury et al. 2021, table 1 and mlcommons/tiny: 12.5, 2.7, 7.5 and 0.27 million multiply-accumulates.
    assert {name: macs_of(tiny_networks[name]) for name in ("ic", "kws", "vww", "ad")} == {
        "ic": 12_501_632,
        "kws": 2_656_768,
        "vww": 7_489_664,
        "ad": 264_192,
    }


@pytest.mark.parametrize("row", _measured(), ids=lambda row: f"{row['device']}-{row['task']}-{row['runtime'][:6]}")
def test_measured_inferences(row: dict[str, str], tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device(row["device"]).with_numbers(compute__clock_hz=float(row["clock_hz"]))
    costs = price(device, Workload.of(stored(tiny_networks[row["task"]]), LENGTH))
    ratio = float(costs.latency_s) * 1e3 / float(row["latency_ms"])
    # Three rates were fitted to four networks; runtimes that none was fitted to differ by up to a factor of two.
    assert abs(ratio - 1) < 0.05 if row["fitted"] == "1" else 0.5 < ratio < 2


def test_whole_mobile_networks_reach_a_fraction_of_a_product_a_cycle(
    tiny_networks: dict[str, list[Layer]], network_layers: dict[str, list[Layer]]
) -> None:
    # On this chip: MCUNet with TinyEngine 0.30 (6.4 M at 10, 12.8 M at 5 images a second, mit-han-lab/mcunet README);
    # visual wake words 0.61 (Bosch) and 1.02 (Plumerai) in MLPerf Tiny v1.1.
    device = load_device("stm32f746")
    for rows in (tiny_networks["vww"], network_layers["mobilenet_v2"], network_layers["mobilenet_v3_small"]):
        seconds = float(price(device, Workload.of(stored(rows), LENGTH)).latency_s)
        assert 0.3 < macs_of(rows) / seconds / 2.16e8 < 1.02


def test_only_integers() -> None:
    device, work = load_device("stm32f746"), Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, 3, 3)])
    for precision in ("float32", "float16", "int16"):
        with pytest.raises(InputError, match=f"'{precision}' is not supported by stm32f746: choose one of int8"):
            apply_precision(device, work, precision)
    costs = estimate(device, work)
    assert not bool(fits(costs)) and all(bool(jnp.isfinite(leaf)) for leaf in costs)
    assert shares_of(device, work)["unsupported layers"] > 1
    four, eight = (Workload.of(stored([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, 3, 3)], bits)) for bits in ("w4a8", "int8"))
    assert float(price(device, four).latency_s) == float(price(device, eight).latency_s)
    assert float(price(device, four).weight_bytes) < float(price(device, eight).weight_bytes)


def test_peak_memory_by_hand() -> None:
    device = load_device("stm32f746")
    conv = Layer(Op.CONV, 8, 8, 8, 8, 3, 32, 3, 3, held_elements=100)
    depthwise = Layer(Op.DEPTHWISE, 8, 8, 4, 4, 16, 16, 3, 3, 2, groups=16, held_elements=100)
    wider = Layer(Op.DEPTHWISE, 8, 8, 8, 8, 16, 32, 3, 3, groups=16)
    pointwise = Layer(Op.CONV, 8, 8, 8, 8, 16, 32)
    work = Workload.of(stored([conv, depthwise, wider, pointwise]))
    # CMSIS-NN: two columns of 16-bit numbers, 3 * 3 * 3 = 27 rounded up to 28; depthwise one column of all channels.
    assert column_bytes(work).tolist() == [2 * 28 * 2, 9 * 16 * 2, 9 * 16 * 2, 0]
    usual = [192 + 2048 + 100 + 112, 1024 + 256 + 100 + 288, 1024 + 2048 + 288, 1024 + 2048]
    assert layer_costs(device, work).peak_memory_bytes.tolist() == usual
    tiny_engine = device.with_numbers(memory__in_place_depthwise=1)
    # The output of the second layer overwrites its input and needs one channel of its own; the third has more channels.
    usual[1] = 1024 + 16 + 100 + 288
    assert layer_costs(tiny_engine, work).peak_memory_bytes.tolist() == usual
    assert float(price(device, work).peak_memory_bytes) == max(usual)


def test_depthwise_in_place_lets_larger_networks_fit(network_layers: dict[str, list[Layer]]) -> None:
    # MCUNet's reason for it: in a mobile network the expanded maps around a depthwise layer are the peak.
    device = load_device("stm32h743")
    tiny_engine = device.with_numbers(memory__in_place_depthwise=1)
    rows = [
        Layer(Op.CONV, 56, 56, 56, 56, 16, 96),
        Layer(Op.DEPTHWISE, 56, 56, 56, 56, 96, 96, 3, 3, groups=96),
        Layer(Op.CONV, 56, 56, 56, 56, 96, 16),
    ]
    work = Workload.of(stored(rows), LENGTH)
    assert shares_of(device, work)["SRAM"] > 1 and not bool(fits(price(device, work)))
    assert bool(fits(price(tiny_engine, work)))
    assert float(price(tiny_engine, work).latency_s) == float(price(device, work).latency_s)
    whole = Workload.of(stored(network_layers["mobilenet_v2"]), LENGTH)
    assert float(price(tiny_engine, whole).peak_memory_bytes) <= float(price(device, whole).peak_memory_bytes)


def test_flash_and_sram_are_hard_limits(tiny_networks: dict[str, list[Layer]]) -> None:
    small = load_device("stm32f446")
    for name in ("ic", "kws", "vww", "ad"):
        assert bool(fits(price(small, Workload.of(stored(tiny_networks[name]), LENGTH))))
    weights = Workload.of(stored([Layer(Op.LINEAR, 1, 1, 1, 1, 1000, 470)]), LENGTH)
    taken = shares_of(small, weights)
    assert taken["flash"] > 1 > taken["SRAM"] and not bool(fits(price(small, weights)))
    assert taken["flash"] == pytest.approx((470_000 + 81_920) / 524_288)
    maps = Workload.of(stored([Layer(Op.CONV, 60, 60, 60, 60, 16, 16)]), LENGTH)
    taken = shares_of(small, maps)
    assert taken["SRAM"] > 1 > taken["flash"] and not bool(fits(price(small, maps)))
    assert taken["SRAM"] == pytest.approx((2 * 60 * 60 * 16 + 20_480) / 131_072)
    assert bool(fits(price(load_device("stm32f746"), maps)))
    # Images of a batch run one after another: they take time, not memory.
    one, many = (price(small, weights, jnp.float32(batch)) for batch in (1, 7))
    assert float(many.latency_s) == pytest.approx(7 * float(one.latency_s), rel=1e-5)
    assert float(many.peak_memory_bytes) == float(one.peak_memory_bytes)


def test_sizes_of_the_thesis_fit_the_chips_that_it_says() -> None:
    # Guerra Fernandez, table 1.2 as worked out from it: FlyNet 0.5x (0.86 M weights) fits the flash of the chip of 1 MB
    # and not of that of 0.5 MB; 0.8x (1.6 M) only that of 2 MB.
    verdicts = {}
    for weights in (860_000, 1_600_000):
        work = Workload.of(stored([Layer(Op.LINEAR, 1, 1, 1, 1, 1000, weights // 1000)]), LENGTH)
        verdicts[weights] = [shares_of(load_device(name), work)["flash"] <= 1 for name in CHIPS]
    assert verdicts == {860_000: [False, True, True], 1_600_000: [False, False, True]}


def test_a_roofline_ranks_depthwise_layers_wrongly() -> None:
    """`separable` (depthwise and pointwise) against `dense` (1.6 times the products) on maps of the same size.

    A roofline by products, or by flash and SRAM traffic, says that `separable` is the faster one. A Cortex-M reuses
    nothing in a depthwise layer, pays a quarter of the rate and scales twice as many results: `dense` is faster.
    """
    device = load_device("stm32h743")
    separable = stored(
        [
            row
            for _ in range(4)
            for row in (
                Layer(Op.DEPTHWISE, 24, 24, 24, 24, 32, 32, 5, 5, groups=32),
                Layer(Op.CONV, 24, 24, 24, 24, 32, 32),
            )
        ]
    )
    dense = stored([Layer(Op.CONV, 24, 24, 24, 24, 16, 16, 3, 3)] * 5)
    assert 1.5 * macs_of(separable) < macs_of(dense) < 2 * macs_of(separable)
    peak = device.compute["clock_hz"] * device.compute["macs_per_cycle"]["int8"]
    roofline = []
    for rows in (separable, dense):
        seconds = 0.0
        for row in rows:
            maps = row.in_h * row.in_w * row.in_channels + row.out_h * row.out_w * row.out_channels
            moved = row.weights / device.memory["dram_bytes_per_s"] + maps / device.memory["sram_bytes_per_s"]
            seconds += max(row.macs / peak, moved)
        roofline.append(seconds)
    real = [float(price(device, Workload.of(rows, LENGTH)).latency_s) for rows in (separable, dense)]
    assert roofline[0] < roofline[1]
    assert 1.2 * real[1] < real[0]


def test_a_roofline_does_not_see_what_cannot_run(network_layers: dict[str, list[Layer]]) -> None:
    """`early` (few weights and products on large maps) against `late` (three times the products on small maps).

    `early` is the faster one by any count of operations, and its maps leave no room in SRAM; `late` runs.
    """
    device = load_device("stm32f446")
    early = stored([Layer(Op.CONV, 64, 64, 64, 64, 8, 24), Layer(Op.CONV, 64, 64, 64, 64, 24, 8)])
    late = stored([Layer(Op.CONV, 16, 16, 16, 16, 32, 64, 3, 3)])
    assert 2.5 * macs_of(early) < macs_of(late)
    early_costs, late_costs = (price(device, Workload.of(rows, LENGTH)) for rows in (early, late))
    assert float(early_costs.latency_s) < float(late_costs.latency_s)
    assert not bool(fits(early_costs)) and bool(fits(late_costs))


def test_energy_is_nearly_power_times_time(tiny_networks: dict[str, list[Layer]]) -> None:
    # Measured: 7.62 mJ for image classification on a Cortex-M7 at 280 MHz in 54.9 ms (X-CUBE-AI 8.0, MLPerf Tiny v1.1).
    device = load_device("stm32h743").with_numbers(compute__clock_hz=2.8e8)
    costs = price(device, Workload.of(stored(tiny_networks["ic"]), LENGTH))
    assert float(costs.energy_j) == pytest.approx(float(costs.latency_s) * device.energy["static_w"], rel=0.01)
    assert 0.5 < float(costs.energy_j) / 7.615e-3 < 3


@pytest.mark.parametrize("name", CHIPS)
def test_calibration_may_move_every_rate(name: str, tiny_networks: dict[str, list[Layer]]) -> None:
    device = load_device(name)
    work = Workload.of(stored(tiny_networks["vww"]), LENGTH)
    slopes = jax.jit(jax.grad(lambda numbers: estimate(numbers, work).latency_s))(device)
    for key in ("clock_hz", "depthwise_efficiency", "linear_efficiency"):
        assert float(slopes.compute[key]) < 0, key
    for key in ("output_cycles", "column_cycles", "op_overhead_s"):
        assert float(slopes.compute[key]) > 0, key
    assert np.isfinite([float(leaf) for leaf in jax.tree.leaves(slopes)]).all()
