"""Every block in the folder keeps the contract of blocks."""

import jax
import jax.numpy as jnp
import pytest

from hw_models import discover
from search_spaces import testing
from search_spaces.choice import Choice
from search_spaces.network import Network, inherit
from search_spaces.supernet import Supernet

NAMES = [name for name in discover.names("search_spaces.blocks") if name != "classifier"]


def kind_of(name):
    return discover.load("search_spaces.blocks", name, "block")


@pytest.mark.parametrize("name", discover.names("search_spaces.blocks"))
def test_block_says_its_name_and_shapes(name):
    assert kind_of(name).kind == name
    testing.check_shapes(kind_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_counts_agree_with_the_network(name):
    testing.check_counts(kind_of(name))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_supernet_equals_standalone(name, stride):
    testing.check_supernet(kind_of(name), stride, candidates=5 if stride == 1 else 3)


def test_expansion_that_rounds_to_the_input_width_is_the_same_in_supernet_and_network():
    kind = kind_of("inverted_residual")
    space = testing.space_with(kind(expand=1.2, activation="relu"), width=Choice(8, 16), depth=2)
    supernet = Supernet(space)
    variables = testing.randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    for gene in (0, 1):
        genes = jnp.asarray([gene], jnp.int32)
        own = inherit(variables, space, genes)
        expected, _ = Network(space.freeze(genes)).apply(own, x, "train", mutable=["batch_stats"])
        assert jnp.abs(supernet.apply(variables, x, genes, "train") - expected).max() < 1e-4
