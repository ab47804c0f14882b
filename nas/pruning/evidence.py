"""What criteria look at besides weights: results of activation functions, and gradients of the loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nas.stratify import drawn
from nas.training.images import EVALUATION_BATCH, normalise
from nas.training.loss import cross_entropy
from nas.training.standalone import Images
from search_spaces.layers import Activation
from search_spaces.network import Network
from search_spaces.space import SearchSpace


def activations_of(space: SearchSpace, variables: Any, data: Images, count: int = EVALUATION_BATCH) -> dict[str, Array]:
    """Results of all activation functions by path, `[N, H, W, C]` or `[N, C]`, for a fixed sample of the images.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> data = Images(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32), np.zeros(1), np.ones(1))
        >>> activations_of(space, fresh(space, jax.random.key(0)), data)["stem_0/Activation_0"].shape
        (3, 8, 8, 8)
    """
    rows = drawn(len(data.images), min(count, len(data.images)))
    return _activations(space)(variables, data.images[rows], data.mean, data.std)


@lru_cache(maxsize=8)
def _activations(space: SearchSpace) -> Callable[..., dict[str, Array]]:
    @jax.jit
    def run(variables: Any, images: Array, mean: Array, std: Array) -> dict[str, Array]:
        seen: dict[str, Array] = {}

        def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            result = call(*args, **kwargs)
            if isinstance(context.module, Activation) and context.method_name == "__call__":
                seen["/".join(context.module.path)] = result
            return result

        # a compiled kernel would compute attention without its layers
        with nn.intercept_methods(watch):
            Network(space, "xla").apply(variables, normalise(images, jnp.asarray(mean), jnp.asarray(std)), "eval")
        return seen

    return run


def gradients_of(space: SearchSpace, variables: Any, data: Images, count: int = EVALUATION_BATCH) -> Any:
    """Gradients of the cross-entropy by all parameters, for a fixed sample of the images, normalised by themselves.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> data = Images(np.ones((3, 8, 8, 1), np.uint8), np.arange(3), np.zeros(1), np.ones(1))
        >>> gradients_of(space, fresh(space, jax.random.key(0)), data)["head"]["logits"]["bias"].shape
        (10,)
    """
    rows = drawn(len(data.images), min(count, len(data.images)))
    return _gradients(space)(variables, data.images[rows], np.asarray(data.labels)[rows], data.mean, data.std)


@lru_cache(maxsize=8)
def _gradients(space: SearchSpace) -> Callable[..., Any]:
    @jax.jit
    def run(variables: Any, images: Array, labels: Array, mean: Array, std: Array) -> Any:
        def loss(params: Any) -> Array:
            x = normalise(images, jnp.asarray(mean), jnp.asarray(std))
            logits, _ = Network(space).apply({**variables, "params": params}, x, "train", mutable=["batch_stats"])
            return cross_entropy(logits, labels)

        return jax.grad(loss)(variables["params"])

    return run
