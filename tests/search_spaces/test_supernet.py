"""The supernet as a search uses it: compiled, sampled and relaxed, at one resolution or several."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import load_device
from hw_models.errors import InputError
from nas.cost_table import cost_table
from search_spaces.attention import temperature
from search_spaces.blocks.flynet import FlyNet
from search_spaces.channels import Channels
from search_spaces.choice import Choice
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.layers import QuantizationNoise
from search_spaces.network import Network, fresh, inherit
from search_spaces.rearrange import Concat, Split, Tile
from search_spaces.space import Stage
from search_spaces.spaces import macro, tiny
from search_spaces.supernet import Supernet, with_statistics
from search_spaces.testing import randomised, space_with


@pytest.fixture(scope="module")
def resized():
    """`tiny` with a choice of two resolutions, and its supernet."""
    space = dataclasses.replace(tiny.space(), input_hw=Choice(6, 8))
    supernet = Supernet(space)
    return space, supernet, randomised(supernet.init(jax.random.key(0)), 0)


def outputs_of(space, variables, x, mode):
    """Outputs of the stand-alone network of a frozen space, as one program."""
    run = jax.jit(lambda variables, x: Network(space).apply(variables, x, mode, mutable=["batch_stats"])[0])
    return run(variables, x)


def test_every_resolution_is_the_network_on_scaled_images(resized):
    space, supernet, variables = resized
    assert space.names[-1] == "input_hw" and space.size == 288 and space.image_hw == 8
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))

    @jax.jit
    def run(variables, x, genes):
        ready = with_statistics(variables, supernet.calibrate(variables, x, genes))
        score, gradient = jax.value_and_grad(lambda v: jnp.sin(supernet.apply(v, x, genes, "train")).sum())(variables)
        return supernet.apply(ready, x, genes, "eval"), score, gradient

    for genes in ([0, 1, 0, 1, 0, 2, 0], [0, 1, 0, 1, 0, 2, 1]):
        frozen = space.freeze(genes)
        assert frozen.input_hw == (6, 8)[genes[-1]]
        scaled = jax.image.resize(x, (4, frozen.input_hw, frozen.input_hw, 1), "linear")
        own = inherit(variables, space, genes)
        expected = outputs_of(frozen, own, scaled, "calibrate")
        outputs, score, gradient = run(variables, x, jnp.asarray(genes))
        assert jnp.abs(outputs - expected).max() < 1e-4
        assert float(score) == pytest.approx(float(jnp.sin(expected).sum()), abs=1e-3)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0


def test_relaxed_execution_equals_sampled_under_one_hot_gates(resized):
    space, supernet, variables = resized
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    relaxed = jax.jit(lambda gates: supernet.relaxed(variables, x, gates))
    sampled = jax.jit(lambda genes: supernet.apply(variables, x, genes))
    for seed in range(4):
        genes = space.sample(jax.random.key(seed))
        assert jnp.abs(relaxed(one_hot(space, genes)) - sampled(genes)).max() < 1e-4
    gradient = jax.jit(jax.grad(lambda gates: jnp.sin(supernet.relaxed(variables, x, gates)).sum()))(
        uniform_gates(space)
    )
    assert jnp.isfinite(gradient).all() and (jnp.abs(gradient).max(axis=1) > 0).all()


def test_inherited_weights_are_those_of_genes_as_they_are_given():
    """Also where skipped layers stand before others: digits of a benchmark, the largest of trained gates."""
    space = macro.space(8)
    supernet = Supernet(space)
    variables = randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    sampled = jax.jit(lambda genes: supernet.apply(variables, x, genes))
    for genes in ([1, 0, 1, 0, 1, 2, 0, 1], [0, 0, 2, 0, 1, 0, 0, 2]):
        assert space.check(genes).tolist() != genes
        expected = outputs_of(space.freeze(genes), inherit(variables, space, genes), x, "train")
        assert jnp.abs(sampled(jnp.asarray(genes)) - expected).max() < 1e-5 * jnp.abs(expected).max()


@pytest.mark.parametrize(
    ("x", "genes", "said"),
    [
        ((1, 8, 8, 1), [0, 0, 0], "3 genes given, space tiny has 7 decisions"),
        ((1, 8, 8, 1), [9] * 7, "is 9: give 0 to"),
        ((1, 16, 16, 1), [0] * 7, r"images of shape \(1, 16, 16, 1\) do not fit space tiny: give \[N, 8, 8, 1\]"),
        ((1, 8, 8, 3), [0] * 7, "give \\[N, 8, 8, 1\\]"),
        ((8, 8, 1), [0] * 7, "give \\[N, 8, 8, 1\\]"),
    ],
)
def test_what_does_not_fit_the_space_is_named(resized, x, genes, said):
    space, supernet, variables = resized
    for run in (supernet.apply, supernet.calibrate):
        with pytest.raises(InputError, match=said):
            run(variables, jnp.zeros(x), jnp.asarray(genes))
    with pytest.raises(InputError, match="do not fit space tiny"):
        jax.eval_shape(lambda genes: supernet.apply(variables, jnp.zeros(x), genes), jnp.zeros(3, jnp.int32))
    with pytest.raises(InputError, match="do not fit space tiny"):
        supernet.relaxed(variables, jnp.zeros(x), uniform_gates(space)[:, :-1])


def test_more_resolutions_than_other_decisions_have_values():
    space = dataclasses.replace(tiny.space(), input_hw=Choice(5, 6, 7, 8))
    supernet = Supernet(space)
    x, shapes = jnp.zeros((1, 8, 8, 1)), supernet.shapes()
    relaxed = jax.eval_shape(lambda v, gates: supernet.relaxed(v, x, gates), shapes, uniform_gates(space))
    assert relaxed.shape == (1, 10)


def test_known_genes_compile_one_network(resized):
    space, supernet, variables = resized
    x, genes = jnp.zeros((1, 8, 8, 1)), np.zeros(7, np.int32)
    known = jax.make_jaxpr(lambda x: (supernet.apply(variables, x, genes), supernet.calibrate(variables, x, genes)))(x)
    assert " cond[" not in str(known)
    assert " cond[" in str(jax.make_jaxpr(lambda g: supernet.apply(variables, x, g))(jnp.asarray(genes)))


def test_costs_know_the_resolution(resized):
    space, _, _ = resized
    table = cost_table(space, load_device("raspberry_pi_4"))
    both = [table.exact(jnp.asarray([0, 1, 0, 1, 0, 2, gene])) for gene in (0, 1)]
    assert [int(costs.macs) for costs in both] == [space.freeze([0, 1, 0, 1, 0, 2, gene]).macs for gene in (0, 1)]
    # more resolutions than any other decision has values
    many = dataclasses.replace(tiny.space(), input_hw=Choice(5, 6, 7, 8))
    assert jnp.isfinite(cost_table(many, load_device("raspberry_pi_4")).expected(uniform_gates(many)).latency_s)
    genes = jnp.asarray([0, 1, 0, 1, 0, 2, 1])
    mixed = one_hot(space, genes).at[-1, :2].set(0.5)
    assert float(table.expected(mixed).latency_s) == pytest.approx(
        float(both[0].latency_s + both[1].latency_s) / 2, rel=1e-5
    )


@pytest.mark.parametrize("index", [None, jnp.int32(1), jnp.asarray([0.0, 1.0, 0.0])])
def test_parts_of_a_map_are_moved_without_gaps(index):
    """Split, Concat and Tile by their definitions, for a fixed, a traced and a mixed count."""
    values = (2, 3, 4) if index is not None else (3, 3, 3)
    first, rest = Channels(values, index), Channels(tuple(5 - value for value in values), index)
    x = jnp.arange(1.0, 6.0).reshape(1, 1, 1, 5)
    a, b = Split().apply({}, x, (first, rest))
    assert a[0, 0, 0, :3].tolist() == [1, 2, 3] and b[0, 0, 0, :2].tolist() == [4, 5]
    assert not a[..., 3:].any() and not b[..., 2:].any()
    assert Concat().apply({}, (b, a), (rest, first))[0, 0, 0].tolist() == [4, 5, 1, 2, 3]
    out = Channels(tuple(7 for _ in values), index)
    assert Tile().apply({}, x, first, out)[0, 0, 0].tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_temperature_falls_from_ten_to_one():
    assert [float(temperature(jnp.float32(p))) for p in (0.0, 1.0)] == [10.0, 1.0] and temperature(None) == 1.0
    space = space_with(FlyNet(3, 2, 3, "mean_variance_softmax"))
    network, variables = Network(space), randomised(fresh(space, jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    early, late, done = (network.apply(variables, x, "eval", p) for p in (jnp.float32(0), jnp.float32(1), None))
    assert jnp.allclose(late, done) and not jnp.allclose(early, done)


def test_quantization_noise_acts_in_training_of_large_networks_only():
    """Guerra 2024, equation 8.5: 8 levels are 7 steps; the gradient passes straight through."""
    x = jnp.linspace(-1.0, 2.0, 50)[:, None]
    noisy = QuantizationNoise(8).apply({}, x)
    assert len(np.unique(np.asarray(noisy).round(5))) == 8
    assert float(jnp.abs(noisy - x).max()) <= 3 / 7 / 2 + 1e-6
    assert jnp.allclose(jax.grad(lambda x: QuantizationNoise(8).apply({}, x).sum())(x), 1.0)
    # uniform values: the variance of the noise is that of a uniform distribution one step wide
    wide = jax.random.uniform(jax.random.key(0), (100_000, 1))
    assert float((QuantizationNoise(8).apply({}, wide) - wide).var()) == pytest.approx((1 / 7) ** 2 / 12, rel=0.02)

    small = space_with(FlyNet(3, 2, 1, quantization_levels=4))
    large = dataclasses.replace(small, stages=(*small.stages, Stage(FlyNet(3, 1, 1), 800), Stage(FlyNet(3, 2, 1), 800)))
    assert small.params < 1_600_000 < large.params
    for space, noise in ((small, False), (large, True)):
        plain = dataclasses.replace(
            space, stages=(dataclasses.replace(space.stages[0], block=FlyNet(3, 2, 1)), *space.stages[1:])
        )
        variables, images = fresh(space, jax.random.key(0)), jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
        for mode, differs in (("train", noise), ("eval", False)):
            outputs = [outputs_of(each, variables, images, mode) for each in (space, plain)]
            assert bool(jnp.abs(outputs[0] - outputs[1]).max() > 1e-6) == differs, (mode, noise)
