"""Networks that share their weights and are switched between, against the same arithmetic written out."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from hw_models.errors import InputError
from nas.data import split as split_data
from nas.data_source import load
from nas.training.epoch import Clock
from nas.training.images import normalise
from nas.training.loss import divergence, feature_distance, smoothed, soft_cross_entropy
from nas.training.parallel import Spread
from nas.training.recipe import Recipe
from nas.training.shared import started as first_weights
from nas.training.standalone import Images
from nas.training.switchable import _programs, as_parameters, calibrated, evaluate, switchable_step, train
from nas.training.switches import Switch, Switches, genes_of, joined, network_of, split, started, variables_of
from nas.training.switching import Distillation, gradients
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice
from search_spaces.network import Network
from search_spaces.precision import Scheme, with_bits
from search_spaces.space import SearchSpace, Stage
from search_spaces.supernet import Supernet

FOUR = (Switch(32, 32), Switch(2, 2), Switch(2, 32), Switch(32, 2))
PLAIN = Recipe(epochs=1, batch=16, learning_rate=0.2, shift=0, flip=False, warmup=0.0)
PIXELS = np.zeros(1, np.float32), np.ones(1, np.float32)  # mean and deviation
RNG = np.random.default_rng(0)


def space_of(width=8, bits="w2/32a2/32", activations="symmetric"):
    stem, stages = Stage(ConvNorm(), 8, stride=2), (Stage(Residual(), width),)
    small = SearchSpace("small", 8, 1, 10, stem, stages, Classifier())
    return with_bits(small, bits, 32, Scheme("symmetric", activations))


@pytest.fixture(scope="module")
def four():
    return Switches.of(space_of(), genes_of(space_of(), FOUR))


@pytest.fixture(scope="module")
def ranged(four):
    """The same networks with unsigned activations, whose ranges are stored."""
    return Switches.of(space_of(activations="affine"), four.genes)


@pytest.fixture(scope="module")
def state(four):
    """Every set of normalisation has other values, and another mean and variance."""
    first = started(four, four.supernet.init(jax.random.key(0)))

    def moved(leaf):
        return leaf + jnp.asarray(RNG.uniform(0, 0.3, leaf.shape), jnp.float32)

    return first._replace(private=jax.tree.map(moved, first.private))


@pytest.fixture(scope="module")
def batch():
    x = jnp.asarray(RNG.normal(size=(16, 8, 8, 1)), jnp.float32)
    return x, smoothed(jnp.arange(16) % 10, 10, 0.1)


@pytest.fixture(scope="module")
def digits():
    """Images to learn from and others to judge by."""
    splits = split_data(load("digits"), validation=200, seed=0, train=640)
    return Images.of(splits), Images(splits.validation_images, splits.validation_labels, splits.mean, splits.std)


def close(found, wanted, atol=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol)


def run(of, state, batch, distillation=None):
    return jax.jit(gradients(of, distillation))(state.shared, state.private, *batch, jnp.float32(1))


def own(state, place):
    return jax.tree.map(lambda leaf: leaf[place], state.private)


def written_out(of, state, batch, loss):
    """Derivatives, one network after the other, of `loss(number, network)`; `network(number)` are logits and maps."""
    sets = [own(state, of.place(number)) for number in range(len(of.genes))]

    def total(shared, sets):
        def network(number):
            variables = joined(shared, sets[number])
            return of.supernet.features(variables, batch[0], jnp.asarray(of.genes[number]), "train")

        return sum(loss(number, network) for number in range(len(of.genes)))

    return jax.jit(jax.grad(total, (0, 1)))(state.shared, sets)


def test_the_gradient_of_shared_weights_is_the_sum_over_networks_and_each_set_gets_its_own(four, state, batch):
    losses, (shared, private) = run(four, state, batch)
    wanted, sets = written_out(four, state, batch, lambda n, network: soft_cross_entropy(network(n)[0], batch[1]))
    close(shared, wanted)
    close(private, jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))
    assert losses.shape == (4,) and len(set(losses.tolist())) == 4


def test_a_network_alone_adds_what_it_adds_among_others(four, state, batch):
    alone = four._replace(genes=four.genes[1:2])
    _, (shared, private) = run(
        alone, state._replace(private=jax.tree.map(lambda leaf: leaf[1:2], state.private)), batch
    )
    without = [0, 2, 3]
    rest = state._replace(private=jax.tree.map(lambda leaf: leaf[jnp.asarray(without)], state.private))
    _, (others, _) = run(four._replace(genes=four.genes[without]), rest, batch)
    _, (whole, sets) = run(four, state, batch)
    close(whole, jax.tree.map(jnp.add, shared, others))
    close(jax.tree.map(lambda leaf: leaf[1:2], sets), private)


def test_with_one_normalisation_in_common_it_gets_the_sum(four, state, batch):
    one = Switches.of(four.space, four.genes, private=False)
    first = started(one, variables_of(four, state, 2))
    _, (_, private) = run(one, first, batch)
    _, sets = written_out(one, first, batch, lambda n, network: soft_cross_entropy(network(n)[0], batch[1]))
    close(private, jax.tree.map(lambda *leaves: sum(leaves)[None], *sets))


@pytest.mark.parametrize("width", [8, Choice(4, 8)], ids=["one width", "two widths"])
def test_pupils_follow_the_first_network_and_only_its_maps_get_a_gradient(four, state, batch, width):
    weights = Distillation(0.7, 1e-3)
    of, at = four, state
    if width != 8:
        space = space_of(width)
        of = Switches.of(space, genes_of(space, [Switch(32, 32), Switch(2, 2, 0.5), Switch(2, 32)]))
        at = started(of, of.supernet.init(jax.random.key(1)))
    used = {1: np.arange(8) < 4} if width != 8 else {}

    def loss(number, network):
        logits, maps = network(number)
        teacher, shown = network(0)
        if not number:
            return soft_cross_entropy(logits, batch[1])
        shown = {**shown, "stages/0/0": shown["stages/0/0"] * used.get(number, np.ones(8, bool))}
        fixed = jax.lax.stop_gradient(teacher)
        return weights.output * divergence(logits, fixed) + weights.features * feature_distance(maps, shown)

    _, found = run(of, at, batch, weights)
    shared, sets = written_out(of, at, batch, loss)
    close(found[0], shared)
    close(found[1], jax.tree.map(lambda *leaves: jnp.stack(leaves), *sets))


def test_labels_are_seen_by_the_first_network_only_and_logits_teach_without_a_gradient_back(four, state, batch):
    output_only, other = Distillation(1.0, 0.0), (batch[0], jnp.roll(batch[1], 1, 0))
    _, (_, private) = run(four, state, batch, output_only)
    _, (_, changed) = run(four, state, other, output_only)
    for a, b in zip(jax.tree.leaves(private), jax.tree.leaves(changed), strict=True):
        np.testing.assert_array_equal(a[1:], b[1:])
    first = state._replace(private=jax.tree.map(lambda leaf: leaf[:1], state.private))
    _, (_, alone) = run(four._replace(genes=four.genes[:1]), first, batch)
    close(jax.tree.map(lambda leaf: leaf[:1], private), alone)


def stepped(of, state, recipe, data, distillation=None):
    step = switchable_step(of, recipe, 40, Spread(None), distillation)
    weights = Spread(None).copied(first_weights(as_parameters(state), recipe, 40))
    return step(weights, *data, *PIXELS, jax.random.key(0), Clock(np.int32(0), np.float32(0)))


def test_a_step_is_one_of_the_optimiser_and_normalisation_does_not_decay(four, state):
    images = RNG.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(16, dtype=np.int32) % 10
    weights, loss = stepped(four, state, PLAIN, (images, labels))
    losses, (shared, private) = run(four, state, (normalise(images, *PIXELS), smoothed(labels, 10, 0.1)))
    params, update = as_parameters(state), PLAIN.update_rule(40)
    gradient = as_parameters(state._replace(shared=shared, private=private))
    change, _ = update.update(gradient, update.init(params), params)
    close(weights.params, optax.apply_updates(params, change))
    assert float(loss) == pytest.approx(float(losses.mean()), rel=1e-4)
    plain = dataclasses.replace(PLAIN, weight_decay=0.0)
    close(stepped(four, state, plain, (images, labels))[0].params["private"], weights.params["private"], 1e-6)


def test_parts_of_a_batch_are_averaged(four, state):
    images = np.tile(RNG.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8), (2, 1, 1, 1))
    labels = np.tile(np.arange(8, dtype=np.int32), 2)
    whole, loss = stepped(four, state, PLAIN, (images, labels), Distillation())
    parts = dataclasses.replace(PLAIN, accumulate=2)
    found, same = stepped(four, state, parts, (images, labels), Distillation())
    close(found.params, whole.params)
    assert float(same) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("ranges", [False, True], ids=["symmetric", "affine"])
def test_switching_compiles_nothing_and_a_network_by_itself_says_the_same(four, ranged, state, digits, ranges):
    if ranges:
        four, state = ranged, started(ranged, ranged.supernet.init(jax.random.key(0)))._replace(private=state.private)
    few = digits[0]._replace(images=digits[0].images[:100], labels=digits[0].labels[:100])
    ready = calibrated(four, state, few)
    errors = evaluate(four, ready, few)
    assert [program._cache_size() for program in _programs(four.supernet)] == [1, 1] and errors.shape == (4,)
    x = normalise(few.images, few.mean, few.std)
    seen = []
    for number, genes in enumerate(four.genes):
        space, variables = network_of(four, ready, number)
        logits = Network(space).apply(variables, x)
        wanted = four.supernet.apply(variables_of(four, ready, number), x, jnp.asarray(genes), "eval")
        np.testing.assert_allclose(logits, wanted, atol=1e-5)
        assert errors[number] == pytest.approx((np.asarray(logits).argmax(-1) != few.labels).mean(), abs=0.011)
        seen.append(np.asarray(logits))
    assert all(np.abs(a - b).max() > 0.01 for a, b in pairwise(seen))


def test_every_network_starts_as_a_copy_also_of_weights_without_bits(four):
    float_space = dataclasses.replace(
        four.space, stages=(Stage(Residual(), 8),), stem=Stage(ConvNorm(), 8, stride=2), head=Classifier(), scheme=None
    )
    variables = Supernet(float_space).init(jax.random.key(3))
    first = started(four, variables)
    assert all(leaf.shape[0] == 4 and (leaf[0] == leaf).all() for leaf in jax.tree.leaves(first.private))
    shared, private = split({s: {k: {"params": p["params"]} for k, p in ks.items()} for s, ks in variables.items()})
    close(first.shared, shared, 0)
    assert {path[-1] for path in flatten_dict(private)} == {"scale", "bias"}
    assert all("kernel" in path or path[:2] == ("head", "classifier") for path in flatten_dict(shared))
    with pytest.raises(InputError, match=r"variables have no head/classifier/params/.* of shape \(10,\)"):
        started(four, {"stem/0": {}})


@pytest.mark.parametrize("distillation", [None, Distillation()], ids=["labels", "distilled"])
def test_every_network_learns(ranged, digits, distillation):
    data, unseen = digits
    recipe = Recipe(epochs=8, batch=32, learning_rate=0.1, shift=0, flip=False)
    said = []

    def report(epoch, loss):
        said.append((epoch, loss))

    before = evaluate(
        ranged, calibrated(ranged, started(ranged, ranged.supernet.init(jax.random.key(0))), data), unseen
    )
    found = train(ranged, data, recipe, jax.random.key(0), report=report, distillation=distillation)
    errors = evaluate(ranged, found, unseen)
    assert (errors < before - 0.35).all(), (before, errors)
    assert [epoch for epoch, _ in said] == list(range(8)) and said[-1][1] < said[0][1]


def test_a_training_goes_on_where_it_was_stopped(four, digits, tmp_path):
    data = digits[0]._replace(images=digits[0].images[:64], labels=digits[0].labels[:64])
    recipe, key = Recipe(epochs=2, batch=32, ema=0.5), jax.random.key(0)

    class Stopped(Exception):
        pass

    def stop(epoch, loss):
        raise Stopped

    whole = train(four, data, recipe, key)
    with pytest.raises(Stopped):
        train(four, data, recipe, key, report=stop, checkpoint=tmp_path)
    close(train(four, data, recipe, key, checkpoint=tmp_path), whole, 0)
    with pytest.raises(InputError, match="another training, networks is"):
        train(four._replace(genes=four.genes[:2]), data, recipe, key, checkpoint=tmp_path)


def test_switches_with_widths_keep_the_leading_channels():
    space = space_of(Choice(4, 6, 8))
    genes = genes_of(space, [Switch(32, 2), Switch(2, 2, 0.75), Switch(2, 2, 0.4)])
    assert [space.decode(row)["stages/0/width"] for row in genes] == [8, 6, 4]


@pytest.mark.parametrize(
    ("space", "switches", "said"),
    [
        (space_of(), [Switch(3, 2)], r"weight_bits=3 is no choice of stages/0/0/weight_bits.*2, 32 \(nearest: 2\)"),
        (space_of(), [Switch(2, 16)], r"act_bits=16 is no choice of stages/0/0/act_bits.*\(nearest: 2\)"),
        (space_of(), [Switch(2, 2, 0.5)], "width=0.5 cannot be switched to, space small searches no widths"),
        (space_of(Choice(4, 8)), [Switch(2, 2, 0.8)], r"width=0.8 of 8 channels, 7, is no .* 4, 8 \(nearest: 8\)"),
        (space_of(bits="w2a2/32"), [Switch(32, 2)], "weight_bits=32 cannot be switched to, space small has 2"),
        (space_of(), [Switch(2, 2, 0)], "width=0 is out of range"),
        (space_of(), [], "there is no switch"),
    ],
)
def test_switches_that_a_space_does_not_have_are_refused(space, switches, said):
    with pytest.raises(InputError, match=said):
        genes_of(space, switches)


def test_what_cannot_be_switched_between_is_refused(four, state, digits):
    kernels = dataclasses.replace(four.space, stages=(Stage(Residual(Choice(1, 3)), 8),))
    with pytest.raises(InputError, match="stages/0/0/kernel is neither bits nor a width: freeze it"):
        genes_of(kernels, [Switch(32, 32)])
    sizes = dataclasses.replace(four.space, input_hw=Choice(8, 16))
    with pytest.raises(InputError, match="searches input_hw"):
        Switches.of(sizes, [[0] * 3])
    with pytest.raises(InputError, match="differ in size with input_hw"):
        Supernet(sizes).features({}, jnp.zeros((1, 16, 16, 1)), jnp.zeros(3, jnp.int32))
    with pytest.raises(InputError, match="no network to train"):
        Switches.of(four.space, [])
    turned = four._replace(genes=four.genes[::-1])
    with pytest.raises(InputError, match=r"act_bits of the first network, which teaches the others, is 2, .*widest"):
        gradients(turned, Distillation())
    with pytest.raises(InputError, match="network=4 is out of range"):
        network_of(four, state, 4)
    with pytest.raises(InputError, match="lower the batch"):
        train(four, digits[0], Recipe(batch=1024), jax.random.key(0))
