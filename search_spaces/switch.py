"""A switch over branches of different sizes, with a derivative that computes nothing twice.

`lax.switch` under automatic differentiation returns the residuals of every branch from the one that ran, and fills the
others' with zeros. Here branches share the room for their residuals: the first kept array of each lies in the same
buffer, which is as large as the largest needs, and so on. The backward pass is a second switch, which reads them.

What is kept is what a layer marks by `keep`; all else is computed again. Layers mark what is dear to compute
(convolutions, statistics), and leave unmarked what is cheap beside the memory it takes (normalisation, activations).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxpr_as_fun

from search_spaces.kernels import frame

KEPT = "kept"

Function = Callable[[Any, Array, Any], Array]


def keep(x: Array) -> Array:
    """`x`, kept from the forward pass of a `switch` for its backward pass.

    Example:
        >>> float(keep(jnp.float32(2)))
        2.0
    """
    return checkpoint_name(x, KEPT)


class _Plan(NamedTuple):
    """One branch traced with what its backward pass needs.

    Attributes:
        run: from the flat operands to the result and the kept arrays.
        pull: the structure of its pullback.
        sources: of each leaf of that structure, the operand (`"operand", position`), the kept array (`"kept",
            position`) or the constant (`"constant", value`) it is.
        kept: shape and type of each kept array.
    """

    run: Callable[..., Sequence[Array]]
    pull: Any
    sources: tuple[tuple[str, Any], ...]
    kept: tuple[jax.ShapeDtypeStruct, ...]


def switch(
    index: Array,
    functions: Sequence[Function],
    params: Any,
    x: Array,
    operands: Any,
    read: Sequence[str | None] | None = None,
) -> Array:
    """`functions[index](params, x, operands)`, an array of the same shape for each.

    Differentiable in `params` and `x`, in reverse mode and once; not in `operands`. `read` names the one entry of the
    dictionary `params` that each function reads, None for none of them; without it every function reads all.

    Example:
        >>> double, square = lambda a, x, _: 2 * a * x, lambda a, x, _: a * x**2
        >>> jax.grad(lambda x: switch(jnp.int32(1), [double, square], jnp.float32(1), x, None))(jnp.float32(3)).item()
        6.0
    """
    if read is None:
        whole = [lambda params, x, operands, f=f: f(params["all"], x, operands) for f in functions]
        return switch(index, whole, {"all": params}, x, operands, ["all"] * len(functions))
    plans: list[_Plan] = []

    @jax.custom_vjp
    def call(params: Any, x: Array, index: Array, operands: Any) -> Array:
        return lax.switch(index, functions, params, x, operands)

    def forward(params: Any, x: Array, index: Array, operands: Any) -> tuple[Array, Any]:
        plans[:] = [
            _planned(function, name, params, x, operands) for function, name in zip(functions, read, strict=True)
        ]
        rooms = _rooms(plans)
        flat = jax.tree.leaves((params, x, operands))
        y, buffers = lax.switch(index, [_forward(plan, rooms) for plan in plans], *flat)
        return keep(y), (params, x, index, operands, [keep(buffer) for buffer in buffers])

    def backward(saved: Any, gradient: Array) -> tuple[Any, Array, None, None]:
        params, x, index, operands, buffers = saved
        flat = jax.tree.leaves((params, x, operands))
        pulls = [_backward(plan, len(flat), params) for plan in plans]
        return (*lax.switch(index, pulls, *flat, buffers, gradient), None, None)

    call.defvjp(forward, backward)
    return call(params, x, index, operands)


def _planned(function: Function, name: str | None, params: Any, x: Array, operands: Any) -> _Plan:
    found: dict[str, Any] = {}
    # the backward pass is a program of its own, in which there is nothing to eliminate what is computed again
    once = jax.checkpoint(function, policy=jax.checkpoint_policies.save_only_these_names(KEPT), prevent_cse=False)

    def run(params: Any, x: Array, operands: Any) -> list[Array]:
        entry = {} if name is None else {name: params[name]}
        y, pull = jax.vjp(lambda entry, x: once(entry, x, operands), entry, x)
        leaves, found["pull"] = jax.tree.flatten(pull)
        given = {id(leaf): position for position, leaf in enumerate(jax.tree.leaves((params, x, operands)))}
        kept: list[Array] = []
        sources: list[tuple[str, Any]] = []
        for leaf in leaves:
            if id(leaf) in given:
                sources.append(("operand", given[id(leaf)]))
            elif not isinstance(leaf, jax.core.Tracer):
                sources.append(("constant", leaf))
            else:
                sources.append(("kept", len(kept)))
                kept.append(leaf)
        found["sources"] = tuple(sources)
        return [y, *kept]

    traced, shapes = jax.make_jaxpr(run, return_shape=True)(params, x, operands)
    return _Plan(jaxpr_as_fun(_unrounded(traced)), found["pull"], found["sources"], tuple(shapes[1:]))


def _unrounded(traced: Any) -> Any:
    """`traced` without the rounding to its own type that `jax.checkpoint` puts behind every array it keeps.

    It changes no value, but XLA copies the array for it, which costs a tenth of a training step.
    """
    jaxpr = traced.jaxpr
    same: dict[int, Any] = {}
    kept = []
    for equation in jaxpr.eqns:
        inputs = [same.get(id(atom), atom) for atom in equation.invars]
        if equation.primitive.name == "reduce_precision":
            kind = jnp.finfo(inputs[0].aval.dtype)
            if (equation.params["exponent_bits"], equation.params["mantissa_bits"]) == (kind.nexp, kind.nmant):
                same[id(equation.outvars[0])] = inputs[0]
                continue
        kept.append(equation.replace(invars=inputs))
    results = [same.get(id(atom), atom) for atom in jaxpr.outvars]
    return traced.replace(jaxpr=jaxpr.replace(eqns=kept, outvars=results))


def _rooms(plans: list[_Plan]) -> list[tuple[Any, int]]:
    """Type and entries of each shared buffer: of every type, the largest arrays of all branches, then the next."""
    sizes: dict[Any, list[int]] = {}
    for plan in plans:
        for dtype in {kept.dtype for kept in plan.kept}:
            mine = sorted((kept.size for kept in plan.kept if kept.dtype == dtype), reverse=True)
            have = sizes.setdefault(dtype, [])
            have += [0] * (len(mine) - len(have))
            sizes[dtype] = [max(a, b) for a, b in zip(have, mine + [0] * (len(have) - len(mine)), strict=True)]
    return [(dtype, size) for dtype in sorted(sizes, key=str) for size in sizes[dtype]]


def _places(plan: _Plan, rooms: list[tuple[Any, int]]) -> list[int]:
    """The buffer of each kept array."""
    free = list(range(len(rooms)))
    places = [0] * len(plan.kept)
    for position in sorted(range(len(plan.kept)), key=lambda k: -plan.kept[k].size):
        places[position] = next(room for room in free if rooms[room][0] == plan.kept[position].dtype)
        free.remove(places[position])
    return places


def _forward(plan: _Plan, rooms: list[tuple[Any, int]]) -> Callable[..., tuple[Array, list[Array]]]:
    def run(*flat: Array) -> tuple[Array, list[Array]]:
        y, *kept = plan.run(*flat)
        places = _places(plan, rooms)
        sizes = [(rooms[place][1],) for place in places]
        filled = dict(zip(places, frame.framed([array.ravel() for array in kept], sizes), strict=True))
        free = [place for place in range(len(rooms)) if place not in filled]
        empty = frame.zeros([jax.ShapeDtypeStruct((rooms[place][1],), rooms[place][0]) for place in free])
        filled |= dict(zip(free, empty, strict=True))
        return y, [filled[place] for place in range(len(rooms))]

    return run


def _backward(plan: _Plan, operands: int, params: Any) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        flat, (buffers, gradient) = given[:operands], given[operands:]
        places = _places(plan, [(buffer.dtype, buffer.size) for buffer in buffers])
        sizes = [(each.size,) for each in plan.kept]
        kept = frame.framed([buffers[place] for place in places], sizes)
        leaves = []
        for kind, which in plan.sources:
            if kind == "operand":
                leaves.append(flat[which])
            elif kind == "constant":
                leaves.append(which)
            else:
                leaves.append(kept[which].reshape(plan.kept[which].shape))
        entry, by_x = jax.tree.unflatten(plan.pull, leaves)(gradient)
        others, treedef = jax.tree.flatten({name: part for name, part in params.items() if name not in entry})
        return {**jax.tree.unflatten(treedef, frame.zeros(others)), **entry}, by_x

    return run
