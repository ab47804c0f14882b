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
from jax import Array, lax
from jax.extend.core import Literal, jaxpr_as_fun

from search_spaces.kept import keep, mark
from search_spaces.kernels import frame

Function = Callable[[Any, Array, Any], Array]


class _Plan(NamedTuple):
    """One branch traced with its derivative.

    Attributes:
        run: from the flat operands to the result and the kept arrays.
        again: from the flat operands and the kept arrays to the leaves of the pullback.
        pull: the structure of the pullback.
        kept: shape and type of each kept array.
    """

    run: Callable[..., Sequence[Array]]
    again: Callable[..., Sequence[Array]]
    pull: Any
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
        >>> import jax.numpy as jnp
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

    def run(params: Any, x: Array, operands: Any) -> list[Array]:
        entry = {} if name is None else {name: params[name]}
        y, pull = jax.vjp(lambda entry, x: function(entry, x, operands), entry, x)
        leaves, found["pull"] = jax.tree.flatten(pull)
        return [y, *leaves]

    traced = jax.make_jaxpr(run)(params, x, operands)
    jaxpr = traced.jaxpr
    y, *leaves = jaxpr.outvars
    marked = [equation.outvars[0] for equation in jaxpr.eqns if equation.primitive is mark]
    again, reached = _behind(jaxpr.eqns, leaves, set(marked))
    kept = [variable for variable in marked if variable in reached]
    forward, _ = _behind(jaxpr.eqns, [y, *kept], set())

    def program(inputs: Sequence[Any], equations: list[Any], outputs: Sequence[Any]) -> Callable[..., Sequence[Array]]:
        part = jaxpr.replace(invars=list(inputs), outvars=list(outputs), eqns=equations)
        run: Callable[..., Sequence[Array]] = jaxpr_as_fun(traced.replace(jaxpr=part))
        return run

    return _Plan(
        program(jaxpr.invars, forward, [y, *kept]),
        program([*jaxpr.invars, *kept], again, leaves),
        found["pull"],
        tuple(jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in kept),
    )


def _behind(equations: Sequence[Any], wanted: Sequence[Any], given: set[Any]) -> tuple[list[Any], set[Any]]:
    """The equations that compute `wanted` from what is `given`, in their order, and all variables they need."""
    needed = {variable for variable in wanted if not isinstance(variable, Literal)}
    used = []
    for equation in reversed(equations):
        if any(out in needed and out not in given for out in equation.outvars):
            used.append(equation)
            needed.update(variable for variable in equation.invars if not isinstance(variable, Literal))
    return used[::-1], needed


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
        shaped = [array.reshape(like.shape) for array, like in zip(kept, plan.kept, strict=True)]
        leaves = plan.again(*flat, *shaped)
        entry, by_x = jax.tree.unflatten(plan.pull, leaves)(gradient)
        others, treedef = jax.tree.flatten({name: part for name, part in params.items() if name not in entry})
        return {**jax.tree.unflatten(treedef, frame.zeros(others)), **entry}, by_x

    return run
