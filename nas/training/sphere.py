"""Training of 1-bit weights on unit spheres, as Optax transformations.

The signs of all weights together have one norm, so real weights behind them need a direction only: they stay on a unit
sphere, and a step turns them. A sphere holds a filter, a layer or the network. Everything is over trees of weights
whose last key names the leaf: `kernel [kh, kw, I, O]` and `[I, O]` hold O filters, `filters [kh, kw, C, heads]` one for
each C and head.

The signs themselves are taken in the forward pass, with straight-through gradients.

Source: Guerra Fernandez, thesis (Monash 2024), chapter 7. Erratum: its Algorithm 4 subtracts the step from the weights
and then retracts by the step again, with the other sign; as equations 3.6 and 7.2 to 7.4 have it, new weights are
`Ret_w(-learning_rate * Proj_w(gradient))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError

PER = ("filter", "layer", "network")
ENDS = ("stem_0", "stem/0", "head")  # the first and the last layer, which keep their bits: modules and slots
RETRACTIONS = ("normalise", "exponential")
WEIGHTS = {"kernel": (2, 4), "filters": (4,)}  # axes that a leaf of the name may have
LARGEST_COSINE = 1 - 1e-6  # of an angle that still has a gradient in float32
TINY = float(np.finfo(np.float32).tiny)


def is_weight(params: Any, exclude: tuple[str, ...] = ()) -> Any:
    """A mask of the tree `params`: True for weights of convolutions and matrices, False for biases, norms and the rest.

    Leaves with a key of `exclude` on their path are False as well: first and last layers stay unquantized as a rule.

    Example:
        >>> layer = {"kernel": jnp.ones((8, 4)), "bias": jnp.ones(4)}
        >>> is_weight({"stem": layer, "conv": layer}, exclude=("stem",))
        {'conv': {'bias': False, 'kernel': True}, 'stem': {'bias': False, 'kernel': False}}
    """

    def on(path: Any, leaf: Any) -> bool:
        names = [_name(key) for key in path]
        return leaf.ndim in WEIGHTS.get(names[-1] if names else "", ()) and not set(names) & set(exclude)

    return jax.tree_util.tree_map_with_path(on, params)


def on_sphere(weights: Any, per: str = "filter") -> Any:
    """Weights of the same directions and norm 1 `per` filter, layer or network, to start from.

    Weights that are all zero have no direction and stay.

    Raises:
        InputError: an unknown `per`.

    Example:
        >>> on_sphere({"kernel": jnp.array([[2.0, 0.0], [0.0, -3.0]])})["kernel"].tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    return jax.tree.map(jnp.divide, weights, _norms(weights, per))


def projected(weights: Any, vectors: Any, per: str = "filter") -> Any:
    """The part of `vectors` that is tangent to the spheres at `weights`, which are on them (equation 7.2).

    Example:
        >>> at = {"kernel": jnp.array([[1.0], [0.0]])}
        >>> projected(at, {"kernel": jnp.array([[5.0], [2.0]])})["kernel"].tolist()
        [[0.0], [2.0]]
    """
    along = _inner(weights, vectors, per)
    return jax.tree.map(lambda w, v, a: v - a * w, weights, vectors, along)


def retracted(weights: Any, steps: Any, per: str = "filter", retraction: str = "normalise") -> Any:
    """Weights on the spheres after tangent `steps` from `weights`, which are on them.

    `normalise` divides the sum by its norm (equation 7.3); `exponential` turns the weights by an angle, in radians, of
    the norm of the step (7.4). They differ in the third order of the step.

    Raises:
        InputError: an unknown `per` or `retraction`.

    Example:
        >>> at, step = {"kernel": jnp.array([[1.0], [0.0]])}, {"kernel": jnp.array([[0.0], [jnp.pi / 2]])}
        >>> retracted(at, step, retraction="exponential")["kernel"].round(6).tolist()
        [[-0.0], [1.0]]
    """
    if retraction not in RETRACTIONS:
        raise unknown("retraction", retraction, RETRACTIONS)
    if retraction == "exponential":
        angles = _norms(steps, per)
        weights = jax.tree.map(lambda w, angle: w * jnp.cos(angle), weights, angles)
        steps = jax.tree.map(lambda step, angle: step / angle * jnp.sin(angle), steps, angles)
    return on_sphere(jax.tree.map(jnp.add, weights, steps), per)  # the exponential too: rounding would add up


def sphere(per: str = "filter", retraction: str = "normalise") -> optax.GradientTransformation:
    """What makes any chain of Optax move on spheres: its last part, which gets the step and needs `params`.

    The step is projected on the tangent plane, followed and retracted, so that `params` plus the update have norm 1.
    Every leaf that it sees is taken for weights: `optax.masked` or `optax.partition` says which it sees.

    Raises:
        InputError: an unknown `per` or `retraction`; an update without `params`.

    Example:
        >>> rule = optax.chain(optax.sgd(0.1, momentum=0.9), sphere("layer"))
        >>> params = on_sphere({"kernel": jnp.ones((2, 2))}, "layer")
        >>> change, _ = rule.update({"kernel": jnp.eye(2)}, rule.init(params), params)
        >>> bool(jnp.allclose(jnp.linalg.norm(params["kernel"] + change["kernel"]), 1.0))
        True
    """
    if per not in PER:
        raise unknown("sphere per", per, PER)
    if retraction not in RETRACTIONS:
        raise unknown("retraction", retraction, RETRACTIONS)

    def moved(updates: Any, params: Any) -> Any:
        if params is None:
            raise InputError("params=None is not allowed on a sphere: call update(gradient, state, params)")
        start = on_sphere(params, per)
        end = retracted(start, projected(start, updates, per), per, retraction)
        return jax.tree.map(jnp.subtract, end, params)

    return optax.stateless(moved)


def sphere_rule(
    learning_rate: optax.ScalarOrSchedule,
    others: optax.GradientTransformation,
    moments: optax.GradientTransformation | None = None,
    per: str = "filter",
    retraction: str = "normalise",
    on: Callable[[Any], Any] = is_weight,
) -> optax.GradientTransformation:
    """Algorithm 4, corrected: weights move on spheres, the other parameters by the rule `others`.

    Weight decay has no effect on a sphere. The published results are with filters; layers are sensitive to momentum,
    and the network as one sphere generalises worse (sections 7.3.1, 7.4 and 7.5).

    Args:
        learning_rate: of the weights, a number or a schedule, in radians per unit of gradient.
        others: a whole rule such as `optax.sgd(0.1)`.
        moments: from a gradient to a direction, such as `optax.trace(0.9)` or `optax.scale_by_adam()`.
        on: from parameters to a mask, True where weights are on spheres.

    Raises:
        InputError: an unknown `per` or `retraction`.

    Example:
        >>> params = {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.zeros(1)}
        >>> rule = sphere_rule(0.1, optax.sgd(1.0), retraction="exponential")
        >>> change, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)
        >>> new = optax.apply_updates(params, change)
        >>> round(float(jnp.arccos(new["kernel"][0, 0])), 4), float(new["bias"][0])
        (0.1, -1.0)
    """
    weights = optax.chain(
        moments or optax.identity(), optax.scale_by_learning_rate(learning_rate), sphere(per, retraction)
    )
    return optax.partition(
        {"sphere": weights, "others": others},
        lambda params: jax.tree.map(lambda inside: "sphere" if inside else "others", on(params)),
    )


def energy(weights: Any, eta: float | Array = 1.0) -> Array:
    """Minimum hyperspherical energy `[]`: `eta` times the mean inverse angle, per radian, between filters of a layer.

    Summed over the leaves that `is_weight` finds; a layer of one filter has none. It falls when filters spread. Angles
    below 0.0014 and above pi less that count as such, where the gradient is 0, so that equal filters are no infinity.

    Source: equations 7.7 and 7.8, on the real weights (their text has them binary, an erratum: the energy of signs has
    no gradient); Liu et al. 2018, https://arxiv.org/abs/1805.09298. No `eta` is published.

    Example:
        >>> round(float(energy({"kernel": jnp.eye(3)})), 4)  # all at right angles: 2 / pi
        0.6366
    """
    found = jax.tree.map(lambda inside, w: w if inside else None, is_weight(weights), weights)
    total = jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        filters = _unit_filters(path, leaf)
        count = filters.shape[1]
        if count > 1:
            angles = jnp.arccos(jnp.clip(filters.T @ filters, -LARGEST_COSINE, LARGEST_COSINE))
            pairs = jnp.where(jnp.eye(count, dtype=bool), 0.0, 1 / angles)
            total += pairs.sum() / (count * (count - 1))
    return eta * total


def conditioning(jacobian: Array) -> Array:
    """How uneven the curvature is, `[]`: second over first moment of the spectrum of the Gauss-Newton matrix.

    The matrix is the mean of `J^T J` over N examples, `jacobian [N, ..., P]` by P parameters; the axes between are
    outputs, summed. Its moments are traces, so that no eigenvalue is computed.

    Source: equation 7.9 and section 7.4.

    Example:
        >>> curvatures = jnp.array([1.0, 2.0, 5.0])  # of a quadratic: (1 + 4 + 25) / (1 + 2 + 5)
        >>> round(float(conditioning(jnp.diag(jnp.sqrt(3 * curvatures)))), 4)
        3.75
    """
    rows = jacobian.reshape(-1, jacobian.shape[-1])
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    return jnp.square(gram).sum() / jnp.trace(gram) / jacobian.shape[0]


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))


def _unit_filters(path: Any, leaf: Array) -> Array:
    """Filters of a leaf as columns of norm 1, `[weights of one, filters]`."""
    shared = leaf.ndim - _filter_axes(path)
    columns = leaf.reshape(int(np.prod(leaf.shape[:shared])), -1)
    return columns / jnp.sqrt(jnp.maximum(jnp.square(columns).sum(0), TINY))


def _filter_axes(path: Any) -> int:
    """How many of a leaf's last axes count filters."""
    return 2 if _name(path[-1]) == "filters" else 1


def _inner(a: Any, b: Any, per: str) -> Any:
    """Sums of products of two trees over each sphere, in shapes that spread over the leaves."""
    if per not in PER:
        raise unknown("sphere per", per, PER)
    if per == "network":
        total = jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: (x * y).sum(), a, b), jnp.zeros(()))
        return jax.tree.map(lambda _: total, a)

    def over(path: Any, x: Array, y: Array) -> Array:
        kept = 0 if per == "layer" else _filter_axes(path)
        return (x * y).sum(tuple(range(x.ndim - kept)), keepdims=True)

    return jax.tree_util.tree_map_with_path(over, a, b)


def _norms(tree: Any, per: str) -> Any:
    # not below a tiny number, so that nothing divides by zero
    return jax.tree.map(lambda square: jnp.sqrt(jnp.maximum(square, TINY)), _inner(tree, tree, per))
