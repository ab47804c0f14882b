"""The compiled rounding against the quantizers in JAX, to the last bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from search_spaces.kernels import frame, rounding
from search_spaces.kernels.rounding import Box
from search_spaces.kernels.rounding import affine as compiled_affine
from search_spaces.kernels.rounding import symmetric as compiled_symmetric
from search_spaces.precision import with_bits
from search_spaces.quantizers import _compiled
from search_spaces.quantizers.affine import Affine
from search_spaces.quantizers.gaussian import Gaussian
from search_spaces.quantizers.lsq import Lsq
from search_spaces.quantizers.symmetric import Symmetric
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet
from search_spaces.switch import switch

pytestmark = pytest.mark.skipif(not frame.at_once(), reason="the compiled kernel does not run here")

BITS = (1, 2, 3, 5, 8, 13, 16, 17, 32)  # clipped to 2 and 16; 32 are exact


def filled(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(len(kind) + sum(shape))
    x = rng.normal(size=shape).astype(np.float32)
    if kind == "zeros":
        x[...] = 0
    elif kind == "signed zeros":
        x *= rng.choice([0.0, -0.0, 1.0], shape).astype(np.float32)
    elif kind in ("nan", "inf", "-inf"):
        x.ravel()[-1] = float(kind)
    elif kind == "positive":
        x = np.abs(x) * np.float32(1e30) + 3
    elif kind == "negative":
        x = -np.abs(x)
    elif kind == "subnormal":
        x *= np.float32(1e-41)
    return x


KINDS = ("random", "zeros", "signed zeros", "nan", "inf", "-inf", "positive", "negative", "subnormal")


def same(found: Any, wanted: Any, subnormal: bool = False) -> None:
    """Equal bits; of what is not a number any, and of subnormal numbers XLA leaves some and flushes others."""
    a, b = (np.asarray(jnp.asarray(each, jnp.float32)) for each in (found, wanted))
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-38 if subnormal else 0)
    if not subnormal:
        np.testing.assert_array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1,), (7,), (33, 5), (2, 9, 9, 3), (5, 40_000)])
def test_activations_are_those_of_the_quantizer(shape: tuple[int, ...], dtype: str) -> None:
    axes = tuple(range(len(shape)))
    observe = jax.jit(lambda x: Affine().observed(x, axes))
    plain = jax.jit(lambda x, bits, low, high: Affine()(x, bits, {"low": low, "high": high}, axes))
    compiled = jax.jit(compiled_affine)
    for kind in KINDS:
        if kind == "nan" and np.prod(shape) > 1000:
            continue  # XLA's reduction of many numbers overlooks some that are none
        x = jnp.asarray(filled(kind, shape), dtype)
        ranges, observed = rounding.extremes(x), observe(x)
        for found, name in zip(ranges, ("low", "high"), strict=True):
            assert found.shape == observed[name].shape and found.dtype == observed[name].dtype
            same(found, observed[name], kind == "subnormal")
        for bits in map(jnp.float32, BITS):
            y = compiled(x, bits, *ranges)
            assert y.dtype == x.dtype
            same(y, plain(x, bits, *ranges), kind == "subnormal")
        stored = jnp.full((1,) * x.ndim, -0.3), jnp.full((1,) * x.ndim, 0.4)  # values lie beyond a stored range
        same(compiled(x, jnp.float32(3), *stored), plain(x, jnp.float32(3), *stored), kind == "subnormal")


def test_the_cut_range_is_that_of_the_quantizer() -> None:
    x, axes = jnp.asarray(filled("random", (9, 7))), (0, 1)
    known = _compiled.observed(Gaussian(), x, axes)
    for name, value in Gaussian().observed(x, axes).items():
        np.testing.assert_allclose(known[name], value, rtol=1e-6)
    for bits in map(jnp.float32, BITS):
        y, wanted = (each(bits) for each in (
            jax.jit(lambda bits: _compiled.rounded(Gaussian(), x, bits, known, axes)),
            jax.jit(lambda bits: Gaussian()(x, bits, known, axes)),
        ))  # fmt: skip
        same(y, wanted)


def test_what_is_not_a_number_anywhere_leaves_no_range() -> None:
    for place in (0, 20_000, 99_999):
        x = jnp.ones(100_000).at[place].set(jnp.nan)
        assert [float(value[0]) for value in rounding.extremes(x)] == [0, 0]
        assert np.flatnonzero(np.isnan(compiled_affine(x, jnp.float32(4), *rounding.extremes(x)))).tolist() == [place]
    assert [float(value[0]) for value in rounding.extremes(jnp.ones(0))] == [0, 0]


WEIGHTS = [((1,), 1), ((3, 3, 5, 7), 2), ((3, 3, 5, 7), 3), ((3, 3, 5, 7), 4), ((5, 5, 17, 1), 2), ((2, 700), 1),
           ((30, 60), 2), ((1, 1, 16, 33), 3), ((5, 1), 1)]  # fmt: skip


def boxes(shape: tuple[int, ...], last_whole: bool) -> np.ndarray:
    """Three boxes, each within the next, `[3, 2, rank]`; the first is empty."""
    sizes = np.asarray(shape)
    middle = sizes // 3
    edges = np.stack([[middle, middle], [middle, middle + 1], [middle // 2, np.maximum(sizes - 1, middle + 1)]])
    if last_whole:
        edges[1:, 0, 1:], edges[1:, 1, 1:] = 0, sizes[1:]
    return edges


@pytest.mark.parametrize("part", ["whole", "box", "last axes whole", "shares"])
@pytest.mark.parametrize(("shape", "shared"), WEIGHTS)
def test_weights_are_those_of_the_quantizer(shape: tuple[int, ...], shared: int, part: str) -> None:
    axes, edges = tuple(range(shared)), boxes(shape, part == "last axes whole")
    indices = [jnp.int32(i) for i in range(3)]
    if part == "shares":
        indices = [jnp.asarray(each, jnp.float32) for each in ([0.5, 0.5, 0], [0, 0.1, 0.9], [0, 0, 0])]

    def box(index: Array) -> Box | None:
        return None if part == "whole" else Box(edges, shape, index)

    @jax.jit
    def plain(w: Array, bits: Array, index: Array) -> Array:
        return Symmetric()(w, bits, {}, axes, None if part == "whole" else box(index).mask())

    compiled = jax.jit(lambda w, bits, index: compiled_symmetric(w, bits, shared, box(index)))
    for kind in KINDS:
        w = jnp.asarray(filled(kind, shape))
        for index in indices[: 1 if part == "whole" else 3]:
            for bits in map(jnp.float32, (2, 5, 16, 32)):
                same(compiled(w, bits, index), plain(w, bits, index), kind == "subnormal")


def test_the_mask_of_a_box() -> None:
    edges = np.array([[[0, 1], [2, 2]], [[0, 0], [3, 3]]])
    assert Box(edges, (3, 3), jnp.int32(0)).mask().tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert bool(Box(edges, (3, 3), jnp.asarray([0.0, 1.0])).mask().all())
    assert Box(edges[:1], (3, 3), jnp.asarray([0.0])).mask().sum() == 0


def test_large_arrays_are_shared_out() -> None:
    w = jax.random.normal(jax.random.key(0), (300, 1601))
    for shared in (1, 2):
        wanted = jax.jit(partial(Symmetric(), learned={}, axes=tuple(range(shared))))(w, jnp.float32(4))
        same(compiled_symmetric(w, jnp.float32(4), shared), wanted)


def test_gradients_pass_also_outside_a_range() -> None:
    x, g = jnp.linspace(-2, 2, 12).reshape(3, 4), jnp.arange(12.0).reshape(3, 4)
    low, high = jnp.full((1, 1), -1.0), jnp.full((1, 1), 0.5)
    calls = [
        lambda x: compiled_affine(x, jnp.float32(3), low, high),
        lambda x: compiled_affine(x, jnp.float32(3), *rounding.extremes(x)),
        lambda x: compiled_symmetric(x, jnp.float32(3), 1, Box(np.array([[[0, 0], [2, 4]]]), (3, 4), jnp.int32(0))),
    ]
    for call in calls:
        assert (jax.jit(lambda x, call=call: jax.vjp(call, x)[1](g)[0])(x) == g).all()


def test_under_vmap_it_is_one_after_the_other() -> None:
    x, bits = jax.random.normal(jax.random.key(1), (3, 4, 5, 6)), jnp.asarray([2.0, 5.0, 32.0])
    index = jnp.asarray([1, 0, 1], jnp.int32)
    edges = np.array([[[0, 0, 0], [2, 5, 6]], [[1, 0, 0], [3, 5, 3]]])

    def weights(w: Array, bits: Array, index: Array) -> Array:
        return compiled_symmetric(w, bits, 2, Box(edges, (4, 5, 6), index))

    def activations(x: Array, bits: Array, index: Array) -> Array:
        return compiled_affine(x, bits, *rounding.extremes(x))

    shares = jnp.asarray([[0.2, 0.8], [1.0, 0.0], [0.0, 1.0]])
    for call, which in ((weights, index), (weights, shares), (activations, index)):
        for axes in ((0, 0, 0), (None, 0, None), (0, None, 0)):
            some = [each if axis == 0 else each[0] for each, axis in zip((x, bits, which), axes, strict=True)]
            found = jax.jit(jax.vmap(call, axes))(*some)
            gradient = jax.vmap(jax.grad(lambda *each, call=call: call(*each).sum()), axes)(*some)
            assert (gradient == 1).all()
            for row in range(3):
                alone = [each if axis is None else each[row] for each, axis in zip(some, axes, strict=True)]
                same(found[row], call(*alone))


def test_inside_a_switch_that_keeps() -> None:
    def branch(bits: float) -> Any:
        return lambda w, x, _: (
            compiled_affine(x, jnp.float32(bits), *rounding.extremes(x)) @ compiled_symmetric(w, jnp.float32(bits), 1)
        )

    w, x = jax.random.normal(jax.random.key(0), (4, 4)), jax.random.normal(jax.random.key(1), (6, 4))
    functions = [branch(3), branch(32)]
    for index in range(2):
        both = jax.jit(jax.grad(lambda w, x, i: jnp.square(switch(i, functions, w, x, None)).sum(), (0, 1)))
        found = both(w, x, jnp.int32(index))
        wanted = jax.grad(lambda w, x, index=index: jnp.square(functions[index](w, x, None)).sum(), (0, 1))(w, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, wanted)


def test_which_quantizers_it_serves() -> None:
    x = jnp.linspace(-1, 1, 12).reshape(3, 4)
    known = Affine().observed(x, (0, 1))

    def calls(quantizer: Any, learned: Any, axes: tuple[int, ...], x: Array = x, by: str = "auto") -> bool:
        traced = jax.make_jaxpr(lambda x, bits: _compiled.rounded(quantizer, x, bits, learned, axes, None, by))
        return "flynas_round" in str(traced(x, jnp.float32(4)))

    assert calls(Affine(), known, (0, 1)) and calls(Symmetric(), {}, (0,)) and calls(Symmetric(), {}, (0, 1))
    assert not calls(Affine(), {}, (0,)) and not calls(Symmetric(), {}, (1,)) and not calls(Symmetric(), {}, ())
    assert not calls(Symmetric(), {"largest": jnp.ones((1, 1))}, (0, 1))
    assert not calls(Lsq(), Lsq().init(x, 4, (0, 1)), (0, 1))
    assert not calls(Symmetric(), {}, (0,), by="xla") and not calls(Symmetric(), {}, (0,), x.astype(jnp.float16))
    assert _compiled.rounded(Symmetric(), x, 32, {}, (0,)) is x


@pytest.mark.parametrize("gene", [0, 1])
def test_a_supernet_computes_the_same_without_it(gene: int) -> None:
    space = with_bits(tiny.space(), "w2/4a4/32")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    genes = jnp.asarray([gene % size for size in space.cardinality])
    nets = [Supernet(space, depthwise=by) for by in ("auto", "xla")]
    variables = nets[0].init(jax.random.key(1))
    texts = [str(jax.make_jaxpr(net.apply)(variables, x, genes)) for net in nets]
    assert ["flynas_round_weights" in text for text in texts] == [True, False]
    found, wanted = (jax.jit(net.apply)(variables, x, genes) for net in nets)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
