"""What zeros and narrow formats gain: the compression matrix, device by device, and the published table of RaS."""

from __future__ import annotations

import math
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Device, InputError, Layer, Op, Workload, device_names, estimate
from hw_models.compression import kept_channels
from hw_models.compression_matrix import BITS, KINDS, ZEROS, Gain, as_markdown, gain_of
from hw_models.device_file import parse_device
from hw_models.keys import SPARSITY
from hw_models.testing import device_named, prices, stored
from hw_models.workload import Pattern

DEVICES = device_names()
PATTERNS = [pattern for pattern in Pattern if pattern is not Pattern.NONE]
DENSITIES = (0.9, 0.5, 0.3, 0.1)


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
