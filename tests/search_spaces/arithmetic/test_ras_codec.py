"""Ternary layers come back exactly, and take what the entropy estimate says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hw_models.compression import ternary_bits
from hw_models.errors import InputError
from search_spaces.arithmetic.ras_codec import ESCAPE, decode, distances, encode, size

EXAMPLE = np.asarray([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0], [1, -1, 0, -1, -1]])


def thresholded(seed, count, density):
    """Gaussian weights, the smallest set to zero."""
    weights = np.random.default_rng(seed).normal(size=count)
    limit = np.quantile(np.abs(weights), 1 - density)
    return (np.sign(weights) * (np.abs(weights) > limit)).astype(np.int8)


def same(layers):
    data = encode(layers)
    decoded = decode(data)
    assert len(decoded) == len(layers)
    for before, after in zip(layers, decoded, strict=True):
        assert after.dtype == np.int8 and after.shape == np.shape(before)
        np.testing.assert_array_equal(after, before)
    assert sum(size(layers)) == 8 * len(data)


def test_the_published_example():
    """Dissertation, section 5.3: positions 1 2 4 5 8 10 11 13 14."""
    signs, apart = distances(EXAMPLE)
    assert "".join(map(str, signs)) == "001100111" and "".join(map(str, apart)) == "112132121"
    same([EXAMPLE])


@given(st.lists(arrays(np.int8, array_shapes(min_dims=0, max_dims=4, min_side=0), elements=st.integers(-1, 1))))
@settings(deadline=None)
def test_any_layers_come_back(layers):
    same(layers)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [np.zeros(0, np.int8)],
        [np.zeros((3, 0), np.int8), np.ones(1, np.int8)],
        [np.zeros((40, 50), np.int8)],
        [-np.ones((40, 50), np.int8)],
        [thresholded(0, 9000, 0.42).reshape(3, 3, 1000), thresholded(1, 100, 0.05)],
    ],
)
def test_edges_come_back(layers):
    same(layers)


@pytest.mark.parametrize("gap", [ESCAPE - 1, ESCAPE, ESCAPE + 1, 2 * ESCAPE - 1, 2 * ESCAPE, 10_000])
def test_long_distances_come_back(gap):
    layer = np.zeros(2 * gap + 3, np.int8)
    layer[[gap, 2 * gap, 2 * gap + 1]] = [1, -1, 1]
    assert distances(layer).distances.tolist() == [gap, gap, 1]
    same([layer])


@pytest.mark.parametrize("density", [0.1, 0.3, 0.42, 0.6])
def test_the_size_is_the_entropy_estimate(density):
    """Within 2 %, and never below: no code is shorter than the entropy."""
    count = 400_000
    report = size([thresholded(seed, count // 4, density) for seed in range(4)])
    estimate = float(ternary_bits(count, density))
    assert 1 <= (report.signs + report.distances) / estimate < 1.02
    assert report.overhead < 0.02 * estimate
    assert abs(sum(report) / estimate - 1) < 0.1


@pytest.mark.parametrize(("density", "published_kb"), [(0.42, 117), (0.37, 108), (0.29, 90)])
def test_published_footprints_of_resnet_44(density, published_kb):
    """Dissertation, section 5.4.4: 655 500 weights, three densities."""
    assert sum(size([thresholded(0, 655_500, density)])) / 8e3 == pytest.approx(published_kb, rel=0.08)


def test_the_table_of_codes_is_shared():
    layers = [thresholded(seed, 5000, 0.3) for seed in range(6)]
    alone = sum(size([layer]).overhead for layer in layers)
    assert size(layers).overhead < alone - 5 * 256 * 8


def test_data_that_were_not_encoded_are_named():
    data = encode([EXAMPLE, EXAMPLE])
    for bad, message in (
        (b"what", "the data start with b'what'"),
        (data[:-9], "within a layer: give all that encode returned"),
        (data[:100], "the data end at byte 100"),
        (data + b"??", "2 bytes follow the last layer"),
        (data.replace(bytes([5, 0, 0, 0]), bytes([4, 0, 0, 0])), "9 positions do not fit 9 non-zeros of shape"),
    ):
        with pytest.raises(InputError, match=message):
            decode(bad)
    with pytest.raises(InputError, match=r"ternary\[1\] is 2: give integers from -1 to 1"):
        encode([[0, 2]])
