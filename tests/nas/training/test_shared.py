"""The training step of shared weights, against the same arithmetic written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nas.training.epoch import Clock
from nas.training.loss import smoothed, soft_cross_entropy
from nas.training.parallel import Spread
from nas.training.paths import Paths, paths
from nas.training.recipe import Recipe
from nas.training.shared import shared_step, started
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice
from search_spaces.space import SearchSpace, Stage
from search_spaces.supernet import Supernet

STEPS = 40
PLAIN = Recipe(epochs=4, batch=16, learning_rate=0.2, shift=0, flip=False, smoothing=0.1)


@pytest.fixture(scope="module")
def net():
    """No depthwise convolution, and two branches: it compiles quickly."""
    stage = Stage(Residual(Choice(1, 3)), Choice(4, 6), depth=Choice(1, 2), shared=True)
    return Supernet(SearchSpace("small", 8, 1, 4, Stage(ConvNorm(), 8, stride=2), (stage,), Classifier()))


@pytest.fixture(scope="module")
def params(net):
    return only_params(net.init(jax.random.key(0)))


PIXELS = np.zeros(1, np.float32), np.ones(1, np.float32)  # mean and deviation


def only_params(variables):
    return {s: {k: {"params": part["params"]} for k, part in kinds.items()} for s, kinds in variables.items()}


@pytest.fixture(scope="module")
def data():
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    return jnp.asarray(images), jnp.asarray(np.arange(16, dtype=np.int32) % 4)


def run(net, params, data, recipe, rule, steps=1):
    step = shared_step(net, recipe, rule, STEPS, Spread(None))
    weights, losses = Spread(None).copied(started(params, recipe, STEPS)), []
    for number in range(steps):
        clock = Clock(np.int32(number), np.float32(number / STEPS))
        weights, loss = step(weights, *data, *PIXELS, jax.random.fold_in(jax.random.key(5), number), clock)
        losses.append(float(loss))
    return weights, losses, step


def fixed(*rows, distillation=0.0, weights=None):
    genes = jnp.asarray(rows, jnp.int32)
    weights = weights or (1 / len(rows),) * len(rows)
    return Paths(lambda key, progress: genes, weights, distillation, {})


def expected_gradient(net, params, data, rows, weights, distillation, parts=1):
    """By one derivative per network and part, outside any loop."""
    x, targets = data[0].astype(jnp.float32) / 255, smoothed(data[1], 4, 0.1)
    total, losses = jax.tree.map(jnp.zeros_like, params), 0.0

    def loss_of(params, genes, images, goal, share, teacher):
        logits = net.apply(params, images, genes, "train")
        return (1 - share) * soft_cross_entropy(logits, goal) + share * soft_cross_entropy(
            logits, jax.nn.softmax(teacher)
        )

    derivative = jax.jit(jax.value_and_grad(loss_of))
    logits_of = jax.jit(lambda params, images, genes: net.apply(params, images, genes, "train"))
    size = len(x) // parts
    for part in range(parts):
        images, goal = (array[part * size : (part + 1) * size] for array in (x, targets))
        teacher = logits_of(params, images, jnp.asarray(rows[0]))
        for place, (genes, weight) in enumerate(zip(rows, weights, strict=True)):
            share = distillation if place else 0.0

            loss, gradient = derivative(params, jnp.asarray(genes), images, goal, share, teacher)
            total = jax.tree.map(lambda a, b, w=weight: a + w / parts * b, total, gradient)
            losses += weight / parts * float(loss)
    return losses, total


def close(found, wanted, atol=2e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol)


ROWS = ([0, 0, 0], [1, 1, 1], [1, 0, 1])


@pytest.mark.parametrize(
    ("rows", "weights", "distillation", "parts"),
    [(ROWS, (0.5, 0.25, 0.25), 0.0, 1), (ROWS[:2], (0.5, 0.5), 0.7, 2), (ROWS[1:2], (1.0,), 0.0, 4)],
    ids=["several", "taught, in parts", "parts"],
)
def test_the_update_is_that_of_the_weighted_mean_gradient(net, params, data, rows, weights, distillation, parts):
    recipe = dataclasses.replace(PLAIN, accumulate=parts, warmup=0.0)
    rule = fixed(*rows, distillation=distillation, weights=weights)
    found, (loss,), _ = run(net, params, data, recipe, rule)
    expected_loss, gradient = expected_gradient(net, params, data, rows, weights, distillation, parts)
    update = recipe.update_rule(STEPS)
    change, _ = update.update(gradient, update.init(params), params)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    close(found.params, optax.apply_updates(params, change))


def test_a_rule_is_one_program_and_learns(net, params, data):
    for name in ("fair", "progressive[full=0.1,teach=0.5]"):
        _, losses, step = run(net, params, data, PLAIN, paths(net.space, name), 30)
        assert losses[-1] < losses[0] - 0.1, (name, losses)
        assert step._cache_size() == 1


def test_more_networks_do_not_make_the_program_larger(net, params, data):
    def size(rule):
        step = shared_step(net, PLAIN, rule, STEPS, Spread(None))
        weights = started(params, PLAIN, STEPS)
        clock = Clock(np.int32(0), np.float32(0))
        return len(step.lower(weights, *data, *PIXELS, jax.random.key(0), clock).as_text())

    assert size(paths(net.space, "sandwich[random=14]")) < 1.05 * size(paths(net.space, "sandwich[random=1]"))


def test_the_average_is_kept_beside_the_weights(net, params, data):
    recipe = dataclasses.replace(PLAIN, ema=0.5, warmup=0.0)
    plain, losses, _ = run(net, params, data, dataclasses.replace(recipe, ema=0.0), paths(net.space, "uniform"), 2)
    found, same, _ = run(net, params, data, recipe, paths(net.space, "uniform"), 2)
    assert same == losses and plain.average is None
    close(found.params, plain.params, atol=1e-6)
    first, _, _ = run(net, params, data, recipe, paths(net.space, "uniform"), 1)
    decays = (1 / 10, 2 / 11)
    one = jax.tree.map(lambda a, b: decays[0] * a + (1 - decays[0]) * b, params, first.params)
    two = jax.tree.map(lambda a, b: decays[1] * a + (1 - decays[1]) * b, one, found.params)
    close(found.average, two, atol=1e-6)


def test_bfloat16_keeps_weights_in_float32_and_its_loss_near(net, params, data):
    rule = fixed(ROWS[0])
    exact, losses, _ = run(net, params, data, PLAIN, rule, 10)
    found, rough, _ = run(net, params, data, dataclasses.replace(PLAIN, precision="bfloat16"), rule, 10)
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(rough, losses, rtol=0.03)
    assert rough != losses
