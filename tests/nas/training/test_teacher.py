"""Stand-alone training with a teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.training.constraints import Guides
from nas.training.epoch import Clock
from nas.training.extremes import extremes
from nas.training.loss import smoothed, soft_cross_entropy, taught
from nas.training.parallel import Spread
from nas.training.recipe import Recipe
from nas.training.standalone import Images, Trained, _step, train
from nas.training.teacher import supernet_teacher, teacher_error
from search_spaces.network import Network, fresh
from search_spaces.spaces import mobilenet_v3, tiny
from search_spaces.supernet import Supernet

RNG = np.random.default_rng(0)


def test_cross_entropy_with_taught_targets_is_the_two_losses_up_to_the_teacher_s_entropy():
    logits, teacher = jnp.asarray(RNG.normal(size=(5, 4))), jnp.asarray(RNG.normal(size=(5, 4)))
    targets, share = smoothed(jnp.arange(5) % 4, 4, 0.1), 0.3
    probabilities = jax.nn.softmax(teacher)

    def written_out(logits):
        divergence = (probabilities * (jnp.log(probabilities) - jax.nn.log_softmax(logits))).sum(-1).mean()
        return (1 - share) * soft_cross_entropy(logits, targets) + share * divergence

    found = jax.grad(lambda logits: soft_cross_entropy(logits, taught(targets, teacher, share)))(logits)
    np.testing.assert_allclose(found, jax.grad(written_out)(logits), atol=1e-6)


@pytest.fixture(scope="module")
def shared():
    net = Supernet(tiny.space())
    return net, net.init(jax.random.key(0))


def test_the_largest_network_of_a_supernet_teaches(shared):
    net, variables = shared
    x = jnp.asarray(RNG.normal(size=(6, 8, 8, 1)), jnp.float32)
    largest = jnp.asarray(extremes(net.space).largest)
    expected = jax.jit(lambda v, x, g: net.apply(v, x, g, "train"))(variables, x, largest)
    np.testing.assert_allclose(jax.jit(supernet_teacher(net, variables))(x), expected, atol=1e-4)
    with pytest.raises(InputError, match="gene stages/0/0/kernel is 7"):
        supernet_teacher(net, variables, [7, 0, 0, 0, 0, 0])


def test_a_step_follows_labels_and_teacher(shared):
    """Loss of the first step, written out; the weights of the supernet are an argument, not a part of the program."""
    net, variables = shared
    space, recipe = net.space.freeze([0] * 6), Recipe(epochs=1, batch=8, shift=0, flip=False)
    teacher = supernet_teacher(net, variables)
    start = fresh(space, jax.random.key(1))
    images = RNG.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(8, dtype=np.int32)
    step = _step(space, recipe, 1, 0.25, "auto", Spread(None))
    state = Trained(start["params"], start["batch_stats"], recipe.update_rule(1).init(start["params"]), None)
    x = jnp.asarray(images, jnp.float32) / 255
    logits = Network(space).apply(start, x, "train", mutable=["batch_stats"])[0]
    goal = 0.75 * smoothed(labels, 10, 0.1) + 0.25 * jax.nn.softmax(jax.jit(teacher)(x))
    expected = float(soft_cross_entropy(logits, goal))
    clock = Clock(np.int32(0), np.float32(0))
    _, loss = step(
        Spread(None).copied(state), images, labels, np.zeros(1, np.float32), np.ones(1, np.float32),
        jax.random.key(0), clock, Guides.of(teacher, None, None),
    )  # fmt: skip
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_any_function_teaches_and_moves_the_weights(shared):
    net, _ = shared
    space = net.space.freeze([0] * 6)
    data = Images(RNG.integers(0, 256, (64, 8, 8, 1)).astype(np.uint8), np.zeros(64, np.int32), np.zeros(1), np.ones(1))
    recipe = Recipe(epochs=8, batch=32, learning_rate=0.1, shift=0, flip=False, accumulate=2)
    always_three = lambda x: 20.0 * jax.nn.one_hot(jnp.full(len(x), 3), 10)  # noqa: E731
    for share, answer in ((1.0, 3), (0.0, 0)):
        found = train(space, data, recipe, jax.random.key(0), teacher=always_three, distillation=share)
        x = jnp.asarray(data.images, jnp.float32) / 255
        assert (np.asarray(Network(space).apply(found, x, "eval")).argmax(-1) == answer).mean() > 0.9
    with pytest.raises(InputError, match="distillation=1.5 is out of range"):
        train(space, data, recipe, jax.random.key(0), teacher=always_three, distillation=1.5)


def test_a_teacher_of_larger_images_sees_scaled_ones():
    space = mobilenet_v3.space(input_hw=32, input_channels=1, classes=10, width=0.25, resolutions=2)
    net = Supernet(space)
    smallest = min(each.image_hw for each in space.resolutions)
    params = net.shapes()
    x = jax.ShapeDtypeStruct((2, smallest, smallest, 1), jnp.float32)
    logits = jax.eval_shape(lambda params, x: supernet_teacher(net, params)(x), params, x)
    assert smallest < space.image_hw and logits.shape == (2, 10)


def test_the_error_of_a_teacher_is_that_on_images_as_they_are_augmented():
    """One that answers by the side on which the bright half lies: mirroring half of the images makes it a coin."""
    images = np.zeros((403, 8, 8, 1), np.uint8)
    labels = np.arange(403, dtype=np.int32) % 2
    images[labels == 0, :, :4], images[labels == 1, :, 4:] = 255, 255
    data = Images(images, labels, np.zeros(1, np.float32), np.ones(1, np.float32))

    def teacher(x):
        bright = jnp.stack([x[:, :, :4].sum((1, 2, 3)), x[:, :, 4:].sum((1, 2, 3))], 1)
        return jnp.where(x.mean((1, 2, 3))[:, None] > 0.35, bright, jnp.nan)  # no zeros are shifted in

    still, moved = (Recipe(batch=50, shift=1, flip=flip, mixup=0.2) for flip in (False, True))
    assert teacher_error(teacher, data, still, jax.random.key(0)) == (0.0, 400)
    error, count = teacher_error(teacher, data, moved, jax.random.key(0))
    assert 0.4 < error < 0.6 and count == 400
    few = data._replace(images=images[:3], labels=labels[:3])
    assert teacher_error(teacher, few, still, jax.random.key(0)) == (0.0, 3)
