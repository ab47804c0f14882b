"""Ternary weights: reduce and scale against the published rates and footprints.

Schindler, dissertation (Heidelberg 2021), tables 5.3 and 5.5: ResNet-44 on four Cortex-A57 cores; first and last layer
in float32, batch 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import pytest

from hw_models import Costs, Device, Layer, Op, Workload, estimate
from hw_models.compression import is_ternary, ternary_bits, weight_bytes
from hw_models.testing import device_named, prices, stored
from hw_models.workload import Dtype, Pattern
from search_spaces.published import factory

_price = jax.jit(estimate)


def _gain(device: Device, layer: Layer, **zeros: Any) -> float:
    dense, sparse = prices(device, [layer, layer._replace(**zeros)]).compute_s.tolist()
    return float(dense / sparse)


RESNET_44 = {"float32": 69, "int8": 100, "binary": 532}  # images per second
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
