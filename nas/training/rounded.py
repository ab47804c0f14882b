"""Networks that round (`search_spaces.rounding`) and start from weights of one that does not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from nas.training.images import normalise
from search_spaces.network import Network, variable_shapes
from search_spaces.precision import has_bits
from search_spaces.space import SearchSpace


def completed(
    space: SearchSpace, variables: Any, images: Any, mean: Any, std: Any, depthwise: str = "auto", anew: bool = False
) -> Any:
    """`variables` of the float network with what rounding needs besides, from uint8 `images [N, H, W, C]`.

    Ranges of activations, and what quantizers learn (steps, scales), which must start from real weights and
    activations. What is there already stays; with `anew` what is learned is set again too, as for fresh weights.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.precision import with_bits
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> images = jnp.arange(128, dtype=jnp.uint8).reshape(2, 8, 8, 1)
        >>> rounding = completed(with_bits(space, 8), fresh(space, jax.random.key(0)), images, [0.5], [0.5])
        >>> round(rounding["batch_stats"]["stem_0"]["conv"]["input_low"].item(), 3)
        -1.0
    """
    if not has_bits(space):
        return variables
    if anew:
        variables = {**variables, "params": _without(variables["params"], ("weight_", "act_"))}
    have = {name: variables[name] for name in ("params", "batch_stats")}
    if str(jax.tree.structure(have)) == str(jax.tree.structure(variable_shapes(space))):
        return variables
    network = Network(space, depthwise)

    @jax.jit
    def run(variables: Any, images: Array) -> Any:
        x = normalise(images, jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))
        return network.apply(variables, x, "calibrate", mutable=["params", "batch_stats"])[1]

    found = run(variables, jnp.asarray(images))
    # statistics of normalisation that are known are better than those of a few images
    return {name: _joined(found[name], variables[name]) for name in ("params", "batch_stats")}


def _without(tree: Any, prefixes: tuple[str, ...]) -> Any:
    if not isinstance(tree, dict):
        return tree
    return {name: _without(part, prefixes) for name, part in tree.items() if not name.startswith(prefixes)}


def _joined(new: Any, old: Any) -> Any:
    if not isinstance(new, dict):
        return old
    return {name: _joined(part, old[name]) if name in old else part for name, part in new.items()}
