"""What the shipped device files must agree with: vendors' figures, measured tables, and gains of narrow formats."""

from __future__ import annotations

import functools
import math
from importlib import resources

import jax
import jax.numpy as jnp
import pytest

from hw_models import Costs, Layer, Op, Workload, device_names, load_device
from hw_models.errors import InputError
from hw_models.estimate import explain, layer_costs
from hw_models.formats import parse_format
from hw_models.precision import apply_precision
from hw_models.testing import LENGTH, price, stored
from search_spaces.published import factory


@functools.cache
def network(name: str) -> Workload:
    return Workload.of(factory(name)().lower(), LENGTH)


def seconds(device: str, name: str, precision: str | None = None, batch: int = 1, fallback: bool = False) -> float:
    machine = load_device(device)
    work, _, _ = apply_precision(machine, network(name), precision, fallback)
    return float(price(machine, work, batch).latency_s)


def gain(device: str, name: str, narrow: str, wide: str = "float32", batch: int = 1) -> float:
    return seconds(device, name, wide, batch) / seconds(device, name, narrow, batch)


# Vendors' peaks in operations per second (two for each multiply-accumulate) of all that the file describes: one core of
# a TPU chip of two. Sources: NVIDIA's data sheets as in LLM-Viewer, mlco2/impact and the JAX scaling book; Cloud TPU
# documentation; AMD UG1354; coral.ai; Jouppi et al. 2017; Jetson Nano: NVIDIA.
PEAKS = [
    ("a100", "float32", 19.5e12),
    ("a100", "float16", 312e12),
    ("a100", "bfloat16", 312e12),
    ("a100", "int8", 624e12),
    ("h100", "float16", 989.5e12),
    ("h100", "int8", 1979e12),
    ("h200", "float16", 0.99e15),
    ("h200", "int8", 2.0e15),
    ("v100", "float32", 15.7e12),
    ("v100", "float16", 125e12),
    ("rtx_3090", "float32", 35.58e12),
    ("rtx_3090", "float16", 142e12 / 2),  # 142 with float16 sums; frameworks sum in float32
    ("titan_rtx", "float32", 16.31e12),
    ("titan_rtx", "float16", 130e12),
    ("rtx_2080_ti", "float32", 13.45e12),
    ("gtx_1080_ti", "float32", 11.34e12),
    ("jetson_nano", "float16", 472e9),
    ("tpu_v1", "int8", 92e12),
    ("tpu_v2", "bfloat16", 46e12 / 2),
    ("tpu_v3", "bfloat16", 123e12 / 2),
    ("tpu_v4", "bfloat16", 275e12 / 2),
    ("edge_tpu", "int8", 4e12),
    ("zcu102", "int8", 3.45e12),
    ("zcu104", "int8", 2.46e12),
]


@pytest.mark.parametrize(("name", "precision", "peak"), PEAKS)
def test_clock_times_units_times_multipliers_is_the_vendors_peak(name: str, precision: str, peak: float) -> None:
    compute = load_device(name).compute
    ours = 2 * compute["clock_hz"] * compute["units"] * compute["macs_per_cycle"][precision]
    assert ours == pytest.approx(peak, rel=0.02)


def test_all_cores_of_a_processor_reach_its_peak() -> None:
    compute = load_device("xeon_platinum_8480").compute  # 7.2 TFLOP/s: 56 cores at 2.0 GHz, 64 FLOP a cycle
    assert 2 * 56 * compute["clock_hz"] * compute["macs_per_cycle"]["float32"] == pytest.approx(7.2e12, rel=0.01)


@pytest.mark.parametrize("name", device_names())
def test_first_line_says_in_one_sentence_what_the_device_is(name: str) -> None:
    first = resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text().splitlines()[0]
    assert first.startswith("# ") and first.endswith(".") and 20 < len(first) < 120


@pytest.mark.parametrize("name", device_names())
def test_prices_common_networks_with_sane_numbers(name: str) -> None:
    device = load_device(name)
    prices = []
    for reference in ("mobilenet_v2", "resnet50"):
        work, _, _ = apply_precision(device, network(reference))
        costs: Costs = price(device, work)
        assert all(math.isfinite(float(leaf)) for leaf in costs)
        assert 1e-4 < float(costs.latency_s) < (100 if device.kind == "mcu" else 10)
        assert 0.1 < float(costs.energy_j / costs.latency_s) < 1000  # watts
        assert 0 < float(costs.mac_utilization) < 1
        prices.append(costs)
    assert float(prices[0].latency_s) < float(prices[1].latency_s)


# Schindler, dissertation (Heidelberg 2021): gains over float32 on four Cortex-A15 cores at 2.32 GHz, measured (table
# 4.2, mean over square matrices of 256 to 8192) and estimated from instruction counts (table 4.3).
MEASURED = {"int16": 0.463, "int8": 1.103, "int4": 0.858, "int2": 3.41, "int1": 18.7}
ESTIMATED = {"int16": 0.400, "int8": 0.667, "int4": 0.696, "int2": 2.462, "int1": 12.80}


@pytest.mark.parametrize(("name", "table"), [("cortex_a15", MEASURED), ("cortex_a15_instructions", ESTIMATED)])
@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_matrix_products_reproduce_the_gain_of_every_width(name: str, table: dict[str, float], size: int) -> None:
    device = load_device(name)
    product = Workload.of([Layer(Op.CONV, size, 1, size, 1, size, size)], LENGTH)

    def time(precision: str) -> float:
        return float(price(device, apply_precision(device, product, precision)[0]).latency_s)

    assert size**3 / time("float32") == pytest.approx(12e9, rel=0.05)
    for precision, expected in table.items():
        assert time("float32") / time(precision) == pytest.approx(expected, rel=0.06), precision


@pytest.mark.parametrize("name", ["w1a2", "w1a3", "w1a4", "w2a3", "int3", "w2a4", "w3a4"])
def test_bit_serial_products_take_a_binary_one_for_each_pair_of_bits(name: str) -> None:
    device = load_device("cortex_a15")
    product = Workload.of([Layer(Op.CONV, 1024, 1, 1024, 1, 1024, 1024)], LENGTH)

    def time(precision: str) -> float:
        return float(price(device, apply_precision(device, product, precision)[0]).latency_s)

    form = parse_format(name)
    assert time(name) / time("int1") == pytest.approx(form.weight_bits * form.act_bits, rel=0.06)
    # dissertation L654: good gains up to 3 bits, slightly better than integers at 4
    assert time("int4") > time(name)
    assert form.weight_bits + form.act_bits > 6 or time("float32") / time(name) > 2


def test_only_measured_tables_make_fewer_bits_slower() -> None:
    slower = set()
    for name in device_names():
        device = load_device(name)
        compute = device.compute
        rates = [compute["macs_per_cycle"][p] * compute["efficiency"][p] for p in device.precisions]
        if any(narrow < wide for wide, narrow in zip(rates, rates[1:], strict=False)):
            slower.add(name)
    assert slower == {"cortex_a15", "cortex_a15_instructions"}


# The same dissertation, chapter 4: TensorRT on ResNets of 18 to 152 layers, 224 x 224.
RESNETS = ("resnet18", "resnet50", "resnet152")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", RESNETS)
def test_jetson_gains_of_half_precision_and_int8_are_those_measured(name: str, batch: int) -> None:
    assert 2.2 <= gain("jetson_xavier", name, "float16", batch=batch) <= 2.7
    assert 3.4 <= gain("jetson_xavier", name, "int8", batch=batch) <= 4.2
    assert 1.8 <= gain("jetson_nano", name, "float16", batch=batch) <= 1.9


@pytest.mark.parametrize("name", ["jetson_nano", "jetson_xavier", "a100", "rtx_3090"])
def test_few_channels_are_never_slower_in_fewer_bits(name: str) -> None:
    device = load_device(name)
    shapes = [Layer(Op.CONV, 96, 96, 96, 96, c_in, out) for c_in in (1, 2, 3, 5, 8, 9) for out in (1, 8, 64)]
    times = []
    for precision in device.precisions:
        rows = [shape._replace(**parse_format(precision)._asdict()) for shape in shapes]
        times.append(jax.jit(layer_costs)(device, Workload.of(rows), 7.0).latency_s)
    for wide, narrow in zip(times, times[1:], strict=False):
        assert bool(jnp.all(narrow <= wide * (1 + 1e-5)))


def test_explain_names_the_wider_precision_that_few_channels_are_computed_in() -> None:
    rows = [stored(Layer(Op.CONV, 56, 56, 56, 56, channels, 64, 1, 1), "int8") for channels in (3, 64)]
    rows.append(stored(Layer(Op.ADD, 56, 56, 56, 56, 3, 3), "int8"))
    told = explain(load_device("jetson_xavier"), Workload.of(rows))
    assert [row["precision"] for row in told[:3]] == ["float16", "int8", "int8"]
    assert told[0]["note"] == "stored as int8, computed as float16"


@pytest.mark.parametrize("batch", [1, 8])
def test_jetson_nano_gains_nothing_from_int8(batch: int) -> None:
    with pytest.raises(InputError, match="int8"):
        seconds("jetson_nano", "resnet18", "int8", batch)
    carried = seconds("jetson_nano", "resnet18", "int8", batch, fallback=True)
    assert carried == pytest.approx(seconds("jetson_nano", "resnet18", "float16", batch), rel=0.01)


@pytest.mark.parametrize("name", ["pixel_1", "pixel_3", "raspberry_pi_4"])
def test_int8_gains_little_without_dot_product_instructions(name: str) -> None:
    # MobileNet-V3-Large, tensorflow/models: Pixel 1 51.2 -> 44 ms, Pixel 2 61 -> 42.5, Pixel 3 44 -> 32.
    assert 1.1 <= gain(name, "mobilenet_v3_large", "int8") <= 1.45


def test_vnni_gains_two_to_three_times_and_nothing_gains_four() -> None:
    assert 2 <= gain("xeon_vnni", "mobilenet_v3_large", "int8") <= 3
    for name in device_names():
        device = load_device(name)
        if device.kind == "cpu" and "int8" in device.precisions and name != "xeon_platinum_8480":  # matrix units
            assert 0.5 < gain(name, "mobilenet_v3_large", "int8") < 3.5, name


# Whole networks, milliseconds. Rates of the Pixels and the Cortex-A57 were set with these networks among others; the
# ZCU104 row is independent.
@pytest.mark.parametrize(
    ("device", "name", "precision", "measured_ms"),
    [
        ("pixel_1", "mobilenet_v2", "float32", 49),  # google/XNNPACK README 2020, one thread
        ("pixel_1", "mobilenet_v3_large", "float32", 39),
        ("pixel_1", "mobilenet_v3_large", "int8", 44),  # tensorflow/models, TFLite
        ("pixel_3", "mobilenet_v3_large", "float32", 44),
        ("pixel_3", "mobilenet_v3_large", "int8", 32),
        ("cortex_a57", "resnet44", "float32", 1000 / 69),  # Schindler 2021, chapter 5: images/s
        ("cortex_a57", "resnet44", "int8", 1000 / 100),
        ("zcu104", "resnet18", "int8", 1000 / 217.7),  # AMD UG1354 2.5, one thread
    ],
)
def test_within_a_factor_of_two_of_published_times(device: str, name: str, precision: str, measured_ms: float) -> None:
    assert 0.5 < seconds(device, name, precision) * 1e3 / measured_ms < 2


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("device", ["jetson_nano", "jetson_xavier", "rtx_3090", "a100"])
def test_pruned_groups_save_far_fewer_seconds_than_products(device: str, batch: int) -> None:
    # Schindler 2021, chapter 7: grouped convolutions keep their activations, and turn savings into next to no speed.
    machine, rows = load_device(device), factory("resnet18")().lower()
    grouped = [row._replace(groups=32) if row.op is Op.CONV and row.in_channels % 32 == 0 else row for row in rows]
    dense_s, grouped_s = (
        float(price(machine, apply_precision(machine, Workload.of(each, LENGTH))[0], batch).latency_s)
        for each in (rows, grouped)
    )
    assert sum(row.macs for row in rows) > 9 * sum(row.macs for row in grouped)
    assert grouped_s < dense_s < 2.2 * grouped_s
