"""Images inside jit: normalisation and augmentation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from nas.training.recipe import Recipe

EVALUATION_BATCH = 250
"""Images that go through a network at once where nothing is learnt from them."""


def normalise(images: Array, mean: Array, std: Array) -> Array:
    """uint8 `[N, H, W, C]` to float32 with zero mean and unit variance per channel (`mean`, `std` are `[C]`).

    Example:
        >>> float(normalise(jnp.full((1, 2, 2, 1), 255, jnp.uint8), jnp.array([0.5]), jnp.array([0.5])).max())
        1.0
    """
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def augment(key: Array, images: Array, targets: Array, recipe: Recipe) -> tuple[Array, Array]:
    """Normalised images `[N, H, W, C]` and targets `[N, classes]` as `recipe` wants them; the key is consumed.

    Example:
        >>> plain = Recipe(shift=0, flip=False)
        >>> x, y = augment(jax.random.key(0), jnp.ones((2, 4, 4, 1)), jnp.eye(2), plain)
        >>> float(x.min()), y.tolist()
        (1.0, [[1.0, 0.0], [0.0, 1.0]])
    """
    images = shift_and_flip(key, images, recipe.shift, recipe.flip)
    # Keys of their own: what a recipe leaves out does not change the rest. Splitting a key, as above, folds in 0 and 1.
    if recipe.cutout:
        images = cut_out(jax.random.fold_in(key, 3), images, recipe.cutout)
    if recipe.mixup:
        images, targets = mix_up(jax.random.fold_in(key, 2), images, targets, recipe.mixup)
    return images, targets


def shift_and_flip(key: Array, images: Array, shift: int = 2, flip: bool = True) -> Array:
    """Move each image by up to `shift` pixels and mirror half of them; the key is consumed.

    What moves in repeats the border, which suits a plain background and photographs alike.

    Example:
        >>> shift_and_flip(jax.random.key(0), jnp.zeros((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    count, height, width, _ = images.shape
    shift_key, flip_key = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    corners = jax.random.randint(shift_key, (count, 2), 0, 2 * shift + 1)

    def crop(image: Array, corner: Array) -> Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, image.shape[-1]))

    moved = jax.vmap(crop)(padded, corners)
    if not flip:
        return moved
    mirrored = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
    return jnp.where(mirrored, moved[:, :, ::-1], moved)


def cut_out(key: Array, images: Array, side: int) -> Array:
    """Set a square of `side` pixels in each image to 0, the mean of normalised images; the key is consumed.

    Its centre is anywhere in the image, so that part of it may lie outside.

    Source: DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552.

    Example:
        >>> float(cut_out(jax.random.key(0), jnp.ones((1, 8, 8, 1)), 16).sum())
        0.0
    """
    count, height, width, _ = images.shape
    row_key, column_key = jax.random.split(key)

    def inside(key: Array, size: int) -> Array:
        first = jax.random.randint(key, (count, 1), 0, size) - side // 2
        place = jnp.arange(size)
        return (place >= first) & (place < first + side)

    blank = inside(row_key, height)[:, :, None] & inside(column_key, width)[:, None, :]
    return jnp.where(blank[..., None], 0, images)


def mix_up(key: Array, images: Array, targets: Array, alpha: float) -> tuple[Array, Array]:
    """Mix every image, and its target, with another of the batch; the key is consumed.

    One share for the whole batch, drawn from Beta(alpha, alpha). Partners are the batch turned by a random number of
    places, which is a permutation that a batch spread over devices can do without sorting.

    Source: Zhang et al. 2018, https://arxiv.org/abs/1710.09412.

    Example:
        >>> _, targets = mix_up(jax.random.key(0), jnp.ones((2, 4, 4, 1)), jnp.eye(2), 1.0)
        >>> targets.sum(1).tolist()
        [1.0, 1.0]
    """
    share_key, place_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha)
    turn = jax.random.randint(place_key, (), 1, max(2, len(images)))

    def mixed(array: Array) -> Array:
        return share * array + (1 - share) * jnp.roll(array, turn, axis=0)

    return mixed(images), mixed(targets)
