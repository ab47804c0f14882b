"""Images inside jit: normalisation and augmentation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

EVALUATION_BATCH = 250
"""Images that go through a network at once where nothing is learnt from them."""


def normalise(images: Array, mean: Array, std: Array) -> Array:
    """uint8 `[N, H, W, C]` to float32 with zero mean and unit variance per channel (`mean`, `std` are `[C]`).

    Example:
        >>> float(normalise(jnp.full((1, 2, 2, 1), 255, jnp.uint8), jnp.array([0.5]), jnp.array([0.5])).max())
        1.0
    """
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def shift_and_flip(key: Array, images: Array, shift: int = 2, flip: bool = True) -> Array:
    """Move each image by up to `shift` pixels and mirror half of them; the key is consumed.

    What moves in repeats the border, which suits a plain background and photographs alike.
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
