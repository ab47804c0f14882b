"""The switch that keeps what is dear: the same values and derivatives as `lax.switch`, in little room."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from search_spaces.kept import keep
from search_spaces.switch import switch

SIZES = (3, 8, 5)


def branch(size: int, marked: bool) -> Any:
    def run(params: Any, x: Array, factor: Array) -> Array:
        hidden = x @ params["wide"][:, :size]
        hidden = keep(hidden) if marked else hidden
        return x + factor * jnp.tanh(hidden) @ params["narrow"][:size]

    return run


def case() -> tuple[Any, Array, Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"wide": jax.random.normal(keys[0], (4, 8)), "narrow": jax.random.normal(keys[1], (8, 4))}
    return params, jax.random.normal(keys[2], (6, 4)), jnp.float32(0.7)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("index", range(3))
def test_it_differentiates_as_the_plain_switch(marked: bool, index: int) -> None:
    params, x, factor = case()
    functions = [branch(size, marked) for size in SIZES]

    def loss(params: Any, x: Array, index: Array, call: Any) -> Array:
        return jnp.square(call(index, functions, params, x, factor)).sum()

    def plain(index: Array, functions: Any, *operands: Any) -> Array:
        return lax.switch(index, functions, *operands)

    found, wanted = (
        jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=3)(params, x, jnp.int32(index), call)
        for call in (switch, plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)


def conditionals(jaxpr: Any) -> list[Any]:
    found = [equation for equation in jaxpr.eqns if equation.primitive.name == "cond"]
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns") and equation.primitive.name != "cond":
                found += conditionals(inner)
    return found


def test_only_the_largest_of_what_is_marked_is_kept_and_nothing_is_multiplied_twice() -> None:
    params, x, factor = case()
    functions = [branch(size, True) for size in SIZES]
    gradient = jax.grad(lambda p, x, i: switch(i, functions, p, x, factor).sum(), (0, 1))
    forward, backward = conditionals(jax.make_jaxpr(gradient)(params, x, jnp.int32(0)).jaxpr)
    assert [out.aval.shape for out in forward.outvars] == [(6, 4), (6 * 8,)]
    for each in (*forward.params["branches"], *backward.params["branches"]):
        names = [equation.primitive.name for equation in each.jaxpr.eqns]
        assert "reduce_precision" not in names
    # of every branch: two products forward; two for the weights and two for their inputs backward
    counts = [str(each).count("dot_general") for each in backward.params["branches"]]
    assert counts == [4, 4, 4]


def test_other_types_have_rooms_of_their_own() -> None:
    def narrow(params: Array, x: Array, _: Any) -> Array:
        return keep(jnp.sin(params * x).astype(jnp.bfloat16)).astype(jnp.float32) ** 2

    def wide(params: Array, x: Array, _: Any) -> Array:
        return keep(jnp.sin(params * x)) ** 2

    for index in range(2):
        gradient = jax.grad(lambda p, i=index: switch(jnp.int32(i), [narrow, wide], p, jnp.ones(3), None).sum())(0.5)
        assert float(gradient) == pytest.approx(3 * np.sin(1.0), rel=0.02)


def test_a_switch_inside_a_branch_keeps_its_own() -> None:
    params, x, factor = case()
    inner = [branch(size, True) for size in SIZES]

    def outer(shift: float) -> Any:
        return lambda params, x, operands: keep(switch(operands[0], inner, params, x + shift, operands[1]))

    def loss(params: Any, x: Array, index: Array) -> Array:
        return jnp.square(switch(index, [outer(0.0), outer(1.0)], params, x, (jnp.int32(2), factor))).sum()

    found = jax.jit(jax.grad(loss, (0, 1)))(params, x, jnp.int32(1))
    wanted = jax.grad(lambda p, x: jnp.square(inner[2](p, x + 1.0, factor)).sum(), (0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)
