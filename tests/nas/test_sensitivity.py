"""The rise of the loss by layer and option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.sensitivity import sensitivities

OPTIONS = [(2, 32), (4, 8), (8, 8), (32, 32)]
WEIGHT = np.asarray([[1.0, 0.5], [3.0, 0.0], [0.2, 2.0]])  # of layers, for weights and activations


def rise(bits):
    return np.where(bits < 32, 2.0 ** -np.asarray(bits, float), 0.0)


def judge(bits):
    return 0.7 + (WEIGHT * rise(bits)).sum((1, 2))


@pytest.mark.parametrize("batch", [1, 4, 5, 100])
def test_every_layer_is_changed_alone(batch):
    found = sensitivities(judge, 3, OPTIONS, batch)
    expected = (WEIGHT[:, None] * rise(np.asarray(OPTIONS))[None]).sum(-1)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(found, sensitivities(judge, 3, OPTIONS, batch))
    assert found.shape == (3, 4) and (found[:, 3] == 0).all()


def test_a_compiled_judge_is_compiled_once():
    traces = []

    @jax.jit
    def compiled(bits):
        traces.append(bits.dtype)
        return jnp.exp2(-bits.astype(jnp.float32)).sum((1, 2))

    assert sensitivities(compiled, 3, OPTIONS, 5).shape == (3, 4)
    assert traces == [jnp.int32]


def test_gains_count_as_nothing_and_what_diverges_as_infinite():
    found = sensitivities(lambda bits: np.where((bits == 2).any((1, 2)), np.nan, (bits == 32).mean((1, 2))), 2, OPTIONS)
    assert np.isinf(found[:, 0]).all() and (found[:, 1:] == 0).all()


@pytest.mark.parametrize(
    ("options", "judge", "said"),
    [
        ([], judge, "options are empty"),
        ([(2, 8, 8)], judge, r"option \(2, 8, 8\) is not allowed"),
        ([(0, 8)], judge, "bits 0 is not allowed: give a whole number from 1 to 32"),
        ([(2.5, 8)], judge, "bits 2.5 is not allowed"),
        (OPTIONS, lambda bits: 1.0, r"losses of shape \(\) for 13 rows"),
        (OPTIONS, lambda bits: np.full(len(bits), np.nan), "the loss at full precision is nan"),
    ],
)
def test_bad_options_and_judges_are_named(options, judge, said):
    with pytest.raises(InputError, match=said):
        sensitivities(judge, 3, options)
