"""Networks and supernets that round: the executions agree, the right part of shared weights counts, ranges are kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces import block, rounded_block
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.mixed_depthwise import MixedDepthwise
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice
from search_spaces.network import Network, fresh, inherit
from search_spaces.precision import Scheme, with_bits, without_bits
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet
from search_spaces.testing import check_executions, check_genes, samples, space_with

BLOCKS = {
    "flynet": FlyNet(kernel=Choice(3, 5), expand=Choice(2, 3), heads=Choice(1, 3), attention="eca"),
    "inverted_residual": InvertedResidual(kernel=Choice(3, 5), expand=Choice(2, 3), attention="se"),
    "residual": Residual(kernel=Choice(3, 5)),
    "bottleneck_residual": BottleneckResidual(kernel=3, expand=Choice(0.5, 1.0)),
    "mixed_depthwise": MixedDepthwise(expand=2),
}


def rounding_space(name: str, bits: str = "w2/4/32a4/8/32", **scheme):
    space = space_with(BLOCKS[name], 1, Choice(8, 16), Choice(8, 16))
    return with_bits(space, bits, scheme=Scheme(**scheme))


def evaluation(network):
    """Logits by stored statistics, in one program."""
    return jax.jit(lambda variables, x: network.apply(variables, x, "eval"))


@pytest.mark.parametrize("name", BLOCKS)
def test_shared_weights_round_as_the_network_alone_does(name):
    space = rounding_space(name)
    for genes in samples(space, 2)[:3]:
        check_genes(space, genes, gradients=False)


@pytest.mark.parametrize("granularity", ["tensor", "kernel"])
def test_scales_are_those_of_the_part_in_use(granularity):
    space = rounding_space("flynet", "w4a32", granularity=granularity)
    for genes in samples(space, 2)[:2]:
        check_genes(space, genes, gradients=False, masks=True)


@pytest.mark.parametrize("weights", ["dorefa", "bwn", "apsq", "power_of_two"])
def test_other_quantizers_count_the_part_in_use_only(weights):
    bits = "w1a32" if weights == "bwn" else "w2/4a32" if weights != "apsq" else "w1/2a32"
    space = with_bits(
        space_with(BLOCKS["inverted_residual"], 1, Choice(8, 16), Choice(8, 16)), bits, 32, Scheme(weights=weights)
    )
    for genes in samples(space, 2)[:2]:
        check_genes(space, genes, gradients=False)


def test_derivatives_of_the_switch_are_those_of_the_network_alone():
    space = rounding_space("inverted_residual")
    check_genes(space, samples(space, 1)[0])


@pytest.mark.slow
def test_populations_under_masks_are_the_networks_one_by_one():
    space = tiny.space(bits="w2/4a32")
    # a value that lies between two levels may tip, and moves what follows
    check_executions(space, np.stack(samples(space, 2)), tolerance=0.05)


def test_other_bits_compile_nothing_anew():
    space = tiny.space(bits="mixed")
    net, traces = Supernet(space), 0
    variables, x = net.init(jax.random.key(0)), jnp.ones((2, 8, 8, 1))

    @jax.jit
    def run(genes):
        nonlocal traces
        traces += 1
        return net.apply(variables, x, genes)

    results = [run(space.sample(jax.random.key(seed))) for seed in range(4)]
    assert traces == 1 and len({float(result.sum()) for result in results}) > 1


def test_gates_of_bits_mix_and_have_gradients():
    space = tiny.space(bits="w2/8a4/8")
    net = Supernet(space)
    variables, x = net.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    gates = jnp.where(jnp.arange(3) < jnp.asarray(space.cardinality)[:, None], 1.0, 0.0)
    gates = gates / gates.sum(1, keepdims=True)
    slopes = jax.jit(jax.grad(lambda gates: jnp.sin(net.relaxed(variables, x, gates)).sum()))(gates)
    rows = [place for place, name in enumerate(space.names) if name.endswith("_bits")]
    assert np.isfinite(slopes).all() and (np.abs(slopes[jnp.asarray(rows)]).max(1) > 0).all()


def test_ranges_are_stored_by_calibration_and_used_in_evaluation():
    space = with_bits(tiny.space().freeze([0] * 6), "w8a2", first_last=None)
    network, variables = Network(space), fresh(space, jax.random.key(0))
    x = np.random.default_rng(1).uniform(-1, 3, (8, 8, 8, 1)).astype(np.float32)
    watched = jax.jit(
        lambda variables, x, mode: network.apply(variables, x, mode, mutable=["batch_stats"]), static_argnums=2
    )
    _, made = watched(variables, x, "calibrate")
    (stem,) = (part for name, part in made["batch_stats"].items() if name.startswith("stem"))
    found = stem["conv"]
    assert float(found["input_low"][0]) == pytest.approx(float(x.min()))
    assert float(found["input_high"][0]) == pytest.approx(float(x.max()))
    settled = {**variables, **made}
    run = evaluation(network)
    alone = np.concatenate([run(settled, x[row : row + 1]) for row in range(8)])
    np.testing.assert_allclose(run(settled, x), alone, atol=1e-5)  # no image's answer depends on the others
    _, moved = watched(settled, 2 * x, "train")
    (stem,) = (part for name, part in moved["batch_stats"].items() if name.startswith("stem"))
    high = float(stem["conv"]["input_high"][0])
    assert high == pytest.approx(float(0.9 * x.max() + 0.1 * 2 * x.max()), rel=1e-5)


@pytest.mark.parametrize("activations", ["xnor", "power_of_two", "logarithmic", "dorefa[signed=False]", "fixed_clip"])
def test_no_image_depends_on_others_whatever_rounds_activations(activations):
    bits = "w8a1" if activations == "xnor" else "w8a4"
    space = with_bits(tiny.space().freeze([0] * 6), bits, 32, Scheme(activations=activations))
    network, variables = Network(space), fresh(space, jax.random.key(0))
    run, x = evaluation(network), np.random.default_rng(1).normal(size=(4, 8, 8, 1)).astype(np.float32)
    alone = np.concatenate([run(variables, x[row : row + 1]) for row in range(4)])
    np.testing.assert_allclose(run(variables, x), alone, atol=1e-5)


def test_32_bits_are_the_float_network():
    space = tiny.space().freeze([1] * 6)
    exact = with_bits(space, 32, first_last=32)
    variables = fresh(space, jax.random.key(0))
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)
    ours, theirs = (jax.jit(Network(each).apply)(variables, x) for each in (exact, space))
    np.testing.assert_array_equal(ours, theirs)


def test_a_float_network_can_be_inherited_from_a_supernet_with_bits():
    space = tiny.space(bits="w4/32a8/32")
    net, genes = Supernet(space), samples(space, 1)[0]
    variables = net.init(jax.random.key(0))
    frozen = space.freeze(genes)
    own = inherit(variables, space, genes)
    plain = without_bits(frozen)
    x, given = np.ones((1, 8, 8, 1), np.float32), {"params": own["params"], "batch_stats": own["batch_stats"]}
    assert jax.jit(Network(plain).apply)(given, x).shape == (1, 10)


def test_fresh_weights_are_those_of_the_space_without_bits():
    plain, rounding = Supernet(tiny.space()), Supernet(tiny.space(bits="4/8"))
    ours, theirs = (net.init(jax.random.key(3)) for net in (plain, rounding))
    for slot, kinds in ours.items():
        for kind, part in kinds.items():
            jax.tree.map(np.testing.assert_array_equal, part["params"], theirs[slot][kind]["params"])


def test_supernets_refuse_quantizers_that_learn_for_one_network():
    with pytest.raises(InputError, match="quantizer lsq learns its steps for one network"):
        Supernet(tiny.space(bits="4/8", weight_quantizer="lsq"))


def test_a_scheme_without_bits_changes_nothing():
    space = tiny.space().freeze([0] * 6)
    named = dataclasses.replace(space, scheme=Scheme())
    variables, x = fresh(space, jax.random.key(0)), jnp.ones((1, 8, 8, 1))
    ours, theirs = (jax.jit(Network(each).apply)(variables, x) for each in (named, space))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("activations", ["xnor", "bnn", "noise", "dorefa"])
def test_supernets_with_searched_widths_refuse_quantizers_that_move_zeros(activations):
    bits = "w8a1" if activations in ("xnor", "bnn") else "w8a2"
    with pytest.raises(InputError, match=f"quantizer {activations} moves zeros"):
        Supernet(tiny.space(bits=bits, act_quantizer=activations, first_last_bits=32))
    Supernet(with_bits(tiny.space().freeze([0] * 6), bits, 32, Scheme(activations=activations)))


def test_networks_with_bits_and_masks_find_their_shapes_outside_of_the_calls_that_are_watched():
    """Shapes of weights are found by initialising the block, which must not be watched in its turn."""
    space = tiny.space(bits="w4a8", sparsity="2:4", densities="0.5")
    frozen = space.freeze([0] * space.num_decisions)
    variables = fresh(frozen, jax.random.key(0))
    for cached in (rounded_block.kept_structures, rounded_block._sizes, block._variable_shapes):
        cached.cache_clear()
    assert Network(frozen).apply(variables, jnp.ones((1, 8, 8, 1)), "eval").shape == (1, 10)
