"""Width rules: from a few numbers to the channels of a network, and back."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import load_device
from hw_models.errors import InputError
from nas.cost_table import cost_table
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.encoding import space_from_json
from search_spaces.network import Network, inherit
from search_spaces.space import SearchSpace, Stage
from search_spaces.supernet import Supernet
from search_spaces.testing import randomised
from search_spaces.widths import ConstantRatio, Exponential, fit_exponential


def ruled(rule, depth=2, hw=8, width=None):
    block = InvertedResidual(kernel=3, expand=2)
    stages = tuple(Stage(block, width, depth, stride) for stride in (1, 2))
    return SearchSpace("ruled", hw, 3, 4, Stage(ConvNorm(3), 8), stages, Classifier(), widths=rule)


def test_three_genes_set_every_width():
    rule = Exponential(Choice(8.0, 16.0), Choice(0.1, 0.4), Choice(0.0, 8.0))
    space = ruled(rule)
    assert space.names == ("widths/a", "widths/b", "widths/c") and space.size == 8
    for genes in np.ndindex(2, 2, 2):
        a, b, c = (choice.values[gene] for choice, gene in zip((rule.a, rule.b, rule.c), genes, strict=True))
        network = space.freeze(genes)
        assert network.widths is None and network.frozen
        for n, slot in enumerate(network.slots[1:-1]):
            assert abs(slot.out.values[0] - (a * math.exp(n * b) + c)) <= 7
    assert space_from_json(space.to_json()) == space


def test_a_constant_ratio_is_per_stage():
    space = ruled(ConstantRatio(Choice(16, 24), Choice(1.5, 2.0)))
    widths = [slot.out.values[0] for slot in space.freeze([0, 1]).slots[1:-1]]
    assert space.names == ("widths/first", "widths/alpha") and widths == [16, 16, 32, 32]


def test_supernet_and_prices_follow_the_rule():
    space = ruled(Exponential(Choice(8.0, 16.0), Choice(0.1, 1.2), 0.0), depth=1)
    table = cost_table(space, load_device("raspberry_pi_4"))
    supernet = Supernet(space)
    variables = randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    run = jax.jit(lambda genes: supernet.apply(variables, x, genes, "train"))
    for genes in ([0, 1], [1, 0]):
        own = inherit(variables, space, genes)
        network = Network(space.freeze(genes))
        expected, _ = jax.jit(lambda own, net=network: net.apply(own, x, "train", mutable=["batch_stats"]))(own)
        assert jnp.abs(run(jnp.asarray(genes)) - expected).max() < 1e-4
        assert int(table.exact(jnp.asarray(genes)).macs) == space.freeze(genes).macs


@pytest.mark.parametrize(
    ("a", "b", "c"), [(16.0, 0.25, 8.0), (100.0, 0.02, -50.0), (500.0, -0.3, 20.0), (3.0, 0.6, 64.0)]
)
def test_a_fit_recovers_the_numbers(a, b, c):
    fit = fit_exponential([a * math.exp(b * n) + c for n in range(16)])
    assert (fit.a, fit.b, fit.c) == pytest.approx((a, b, c), rel=2e-2, abs=0.5)
    assert fit.rmse < 1e-3 * abs(a)


def test_a_fit_of_rounded_widths_is_near():
    rule = Exponential(24.0, 0.2, 8.0)
    fit = fit_exponential([rule.at({}, n, 0) for n in range(20)])
    assert fit.b == pytest.approx(0.2, rel=0.05) and fit.rmse < 4


@pytest.mark.parametrize("widths", [(16, 24, 28, 30), (64, 64, 64), (8, 800, 8000)])
def test_a_fit_makes_a_rule_of_a_space(widths):
    """Also one that grows ever more slowly, not at all, or steeply."""
    fit = fit_exponential(widths)
    assert fit.rmse < 1e-3 * widths[0]
    rule = Exponential(fit.a, fit.b, fit.c, divisor=2)
    assert [rule.at({}, n, 0) for n in range(len(widths))] == list(widths)
    stages = (Stage(ConvNorm(1), None, len(widths)),)
    space = SearchSpace("fitted", 8, 3, 4, Stage(ConvNorm(3), 8), stages, Classifier(), widths=rule)
    assert [slot.out.values for slot in space.slots[1:-1]] == [(width,) for width in widths]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: ruled(Exponential(math.inf, 0.1, 0.0)), "widths/a=inf"),
        (lambda: ruled(Exponential(8.0, math.nan, 0.0)), "widths/b=nan"),
        (lambda: ruled(Exponential(8.0, 30.0, 0.0)), "gives widths above 65,536"),
        (lambda: ruled(ConstantRatio(16, 2.0, divisor=0)), "widths/divisor=0"),
        (lambda: ruled(ConstantRatio(16, 2.0), depth=Choice(1, 2), width=(16, 24)), "cannot be searched"),
        (lambda: ruled(Exponential(8.0, 0.4, 0.0), depth=Choice(1, 2)), "stages/0/depth cannot be searched"),
        (lambda: fit_exponential([16, 24]), "at least three"),
        (lambda: fit_exponential([16, 24, -1]), "positive numbers"),
    ],
)
def test_bad_rules_are_named(build, said):
    with pytest.raises(InputError, match=said):
        build()
