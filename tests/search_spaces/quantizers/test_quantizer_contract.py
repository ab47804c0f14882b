"""What every quantizer promises, found through the folder."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.discover import load, names
from hw_models.errors import InputError
from search_spaces.quantizers._quantizer import (
    ACTIVATIONS,
    WEIGHTS,
    Quantizer,
    beside_zeros,
    passed,
    straight_through,
)
from search_spaces.quantizers._uniform import largest_signed, largest_unsigned

PACKAGE = "search_spaces.quantizers"
NAMES = names(PACKAGE)
UNSIGNED = [name for name in NAMES if "signed" in load(PACKAGE, name, "quantizer").__dataclass_fields__]
CASES = [(name, None) for name in NAMES] + [(name, False) for name in UNSIGNED]
# Levels move when they are rounded again: tanh stretches them, and nested means of levels are other thresholds.
NOT_IDEMPOTENT = {"dorefa", "apsq", "nary"}
AXES = (0, 1)
X = np.random.default_rng(0).normal(size=(16, 9, 4)).astype(np.float32) * np.float32([0.02, 0.5, 1.0, 7.0])
WAVE = np.cos(np.arange(X.size, dtype=np.float32)).reshape(X.shape)


def made(name: str, options: dict) -> Quantizer:
    return load(PACKAGE, name, "quantizer", "quantizer")(**options)


@cache
def programs(name: str, signed: bool | None) -> tuple[Quantizer, Callable, Callable]:
    """A quantizer, its `init` and itself as programs of which all tests share those of a shape."""
    quantizer = made(name, {} if signed is None else {"signed": signed})

    def rounded(x, bits, learned, where=None):
        return quantizer(x, bits, learned, AXES, where)

    return quantizer, jax.jit(lambda x, bits, where=None: quantizer.init(x, bits, AXES, where)), jax.jit(rounded)


def widths(quantizer: Quantizer) -> list[int]:
    """A few numbers of bits that it knows."""
    least, most = quantizer.BITS
    known = []
    for bits in range(least, min(most, 8) + 1):
        try:
            quantizer.check_bits(bits)
        except InputError:
            continue
        known.append(bits)
    return sorted({known[0], known[len(known) // 2], known[-1]})


def test_the_folder_is_the_registry():
    expected = {"affine", "symmetric", "power_of_two", "shift", "logarithmic", "bnn", "bwn", "xnor", "dorefa", "pact"}
    assert set(NAMES) == expected | {"fixed_clip", "gaussian", "lsq", "ttq", "nary", "lq", "apsq", "noise"}
    for name in NAMES:
        quantizer = made(name, {})
        assert quantizer.kind == name and set(quantizer.SERVES) <= {WEIGHTS, ACTIVATIONS} and quantizer.SERVES
    with pytest.raises(InputError, match="unknown quantizer 'symetric': did you mean 'symmetric'"):
        made("symetric", {})


@pytest.mark.parametrize(("name", "signed"), CASES)
def test_levels_shape_type_and_gradients(name: str, signed: bool | None):
    (quantizer, _, call), traces = programs(name, signed), []

    def loss(x, learned, bits):
        traces.append(1)
        y = quantizer(x, bits, learned, AXES)
        return (y * WAVE).sum(), y

    grad = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    init = jax.jit(lambda x, bits: traces.append(1) or quantizer.init(x, bits, AXES))
    for bits in widths(quantizer):
        width = np.float32(bits)
        learned = init(X, width)
        assert all(value.shape[:3] == (1, 1, 4) and value.dtype == jnp.float32 for value in learned.values())
        (_, y), gradients = grad(X, learned, width)
        assert y.shape == X.shape and y.dtype == X.dtype and np.isfinite(y).all()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
        assert np.asarray(gradients[0]).any()
        most = 2**bits
        for channel in np.moveaxis(np.asarray(y), -1, 0):
            assert 1 <= len(np.unique(channel)) <= most
        if name not in NOT_IDEMPOTENT:
            (_, again), _ = grad(y, learned, width)
            np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-5)
    assert len(traces) == 2

    zeros = np.zeros_like(X)
    (_, y), gradients = grad(zeros, init(zeros, width), width)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))
    narrow = X.astype(jnp.bfloat16)
    exact, low = (np.asarray(call(x, np.float32(widths(quantizer)[0]), learned)) for x in (narrow.astype("f"), narrow))
    assert low.dtype == jnp.bfloat16 and (low == exact.astype(jnp.bfloat16)).all()


@pytest.mark.parametrize(("name", "signed"), CASES)
def test_32_bits_leave_numbers_alone_and_bits_can_be_mapped_over(name: str, signed: bool | None):
    quantizer, init, call = programs(name, signed)
    bits = widths(quantizer)
    learned = init(X, np.float32(bits[-1]))

    @jax.jit
    @jax.vmap
    def every(width):
        row, pullback = jax.vjp(lambda x: quantizer(x, width, learned, AXES), X)
        return row, pullback(jnp.ones_like(row))[0]

    rows, slopes = jax.tree.map(np.asarray, every(np.float32([*bits, 32])))
    assert (rows[-1] == X).all() and (slopes[-1] == 1).all() and quantizer(X, 32, learned, AXES) is X
    for width, row in zip(bits, rows, strict=False):
        # two programs add up in another order; levels are a hundred times as far apart
        np.testing.assert_allclose(row, call(X, np.float32(width), learned), rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize(("name", "signed"), CASES)
def test_entries_that_do_not_count_change_nothing_and_stay(name: str, signed: bool | None):
    quantizer, init, call = programs(name, signed)
    bits = np.float32(widths(quantizer)[-1])
    padded = np.concatenate([X, np.full((2, 9, 4), 1e3, np.float32)])
    where = (np.arange(18) < 16)[:, None, None]
    alone, more = init(X, bits), init(padded, bits, where)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, more)
    y = np.asarray(call(padded, bits, alone, where))
    np.testing.assert_allclose(y[:16], call(X, bits, alone), rtol=1e-5, atol=1e-5)
    assert (y[16:] == 1e3).all()
    none = np.zeros((), bool)
    np.testing.assert_array_equal(call(X, bits, init(X, bits, none), none), X)


@pytest.mark.parametrize(("name", "signed"), CASES)
def test_scales_are_those_of_every_channel(name: str, signed: bool | None):
    quantizer, init, call = programs(name, signed)
    bits = np.float32(widths(quantizer)[-1])
    together = np.asarray(call(X, bits, init(X, bits)))
    for channel in (0, 3):
        x = X[..., channel]
        np.testing.assert_allclose(together[..., channel], call(x, bits, init(x, bits)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        *((name, {}, {4: (True, True)}) for name in ("affine", "symmetric", "logarithmic", "power_of_two", "shift")),
        *((name, {}, {4: (True, True)}) for name in ("lsq", "pact", "fixed_clip")),
        ("ttq", {}, {2: (True, True)}),
        ("dorefa", {"signed": False}, {1: (True, True), 4: (True, True)}),
        ("dorefa", {}, {1: (True, False), 4: (True, False)}),
        ("dorefa", {"scaled": True}, {1: (False, False), 4: (True, False)}),
        ("apsq", {}, {1: (False, False), 2: (True, False)}),  # the scale is a mean at 1 bit, and the largest above
        ("bnn", {}, {1: (True, False)}),
        ("bwn", {}, {1: (False, False)}),
        ("xnor", {}, {1: (False, False)}),
        ("lq", {}, {4: (True, False)}),
        # nested means are those of all weights, and zeros move the least or the largest where all are on one side
        ("nary", {}, {1: (True, False), 2: (False, True), 3: (False, True)}),
        ("noise", {}, {1: (False, False), 4: (False, False), 8: (False, False)}),
    ],
)
def test_what_zeros_beside_them_make_of_other_entries(name: str, options: dict, found: dict):
    quantizer = made(name, options)
    assert {bits: beside_zeros(quantizer, bits) for bits in found} == found
    assert quantizer.keeps_zeros == all(map(all, found.values()))


@pytest.mark.parametrize("name", NAMES)
def test_unknown_bits_are_refused_with_the_nearest(name: str):
    quantizer = made(name, {})
    least, most = quantizer.BITS
    for bits, nearest in ((0, least), (most + 1, most), (31, most), (-3, least)):
        with pytest.raises(InputError, match=rf"bits={bits} are not known to quantizer {name}.*nearest: {nearest}\)"):
            quantizer(X, bits, {}, AXES)
    with pytest.raises(InputError, match="bits=True"):
        quantizer.check_bits(True)
    quantizer.check_bits(32)


def test_straight_through_is_exact_and_scales_the_gradient():
    x, levels = jnp.asarray([1e-3, 1e7, -3.3]), jnp.asarray([0.1, 0.3, -1e-8])
    assert bool((straight_through(x, levels) == levels).all())
    assert jax.grad(lambda x: straight_through(x, levels, jnp.asarray([0.0, 1.0, 2.0])).sum())(x).tolist() == [0, 1, 2]
    assert passed(x).tolist() == [0, 0, 0]


def test_numbers_of_codes_are_exact():
    """2 to the power of 13 and 15 come out of XLA's exp2 off by a rounding."""
    bits = np.arange(1, 17)
    assert np.asarray(jax.vmap(largest_unsigned)(bits)).tolist() == (2**bits - 1).tolist()
    assert np.asarray(jax.vmap(largest_signed)(bits)).tolist() == (2 ** (bits - 1) - 1).tolist()
