"""Depthwise convolution: every implementation against float64 sums, its derivatives, and which one is chosen."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax

from hw_models.errors import InputError
from search_spaces.kernels import depthwise as module
from search_spaces.kernels import native, normalise, scan
from search_spaces.kernels.depthwise import (
    IMPLEMENTATIONS,
    depthwise,
    select,
    status,
)

needs_native = pytest.mark.skipif(
    not native.load(native.FOLDER).available, reason=f"native: {native.load(native.FOLDER).reason}"
)
each_implementation = pytest.mark.parametrize(
    "implementation", [pytest.param(name, marks=needs_native if name == "native" else ()) for name in IMPLEMENTATIONS]
)

# batch, height, width, channels, kernel, stride, active
HAND_PICKED = [
    (1, 1, 1, 1, 7, 2, 1),  # the kernel hangs over every edge
    (2, 5, 8, 16, 3, 1, 16),
    (3, 8, 5, 33, 5, 2, 33),  # channel tail of one; uneven padding in one direction only
    (17, 4, 4, 20, 3, 1, 9),  # more samples than the weights' gradient has groups
    (2, 9, 10, 40, 7, 2, 17),
    (2, 7, 7, 48, 7, 1, 0),
    (2, 6, 6, 8, 1, 2, 5),  # with stride 2 three of four inputs are unused
]


def random_cases(count: int, seed: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        batch, height, width = (int(rng.integers(1, most)) for most in (6, 21, 21))
        channels = int(rng.integers(1, 70))
        kernel, stride = int(rng.choice([3, 5, 7])), int(rng.integers(1, 3))
        cases.append((batch, height, width, channels, kernel, stride, int(rng.integers(0, channels + 1))))
    return cases


def float64_reference(
    x: np.ndarray, w: np.ndarray, g: np.ndarray, stride: int, active: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The result and both gradients by the definition, tap by tap."""
    x, w, g = (array.astype(np.float64) for array in (x, w, g))
    for array in (w, g):
        array[..., active:] = 0
    kernel, (out_h, out_w) = w.shape[0], g.shape[1:3]
    before, total = [], []
    for size, out in zip(x.shape[1:3], (out_h, out_w), strict=True):
        total.append(max((out - 1) * stride + kernel - size, 0))
        before.append(total[-1] // 2)
    border = [(0, 0), *((low, both - low) for low, both in zip(before, total, strict=True)), (0, 0)]
    padded = np.pad(x, border)
    y, dx, dw = np.zeros_like(g), np.zeros_like(padded), np.zeros_like(w)
    for i in range(kernel):
        for j in range(kernel):
            window = (slice(None), slice(i, i + (out_h - 1) * stride + 1, stride))
            window += (slice(j, j + (out_w - 1) * stride + 1, stride),)
            y += padded[window] * w[i, j]
            dx[window] += g * w[i, j]
            dw[i, j] = (padded[window] * g).sum((0, 1, 2))
    dw[..., active:] = 0
    return y, dx[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]], dw


def operands(case: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    batch, height, width, channels, kernel, stride, _ = case
    rng = np.random.default_rng(seed)
    shapes = ((batch, height, width, channels), (kernel, kernel, channels))
    shapes += ((batch, -(-height // stride), -(-width // stride), channels),)
    x, w, g = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return x, w, g


def value_and_gradients(x: Array, w: Array, g: Array, active: Any, stride: int, implementation: str) -> Any:
    def convolve(x: Array, w: Array) -> Array:
        return depthwise(x, w, stride, active=active, implementation=implementation)

    y, backward = jax.vjp(convolve, x, w)
    return y, *backward(g)


compiled = jax.jit(value_and_gradients, static_argnums=(4, 5))


def check(case: tuple[int, ...], implementation: str, dtype: str = "float32") -> None:
    *_, stride, active = case
    x, w, g = (array.astype(jnp.dtype(dtype)) for array in operands(case))
    found = compiled(x, w, g, active, stride, implementation)
    expected = float64_reference(x, w, g, stride, active)
    # bfloat16: sums are float32, and what is rounded once is right to half a unit in the last place, 2^-9 of it
    tolerance, floor = (2e-5, 1.0) if dtype == "float32" else (2**-8, 0.0)
    for name, ours, right in zip(("y", "dx", "dw"), found, expected, strict=True):
        assert ours.dtype == x.dtype
        ours, atol = np.asarray(ours, np.float64), tolerance * max(floor, np.abs(right).max())
        np.testing.assert_allclose(ours, right, rtol=tolerance, atol=atol, err_msg=name)
        assert not ours[..., active:].any(), f"{name}: idle channels are not exactly zero"


@needs_native
@pytest.mark.parametrize("case", HAND_PICKED + random_cases(30, seed=1), ids=str)
def test_native_equals_the_definition(case: tuple[int, ...]) -> None:
    check(case, "native")


@pytest.mark.parametrize("implementation", ["scan", "xla"])
@pytest.mark.parametrize("case", HAND_PICKED + random_cases(3, seed=2), ids=str)
def test_plain_implementations_equal_the_definition(case: tuple[int, ...], implementation: str) -> None:
    check(case, implementation)


IN_BFLOAT16 = [
    (2, 5, 6, 19, 5, 2, 17),
    *(pytest.param(case, marks=pytest.mark.slow) for case in (HAND_PICKED[3], HAND_PICKED[4], HAND_PICKED[6])),
]


@each_implementation
@pytest.mark.parametrize("case", IN_BFLOAT16, ids=str)
def test_bfloat16_equals_the_definition(case: tuple[int, ...], implementation: str) -> None:
    check(case, implementation, "bfloat16")


@needs_native
@pytest.mark.parametrize("case", [(2, 180, 150, 20, 3, 1, 20), (1, 181, 160, 17, 5, 2, 17)], ids=str)
def test_native_on_images_larger_than_one_strip(case: tuple[int, ...]) -> None:
    check(case, "native")


@each_implementation
def test_inside_switch_scan_and_vmap(implementation: str) -> None:
    """As the supernet uses it: a switch over kernel sizes in a loop over candidates, under derivatives and vmap."""
    x, w, _ = operands((2, 6, 6, 8, 5, 1, 8))

    def branch(size: int) -> Any:
        edge = (5 - size) // 2

        def run(x: Array, w: Array, active: Array) -> Array:
            centre = w[edge : edge + size, edge : edge + size]
            return depthwise(x, centre, active=active, implementation=implementation)

        return run

    def loss(w: Array, x: Array, choice: Array, active: Array) -> Array:
        return jnp.sum(lax.switch(choice, [branch(3), branch(5)], x, w, active) ** 2)

    choices, actives = jnp.array([0, 1, 1]), jnp.array([3, 8, 0])
    x, w = jnp.asarray(x), jnp.asarray(w)
    gradient = jax.grad(loss)

    def step(total: Array, candidate: tuple[Array, Array]) -> tuple[Array, Array]:
        each = gradient(w, x, *candidate)
        return total + each, each

    total, each = jax.jit(lambda: lax.scan(step, jnp.zeros_like(w), (choices, actives)))()
    batched = jax.jit(jax.vmap(gradient, (None, None, 0, 0)))(w, x, choices, actives)
    rounding = 1e-6 * np.abs(each).max()
    np.testing.assert_allclose(batched, each, rtol=1e-5, atol=rounding)
    np.testing.assert_allclose(total, each.sum(0), rtol=1e-5, atol=rounding)
    assert not each[0, :, :, 3:].any() and not each[2].any()
    assert not each[0, 0].any() and each[0, 1:4, 1:4, :3].all()  # only the 3 x 3 centre was used

    place, step_size = (0, 1, 2), 1e-2
    ends = [loss(w.at[place].add(sign * step_size), x, jnp.int32(1), jnp.int32(8)) for sign in (1, -1)]
    slope = (float(ends[0]) - float(ends[1])) / (2 * step_size)
    assert each[1][place] == pytest.approx(slope, rel=2e-2, abs=0.5)


@each_implementation
def test_vmap_over_images_and_weights(implementation: str) -> None:
    x, w, _ = operands((6, 5, 5, 4, 3, 2, 4))
    xs, ws = jnp.asarray(x).reshape(3, 2, 5, 5, 4), jnp.stack([w, 2 * w, -w])
    found = jax.vmap(lambda x, w: depthwise(x, w, 2, implementation=implementation))(xs, ws)
    alone = [depthwise(xs[i], ws[i], 2, implementation=implementation) for i in range(3)]
    np.testing.assert_allclose(found, jnp.stack(alone), rtol=1e-6, atol=1e-6)


@each_implementation
def test_the_same_call_twice_is_equal_bit_for_bit(implementation: str) -> None:
    case = (32, 16, 16, 48, 5, 1, 48)  # enough work for several threads
    arrays = operands(case)
    first = compiled(*arrays, 48, 1, implementation)
    for _ in range(3):
        for one, two in zip(first, compiled(*arrays, 48, 1, implementation), strict=True):
            assert np.array_equal(one, two)


def test_status_says_what_runs_and_why() -> None:
    rows = status()
    assert [row["name"] for row in rows] == list(IMPLEMENTATIONS)
    assert all(row.keys() == {"name", "available", "selected", "reason", "build"} for row in rows)
    assert all(row["reason"] for row in rows)
    assert all(row["reason"].startswith("runs, since") == row["selected"] for row in rows)
    chosen = [row for row in rows if row["selected"]]
    assert [row["name"] for row in chosen] == [select()[0]] and chosen[0]["available"]
    json.dumps(rows)


def test_without_the_library_auto_says_so_and_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "_told", [])
    x, w, _ = operands((1, 4, 4, 3, 3, 1, 3))
    row = status()[0]
    assert not row["available"] and not row["selected"] and "never built" in row["reason"]
    assert select()[0] == "scan"
    with pytest.warns(RuntimeWarning, match="slower without the compiled kernels.*never built") as said:
        found = depthwise(jnp.asarray(x), jnp.asarray(w))
        depthwise(jnp.asarray(x), jnp.asarray(w), 2)
    assert len(said) == 1 and said[0].filename == __file__
    np.testing.assert_array_equal(found, scan.depthwise(jnp.asarray(x), jnp.asarray(w), 1, None))
    with pytest.raises(InputError, match="native.*never built"):
        depthwise(jnp.asarray(x), jnp.asarray(w), implementation="native")


def test_it_is_said_where_there_is_no_depthwise_convolution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Normalisation, attention and SGD have compiled kernels too."""
    (tmp_path / native.RECORD).write_text(json.dumps({"built": False, "reason": "no C++ compiler was found"}))
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "_told", [])
    with pytest.warns(RuntimeWarning, match="normalisation, attention, SGD.*: no C[+][+] compiler was found") as said:
        assert not normalise.available(jnp.ones((1, 2, 2, 3)), "relu")
        assert not normalise.available(jnp.ones((1, 2, 2, 3)), "relu", "xla")
    assert len(said) == 1 and "\n" not in str(said[0].message)


def test_who_asks_for_plain_layers_is_not_warned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(module, "_told", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        depthwise(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2)), implementation="scan")
        assert status() and not normalise.available(jnp.ones((1, 2, 2, 3)), "relu", "xla")


def test_a_failed_build_is_reported_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / native.RECORD).write_text(json.dumps({"built": False, "reason": "no C++ compiler was found"}))
    assert native.load(tmp_path).reason.startswith("no C++ compiler was found")


@pytest.mark.parametrize("text", ['{"built": tr', '{"built": true}'])
def test_a_damaged_record_of_the_build_is_not_used(tmp_path: Path, text: str) -> None:
    (tmp_path / native.RECORD).write_text(text)
    found = native.load(tmp_path)
    assert not found.available and "does not load" in found.reason


@needs_native
def test_a_stale_or_broken_library_is_not_used(tmp_path: Path) -> None:
    stale, broken = tmp_path / "stale", tmp_path / "broken"
    for folder in (stale, broken):
        folder.mkdir()
        for file in native.FOLDER.iterdir():
            if file.suffix in (".cc", ".h", ".so", ".json"):
                shutil.copy(file, folder / file.name)
    with (stale / "depthwise.h").open("a") as source:
        source.write("// changed\n")
    next(broken.glob("*.so")).write_bytes(b"not a library")
    assert "changed after it was built" in native.load(stale).reason
    assert "does not load" in native.load(broken).reason


def test_native_is_not_chosen_away_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.jax, "default_backend", lambda: "gpu")
    assert select() == ("xla", "")
    assert not status()[0]["available"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": jnp.zeros((3, 3, 5))}, "shapes"),
        ({"w": jnp.zeros((2, 2, 4))}, "odd size"),
        ({"w": jnp.zeros((3, 5, 4))}, "square"),
        ({"x": jnp.zeros((1, 4, 4, 4), jnp.bfloat16)}, "float32 or bfloat16 for both"),
        ({"x": jnp.zeros((1, 4, 4, 4), jnp.int32), "w": jnp.zeros((3, 3, 4), jnp.int32)}, "int32"),
        ({"kernel": 2}, "kernel=2 is not allowed: give an odd number from 1"),
        ({"active": -1}, "active=-1 is not allowed"),
        ({"stride": 3}, "stride 3"),
        ({"active": jnp.array([1, 2])}, "active"),
        ({"implementation": "nativ"}, "did you mean 'native'"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    arguments = {"x": jnp.zeros((1, 4, 4, 4)), "w": jnp.zeros((3, 3, 4)), "stride": 1} | change
    with pytest.raises(InputError, match=message):
        depthwise(**arguments)


@needs_native
def test_auto_is_silent_where_the_kernel_is_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        depthwise(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2)))
