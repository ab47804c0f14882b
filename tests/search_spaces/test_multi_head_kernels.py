"""The maximum of several depthwise convolutions, moments of their maps, windows in use, bfloat16, several devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.kernels import native
from search_spaces.kernels.depthwise import depthwise, depthwise_moments, fuses, largest_depthwise

needs_native = pytest.mark.skipif(
    not native.load(native.FOLDER).available, reason=f"native: {native.load(native.FOLDER).reason}"
)


class Case(NamedTuple):
    """Shapes, and what of them is in use."""

    batch: int
    height: int
    width: int
    channels: int
    kernel: int
    stride: int
    heads: int
    active: int
    window: int
    heads_in_use: int


HAND_PICKED = [
    Case(1, 1, 1, 1, 7, 2, 3, 1, 7, 3),
    Case(3, 8, 5, 33, 5, 2, 2, 33, 5, 2),
    Case(17, 4, 4, 20, 3, 1, 5, 9, 1, 4),  # more samples than the weights' gradient has groups
    Case(2, 9, 10, 40, 7, 1, 2, 40, 3, 1),
    Case(2, 7, 7, 48, 7, 1, 3, 0, 7, 3),  # nothing active
    Case(1, 40, 33, 300, 3, 1, 2, 290, 3, 2),  # several strips and bands
    Case(2, 12, 11, 6, 11, 2, 2, 6, 9, 2),  # kernels without code of their own
]


def random_cases(count: int, seed: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        batch, height, width = (int(rng.integers(1, most)) for most in (6, 17, 17))
        channels, heads = int(rng.integers(1, 70)), int(rng.integers(1, 6))
        kernel, stride = int(rng.choice([1, 3, 5, 7, 9])), int(rng.integers(1, 3))
        window = int(rng.choice(range(1, kernel + 1, 2)))
        in_use = int(rng.integers(0, channels + 1)), window, int(rng.integers(1, heads + 1))
        cases.append(Case(batch, height, width, channels, kernel, stride, heads, *in_use))
    return cases


class Reference:
    """Everything in float64, tap by tap, with filters cut to what is in use."""

    def __init__(self, case: Case, x: np.ndarray, w: np.ndarray):
        self.case, self.x = case, x.astype(np.float64)
        edge = (case.kernel - case.window) // 2
        self.centre = slice(edge, edge + case.window)
        self.w = w.astype(np.float64)[self.centre, self.centre, :, : case.heads_in_use].copy()
        self.w[:, :, case.active :] = 0
        self.out = tuple(-(-size // case.stride) for size in x.shape[1:3])
        border, self.before = [(0, 0)], []
        for size, out in zip(x.shape[1:3], self.out, strict=True):
            total = max((out - 1) * case.stride + case.window - size, 0)
            self.before.append(total // 2)
            border.append((total // 2, total - total // 2))
        self.border = [*border, (0, 0)]
        self.padded = np.pad(self.x, self.border)
        self.maps = sum(self.window(self.padded, i, j)[..., None] * self.w[i, j] for i, j in self.taps())

    def taps(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.case.window) for j in range(self.case.window)]

    def window(self, array: np.ndarray, i: int, j: int) -> np.ndarray:
        step = self.case.stride
        rows = slice(i, i + (self.out[0] - 1) * step + 1, step)
        return array[:, rows, slice(j, j + (self.out[1] - 1) * step + 1, step)]

    def pull(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of images and of all filters, from those of the maps."""
        dx, dw = np.zeros_like(self.padded), np.zeros((self.case.kernel,) * 2 + (self.case.channels, self.case.heads))
        centre = dw[self.centre, self.centre]
        for i, j in self.taps():
            self.window(dx, i, j)[...] += (g * self.w[i, j]).sum(-1)
            taps = (self.window(self.padded, i, j)[..., None] * g).sum((0, 1, 2))
            taps[self.case.active :] = 0
            centre[i, j, :, : self.case.heads_in_use] = taps
        rows, columns = (slice(low, low + size) for low, size in zip(self.before, self.x.shape[1:3], strict=True))
        return dx[:, rows, columns], dw

    def factors(self, scale: np.ndarray | None) -> np.ndarray:
        """The factors of the maps."""
        if scale is None:
            return np.ones((1,) * self.maps.ndim)
        return np.moveaxis(scale.astype(np.float64), 1, 2)[:, None, None, :, : self.case.heads_in_use]

    def decided(self, scale: np.ndarray | None) -> np.ndarray:
        """Where the largest head is so much larger than the others that rounding to bfloat16 does not matter."""
        first, *others = np.moveaxis(np.sort(self.maps * self.factors(scale), -1), -1, 0)[::-1]
        return first - others[0] > 2**-6 * np.abs(first) if others else np.ones_like(first, bool)

    def largest(self, scale: np.ndarray | None, g: np.ndarray) -> tuple[np.ndarray, ...]:
        """The maximum and the gradients of images, filters and scale."""
        factors = self.factors(scale)
        scaled = self.maps * factors
        chosen = np.arange(self.case.heads_in_use) == scaled.argmax(-1)[..., None]
        of_maps = chosen * g[..., None]
        of_scale = np.zeros((self.case.batch, self.case.heads, self.case.channels))
        of_scale[:, : self.case.heads_in_use] = np.moveaxis((of_maps * self.maps).sum((1, 2)), 1, 2)
        return scaled.max(-1), *self.pull(of_maps * factors), of_scale

    def moments(self, of_mean: np.ndarray, of_variance: np.ndarray) -> tuple[np.ndarray, ...]:
        """Mean, variance, and the gradients of images and filters."""
        used, pixels = self.case.heads_in_use, self.out[0] * self.out[1]
        mean = self.maps.mean((1, 2))
        from_mean = self.maps - mean[:, None, None]
        of_mean, of_variance = (np.moveaxis(part, 1, 2)[:, None, None, :, :used] for part in (of_mean, of_variance))
        of_maps = of_mean + 2 * of_variance * from_mean
        found = []
        for part in (mean, np.square(from_mean).mean((1, 2))):
            whole = np.zeros((self.case.batch, self.case.heads, self.case.channels))
            whole[:, :used] = np.moveaxis(part, 1, 2)
            found.append(whole)
        return *found, *self.pull(of_maps / pixels)


def operands(case: Case) -> tuple[np.ndarray, ...]:
    """Images, filters, scale, and gradients of the maximum, of means and of variances."""
    rng = np.random.default_rng(0)
    per_map = (case.batch, case.heads, case.channels)
    out = (case.batch, -(-case.height // case.stride), -(-case.width // case.stride), case.channels)
    images = (case.batch, case.height, case.width, case.channels)
    shapes = (images, (case.kernel, case.kernel, case.channels, case.heads), per_map, out, per_map, per_map)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def agree(found: Any, expected: Any, tolerance: float = 3e-5, floor: float = 1.0) -> None:
    """Equal within `tolerance` of a value and of the largest value, which counts as `floor` where it is smaller."""
    for position, (ours, right) in enumerate(zip(found, expected, strict=True)):
        atol = tolerance * max(floor, np.abs(right).max(initial=0))
        ours = np.asarray(ours, np.float64)
        np.testing.assert_allclose(ours, right, rtol=tolerance, atol=atol, err_msg=f"part {position}")


def in_use(case: Case) -> dict[str, Any]:
    return {"active": case.active, "kernel": case.window, "heads": case.heads_in_use}


RANDOM = random_cases(20, seed=3)


@needs_native
@pytest.mark.parametrize(
    "case", [*HAND_PICKED, *RANDOM[:6], *(pytest.param(case, marks=pytest.mark.slow) for case in RANDOM[6:])], ids=str
)
def test_native_maximum_and_moments_equal_the_definition(case: Case) -> None:
    check_against_definition(case, "native")


# the first is small, for it runs always
COMPOSED = [
    Case(2, 6, 5, 12, 5, 2, 2, 9, 3, 2),
    *(pytest.param(case, marks=pytest.mark.slow) for case in HAND_PICKED[1:4]),
]


@pytest.mark.parametrize("implementation", ["scan", "xla"])
@pytest.mark.parametrize("case", COMPOSED, ids=str)
def test_composed_maximum_and_moments_equal_the_definition(case: Case, implementation: str) -> None:
    check_against_definition(case, implementation)


OFTEN = [COMPOSED[0], HAND_PICKED[1], HAND_PICKED[3], RANDOM[1]]
SELDOM = [*HAND_PICKED[4:], *random_cases(6, seed=5)]


@needs_native
@pytest.mark.parametrize("case", [*OFTEN, *(pytest.param(case, marks=pytest.mark.slow) for case in SELDOM)], ids=str)
def test_native_equals_the_definition_in_bfloat16(case: Case) -> None:
    check_against_definition(case, "native", "bfloat16")


@pytest.mark.parametrize("implementation", ["scan", "xla"])
@pytest.mark.parametrize("case", COMPOSED, ids=str)
def test_composed_kernels_equal_the_definition_in_bfloat16(case: Case, implementation: str) -> None:
    check_against_definition(case, implementation, "bfloat16")


def check_against_definition(case: Case, implementation: str, dtype: str = "float32") -> None:
    x, w, scale, g, g_mean, g_variance = operands(case)
    x, w, g = (np.asarray(part, jnp.dtype(dtype)) for part in (x, w, g))
    reference = Reference(case, x, w)
    used = in_use(case) | {"implementation": implementation}
    # heads that are equal in bfloat16 may share the gradient or not: those pixels have none
    plain, scaled = (g if dtype == "float32" else g * reference.decided(by) for by in (None, scale))

    @jax.jit
    def run(x: Any, w: Any, scale: Any) -> Any:
        y, pull = jax.vjp(lambda x, w: largest_depthwise(x, w, case.stride, **used), x, w)
        of_largest = (y, *pull(plain))
        y, pull = jax.vjp(lambda x, w, s: largest_depthwise(x, w, case.stride, scale=s, **used), x, w, scale)
        of_scaled = (y, *pull(scaled))
        moments, pull = jax.vjp(lambda x, w: depthwise_moments(x, w, case.stride, **used), x, w)
        return of_largest, of_scaled, (*moments, *pull((g_mean, g_variance)))

    of_largest, of_scaled, of_moments = run(x, w, scale)
    assert {part.dtype for part in (*of_largest, *of_scaled[:3], *of_moments[2:])} == {x.dtype}
    # half a unit in the last place of bfloat16 is 2^-9 of a value, and gradients are summed head by head
    within = (3e-5, 1.0) if dtype == "float32" else (2**-7, 0.0)
    agree(of_largest, reference.largest(None, plain)[:3], *within)
    agree(of_scaled, reference.largest(scale, scaled), *within)
    agree(of_moments, reference.moments(g_mean, g_variance), *within)


@pytest.mark.parametrize("implementation", [pytest.param("native", marks=needs_native), "scan", "xla"])
@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_in_use_is_traced(implementation: str, stride: int) -> None:
    """One compiled program for every window and channel count, equal to the cut-out filters."""
    rng = np.random.default_rng(1)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 9, 20), (7, 7, 20)))
    traces = []

    @jax.jit
    def run(x: Any, w: Any, window: Any, active: Any) -> Any:
        traces.append(None)
        return depthwise(x, w, stride, active=active, kernel=window, implementation=implementation)

    for window in (1, 3, 5, 7):
        edge = (7 - window) // 2
        cut = w[edge : 7 - edge, edge : 7 - edge]
        expected = depthwise(x, cut, stride, active=11, implementation="xla")
        np.testing.assert_allclose(run(x, w, window, 11), expected, rtol=1e-4, atol=1e-4)
    assert len(traces) == 1


@needs_native
@pytest.mark.parametrize("heads", [1, 3])
def test_bfloat16_is_summed_in_float32(heads: int) -> None:
    case = Case(4, 9, 9, 40, 5, 1, heads, 40, 5, heads)
    x, w, _, g, *_ = (jnp.asarray(array, jnp.bfloat16) for array in operands(case))
    y, pull = jax.vjp(lambda x, w: largest_depthwise(x, w, implementation="native"), x, w)
    dx, dw = pull(g)
    assert y.dtype == dx.dtype == dw.dtype == jnp.bfloat16
    found = [np.asarray(part, np.float32) for part in (y, dx, dw)]
    exact = Reference(case, np.asarray(x, np.float32), np.asarray(w, np.float32))
    # half a unit in the last place of bfloat16
    agree(found, exact.largest(None, np.asarray(g, np.float32))[:3], 2**-8)


@needs_native
def test_what_is_not_a_number_survives_the_maximum() -> None:
    x, w = np.ones((1, 3, 3, 18), np.float32), np.ones((1, 1, 18, 3), np.float32)
    for head in range(3):
        wrong = w.copy()
        wrong[0, 0, 17, head] = np.nan
        y = np.asarray(largest_depthwise(x, wrong, implementation="native"))
        assert np.isnan(y[..., 17]).all() and (y[..., :17] == 1).all()


@needs_native
def test_equal_heads_give_the_gradient_to_the_first() -> None:
    x, w = jnp.ones((1, 2, 2, 3)), jnp.ones((1, 1, 3, 2))
    gradient = jax.grad(lambda w: largest_depthwise(x, w, implementation="native").sum())(w)
    np.testing.assert_array_equal(gradient[0, 0], [[4, 0]] * 3)


@needs_native
def test_moments_keep_their_digits_under_a_large_mean() -> None:
    x = 1000 + np.random.default_rng(0).normal(size=(2, 16, 16, 8)).astype(np.float32)
    _, variance = depthwise_moments(x, np.ones((1, 1, 8, 2), np.float32), implementation="native")
    expected = np.broadcast_to(x.astype(np.float64).var((1, 2))[:, None], variance.shape)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


@needs_native
def test_a_batch_over_several_devices_is_computed_where_it_is() -> None:
    program = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from search_spaces.kernels.depthwise import depthwise, depthwise_moments, largest_depthwise
rng = np.random.default_rng(0)
x, w, scale = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 9, 8, 20), (5, 5, 20, 3), (8, 3, 20)))
def loss(x, w, scale):
    mean, variance = depthwise_moments(x, w, 2, implementation="native")
    y = largest_depthwise(x, w, 2, scale=scale, heads=jnp.int32(2), implementation="native")
    return (y**2).sum() + (mean * variance).sum() + (depthwise(x, w[..., 0], implementation="native") ** 3).sum()
run = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
alone = run(x, w, scale)
spread = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
there = [jax.device_put(part, spread) for part in (x, scale)]
found = run(there[0], w, there[1])
assert len(jax.devices()) == 4 and found[1][0].sharding.is_equivalent_to(spread, 4)
for ours, right in zip(jax.tree.leaves(found), jax.tree.leaves(alone)):
    np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4 * np.abs(right).max())
assert "all-gather(" not in run.lower(there[0], w, there[1]).compile().as_text()
# three images cannot be shared by four devices: they are computed whole, not padded
few = jax.jit(jax.grad(lambda w, x: (depthwise(x[:3], w[..., 0], implementation="native") ** 2).sum()))
np.testing.assert_allclose(few(w, there[0]), few(w, x), rtol=1e-4, atol=1e-3)
"""
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@needs_native
def test_the_mean_of_no_pixels_is_not_a_number() -> None:
    mean, variance = depthwise_moments(jnp.zeros((2, 0, 5, 3)), jnp.zeros((3, 3, 3, 2)), implementation="native")
    assert np.isnan(mean).all() and np.isnan(variance).all() and mean.shape == (2, 2, 3)


@needs_native
def test_native_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.jax, "default_backend", lambda: "gpu")
    with pytest.raises(InputError, match="CPUs only, and this machine computes on gpu"):
        depthwise(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1)), implementation="native")


def test_an_unknown_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLYNAS_KERNEL_ISA", "avx1024")
    known = ", ".join(native.INSTRUCTION_SETS)
    assert f"FLYNAS_KERNEL_ISA=avx1024 is not known: set {known}, or nothing" in native.load(tmp_path).reason


@needs_native
def test_only_the_compiled_kernel_saves_the_maps() -> None:
    assert fuses("native") and fuses("auto") and not fuses("xla") and not fuses("scan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": jnp.zeros((3, 3, 4))}, r"\[k, k, C, h\]"),
        ({"w": jnp.zeros((1, 1, 4, 256))}, "256 heads are out of range: give 1 to 255"),
        ({"w": jnp.zeros((1, 1, 4, 0))}, "0 heads are out of range"),
        ({"scale": jnp.zeros((1, 4, 2))}, r"scale of shape \(1, 4, 2\) is not allowed: give \(1, 2, 4\)"),
        ({"heads": 0}, "heads=0 is not allowed"),
        ({"kernel": np.int64(2)}, "kernel=2 is not allowed: give an odd number from 1"),
        ({"active": 1.5}, "active=1.5 is not allowed: give a whole number from 0"),
        ({"heads": jnp.array([1, 2])}, "heads of shape"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"x": jnp.zeros((1, 4, 4, 4)), "w": jnp.zeros((3, 3, 4, 2)), "stride": 1} | change
    with pytest.raises(InputError, match=message):
        largest_depthwise(**arguments)
