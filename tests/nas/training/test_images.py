"""Augmentation inside jit."""

import jax
import jax.numpy as jnp
import numpy as np

from nas.training.images import augment, cut_out, mix_up, shift_and_flip
from nas.training.recipe import Recipe


def test_cutout_blanks_one_square_that_may_leave_the_image():
    blank = np.asarray(cut_out(jax.random.key(0), jnp.ones((500, 10, 12, 2)), 4)) == 0
    assert (blank[..., 0] == blank[..., 1]).all()
    rows, columns = blank[..., 0].any(2).sum(1), blank[..., 0].any(1).sum(1)
    assert (blank[..., 0].sum((1, 2)) == rows * columns).all(), "a rectangle"
    assert rows.max() == columns.max() == 4 and rows.min() == columns.min() == 2, "its centre is in the image"
    assert len(np.unique(blank.reshape(500, -1), axis=0)) > 80


def test_mixup_mixes_images_and_targets_by_the_same_share():
    images, targets = jnp.eye(6)[:, None, :, None], jnp.eye(6)
    shares = []
    for seed in range(40):
        x, y = mix_up(jax.random.key(seed), images, targets, 0.4)
        np.testing.assert_allclose(x[:, 0, :, 0], y, atol=1e-6)
        np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
        assert (np.asarray((y > 0).sum(1)) <= 2).all()
        shares.append(float(y[0, 0]))
    assert min(shares) < 0.1 and max(shares) > 0.9, "Beta(0.4, 0.4) is spread to both ends"


def test_what_a_recipe_leaves_out_does_not_change_the_rest():
    key, images, targets = jax.random.key(3), jax.random.normal(jax.random.key(0), (8, 9, 9, 1)), jnp.eye(8)
    plain, _ = augment(key, images, targets, Recipe())
    cut, _ = augment(key, images, targets, Recipe(cutout=3))
    assert (plain == shift_and_flip(key, images, 2, True)).all()
    alone = cut_out(jax.random.split(key)[1], jnp.ones((8, 9, 9, 1)), 3)
    assert ((np.asarray(alone) == 0) != (np.asarray(cut) == 0)).any(), "not with the key that mirrors"
    changed = np.asarray(plain != cut)
    assert changed.any() and (np.asarray(cut)[changed] == 0).all()
