"""Parameterized structured pruning (PSP): a trained factor for each structure, zero while it is small.

The weights of a structure are multiplied by `alpha`, which is 0 where its dense parameter `nu` is below a threshold in
magnitude. Gradients reach `nu` all the same, so that a pruned structure can come back; penalties act on `nu` alone
(`penalties.elastic_net`). After training `alpha` is folded into the weights.

Source: Schindler, dissertation (Heidelberg 2021), chapter 6. Its settings: l2 of 1e-4, eps 0.1 for DenseNets and 0.2
for ResNets; with the elastic net eps 0.01.

Shapes: weights and `D`, the shape of a structure's decisions, as in `search_spaces/sparsity/_patterns.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.quantizers._quantizer import straight_through
from search_spaces.sparsity._patterns import Structure

EXACT, PRINTED = "exact", "printed"


def initial(structure: Structure) -> Array:
    """`nu` that leaves the weights as they are, `D`: ones (the dissertation does not say where it starts).

    Example:
        >>> initial(Structure("output_channel", (2, 3))).tolist()
        [[1.0, 1.0, 1.0]]
    """
    return jnp.ones(structure.decisions, jnp.float32)


def alpha(nu: Array, eps: Any) -> Array:
    """0 where `|nu| < eps` (traced), else `nu`, of its shape; the gradient of `nu` everywhere.

    Source: equations 6.8 and 6.9.

    Example:
        >>> [round(factor, 6) for factor in alpha(jnp.asarray([0.05, -0.1, 0.3]), 0.1).tolist()]
        [0.0, -0.1, 0.3]
        >>> jax.grad(lambda nu: alpha(nu, 0.1))(0.05).item()
        1.0
    """
    nu = jnp.asarray(nu)
    return straight_through(nu, lax.stop_gradient(jnp.where(jnp.abs(nu) < eps, 0.0, nu)))


def gated(structure: Structure, weight: Array, nu: Array, eps: Any, gradient: str = EXACT) -> Array:
    """The weights that training runs with, `q = w * alpha(nu)`, of the shape and type of `weight`.

    The gradient of `nu` is either

        exact    the chain rule of equation 6.2: `sum of w * dE/dq` over the structure
        printed  equation 6.3: the sum of the weights' own gradients. It is not the chain rule of 6.2, as the text says
                 (erratum), and is taken by the weights in use, `dE/dq`: by `w` it would vanish where `alpha` is 0, and
                 no pruned structure would come back

    That of the weights is the chain rule's, `alpha * dE/dq`, in either.

    Raises:
        InputError: another name of a gradient.

    Example:
        >>> layer, w = Structure("layer", (1, 2)), jnp.asarray([[2.0, 3.0]])
        >>> loss = lambda nu, gradient: gated(layer, w, nu, 0.1, gradient).sum()
        >>> [jax.grad(loss)(initial(layer), gradient).item() for gradient in ("exact", "printed")]
        [5.0, 2.0]
    """
    if gradient not in (EXACT, PRINTED):
        raise InputError(f"gradient={gradient!r} is not known: give {EXACT} or {PRINTED}")
    factors = alpha(nu, eps)
    return folded(structure, weight, factors) if gradient == EXACT else _printed(structure, weight, factors)


def folded(structure: Structure, weight: Array, factors: Array) -> Array:
    """The weights that are deployed: multiplied by their structure's factor, `D`, once and for all.

    Example:
        >>> channels = Structure("output_channel", (1, 3))
        >>> folded(channels, jnp.full((1, 3), 2.0), alpha(jnp.asarray([[0.05, -0.5, 1.0]]), 0.1)).tolist()
        [[0.0, -1.0, 2.0]]
    """
    return weight * structure.expand(factors).astype(weight.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _printed(structure: Structure, weight: Array, factors: Array) -> Array:
    return folded(structure, weight, factors)


def _forward(structure: Structure, weight: Array, factors: Array) -> tuple[Array, Array]:
    return folded(structure, weight, factors), factors


def _backward(structure: Structure, factors: Array, gradient: Array) -> tuple[Array, Array]:
    return folded(structure, gradient, factors), structure.summed(gradient).astype(factors.dtype)


_printed.defvjp(_forward, _backward)
