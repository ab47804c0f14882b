"""Bytes: peak activation memory and stored weights, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from hw_models import Layer, Op, Workload, estimate, load_device
from hw_models.compression import dense_weight_bytes, weight_bytes
from hw_models.memory import peak_memory_bytes
from hw_models.workload import Dtype, Pattern

CONV = Layer(Op.CONV, 8, 8, 8, 8, 16, 32, 3, 3, norm=1, held_elements=100)


def _stored(layer: Layer) -> float:
    return float(weight_bytes(Workload.of([layer])).sum())


def test_peak_is_input_output_and_held_of_the_worst_layer() -> None:
    small = Layer(Op.CONV, 4, 4, 4, 4, 8, 8)
    work = Workload.of([small, CONV], 5)
    assert peak_memory_bytes(work).tolist()[:2] == [4 * (128 + 128), 4 * (1024 + 2048 + 100)]
    costs = estimate(load_device("raspberry_pi_4"), work)
    assert float(costs.peak_memory_bytes) == 4 * (1024 + 2048 + 100)
    assert float(estimate(load_device("raspberry_pi_4"), work, 3).peak_memory_bytes) == 12 * (1024 + 2048 + 100)


def test_peak_follows_activation_bits() -> None:
    eight = CONV._replace(act_bits=8, act_dtype=Dtype.INT)
    assert float(peak_memory_bytes(Workload.of([eight]))[0]) == 1024 + 2048 + 100


def test_residual_addition_reads_two_operands() -> None:
    add = Layer(Op.ADD, 8, 8, 8, 8, 16, 16)
    assert float(peak_memory_bytes(Workload.of([add]))[0]) == 4 * 3 * 1024


def test_biases_take_32_bits_whatever_the_weights() -> None:
    weights = 9 * 16 * 32
    assert _stored(CONV) == weights * 4 + 32 * 4
    assert _stored(CONV._replace(weight_bits=8)) == weights + 32 * 4
    assert _stored(CONV._replace(weight_bits=4)) == weights / 2 + 32 * 4
    assert _stored(CONV._replace(norm=0)) == weights * 4


@pytest.mark.parametrize(
    ("pattern", "index_bits"),
    [
        (Pattern.UNSTRUCTURED, 9 * 16 * 32),
        (Pattern.COLUMN, 9 * 16),
        (Pattern.CHANNEL, 32),
        (Pattern.KERNEL, 16 * 32),
        (Pattern.BLOCK, 9 * 16 * 32 / 16),
        (Pattern.N_M, 9 * 16 * 32 * 0.5 * 2),
    ],
)
def test_sparse_weights_store_their_positions(pattern: Pattern, index_bits: float) -> None:
    weights = 9 * 16 * 32
    half = CONV._replace(density=0.5, pattern=pattern, weight_bits=8)
    assert _stored(half) == (weights * 0.5 * 8 + index_bits) / 8 + 32 * 4


def test_sparse_never_stores_more_than_dense() -> None:
    for density in (1.0, 0.99, 0.9):
        for pattern in Pattern:
            layer = CONV._replace(density=density, pattern=pattern, weight_bits=2)
            dense = float(dense_weight_bytes(Workload.of([layer])).sum())
            assert _stored(layer) <= dense
    assert _stored(CONV._replace(density=0.5)) == _stored(CONV)  # no pattern: the zeros are not exploited


def test_layers_without_weights_store_nothing() -> None:
    assert _stored(Layer(Op.POOL, 8, 8, 4, 4, 16, 16, 2, 2, 2)) == 0
    assert float(weight_bytes(Workload.of([CONV], 3))[1:].sum()) == 0
