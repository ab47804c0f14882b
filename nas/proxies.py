"""Zero-cost proxies: scores of a network at its initial weights, from one batch of images; higher promises less error.

Each is a pure function of a network, whatever runs it, `forward(variables, x [N, H, W, C], mode) -> [N, classes]`, in
the modes `train` (normalised with the batch) and `eval` (with the statistics in `variables`). Weights are the leaves
of convolutions and matrices; scales and biases do not count, as in the code of Abdelfattah et al.

Source: Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", https://arxiv.org/abs/2101.08134, sections 3.1
and 3.2, and the papers named at each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from nas.training.loss import cross_entropy
from search_spaces.choice import Choice
from search_spaces.normalisation import NORM_EPSILON

Forward = Callable[[Any, Array, str], Array]

WEIGHTS = ("kernel", "filters", "channel_filter")  # what convolutions and matrices call their parameters
JACOB_EPSILON = 1e-5  # as in the code of Mellor et al.
STEP = 1e-6  # of GraSP's difference, relative to the length of the weights: a larger one meets bends of rectifiers


def weights_of(variables: Any) -> list[Array]:
    """The leaves of `variables` that are weights, in the order of their paths.

    Example:
        >>> [leaf.shape for leaf in weights_of({"norm": {"scale": jnp.ones(3)}, "conv": {"kernel": jnp.ones((2, 3))}})]
        [(2, 3)]
    """
    return [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0] if path[-1].key in WEIGHTS]


def _named(name: str, variables: Any) -> list[Array]:
    return [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0] if path[-1].key == name]


def _gradient(forward: Forward, variables: Any, x: Array, y: Array) -> Any:
    return jax.grad(lambda v: cross_entropy(forward(v, x, "train"), y))(variables)


def grad_norm(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """Sum over weight tensors of the Euclidean norm of the loss gradient, `[]`.

    Example:
        >>> net = lambda v, x, mode: x.reshape(len(x), -1) @ v["kernel"]
        >>> float(grad_norm(net, {"kernel": jnp.zeros((1, 2))}, jnp.ones((1, 1, 1, 1)), jnp.asarray([0])))
        0.70710...
    """
    gradient = _gradient(forward, variables, x, y)
    return jnp.stack([jnp.sqrt(jnp.square(leaf).sum()) for leaf in weights_of(gradient)]).sum()


def snip(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """Sum over weights of `|weight * gradient|`, `[]`: the loss that removing each would change, to first order.

    Source: Lee et al. 2019, https://arxiv.org/abs/1810.02340, equation 5.

    Example:
        >>> net = lambda v, x, mode: x.reshape(len(x), -1) @ v["kernel"]
        >>> float(snip(net, {"kernel": jnp.ones((1, 2))}, jnp.ones((1, 1, 1, 1)), jnp.asarray([0])))
        1.0
    """
    gradient = weights_of(_gradient(forward, variables, x, y))
    pairs = zip(weights_of(variables), gradient, strict=True)
    return jnp.stack([jnp.abs(weight * slope).sum() for weight, slope in pairs]).sum()


def grasp(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """`- weight . (Hessian @ gradient)`, summed over weights, `[]`: whether removing them lets gradients flow.

    Source: Wang et al. 2020, https://arxiv.org/abs/2002.07376, equation 8. The product with the Hessian is the central
    difference of two gradients, `STEP` times the length of the weights apart on either side, because the derivative of
    depthwise convolution cannot be differentiated again. In float32 little is left of it: give float64. Before a
    normalisation weights have no scale, so H weight = - gradient there, and the score of such a layer is the square of
    its gradient's length.

    Example:
        >>> net = lambda v, x, mode: x.reshape(len(x), -1) @ v["kernel"]
        >>> with jax.enable_x64(True):
        ...     found = grasp(net, {"kernel": jnp.asarray([[1.0, 0.0]])}, jnp.ones((1, 1, 1, 1)), jnp.asarray([0]))
        >>> round(float(found), 4)
        0.1058
    """
    first = _gradient(forward, variables, x, y)
    weights, slopes = weights_of(variables), weights_of(first)
    length = jnp.sqrt(sum(jnp.square(weight).sum() for weight in weights))
    steep = jnp.sqrt(sum(jnp.square(slope).sum() for slope in slopes))
    step = STEP * length / jnp.maximum(steep, jnp.finfo(steep.dtype).tiny)

    def moved(sign: float) -> Any:
        def shift(path: Any, leaf: Array, slope: Array) -> Array:
            return leaf + sign * step * slope if path[-1].key in WEIGHTS else leaf

        return jax.tree_util.tree_map_with_path(shift, variables, first)

    # one program for both ends: compiled once, run twice
    ends = lax.map(
        lambda sign: jnp.stack(
            [
                (weight * slope).sum()
                for weight, slope in zip(weights, weights_of(_gradient(forward, moved(sign), x, y)), strict=True)
            ]
        ).sum(),
        jnp.asarray([1.0, -1.0], steep.dtype),
    )
    return -(ends[0] - ends[1]) / (2 * step)


def fisher(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """Sum over channels of half the mean square, over images, of `activation . gradient`, `[]`.

    `variables` hold the normalisation statistics of the batch `x`, which stay as they are, so that every image has a
    gradient of its own. The activations are the normalised maps `z = scale * u + bias` of every channel, where `scale`
    is 1 and `bias` 0 at the start. Summed over the pixels of image n, `z . dL_n/dz = u . dL_n/dz = dL_n/dscale`: the
    derivative of the loss of one image in the scale of the channel, which is what is computed. What is not normalised
    (the logits) does not count.

    Source: Theis et al. 2018, https://arxiv.org/abs/1801.05787, equation 7; Turner et al. 2020 (BlockSwap),
    https://arxiv.org/abs/1906.04113, equation 3.

    Example:
        >>> net = lambda v, x, mode: v["scale"] * x.reshape(len(x), -1)
        >>> float(fisher(net, {"scale": jnp.ones(2)}, jnp.zeros((1, 1, 1, 2)), jnp.asarray([0])))
        0.0
    """

    def add(total: list[Array], image: tuple[Array, Array]) -> tuple[list[Array], None]:
        one, label = image
        loss = jax.grad(lambda v: cross_entropy(forward(v, one[None], "eval"), label[None]))
        return [a + jnp.square(b) for a, b in zip(total, _named("scale", loss(variables)), strict=True)], None

    zeros = [jnp.zeros_like(leaf) for leaf in _named("scale", variables)]
    squares, _ = lax.scan(add, zeros, (x, y))
    return 0.5 * jnp.stack([leaf.sum() for leaf in squares]).sum() / len(x)


def synflow(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """Logarithm of the sum over weights of `weight * dR/dweight`, `[]`, R the sum of the logits for an image of ones.

    Every variable is replaced by its absolute value, and the normalisation by nothing: mean 0, and the variance that
    makes its factor 1. `forward` must run the network without its activations (`linear`), and in float64, because the
    products of all layers leave the range of float32; so the score is a logarithm too. Gates of attention stay.

    Source: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, equation 2 and algorithm 1.

    Example:
        >>> net = lambda v, x, mode: x.reshape(len(x), -1) @ v["kernel"]
        >>> float(synflow(net, {"kernel": -jnp.ones((1, 2))}, jnp.zeros((1, 1, 1, 1)), None)) == float(jnp.log(2.0))
        True
    """

    def positive(path: Any, leaf: Array) -> Array:
        neutral = {"mean": 0.0, "var": 1.0 - NORM_EPSILON}.get(path[-1].key)
        return jnp.abs(leaf) if neutral is None else jnp.full_like(leaf, neutral)

    linear = jax.tree_util.tree_map_with_path(positive, variables)
    ones = jnp.ones((1, *x.shape[1:]), weights_of(linear)[0].dtype)
    gradient = jax.grad(lambda v: forward(v, ones, "eval").sum())(linear)
    pairs = zip(weights_of(linear), weights_of(gradient), strict=True)
    return jnp.log(jnp.stack([jnp.abs(weight * slope).sum() for weight, slope in pairs]).sum())


def jacobian(forward: Forward, variables: Any, x: Array, y: Array) -> Array:
    """The gradient of the sum of all logits in the images, `[N, H * W * C]`; see `jacob_cov`.

    Example:
        >>> net = lambda v, x, mode: x.reshape(len(x), -1) @ v["kernel"]
        >>> jacobian(net, {"kernel": jnp.ones((1, 2))}, jnp.ones((1, 1, 1, 1)), None).tolist()
        [[2.0]]
    """
    return jax.grad(lambda images: forward(variables, images, "train").sum())(x).reshape(len(x), -1)


def jacob_cov(rows: Any) -> float:
    """How little the gradients `rows [N, F]` of different images resemble each other: 0 at most, all alike far below.

    With the eigenvalues v of their correlations, `- sum(log(v + k) + 1 / (v + k))`, k = 1e-5. In float64, on the host.

    Source: Mellor et al. 2020, https://arxiv.org/abs/2006.04647v1, section 3.

    Example:
        >>> jacob_cov([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]) > jacob_cov([[1.0, 0.0]] * 2)
        True
    """
    table = np.asarray(rows, np.float64)
    if not np.isfinite(table).all() or (table.std(1) == 0).any():
        return float("nan")  # a gradient that is the same at every pixel correlates with nothing
    values = np.maximum(np.linalg.eigvalsh(np.corrcoef(table)), 0.0) + JACOB_EPSILON
    return float(-(np.log(values) + 1.0 / values).sum())


def linear(item: Any) -> Any:
    """A space, stage or block with the identity in the place of every activation; weights keep their shapes.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> linear(tiny.space()).head.activation
        'identity'
    """
    if isinstance(item, Choice):
        return Choice(*(linear(value) for value in item.values))
    if isinstance(item, tuple):
        return tuple(linear(value) for value in item)
    if not dataclasses.is_dataclass(item) or isinstance(item, type):
        return item
    changes = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        function = field.name.endswith("activation") and isinstance(value, str)
        changes[field.name] = "identity" if function else linear(value)
    return dataclasses.replace(item, **changes)


DOUBLE = ("grasp", "synflow")  # need float64
SCORES: dict[str, Callable[..., Array]] = {
    "grad_norm": grad_norm,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "fisher": fisher,
    "jacob_cov": jacobian,  # the rest of it runs on the host
}
