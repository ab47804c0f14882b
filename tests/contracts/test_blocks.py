"""Every block in the folder keeps the contract of blocks."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from hw_models import discover
from search_spaces import testing
from search_spaces.attention import HEAD_KINDS
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import MAX_HEADS, REDUCTIONS, FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.encoding import one_hot, space_from_json
from search_spaces.network import Network, inherit
from search_spaces.supernet import Supernet, with_statistics

NAMES = [name for name in discover.names("search_spaces.blocks") if name != "classifier"]


def kind_of(name):
    return discover.load("search_spaces.blocks", name, "block")


@pytest.mark.parametrize("name", discover.names("search_spaces.blocks"))
def test_block_says_its_name_and_shapes(name):
    assert kind_of(name).kind == name
    testing.check_shapes(kind_of(name))
    for block in testing.searched_blocks(kind_of(name)):
        if block.HEAD:
            space = dataclasses.replace(testing.space_with(ConvNorm(3)), head=block)
        else:
            space = testing.space_with(block)
        assert space_from_json(space.to_json()) == space


@pytest.mark.parametrize("name", NAMES)
def test_counts_agree_with_the_network(name):
    testing.check_counts(kind_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_supernet_equals_standalone(name):
    testing.check_supernet(kind_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_gates_have_finite_gradients(name):
    testing.check_gates(kind_of(name))


@pytest.mark.parametrize("block", [InvertedResidual(Choice(3, 5), Choice(2, 3)), FlyNet(3, 2, Choice(1, 2, 3))])
def test_compiled_execution_equals_the_standalone_network(block):
    """What the contract checks operation by operation, here as the one program that a search runs."""
    space = testing.space_with(block, width=Choice(8, 16), depth=Choice(1, 2))
    supernet = Supernet(space)
    variables = testing.randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def shared(variables, x, genes):
        ready = with_statistics(variables, supernet.calibrate(variables, x, genes))
        score, gradient = jax.value_and_grad(lambda x: jnp.sin(supernet.apply(variables, x, genes, "train")).sum())(x)
        return supernet.apply(ready, x, genes, "eval"), gradient

    for seed in range(4):
        genes = space.sample(jax.random.key(seed))
        network, own = Network(space.freeze(genes)), inherit(variables, space, genes)
        outputs, gradient = shared(variables, x, genes)

        @jax.jit
        def alone(own, x, network=network):
            expected, _ = network.apply(own, x, "calibrate", mutable=["batch_stats"])
            score = lambda x: jnp.sin(network.apply(own, x, "train", mutable=["batch_stats"])[0]).sum()  # noqa: E731
            return expected, jax.grad(score)(x)

        expected, own_gradient = alone(own, x)
        assert jnp.abs(outputs - expected).max() <= 1e-5 * max(1, float(jnp.abs(expected).max()))
        assert jnp.abs(gradient - own_gradient).max() <= 1e-3 * max(1.0, float(jnp.abs(own_gradient).max()))


def test_every_head_count_is_exact_for_every_attention_and_reduction():
    block = FlyNet(3, 2, Choice(*range(1, MAX_HEADS + 1)), Choice(*HEAD_KINDS), reduction=Choice(*REDUCTIONS))
    space = testing.space_with(block)
    supernet = Supernet(space)
    variables = testing.randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    sampled = jax.jit(lambda genes: supernet.apply(variables, x, genes, "train"))
    relaxed = jax.jit(lambda genes: supernet.relaxed(variables, x, one_hot(space, genes), "train"))
    # every pair of values of two of them; all triples are three times as many
    for picked in (each for each in itertools.product(*map(range, space.cardinality)) if sum(each) % 3 == 0):
        genes = jnp.asarray(picked)
        own = inherit(variables, space, genes)
        network = Network(space.freeze(genes))
        expected, _ = network.apply(own, x, "train", mutable=["batch_stats"])
        scale = max(1.0, float(jnp.abs(expected).max()))
        assert jnp.abs(sampled(genes) - expected).max() <= 1e-5 * scale, space.decode(picked)
        assert jnp.abs(relaxed(genes) - expected).max() <= 1e-5 * scale, space.decode(picked)


def test_expansion_that_rounds_to_the_input_width_is_the_same_in_supernet_and_network():
    space = testing.space_with(InvertedResidual(expand=1.2, activation="relu"), width=Choice(8, 16), depth=2)
    supernet = Supernet(space)
    variables = testing.randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    for gene in (0, 1):
        genes = jnp.asarray([gene], jnp.int32)
        own = inherit(variables, space, genes)
        expected, _ = Network(space.freeze(genes)).apply(own, x, "train", mutable=["batch_stats"])
        assert jnp.abs(supernet.apply(variables, x, genes, "train") - expected).max() < 1e-4
