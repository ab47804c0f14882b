"""A network of a supernet as the teacher of a stand-alone one."""

from __future__ import annotations

from typing import Any

from jax import Array
from jax.tree_util import Partial

from nas.training.extremes import extremes
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
