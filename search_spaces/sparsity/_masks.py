"""Masks: from scores of structures to what is kept at a density, which is traced and never compiles anew.

Shapes: `D` is the shape of a structure's decisions (`search_spaces/sparsity/_patterns.py`); masks are bool, True where
kept. A density is the share of the layer's weights that are kept, rounded up to whole structures as
`hw_models.compression` does; one structure at least stays. Larger scores are kept first, of equal ones the first, and
what is not a number last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import InputError, check_range, whole
from search_spaces.masking import largest_in_groups
from search_spaces.sparsity._patterns import N_M_CHANNELS, SLICES, Structure, check_divisible

ROUNDING = 1e-6  # a share such as 0.1 of 30 channels must not keep one more


def kept(structure: Structure, scores: Array, density: Any) -> Array:
    """The structures that a layer of that density (traced) keeps, bool `D`, by their scores `D`.

    Of slices the run of neighbours with the largest sum is kept, so that the kernel left is dense; a split keeps what
    lies inside before what lies outside, so that the layer left is a grouped convolution; `n_m` keeps the same number
    of every four input channels.

    Raises:
        InputError: scores of another shape, or a density that is no share.

    Example:
        >>> channels = Structure("output_channel", (2, 4))
        >>> kept(channels, jnp.asarray([[0.3, 0.1, 0.3, 0.2]]), 0.25).tolist()
        [[True, False, False, False]]
    """
    if scores.shape != structure.decisions:
        raise InputError(f"scores of shape {scores.shape} do not fit structure {structure.kind} of weights "
                         f"{structure.shape}: give {structure.decisions}")  # fmt: skip
    check_share("density", density)
    return _kept(structure, scores, density)


def kept_overall(structures: Sequence[Structure], scores: Sequence[Array], density: Any) -> list[Array]:
    """The structures that layers keep which share one density (traced), a mask `D` for each: scores compete.

    Every layer keeps a structure at least, unless whole layers are what is dropped; one of those stays then.

    Source: network slimming has one threshold for all layers (Liu et al. 2017, https://arxiv.org/abs/1708.06519), SNIP
    one number of weights (Lee et al. 2019, https://arxiv.org/abs/1810.02340).

    Raises:
        InputError: layers of `n_m`, which has no other share than a layer's own, or a density that is no share.

    Example:
        >>> layers = [Structure("output_channel", (1, 2)), Structure("output_channel", (1, 2))]
        >>> scores = [jnp.asarray([[5.0, 4.0]]), jnp.asarray([[1.0, 2.0]])]
        >>> [mask.tolist() for mask in kept_overall(layers, scores, 0.5)]
        [[[True, True]], [[False, True]]]
    """
    if any(structure.kind == "n_m" for structure in structures):
        raise InputError("structure n_m cannot share a density over layers: give each layer its own")
    check_share("density", density)
    return _kept_overall(tuple(structures), list(scores), density)


def closed(structure: Structure, mask: Array) -> Array:
    """`mask` and what else must stay for a dense kernel (slices) or a grouped convolution (split); others as they are.

    For masks that no density made, such as those of thresholds. An empty one stays empty.

    Example:
        >>> ends = jnp.asarray([True, False, True]).reshape(3, 1, 1, 1)
        >>> closed(Structure("horizontal_slice", (3, 1, 1, 1)), ends).ravel().tolist()
        [True, True, True]
        >>> closed(Structure("split", (4, 4)), jnp.asarray([False, True, False])).tolist()
        [True, True, False]
    """
    if structure.kind != "split" and structure.kind not in SLICES:
        return mask
    flat = mask.ravel().astype(jnp.int32)
    filled = lax.cummax(flat, reverse=True)
    if structure.kind in SLICES:
        filled &= lax.cummax(flat)
    return filled.astype(bool).reshape(mask.shape)


def groups_of(structure: Structure, mask: Array) -> Array:
    """Groups of the convolution that a `closed` mask of a split leaves: 1, 2, 4, ..., or 0 where the layer is gone.

    Example:
        >>> split = Structure("split", (4, 4))
        >>> [groups_of(split, jnp.arange(3) < levels).item() for levels in (3, 2, 1, 0)]
        [1, 2, 4, 0]
    """
    levels = mask.sum(-1)
    return jnp.where(levels > 0, 2 ** (structure.levels - jnp.maximum(levels, 1)), 0)


def n_m_mask(scores: Array, n: Any, m: int) -> Array:
    """The `n` largest (traced, or 1 to `m`) of every `m` neighbouring input channels, bool `[..., I, O]` as `scores`.

    Source: Mishra et al. 2021, "Accelerating sparse deep neural networks", https://arxiv.org/abs/2104.08378.

    Raises:
        InputError: input channels that are no multiple of `m`, or `n` out of range.

    Example:
        >>> n_m_mask(jnp.asarray([[4.0], [1.0], [3.0], [2.0]]), 2, 4).ravel().tolist()
        [True, False, True, False]
    """
    if not isinstance(n, Array):
        whole("n", n, 1, m)
    check_divisible(scores.shape[-2], m)
    return largest_in_groups(jnp.where(jnp.isnan(scores), -jnp.inf, scores), n, m)


def density(mask: Array) -> Array:
    """The share of True in a mask of weights (`Structure.expand`), float32.

    Example:
        >>> density(Structure("input_channel", (4, 2)).expand(jnp.arange(4).reshape(4, 1) < 1)).item()
        0.25
    """
    return mask.astype(jnp.float32).mean()


def check_share(name: str, value: Any) -> None:
    """Raise InputError unless `value` is 0 to 1; what is traced cannot be checked.

    Example:
        >>> check_share("density", 50)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: density=50 is out of range: give 0 to 1
    """
    if isinstance(value, int | float):
        check_range(name, value, 0, 1)


@partial(jax.jit, static_argnums=0)
def _kept(structure: Structure, scores: Array, density: Any) -> Array:
    """`kept` of what was checked."""
    if structure.kind == "n_m":
        return n_m_mask(scores, _rounded_up(N_M_CHANNELS, density), N_M_CHANNELS)
    if structure.kind in SLICES:
        return _neighbours(scores.ravel(), _rounded_up(structure.count, density)).reshape(scores.shape)
    if structure.kind == "split":
        scores = lax.cummin(scores)  # nothing is worth more than what lies inside it
    return _largest(scores.ravel(), structure.sizes.ravel(), density).reshape(scores.shape)


@partial(jax.jit, static_argnums=0)
def _kept_overall(structures: tuple[Structure, ...], scores: list[Array], density: Any) -> list[Array]:
    """`kept_overall` of what was checked."""
    worth = [
        lax.cummin(score) if each.kind == "split" else score for each, score in zip(structures, scores, strict=True)
    ]
    sizes = [structure.sizes.ravel() for structure in structures]
    whole_mask = _largest(jnp.concatenate([score.ravel() for score in worth]), jnp.concatenate(sizes), density)
    masks, start = [], 0
    for structure, score in zip(structures, worth, strict=True):
        mask = whole_mask[start : start + structure.count].reshape(structure.decisions)
        if structure.kind != "layer":
            mask |= (_places(score.ravel()) == 0).reshape(structure.decisions)
        masks.append(closed(structure, mask))
        start += structure.count
    return masks


def _places(scores: Array) -> Array:
    """The place of every score from the largest on, int32; equal ones as they stand, not-a-numbers at the end."""
    return jnp.argsort(jnp.argsort(-scores, stable=True))


def _rounded_up(count: int, share: Any) -> Array:
    """At least 1 and at most `count`."""
    return jnp.clip(jnp.ceil(count * jnp.asarray(share, jnp.float32) * (1 - ROUNDING)), 1, count).astype(jnp.int32)


def _largest(scores: Array, sizes: Array, share: Any) -> Array:
    """The largest scores until their sizes make up that share of all weights. `[n], int32 [n] -> bool [n]`"""
    order = jnp.argsort(-scores, stable=True)
    before = jnp.cumsum(sizes[order]) - sizes[order]
    limit = sizes.sum() * jnp.asarray(share, jnp.float32) * (1 - ROUNDING)
    return jnp.zeros(scores.shape, bool).at[order].set((before < limit) | (before == 0))


def _neighbours(scores: Array, count: Array) -> Array:
    """The run of `count` neighbours with the largest sum, the first of equal ones. `[n] -> bool [n]`"""
    place = jnp.arange(scores.shape[0])
    inside = (place >= place[:, None]) & (place < place[:, None] + count)
    sums = jnp.where(inside, scores, 0).sum(1)
    return inside[jnp.argmax(jnp.where(place + count <= scores.shape[0], sums, -jnp.inf))]
