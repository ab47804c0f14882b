"""A network of a supernet as the teacher of a stand-alone one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from nas.training.extremes import extremes
from nas.training.images import augment, normalise
from nas.training.loss import wrong
from nas.training.memory import within_memory
from nas.training.recipe import Recipe
from nas.training.standalone import Images
from nas.types import Key
from search_spaces.supernet import Supernet


def supernet_teacher(supernet: Supernet, params: Any, genes: Any = None) -> Partial:
    """Normalised float32 images `[N, H, W, C]` to logits `[N, classes]` of one network of `supernet`.

    `params` are shared parameters `{slot: {kind: {"params": ...}}}`; `genes` are those of the largest network unless
    given. It normalises with the batch, as shared weights are trained, so that it needs no statistics. Images of
    another size than the space's are scaled.

    Raises:
        InputError: genes that are not of the space.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from search_spaces.spaces import tiny
        >>> net = Supernet(tiny.space())
        >>> supernet_teacher(net, net.init(jax.random.key(0)))(jnp.zeros((2, 8, 8, 1))).shape
        (2, 10)
    """
    known = extremes(supernet.space).largest if genes is None else supernet.space.check(genes)

    def logits(params: Any, x: Array) -> Array:
        # known while tracing: that one network is compiled, not the space
        return supernet.apply(params, supernet.fitted(x), known, "train")  # type: ignore[arg-type]

    return Partial(logits, params)


def teacher_error(teacher: Callable[[Array], Array], data: Images, recipe: Recipe, key: Key) -> tuple[float, int]:
    """The share of wrong answers of `teacher`, and of how many images: what a pupil trained by `recipe` is told.

    Images are augmented, and come in batches as large as the parts that the recipe cuts its batches into, by whose
    statistics a supernet normalises; less than one batch is left out. So is mix-up, whose images have no one label. The
    key is consumed.

    Raises:
        OutOfMemory: the teacher does not fit into the memory of the device.

    Example:
        >>> data = Images(np.zeros((5, 8, 8, 1), np.uint8), np.arange(5), np.zeros(1), np.ones(1))
        >>> teacher_error(lambda x: jnp.eye(10)[:1].repeat(len(x), 0), data, Recipe(batch=4), jax.random.key(0))
        (0.75, 4)
    """
    size = min(recipe.batch // recipe.accumulate, len(data.images))
    plain = replace(recipe, mixup=0.0)

    @jax.jit
    def mistakes(teacher: Callable[[Array], Array], key: Key, images: Array, labels: Array) -> Array:
        x = normalise(images, jnp.asarray(data.mean), jnp.asarray(data.std))
        x, _ = augment(key, x, jnp.zeros((len(x), 1)), plain)
        return wrong(teacher(x), labels)

    guide = teacher if isinstance(teacher, Partial) else Partial(teacher)
    labels = np.asarray(data.labels, np.int32)
    found, count = 0, 0
    with within_memory("the teacher", "raise accumulate, or leave the teacher out"):
        for start in range(0, len(labels) - size + 1, size):
            rows = slice(start, start + size)
            found += int(mistakes(guide, jax.random.fold_in(key, start), data.images[rows], labels[rows]))
            count += size
    return found / count, count
