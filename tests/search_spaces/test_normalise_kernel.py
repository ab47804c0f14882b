"""The compiled normalisation against its definition in float64, and against the plain layers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from search_spaces.channels import Channels
from search_spaces.kernels import normalise
from search_spaces.kernels.depthwise import fuses
from search_spaces.normalisation import NORM_EPSILON, normalised

pytestmark = pytest.mark.skipif(not fuses() or jax.device_count() > 1, reason="the compiled kernel does not run here")


def expected(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, share: np.ndarray, g: np.ndarray, activation: str, active: int
) -> dict[str, Any]:
    """The definition, differentiated by JAX, in float64."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(each, jnp.float64) for each in (x, scale, bias, share)]

        def run(x: Array, scale: Array, bias: Array, share: Array) -> Array:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            z = (x - mean) / jnp.sqrt(variance + NORM_EPSILON) * scale + bias
            y = {"identity": lambda z: z, "relu": jax.nn.relu, "relu6": jax.nn.relu6, "hard_swish": jax.nn.hard_swish}
            return jnp.where(jnp.arange(x.shape[-1]) < active, y[activation](z) * share, 0)

        @jax.jit
        def both(wide: list[Array], g: Array) -> Any:
            y, pull = jax.vjp(run, *wide)
            return y, *pull(g)

        y, dx, dscale, dbias, dshare = both(wide, jnp.asarray(g, jnp.float64))
        axes = tuple(range(x.ndim - 1))
        mean, variance = wide[0].mean(axes), wide[0].var(axes)
        found = {"y": y, "mean": mean, "variance": variance, "dx": dx, "dscale": dscale, "dbias": dbias}
        return found | {"dshare": dshare}


@settings(max_examples=10, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.integers(1, 70)),
    activation=st.sampled_from(normalise.ACTIVATIONS),
    offset=st.sampled_from([0.0, 3.0, 200.0]),
    part=st.floats(0, 1),
    shared=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_its_definition(
    shape: tuple[int, ...], activation: str, offset: float, part: float, shared: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) + offset * rng.normal(size=shape[-1])).astype(np.float32)
    scale, bias = (rng.normal(size=(2, shape[-1])) + np.array([[1], [0]])).astype(np.float32)
    g = rng.normal(size=shape).astype(np.float32)
    share = rng.uniform(size=shape[-1]).astype(np.float32) if shared else np.ones(shape[-1], np.float32)
    active = round(part * shape[-1])
    wanted = expected(x, scale, bias, share, g, activation, active)

    def run(x: Array, scale: Array, bias: Array, share: Array) -> Any:
        mean, variance = normalise.moments(x)
        by = share if shared else None
        y = normalise.normalised(x, scale, bias, mean, variance, NORM_EPSILON, activation, jnp.int32(active), by)
        return y, (mean, variance)

    y, pull, (mean, variance) = jax.vjp(run, *map(jnp.asarray, (x, scale, bias, share)), has_aux=True)
    dx, dscale, dbias, dshare = pull(jnp.asarray(g))
    found = {"y": y, "mean": mean, "variance": variance, "dx": dx, "dscale": dscale, "dbias": dbias}
    if shared:
        found["dshare"] = dshare
    # where there is no variance to speak of (one pixel), dividing by its root multiplies the rounding of the input
    spread = np.sqrt(np.asarray(wanted["variance"]) + NORM_EPSILON)
    loss = float(((np.abs(x).max((0, 1, 2)) + 1) / spread).max())
    for name, value in found.items():
        size = float(np.abs(wanted[name]).max(initial=1))
        np.testing.assert_allclose(value, wanted[name], atol=size * 3e-6 * max(1.0, loss), rtol=0, err_msg=name)


class Layers(nn.Module):
    """What blocks compose."""

    implementation: str

    @nn.compact
    def __call__(self, x: Array, index: Array, mode: str) -> Array:
        channels = Channels((5, 11), index)
        return normalised(x, "norm", mode, "hard_swish", channels, self.implementation)


@pytest.mark.parametrize("mode", ["train", "calibrate", "eval"])
@pytest.mark.parametrize("index", [0, 1])
def test_it_is_what_the_plain_layers_compute(mode: str, index: int) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 4, 6, 11)) * 3 + 1
    variables = Layers("xla").init(jax.random.key(1), x, jnp.int32(0), "train")
    results = [
        Layers(implementation).apply(variables, x, jnp.int32(index), mode, mutable=["batch_stats"])
        for implementation in ("native", "xla")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6, rtol=2e-6), *results)


def test_many_candidates_at_once_are_one_after_the_other() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 5))
    mean, variance = jax.vmap(normalise.moments)(x)
    np.testing.assert_allclose(mean, x.mean((1, 2, 3)), atol=3e-6)
    np.testing.assert_allclose(variance, x.var((1, 2, 3)), atol=3e-6)


def test_what_is_not_a_number_shows() -> None:
    x = jnp.ones((2, 3, 3, 4)).at[0, 1, 1, 2].set(jnp.nan)
    mean, variance = normalise.moments(x)
    assert np.isnan(np.asarray(mean)).tolist() == np.isnan(np.asarray(variance)).tolist() == [False, False, True, False]
    for activation in normalise.ACTIVATIONS:
        y = normalise.normalised(x, jnp.ones(4), jnp.zeros(4), mean, variance, NORM_EPSILON, activation)
        assert np.isnan(np.asarray(y)).all((0, 1, 2)).tolist() == [False, False, True, False], activation


@pytest.mark.parametrize(
    ("dtype", "activation", "implementation"),
    [
        ("bfloat16", "relu", "auto"),
        ("float32", "silu", "auto"),
        ("float32", "relu", "scan"),
        ("float32", "relu", "xla"),
    ],
)
def test_plain_layers_where_it_does_not_serve(dtype: str, activation: str, implementation: str) -> None:
    assert not normalise.available(jnp.ones((1, 2, 2, 3), dtype), activation, implementation)
    assert normalise.available(jnp.ones((1, 2, 2, 3)), "relu", "native")


def test_sums_over_many_rows_lose_no_digits() -> None:
    """Sums of gradients nearly cancel, so that what is lost in them is all that one sees behind deep networks."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(16, 40, 40, 3)) * 0.1 + 2).astype(np.float32)
    g, ones, zeros = rng.normal(size=x.shape).astype(np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)
    wanted = expected(x, ones, zeros, ones, g, "identity", 3)
    mean, variance = normalise.moments(jnp.asarray(x))
    y, pull = jax.vjp(lambda x: normalise.normalised(x, ones, zeros, mean, variance, NORM_EPSILON), jnp.asarray(x))
    (dx,) = pull(jnp.asarray(g))
    np.testing.assert_allclose(mean, wanted["mean"], rtol=1e-7)
    np.testing.assert_allclose(variance, wanted["variance"], rtol=1e-6)
    for found, name in ((y, "y"), (dx, "dx")):
        np.testing.assert_allclose(found, wanted[name], atol=float(np.abs(wanted[name]).max()) * 1e-6, err_msg=name)
