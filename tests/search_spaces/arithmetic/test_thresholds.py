"""A folded threshold gives the signs of the batch normalisation bit by bit, at every accumulator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.arithmetic.thresholds import BatchNorm, batch_norm_sign, fold, fold_batch_norm, signs_of

EVERY_INT16 = np.arange(-(2**15), 2**15)


def random_norm(seed, channels):
    rng = np.random.default_rng(seed)
    gamma = rng.normal(size=channels) * 10.0 ** rng.integers(-6, 3, channels)
    gamma[:: max(channels // 4, 1)] = 0.0
    mean = rng.integers(-400, 400, channels) / 2.0  # halves and wholes: ties with an accumulator are common
    beta = np.where(rng.random(channels) < 0.4, 0.0, rng.normal(size=channels))
    return BatchNorm(gamma, beta, mean, rng.uniform(0, 900, channels), 1e-5)


@pytest.mark.parametrize("step", [1.0, 0.1, -0.037])
def test_all_16_bit_accumulators_agree(step):
    norm = random_norm(0, 64)
    folded = fold_batch_norm(norm, step, 16)
    sums = np.broadcast_to(EVERY_INT16[:, None], (2**16, 64))
    np.testing.assert_array_equal(signs_of(sums, folded), batch_norm_sign(sums, norm, step))
    assert bool(folded.flipped.any()) and not bool(folded.flipped.all())


def test_32_bit_accumulators_agree_around_the_threshold_and_at_the_ends():
    norm = random_norm(1, 256)
    folded = fold_batch_norm(norm, 1e-4)
    near = np.clip(np.asarray(folded.threshold, np.int64) + np.arange(-40, 41)[:, None], -(2**31), 2**31 - 1)
    far = np.random.default_rng(0).integers(-(2**31), 2**31, (500, 256))
    ends = np.broadcast_to([[-(2**31)], [2**31 - 1]], (2, 256))
    for sums in (near, far, ends):
        sums = sums.astype(np.int32)
        np.testing.assert_array_equal(signs_of(sums, folded), batch_norm_sign(sums, norm, 1e-4))


def test_negative_and_zero_gammas_and_the_sign_of_zero():
    norm = BatchNorm([1.0, -1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0, 0.0], [3.0] * 5, [1.0] * 5, 0.0)
    folded = fold_batch_norm(norm, accumulator_bits=8)
    sums = np.arange(-128, 128)[:, None] * np.ones(5, np.int32)
    signs = np.asarray(signs_of(sums, folded))
    assert signs[128 + 3].tolist() == [1, 1, 1, -1, 1]  # a sum of 3 is normalised to 0
    assert signs[128 + 2].tolist() == [-1, 1, 1, -1, 1] and signs[128 + 4].tolist() == [1, -1, 1, -1, 1]
    assert (signs[:, 2:] == [1, -1, 1]).all()


def test_a_compiled_layer_is_folded_with_its_own_roundings():
    norm = random_norm(2, 32)
    gamma, beta, mean, variance = (jnp.asarray(value, jnp.float32) for value in norm[:4])

    @jax.jit
    def layer(sums):
        scale = gamma * jax.lax.rsqrt(variance + norm.epsilon)
        return jnp.where((sums.astype(jnp.float32) * 0.3 - mean) * scale + beta >= 0, 1, -1)

    folded = fold(layer, 32, 16)
    sums = jnp.asarray(EVERY_INT16, jnp.int32)
    by_row = jax.lax.map(layer, jnp.broadcast_to(sums[:, None], (2**16, 32)))
    np.testing.assert_array_equal(signs_of(sums[:, None], folded), by_row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": [np.nan]}, "gamma of a batch normalisation is not finite"),
        ({"variance": [0.0], "epsilon": 0.0}, r"variance \+ epsilon of a batch normalisation is not above 0"),
        ({"gamma": [1e38]}, "overflows float32: give a smaller gamma or step, or fewer accumulator bits"),
    ],
)
def test_parameters_that_cannot_be_folded_are_named(change, message):
    norm = BatchNorm([1.0], [0.0], [0.0], [1.0])
    with pytest.raises(InputError, match=message):
        fold_batch_norm(norm._replace(**change))


def test_signs_compile_once_for_all_thresholds():
    traces = []

    @jax.jit
    def run(sums, thresholds):
        traces.append(1)
        return signs_of(sums, thresholds)

    for seed in range(2):
        norm = random_norm(seed, 16)
        sums = np.random.default_rng(seed).integers(-999, 999, (7, 16)).astype(np.int32)
        np.testing.assert_array_equal(run(sums, fold_batch_norm(norm)), batch_norm_sign(sums, norm))
    assert len(traces) == 1
