"""The evaluator of zero-cost proxies: what its numbers are, and that one program serves all networks."""

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.evaluators import proxy
from nas.testing_evaluators import Compilations
from search_spaces.spaces import mobilenet_v3, tiny

DIGITS = {"data": "digits", "validation": 200, "batch": 16}


def sampled(space, count, seed=0):
    return np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(seed), count)))


@pytest.mark.parametrize("name", proxy.COUNTS)
def test_counts_are_those_of_the_frozen_networks(name):
    space = tiny.space()
    judge = proxy.evaluator(space, proxy=name)
    genes = sampled(space, 5)
    errors = judge.evaluate(None, judge.init(jax.random.key(0)), genes, np.arange(5)).error
    assert errors.tolist() == [-float(getattr(space.freeze(row), name)) for row in genes]


def test_counts_know_the_resolution():
    space = mobilenet_v3.space()
    assert space.resolutions
    genes = sampled(space, 3)
    judge = proxy.evaluator(space, proxy="macs")
    errors = np.asarray(judge.evaluate(None, judge.init(jax.random.key(0)), genes, np.arange(3)).error, np.float64)
    np.testing.assert_allclose(-errors, [space.freeze(row).macs for row in genes], rtol=1e-7)


def test_initialisations_are_averaged_and_shared_by_all_networks():
    space = tiny.space()
    genes = sampled(space, 3)
    one, three = (proxy.evaluator(space, proxy="snip", **DIGITS, initialisations=count) for count in (1, 3))
    key = jax.random.key(3)
    together = three.evaluate(None, three.init(key), genes, np.arange(3)).error
    singly = one.evaluate(None, one.init(key), genes, np.arange(3)).error
    assert not np.array_equal(together, singly)
    other_index = one.evaluate(jax.random.key(9), one.init(key), genes, np.arange(3) + 7).error
    assert np.array_equal(singly, other_index), "weights belong to the state, not to the step"
    other_key = one.evaluate(None, one.init(jax.random.key(4)), genes, np.arange(3)).error
    assert not np.array_equal(singly, other_key)
    assert one.version(one.init(key)) != one.version(one.init(jax.random.key(4)))


@pytest.mark.parametrize("name", ["synflow", "fisher"])
def test_one_program_serves_all_networks(name):
    space = tiny.space()
    judge = proxy.evaluator(space, proxy=name, **DIGITS)
    state = judge.init(jax.random.key(0))
    genes = sampled(space, 6)
    first = judge.evaluate(None, state, genes[:1], np.arange(1)).error
    with Compilations() as seen:
        rest = judge.evaluate(None, state, genes[1:], np.arange(1, 6)).error
    assert not [event for event in seen.events if "backend_compile" in event]
    assert len({first[0], *rest}) == len({tuple(row) for row in genes.tolist()})


def test_the_description_says_that_the_error_is_a_score():
    judge = proxy.evaluator(tiny.space(), proxy="grad_norm", **DIGITS)
    assert judge.describe["error_is"] == "minus the score grad_norm, no fraction"
    assert judge.describe["proxy"] == "grad_norm" and judge.describe["data"] == "digits"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"proxy": "sniff"}, "unknown proxy 'sniff': did you mean 'snip'"),
        ({"batch": 0}, "batch=0 is out of range"),
        ({"batch": 10**6}, "batch=1000000 is out of range"),
        ({"proxy": "jacob_cov", "batch": 1}, "batch=1 is out of range: give 2"),
        ({"initialisations": 0}, "initialisations=0 is out of range"),
        ({"chunk": 0}, "chunk=0 is out of range"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"data": "fashion_mnist_10k"}, "space tiny takes 8x8x1"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(InputError, match=said):
        proxy.evaluator(tiny.space(), **{**DIGITS, **options})
