"""Stand-alone training on real digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.model import Meta, Model
from nas.training import standalone
from nas.training.images import shift_and_flip
from nas.training.loss import wrong
from nas.training.parallel import spread
from nas.training.recipe import Recipe
from nas.training.rounded import completed
from nas.training.standalone import Images, pooled_statistics, settle, train
from search_spaces.network import Network, fresh
from search_spaces.precision import with_bits
from search_spaces.spaces import tiny


def digits():
    splits = split(load("digits"), 200, 0)
    return (
        Images.of(splits),
        Images(splits.test_images, splits.test_labels, splits.mean, splits.std),
    )


@pytest.fixture(scope="module")
def network():
    return tiny.space().freeze([0, 0, 0, 0, 2, 0])


def test_training_reaches_what_digits_allow_and_repeats_exactly(network):
    training, test = digits()
    recipe = Recipe(epochs=15, batch=64, learning_rate=0.1, shift=0, flip=False)
    losses = []
    first = train(network, training, recipe, jax.random.key(0), report=lambda epoch, loss: losses.append(loss))
    assert len(losses) == 15 and losses[-1] < losses[0]
    names = tuple(map(str, range(10)))
    logits = Model(network, first, Meta("mine", names, tuple(test.mean), tuple(test.std))).logits(test.images)
    assert int(wrong(jnp.asarray(logits), jnp.asarray(test.labels))) < 0.1 * len(test.labels)
    again = train(network, training, recipe, jax.random.key(0))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True))


def test_a_diverging_run_says_so(network):
    training, _ = digits()
    bad = training._replace(std=np.full(1, np.nan, np.float32))
    with pytest.raises(InputError, match="loss of epoch 0 is nan"):
        train(network, bad, Recipe(epochs=1, batch=64), jax.random.key(0))
    with pytest.raises(InputError, match="fewer than a batch"):
        train(network, training, Recipe(epochs=1, batch=4096), jax.random.key(0))


def test_settled_statistics_are_those_of_the_images(network):
    training, _ = digits()
    part = training._replace(images=training.images[:250])
    variables = fresh(network, jax.random.key(0))
    settled = settle(network, variables, part)
    x = (part.images.astype(np.float64) / 255 - part.mean) / part.std
    kernel = np.asarray(variables["params"]["stem_0"]["conv"]["kernel"], np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    response = sum(padded[:, i : i + 8, j : j + 8, :] @ kernel[i, j] for i in range(3) for j in range(3))
    stem = settled["batch_stats"]["stem_0"]["norm"]
    np.testing.assert_allclose(stem["mean"], response.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stem["var"], response.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize(("bits", "batches"), [("w8a4", 1), ("w2a8", 3)])
def test_few_levels_of_activations_settle_in_one_batch(network, bits: str, batches: int, monkeypatch):
    training, _ = digits()
    part, sizes = training._replace(images=training.images[:750]), []
    space = with_bits(network, bits)
    variables = completed(space, fresh(space, jax.random.key(0)), part.images[:8], part.mean, part.std)
    program = standalone._statistics(space, "auto")

    def counted(variables, images, *rest):
        sizes.append(len(images))
        return program(variables, images, *rest)

    monkeypatch.setattr(standalone, "_statistics", lambda *_: counted)
    settle(space, variables, part)
    monkeypatch.setattr(standalone, "SETTLING_PIXELS", 64 * 300)
    settle(space, variables, part)
    assert sizes == ([750, 300] if batches == 1 else [250] * 6)


def test_images_in_the_order_of_their_classes_settle_like_shuffled_ones(network):
    """2,500 black images and then 500 white ones: the first 2,000 alone would say that all images are black."""
    images = np.repeat(np.array([0, 255], np.uint8), [2500, 500])[:, None, None, None] + np.zeros(
        (1, 8, 8, 1), np.uint8
    )
    data = Images(images, np.repeat(np.arange(2, dtype=np.int32), [2500, 500]), np.zeros(1), np.ones(1))
    variables = train(network, data, Recipe(epochs=0, batch=64), jax.random.key(0))
    kernel = np.asarray(variables["params"]["stem_0"]["conv"]["kernel"])
    response = np.zeros(kernel.shape[-1])
    for i, j in np.ndindex(8, 8):  # a white image of 8x8 with a border of zeros
        response += kernel[max(0, 1 - i) : 3 - max(0, i - 6), max(0, 1 - j) : 3 - max(0, j - 6), 0].sum((0, 1)) / 64
    share = variables["batch_stats"]["stem_0"]["norm"]["mean"] / response
    np.testing.assert_allclose(share, 500 / 3000, atol=0.03)


def test_pooled_statistics_are_those_of_all_images_together():
    rng = np.random.default_rng(0)
    batches = rng.normal(3, 2, (4, 50, 6)).astype(np.float32)
    stacked = {"norm": {"mean": jnp.asarray(batches.mean(1)), "var": jnp.asarray(batches.var(1))}}
    pooled = pooled_statistics(stacked)["norm"]
    np.testing.assert_allclose(pooled["mean"], batches.reshape(200, 6).mean(0), rtol=1e-5)
    np.testing.assert_allclose(pooled["var"], batches.reshape(200, 6).var(0), rtol=1e-4)


def test_shift_and_flip_moves_by_at_most_the_shift():
    image = jnp.zeros((64, 9, 9, 1)).at[:, 4, 4].set(1.0)
    moved = np.asarray(shift_and_flip(jax.random.key(0), image, 2))
    rows, columns = np.nonzero(moved.sum((0, 3)))
    assert (moved.sum((1, 2, 3)) == 1).all()
    assert rows.min() == 2 and rows.max() == 6 and columns.min() == 2 and columns.max() == 6


def test_a_network_that_is_not_frozen_is_refused():
    with pytest.raises(InputError, match="still has decisions"):
        Network(tiny.space()).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((4, 8, 8, 1), np.float32), range(4), "images of type float32"),
        (np.zeros((4, 8, 8), np.uint8), range(4), r"shape \(4, 8, 8\) are not allowed: give uint8 \[N, H, W, C\]"),
        (np.zeros((4, 9, 9, 1), np.uint8), range(4), "images of 9x9x1 do not fit the network, which takes 8x8x1"),
        (np.zeros((4, 8, 8, 3), np.uint8), range(4), "8x8x3 .* set input_channels"),
        (np.zeros((4, 8, 8, 1), np.uint8), range(3), r"labels .* shape \(3,\) do not fit 4 images"),
        (np.zeros((4, 8, 8, 1), np.uint8), [0.0, 1.0, 2.0, 3.0], "one whole number for each"),
        (np.zeros((4, 8, 8, 1), np.uint8), range(7, 11), "labels from 7 to 10 are out of range: give 0 to 9"),
        (np.zeros((4, 8, 8, 1), np.uint8), [-1, 0, 1, 2], "labels from -1 to 2"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_named(network, images, labels, said):
    data = Images(images, np.asarray(labels), np.zeros(1, np.float32), np.ones(1, np.float32))
    with pytest.raises(InputError, match=said):
        train(network, data, Recipe(batch=4), jax.random.key(0))


def test_recipe_limits():
    with pytest.raises(InputError, match="epochs=-1"):
        Recipe(epochs=-1)


def test_what_is_constrained_is_what_runs_and_settles(network):
    """A gate beside the weights: the parameters come back as they were trained, statistics those of what ran."""
    training, _ = digits()
    recipe = Recipe(epochs=2, batch=64, learning_rate=0.05, shift=0, flip=False)
    start = fresh(network, jax.random.key(1))
    start = {**start, "params": {**start["params"], "gate": jnp.ones(1)}}
    shares = []

    def constrain(params):
        stem = params["stem_0"]
        conv = {"kernel": stem["conv"]["kernel"] * params["gate"]}
        return {**{n: t for n, t in params.items() if n != "gate"}, "stem_0": {**stem, "conv": conv}}

    def renew(share, params):
        shares.append((share, params["gate"].item()))
        return constrain

    made = train(
        network, training, recipe, jax.random.key(0), start, penalty=lambda p, _: 5 * p["gate"][0], renew=renew
    )
    assert [share for share, _ in shares] == [0.0, 0.5, 1.0] and shares[1][1] < shares[0][1] == 1.0
    gate = made["params"]["gate"].item()
    used = {"params": constrain(made["params"]), "batch_stats": made["batch_stats"]}
    again = settle(network, used, training)["batch_stats"]["stem_0"]["norm"]["mean"]
    np.testing.assert_allclose(made["batch_stats"]["stem_0"]["norm"]["mean"], again, atol=0.05)
    assert gate < shares[1][1]


def test_other_masks_compile_nothing_and_another_constraint_is_another_checkpoint(network, tmp_path):
    training, _ = digits()
    part = training._replace(images=training.images[:128], labels=training.labels[:128])
    recipe = Recipe(epochs=1, batch=64, learning_rate=0.05, shift=0, flip=False)
    guides = [Partial(_scaled, jnp.float32(factor)) for factor in (0.5, 1.0)]
    for number, guide in enumerate(guides):
        train(network, part, recipe, jax.random.key(0), constrain=guide, checkpoint=tmp_path / str(number))
    steps = recipe.epochs * 2
    compiled = standalone._step(network, recipe, steps, 0.5, "auto", spread(recipe))
    assert compiled._cache_size() == 1
    with pytest.raises(InputError, match=r"runs is .* constrained by \S*_scaled"):
        train(network, part, recipe, jax.random.key(0), constrain=guides[0], checkpoint=tmp_path / "1")


def _scaled(factor, params):
    return jax.tree.map(lambda leaf: leaf * factor, params)
