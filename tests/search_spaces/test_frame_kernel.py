"""Arrays in frames, by one compiled call: against `lax.pad`, forward and backward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.kernels import frame

pytestmark = pytest.mark.skipif(not frame.at_once(), reason="the compiled kernel does not run here")

AXES = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(-3, 3))
TYPES = ("float32", "bfloat16", "int32", "uint8", "bool")


def padded(array, shape, shift):
    """`array` in a frame of zeros, moved by `shift`; in NumPy, which compiles nothing for each shape."""
    found = np.zeros(shape, array.dtype)
    to = tuple(slice(max(by, 0), max(by + have, 0)) for have, by in zip(array.shape, shift, strict=True))
    room = found[to].shape
    start = [max(-by, 0) for by in shift]
    cut = array[tuple(slice(first, first + size) for first, size in zip(start, room, strict=True))]
    found[tuple(slice(place.start, place.start + size) for place, size in zip(to, cut.shape, strict=True))] = cut
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(AXES, max_size=4), st.sampled_from(TYPES)), min_size=1, max_size=3))
def test_it_is_a_pad(cases):
    arrays, shapes, shifts = [], [], []
    for number, (axes, dtype) in enumerate(cases):
        values = np.random.default_rng(number).integers(0, 100, tuple(axis[0] for axis in axes))
        arrays.append(values.astype(jnp.dtype(dtype)))
        shapes.append(tuple(axis[1] for axis in axes))
        shifts.append(tuple(axis[2] for axis in axes))
    framed = frame.framed([jax.device_put(array) for array in arrays], shapes, shifts)
    for found, array, shape, shift in zip(framed, arrays, shapes, shifts, strict=True):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, padded(array, shape, shift))


def test_the_definition_of_these_tests_is_a_pad():
    x = np.arange(1.0, 13).reshape(3, 4)
    for shape, shift in (((5, 6), (1, 2)), ((2, 2), (-1, -1)), ((4, 3), (2, -2)), ((0, 4), (0, 0)), ((3, 4), (-3, 3))):
        edges = [(by, out - have - by, 0) for have, out, by in zip(x.shape, shape, shift, strict=True)]
        np.testing.assert_array_equal(padded(x, shape, shift), jax.lax.pad(x, 0.0, edges))


def test_large_arrays_are_shared_out():
    """More than one piece: of rows, and within rows that are larger than a piece."""
    x, row = jnp.arange(7 * 300 * 40.0).reshape(7, 300, 40), jnp.arange(100_000.0)
    a, b, c = frame.framed([x, row, row], [(7, 290, 24), (130_000,), (50_001,)], [(0, 3, 0), (5,), (-7,)])
    np.testing.assert_array_equal(a, jnp.pad(x, ((0, 0), (3, 0), (0, 0)))[:, :290, :24])
    np.testing.assert_array_equal(b, jnp.pad(row, (5, 29_995)))
    np.testing.assert_array_equal(c, row[7:50_008])


def test_derivatives_go_back_where_values_came_from():
    x, w = jnp.ones((5, 4)), jnp.ones((7, 7, 3))

    def total(x, w):
        a, b = frame.framed([x, w], [(3, 6), (3, 3, 2)], [(-1, 1), (-2, -2, 0)])
        return (a * jnp.arange(18.0).reshape(3, 6)).sum() + (b * 2).sum()

    dx, dw = jax.jit(jax.grad(total, (0, 1)))(x, w)
    np.testing.assert_array_equal(dx, jnp.pad(jnp.arange(18.0).reshape(3, 6)[:, 1:5], ((1, 1), (0, 0))))
    np.testing.assert_array_equal(dw, jnp.pad(jnp.full((3, 3, 2), 2.0), ((2, 2), (2, 2), (0, 1))))


def test_under_vmap_and_where_nothing_changes():
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(jax.vmap(lambda row: frame.framed([row], [(2,)])[0])(x), x[:, :2])
    assert frame.framed([x], [(3, 4)])[0] is x


def test_zeros_have_the_shapes_and_types_of_what_they_are_like():
    like = [jnp.ones((2, 3)), jnp.ones(4, jnp.int32), jnp.float32(1)]
    for found, wanted in zip(jax.jit(lambda: frame.zeros(like))(), like, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, jnp.zeros_like(wanted))


def test_what_is_settled_is_the_same_alone_under_vmap_and_for_gradients():
    x = jnp.arange(6.0).reshape(2, 3)
    for found in (frame.settled(x), jax.jit(frame.settled)(x), jax.vmap(frame.settled)(x)):
        np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(jax.grad(lambda x: (frame.settled(x) ** 2).sum())(x), 2 * x)
