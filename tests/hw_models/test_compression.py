"""What zeros and narrow formats gain: the compression matrix, device by device, and the published table of RaS."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Costs, Device, InputError, Layer, Op, Workload, device_names, estimate, load_device
from hw_models.compression import is_ternary, kept_channels, ternary_bits, weight_bytes
from hw_models.compression_matrix import BITS, KINDS, ZEROS, Gain, as_markdown, gain_of
from hw_models.costs import LayerCosts
from hw_models.device_file import parse_device
from hw_models.estimate import apply_precision, explain, layer_costs, run_of
from hw_models.formats import FLOATS, parse_format
from hw_models.keys import SPARSITY
from hw_models.remarks import computes_in, remarks
from hw_models.workload import Dtype, Pattern
from search_spaces.published import factory

DEVICES = device_names()
PATTERNS = [pattern for pattern in Pattern if pattern is not Pattern.NONE]
DENSITIES = (0.9, 0.5, 0.3, 0.1)
LENGTH = 256  # one length for all workloads keeps the number of compilations small
_price_layers = jax.jit(layer_costs)
_price = jax.jit(estimate)


@functools.cache
def device_named(name: str) -> Device:
    return load_device(name)


def stored(layer: Layer, precision: str) -> Layer:
    return layer._replace(**parse_format(precision)._asdict())


def prices(device: Device, rows: list[Layer]) -> LayerCosts:
    """Costs of layers, numpy `[len(rows)]`."""
    costs = _price_layers(device.unnamed(), Workload.of(rows, LENGTH))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(rows)], costs)


def edited(name: str, section: str, **numbers: float) -> Device:
    """A shipped device whose file has one more (or another) section `[sparsity.<section>]`."""
    data = tomllib.loads(resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text())
    data.setdefault("sparsity", {})[section] = numbers
    return parse_device(data, name)


def without(device: Device) -> Device:
    """The same device, which opts in to nothing."""
    data = device.to_json()
    del data["sparsity"]
    return parse_device(data, device.name)


# ---- the matrix


def test_docs_hold_the_matrix() -> None:
    text = (Path(__file__).parents[2] / "docs" / "compression.md").read_text()
    assert as_markdown() in text


def test_matrix_has_every_pattern_and_kind() -> None:
    assert set(ZEROS) == set(SPARSITY) == {p.name.lower() for p in PATTERNS} | {"ternary"}
    assert all(len(row) == len(KINDS) for row in [*ZEROS.values(), *BITS.values()])


@pytest.mark.parametrize("name", DEVICES)
def test_devices_opt_in_to_what_their_kind_can_gain(name: str) -> None:
    device = device_named(name)
    assert device.kind in KINDS
    assert all(gain_of(device.kind, pattern) is not Gain.STORAGE for pattern in device.sparsity)


@pytest.mark.parametrize(("name", "pattern"), [("a100", "unstructured"), ("tpu_v2", "n_m"), ("zcu102", "block")])
def test_a_file_cannot_opt_in_to_what_its_kind_cannot_gain(name: str, pattern: str) -> None:
    with pytest.raises(InputError, match=f"gain nothing from 'sparsity.{pattern}': remove it"):
        edited(name, pattern, threshold=0.5, factor=2.0)


def _rows(precision: str) -> list[Layer]:
    """Layers with every pattern and density, the dense layer first in each group of five."""
    bases = [
        Layer(Op.CONV, 28, 28, 28, 28, 256, 256, 1, 1, norm=1),
        Layer(Op.CONV, 28, 28, 28, 28, 256, 256, 3, 3, norm=1),
        Layer(Op.CONV, 14, 14, 14, 14, 96, 90, 3, 3, groups=2),
        Layer(Op.DEPTHWISE, 28, 28, 28, 28, 128, 128, 3, 3, groups=128),
        Layer(Op.LINEAR, 1, 1, 1, 1, 512, 1000, bias=1),
        Layer(Op.CHANNEL_CONV, 128, 1, 128, 1, 1, 1, 3),
        Layer(Op.ADD, 28, 28, 28, 28, 64, 64),
    ]
    rows = []
    for base in bases:
        dense = stored(base, precision)
        for pattern in PATTERNS:
            rows += [dense, *(dense._replace(density=d, pattern=pattern) for d in DENSITIES)]
    return rows


@pytest.mark.parametrize("name", DEVICES)
def test_density_helps_only_where_the_device_opted_in_and_never_costs(name: str) -> None:
    device = device_named(name)
    rows = _rows(device.default_precision)
    costs = prices(device, rows)
    step = len(DENSITIES) + 1
    for start in range(0, len(rows), step):
        for i in range(start + 1, start + step):
            name_of = rows[i].pattern.name.lower()
            for field in ("latency_s", "energy_j", "compute_s", "peak_memory_bytes"):
                dense, sparse = getattr(costs, field)[start], getattr(costs, field)[i]
                assert sparse <= dense * (1 + 1e-6), (rows[i], field)
                if name_of not in device.sparsity or rows[i].density > device.sparsity[name_of]["threshold"]:
                    assert sparse == dense, (rows[i], field)
            assert costs.weight_bytes[i] <= costs.weight_bytes[start]
            if rows[i].weights > 100 and rows[i].density < 0.5:
                assert costs.weight_bytes[i] < costs.weight_bytes[start]


@pytest.mark.parametrize("name", ["pixel_3", "cortex_a57", "a100", "zcu102", "tpu_v2"])
def test_without_any_section_density_changes_storage_alone(name: str) -> None:
    device = device_named(name)
    rows = _rows(device.default_precision)
    opted, closed = prices(device, rows), prices(without(device), rows)
    assert closed.weight_bytes.tolist() == opted.weight_bytes.tolist()
    for field in ("latency_s", "energy_j", "compute_s", "peak_memory_bytes"):
        groups = getattr(closed, field).reshape(-1, len(DENSITIES) + 1)
        assert np.all(groups == groups[:, :1]), field


@pytest.mark.parametrize("name", DEVICES)
def test_density_is_never_a_straight_line(name: str) -> None:
    device = device_named(name)
    layer = stored(Layer(Op.CONV, 28, 28, 28, 28, 256, 256), device.default_precision)
    rows = [layer._replace(density=d / 32, pattern=pattern) for pattern in PATTERNS for d in range(1, 33)]
    for pattern, times in zip(PATTERNS, prices(device, rows).compute_s.reshape(-1, 32), strict=True):
        if pattern is not Pattern.CHANNEL or "channel" not in device.sparsity:
            assert len(np.unique(times)) <= 2, pattern


@pytest.mark.parametrize("name", DEVICES)
def test_channel_density_is_the_smaller_layer(name: str) -> None:
    device = device_named(name)
    if "channel" not in device.sparsity:
        pytest.skip("did not opt in")
    pruned, small = [], []
    for shape in (
        Layer(Op.CONV, 28, 28, 28, 28, 64, 100, 3, 3, norm=1),
        Layer(Op.CONV, 28, 28, 28, 28, 64, 96, 3, 3, groups=4),
        Layer(Op.LINEAR, 1, 1, 1, 1, 300, 77, bias=1),
        Layer(Op.DEPTHWISE, 28, 28, 28, 28, 100, 100, 3, 3, groups=100),
    ):
        layer = stored(shape, device.default_precision)
        for density in (1.0, 0.77, 0.501, 0.26, 0.01):
            depthwise = layer.op is Op.DEPTHWISE
            groups = 1 if depthwise else layer.groups  # whole channels in every group
            kept = groups * math.ceil(layer.out_channels / groups * density - 1e-6)
            narrow = layer._replace(out_channels=kept)
            pruned.append(layer._replace(density=density, pattern=Pattern.CHANNEL))
            small.append(narrow._replace(in_channels=kept, groups=kept) if depthwise else narrow)
    ours, oracle = prices(device, pruned), prices(device, small)
    for field in ("latency_s", "energy_j", "compute_s", "peak_memory_bytes"):
        assert getattr(ours, field) == pytest.approx(getattr(oracle, field), rel=1e-5), field
    assert ours.macs.tolist() == [layer.macs for layer in pruned]  # the network's multiplications, zeros counted


@pytest.mark.parametrize("channels", [30, 300, 512, 1000])
def test_a_share_of_channels_keeps_that_many(channels: int) -> None:
    kept = np.arange(1, channels + 1)
    layer = Layer(Op.CONV, 8, 8, 8, 8, 64, channels, pattern=Pattern.CHANNEL)
    work = Workload.of([layer._replace(density=float(k / channels)) for k in kept])
    assert kept_channels(device_named("a100"), work).out_channels.tolist() == kept.tolist()


@pytest.mark.parametrize(
    ("name", "small", "tile"), [("a100", 65, 128), ("zcu102", 49, 64), ("tpu_v2", 129, 256), ("pixel_3", 57, 64)]
)
def test_kept_channels_fill_whole_tiles(name: str, small: int, tile: int) -> None:
    device = device_named(name)
    hw = 224 if device.kind == "gpu" else 56  # many waves of tiles
    layer = stored(Layer(Op.CONV, hw, hw, hw, hw, 256, 512, 3, 3), device.default_precision)
    rows = [layer._replace(density=kept / 512, pattern=Pattern.CHANNEL) for kept in (small - 1, small, tile)]
    closed = device.with_numbers(memory__dram_bytes_per_s=1e15, memory__sram_bytes_per_s=1e15)
    if device.kind == "fpga":
        closed = closed.with_numbers(memory__port_bytes_per_s=1e15)
    below, just, full = prices(closed, rows).latency_s.tolist()
    assert just == pytest.approx(full, rel=1e-2)
    assert below < 0.95 * just


# ---- patterns with a factor


def _gain(device: Device, layer: Layer, **zeros: Any) -> float:
    dense, sparse = prices(device, [layer, layer._replace(**zeros)]).compute_s.tolist()
    return float(dense / sparse)


@pytest.mark.parametrize(
    ("precision", "channels", "outputs", "gain"),
    [
        ("float16", 64, 64, 2),
        ("float16", 32, 16, 2),
        ("float16", 48, 64, 1),  # half a tensor instruction of 32 channels
        ("float16", 64, 24, 1),
        ("int8", 64, 64, 2),
        ("int8", 32, 64, 1),  # half an instruction of 64 channels
        ("float32", 64, 64, 1),  # 1:2 there, and ordinary units
    ],
)
def test_two_of_four_needs_whole_tensor_instructions(precision: str, channels: int, outputs: int, gain: int) -> None:
    layer = stored(Layer(Op.CONV, 28, 28, 28, 28, channels, outputs, 3, 3), precision)
    a100 = device_named("a100")
    assert _gain(a100, layer, density=0.5, pattern=Pattern.N_M) == pytest.approx(gain, rel=1e-5)
    assert _gain(a100, layer, density=0.6, pattern=Pattern.N_M) == 1
    assert _gain(a100, layer, density=0.5, pattern=Pattern.UNSTRUCTURED) == 1


@pytest.mark.parametrize("op", [Op.DEPTHWISE, Op.CHANNEL_CONV])
def test_density_never_speeds_up_layers_that_do_not_mix_channels(op: Op) -> None:
    layer = stored(Layer(op, 28, 28, 28, 28, 64, 64, 3, 3, groups=64), "float16")
    assert _gain(device_named("a100"), layer, density=0.5, pattern=Pattern.N_M) == 1


def test_unstructured_zeros_gain_in_pointwise_floating_point_below_a_third() -> None:
    pixel = device_named("pixel_3")
    pointwise = Layer(Op.CONV, 28, 28, 28, 28, 64, 64)
    sparse = {"density": 0.3, "pattern": Pattern.UNSTRUCTURED}
    assert _gain(pixel, pointwise, **sparse) == pytest.approx(1.3, rel=1e-5)
    assert _gain(pixel, pointwise, **sparse | {"density": 0.34}) == 1
    assert _gain(pixel, pointwise._replace(kernel_h=3, kernel_w=3), **sparse) == 1
    assert _gain(pixel, pointwise._replace(groups=2), **sparse) == 1
    assert _gain(pixel, stored(pointwise, "int8"), **sparse) == 1


def test_an_efficiency_makes_the_gain_a_capped_inverse_of_the_density() -> None:
    device = edited("pixel_3", "block", threshold=0.5, efficiency=0.8, factor=4.0)
    layer = Layer(Op.CONV, 28, 28, 28, 28, 64, 64, 3, 3)
    gains = [_gain(device, layer, density=d, pattern=Pattern.BLOCK) for d in (0.9, 0.51, 0.5, 0.4, 0.25, 0.2, 0.05)]
    assert gains == pytest.approx([1, 1, 1.6, 2, 3.2, 4, 4], rel=1e-5)


def test_densities_are_differentiable_and_finite() -> None:
    device = edited("cortex_a57", "block", threshold=1.0, efficiency=0.8, factor=4.0)
    base = Layer(Op.CONV, 28, 28, 28, 28, 64, 64, 3, 3)
    ternary = stored(base, "int8")._replace(weight_bits=2)
    rows = [base._replace(pattern=p) for p in PATTERNS] + [ternary._replace(pattern=Pattern.UNSTRUCTURED)]
    work = Workload.of(rows)

    def price(density: jax.Array) -> jax.Array:
        costs = estimate(device, work._replace(density=density))
        return costs.latency_s * 1e3 + costs.energy_j + costs.weight_bytes / 1e6

    for density in (0.0, 0.3, 1.0):
        slope = jax.jit(jax.grad(price))(jnp.full(len(rows), density))
        assert bool(jnp.all(jnp.isfinite(slope)))


# ---- reduce and scale: Schindler, dissertation (Heidelberg 2021), tables 5.3 and 5.5, ResNet-44 on four Cortex-A57
# cores; first and last layer in float32, batch 1. Images per second.

RESNET_44 = {"float32": 69, "int8": 100, "binary": 532}
RESNET_44_RAS = {0.42: 191, 0.37: 255, 0.29: 293}  # density: images per second


@functools.cache
def _resnet_44(weight_bits: int, act_bits: int, density: float = 1.0) -> Costs:
    rows = factory("resnet44")().lower()
    multiplying = [i for i, row in enumerate(rows) if row.multiplies]
    quantized = []
    for i, row in enumerate(rows):
        if weight_bits < 32 and i not in (multiplying[0], multiplying[-1]):
            row = row._replace(weight_dtype=Dtype.INT, weight_bits=weight_bits, act_dtype=Dtype.INT, act_bits=act_bits)
            if row.multiplies and density < 1:
                row = row._replace(density=density, pattern=Pattern.UNSTRUCTURED)
        quantized.append(row)
    return jax.tree.map(float, _price(device_named("cortex_a57"), Workload.of(quantized)))


def test_reduce_and_scale_reproduces_the_measured_rates() -> None:
    rates = {d: 1 / _resnet_44(2, 8, d).latency_s for d in RESNET_44_RAS}
    errors = [rates[d] / measured - 1 for d, measured in RESNET_44_RAS.items()]
    assert max(abs(error) for error in errors) < 0.12
    assert 1 / _resnet_44(32, 32).latency_s == pytest.approx(RESNET_44["float32"], rel=0.1)
    assert 1 / _resnet_44(8, 8).latency_s == pytest.approx(RESNET_44["int8"], rel=0.1)
    assert 1 / _resnet_44(1, 1).latency_s == pytest.approx(RESNET_44["binary"], rel=0.1)


def test_reduce_and_scale_lies_between_int8_and_binary_and_falls_with_density() -> None:
    densities = (1.0, 0.9, 0.6, 0.5, 0.42, 0.37, 0.29, 0.2)
    times = [_resnet_44(2, 8, d).latency_s for d in densities]
    assert all(later <= sooner for sooner, later in zip(times, times[1:], strict=False))
    assert times[-1] < times[5] < times[3]
    assert _resnet_44(1, 1).latency_s < times[5] < times[4] < _resnet_44(8, 8).latency_s
    energies = [_resnet_44(2, 8, d).energy_j for d in densities]
    assert all(later <= sooner for sooner, later in zip(energies, energies[1:], strict=False))


def test_only_ternary_weights_are_reduced() -> None:
    device = device_named("cortex_a57")
    base = stored(Layer(Op.CONV, 28, 28, 28, 28, 64, 64, 3, 3), "int8")
    sparse = {"density": 0.2, "pattern": Pattern.UNSTRUCTURED}
    assert _gain(device, base._replace(weight_bits=2), **sparse) == pytest.approx(1.05 / 0.2, rel=1e-5)
    assert _gain(device, base, **sparse) == 1
    assert _gain(device, base._replace(weight_bits=4), **sparse) == 1
    assert _gain(device, base._replace(weight_bits=2), density=0.2, pattern=Pattern.KERNEL) == 1
    assert _gain(device, base._replace(weight_bits=2), density=0.6, pattern=Pattern.UNSTRUCTURED) == 1
    for other in ("raspberry_pi_4", "a100", "tpu_v1", "zcu102"):
        assert _gain(device_named(other), base._replace(weight_bits=2), **sparse) == 1


# Weights, density, bytes that are not ternary, bytes measured: dissertation tables 5.3 to 5.6, kB and MB of 1000.
FOOTPRINTS = [
    (655_500, 0.42, 0, 117e3),
    (655_500, 0.37, 0, 108e3),
    (655_500, 0.29, 0, 90e3),
    (56.9e6, 0.32, 0, 8.7e6),
    (56.9e6, 0.37, 16.4e6, 25e6),
    (56.9e6, 0.22, 16.4e6, 22e6),
    (56.9e6, 0.12, 16.4e6, 19e6),
]


@pytest.mark.parametrize(("weights", "density", "more", "measured"), FOOTPRINTS)
def test_huffman_coded_ternary_weights_take_what_was_measured(
    weights: float, density: float, more: float, measured: float
) -> None:
    assert float(ternary_bits(weights, density)) / 8 + more == pytest.approx(measured, rel=0.11)


def test_networks_store_their_ternary_layers_that_way() -> None:
    layer = Layer(
        Op.CONV, 8, 8, 8, 8, 64, 64, 3, 3, 1, weight_dtype=Dtype.INT, weight_bits=2, act_dtype=Dtype.INT, act_bits=8
    )
    sparse = layer._replace(density=0.3, pattern=Pattern.UNSTRUCTURED)
    assert is_ternary(Workload.of([layer, sparse])).tolist() == [False, True]
    entropy = -(0.3 * math.log2(0.3) + 0.7 * math.log2(0.7))
    assert float(weight_bytes(Workload.of([sparse]))[0]) == pytest.approx(layer.weights * (0.3 + entropy) / 8, rel=1e-4)
    assert float(weight_bytes(Workload.of([layer]))[0]) == layer.weights * 2 / 8


# ---- bits


def _holding(device: Device, bits: int) -> list[tuple[int, str]]:
    """Independent of the models: precisions that hold integers of that many bits exactly."""
    exact = {"float32": 24, "float16": 11, "bfloat16": 8}
    found = []
    for name in device.precisions:
        form = parse_format(name)
        limits = (form.weight_bits, form.act_bits) if form.weight_dtype is Dtype.INT else (exact[name], exact[name])
        if bits <= min(limits):
            found.append((form.weight_bits + form.act_bits, name))
    return sorted(found)


@pytest.mark.parametrize("name", DEVICES)
def test_integers_run_at_the_next_width_up_and_keep_their_bits(name: str) -> None:
    device = device_named(name)
    layer = Layer(Op.CONV, 14, 14, 14, 14, 64, 64, 3, 3)
    widths = (1, 2, 3, 4, 6, 8)
    work = Workload.of([stored(layer, f"int{bits}") for bits in widths])
    run = run_of(device, work)
    assert weight_bytes(work).tolist() == [layer.weights * bits / 8 for bits in widths]
    any_width = BITS["below 8 bits"][KINDS.index(device.kind)] is Gain.ANY_WIDTH
    shown = zip(widths, computes_in(device, work, run), remarks(device, work, run), strict=True)
    for i, (bits, computed, note) in enumerate(shown):
        if any_width:
            assert (float(run.weight_bits[i]), computed, note) == (bits, f"int{bits}", "")
        else:
            holding = _holding(device, bits)
            width = holding[0][0]
            assert float(run.weight_bits[i] + run.act_bits[i]) == width
            assert computed in [other for size, other in holding if size == width]
            assert note == ("" if computed == f"int{bits}" else f"stored as int{bits}, computed as {computed}")


@pytest.mark.parametrize("name", DEVICES)
def test_narrow_formats_gain_time_only_where_the_matrix_says_so(name: str) -> None:
    device = device_named(name)
    layer = Layer(Op.CONV, 28, 28, 28, 28, 128, 128, 3, 3)
    names = ("int8", "int6", "int4", "int3", "float32", "float16")
    costs = prices(device, [stored(layer, precision) for precision in names])
    times, fit = (dict(zip(names, leaf.tolist(), strict=True)) for leaf in (costs.compute_s, costs.resource_fraction))
    kind = KINDS.index(device.kind)
    if BITS["below 8 bits"][kind] is Gain.NEXT_WIDTH:
        assert times["int8"] == times["int6"] == times["int4"] == times["int3"]
    if BITS["float16"][kind] is Gain.REFUSED:
        assert fit["float16"] > 1
    elif "float16" not in device.precisions and "float32" in device.precisions:
        assert times["float16"] == times["float32"]
    if not any(precision in FLOATS for precision in device.precisions):
        assert fit["float32"] > 1
        with pytest.raises(InputError, match="choose one of"):
            apply_precision(device, Workload.of([layer]), "float32")


# ---- explain

CASES: list[tuple[str, Callable[[Layer], Layer], str]] = [
    ("pixel_3", lambda x: stored(x, "w4a8"), "stored as w4a8, computed as int8"),
    ("pixel_3", lambda x: stored(x, "int8"), ""),
    ("pixel_3", lambda x: stored(x, "float16"), "stored as float16, computed as float32"),
    ("edge_tpu", lambda x: x, "edge_tpu cannot compute in float32"),
    ("pixel_3", lambda x: x._replace(density=0.5), "zeros without a pattern save nothing"),
    (
        "tpu_v2",
        lambda x: stored(x, "bfloat16")._replace(density=0.5, pattern=Pattern.N_M),
        "n_m zeros only shrink storage, tpu_v2 has no [sparsity.n_m]",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.5, pattern=Pattern.N_M),
        "n_m zeros: 2 times as fast",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.75, pattern=Pattern.N_M),
        "n_m zeros only shrink storage, density 0.75 is above 0.5",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.5, pattern=Pattern.N_M, in_channels=48),
        "n_m zeros only shrink storage, they gain in 8 or 16 bits",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.26, pattern=Pattern.CHANNEL),
        "17 of 64 channels kept, the smaller layer",
    ),
    (
        "pixel_3",
        lambda x: x._replace(density=0.1, pattern=Pattern.UNSTRUCTURED),
        "unstructured zeros only shrink storage, they gain in 1x1 convolutions",
    ),
    (
        "cortex_a57",
        lambda x: stored(x, "w2a8")._replace(density=0.21, pattern=Pattern.UNSTRUCTURED),
        "stored as w2a8, computed by adding int8 activations; unstructured zeros: 5 times as fast",
    ),
]


@pytest.mark.parametrize(("name", "change", "note"), CASES)
def test_explain_says_what_is_computed_and_why_zeros_gain(
    name: str, change: Callable[[Layer], Layer], note: str
) -> None:
    row = explain(device_named(name), Workload.of([change(Layer(Op.CONV, 28, 28, 28, 28, 64, 64, 3, 3))]))[0]
    assert row["note"].startswith(note) and bool(row["note"]) == bool(note)
    assert row["precision"] in device_named(name).precisions
