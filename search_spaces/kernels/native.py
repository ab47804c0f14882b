"""Depthwise convolution by the compiled kernel (`depthwise.cc`), called through XLA's foreign function interface.

CPU only. The library is built when the package is installed (`setup.py`) and lies beside this file together with a
record of how it was built. Without a compiler there is no library; `load` then says why.

Shapes: images `x [N, H, W, C]`, filters `w [h, k, k, C]` (heads first), `sizes` int32 `[3]` (the leading channels, the
window and the leading heads in use), `scale` float32 `[N, h, C]`.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import platform
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import sequential_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from hw_models.errors import InputError
from search_spaces.kept import keep

FOLDER = Path(__file__).parent
RECORD = "_depthwise.json"
REINSTALL = "a C++ compiler (g++ or clang++) and `pip install` of flynas again would build it"
# What FLYNAS_KERNEL_ISA may name, the weakest first.
INSTRUCTION_SETS = ("neon",) if platform.machine() == "aarch64" else ("baseline", "avx2", "avx512")
OTHER_TARGETS = (
    *(f"flynas_normalise_{name}" for name in ("moments", "forward", "backward")),
    "flynas_sgd",
    "flynas_frame",
    *(f"flynas_attention_{name}" for name in ("factors", "scale", "gradient", "head_factors", "head_gradient")),
    *(f"flynas_round_{name}" for name in ("extremes", "activations", "weights")),
)
OPERATIONS = ("forward", "input_gradient", "weight_gradient", "moments", "scale_gradient")


class Library(NamedTuple):
    """The compiled kernel: whether it can be used, why not, and how it was built (the record's fields)."""

    available: bool
    reason: str
    build: dict[str, Any]


def source_hash(folder: Path) -> str | None:
    """SHA-256 of the kernel's sources in `folder` in the order of their names, None where there are none.

    Example:
        >>> source_hash(Path("/nonexistent")) is None
        True
    """
    files = sorted([*folder.glob("*.cc"), *folder.glob("*.h")], key=lambda path: path.name)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else None


@lru_cache(maxsize=8)
def load(folder: Path) -> Library:
    """Load the library in `folder` and register its functions with XLA; never raises for what is missing or broken.

    Example:
        >>> load(Path("/nonexistent")).available
        False
    """
    record = folder / RECORD
    wish = os.environ.get("FLYNAS_KERNEL_ISA", "")
    if wish not in ("", *INSTRUCTION_SETS):
        known = ", ".join(INSTRUCTION_SETS)
        return Library(False, f"FLYNAS_KERNEL_ISA={wish} is not known: set {known}, or nothing for the best", {})
    if not record.is_file():
        return Library(False, f"the kernel was never built (no {RECORD}): {REINSTALL}", {})
    build: dict[str, Any] = {}
    try:
        build = json.loads(record.read_text())
        if not build.get("built"):
            return Library(False, f"{build.get('reason', 'the build failed')}: {REINSTALL}", build)
        if source_hash(folder) not in (None, build["source_sha256"]):
            reason = "the sources of the kernel changed after it was built: `pip install` flynas again"
            return Library(False, reason, build)
        library = ctypes.CDLL(str(folder / build["library"]))
        for target in (*map(_target, OPERATIONS), *OTHER_TARGETS):
            # XLA compares the interface version the library was built for with its own here.
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
        library.flynas_depthwise_isa.restype = ctypes.c_char_p
        build["instruction_set"] = library.flynas_depthwise_isa().decode()
    except (OSError, AttributeError, RuntimeError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        return Library(False, f"the kernel does not load ({first_line}): {REINSTALL}", build)
    return Library(True, "", build)


def _target(operation: str) -> str:
    return f"flynas_depthwise_{operation}"


def largest(x: Array, w: Array, sizes: Array, stride: int, scale: Array | None = None) -> Array:
    """The largest of the heads' depthwise convolutions, `[N, Ho, Wo, C]`; with one head, its convolution.

    `scale` multiplies every head's map before they are compared. The gradient goes to the first head where several are
    equal. The maps are not stored: one byte per value says which head it came from, where a gradient is asked for.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((2, 3, 3, 2))
        >>> largest(x, w, jnp.array([1, 3, 2], jnp.int32), 1)[0, 1, 1]
        Array([9., 0.], dtype=float32)
    """
    require()
    if scale is None and w.shape[0] == 1:
        return _single(stride, x, w, sizes)
    none = jnp.zeros((0,), jnp.float32) if scale is None else scale.astype(jnp.float32)
    return _several(stride, x, w, none, sizes)


def moments(x: Array, w: Array, sizes: Array, stride: int) -> tuple[Array, Array]:
    """Mean and variance over pixels of every head's map, float32 `[N, h, C]` each; the maps are not stored.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> x, w = jnp.ones((1, 4, 4, 2)), jnp.ones((2, 1, 1, 2))
        >>> [part[0, 0].tolist() for part in moments(x, w, jnp.array([2, 1, 2], jnp.int32), 1)]
        [[1.0, 1.0], [0.0, 0.0]]
    """
    require()
    return _moments(stride, x, w, sizes)


def require() -> None:
    """Raise InputError unless the kernel is available here.

    Example:
        >>> if load(FOLDER).available: require()
    """
    library = load(FOLDER)
    if not library.available:
        raise InputError(f"depthwise implementation 'native' is not available: {library.reason}")
    if jax.default_backend() != "cpu":
        reason = f"it computes on CPUs only, and this machine computes on {jax.default_backend()}: use 'auto' or 'xla'"
        raise InputError(f"depthwise implementation 'native' is not available: {reason}")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _single(stride: int, x: Array, w: Array, sizes: Array) -> Array:
    none = jnp.zeros((0,), jnp.float32)
    return _operation("forward", stride, (False,))(x, w, none, sizes)[0]


def _single_forward(stride: int, x: Array, w: Array, sizes: Array) -> tuple[Array, Any]:
    return _single(stride, x, w, sizes), (x, w, sizes)


def _single_backward(stride: int, saved: Any, g: Array) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    return (*_gradients(stride, x, w, g, sizes), None)


_single.defvjp(_single_forward, _single_backward)


def _gradients(
    stride: int, x: Array, w: Array, g: Array, sizes: Array, index: Array | None = None, scale: Array | None = None
) -> tuple[Array, Array]:
    index = jnp.zeros((0,), jnp.uint8) if index is None else index
    scale = jnp.zeros((0,), jnp.float32) if scale is None else scale
    (dx,) = _operation("input_gradient", stride, x.shape[1:3])(g, index, w, scale, sizes)
    (dw,) = _operation("weight_gradient", stride, w.shape[:2])(x, g, index, scale, sizes)
    return dx, dw.astype(w.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _several(stride: int, x: Array, w: Array, scale: Array, sizes: Array) -> Array:
    return _operation("forward", stride, (False,))(x, w, scale, sizes)[0]


def _several_forward(stride: int, x: Array, w: Array, scale: Array, sizes: Array) -> tuple[Array, Any]:
    y, index = _operation("forward", stride, (True,))(x, w, scale, sizes)
    index = keep(index)
    return y, (x, w, scale, sizes, index)


def _several_backward(stride: int, saved: Any, g: Array) -> tuple[Array, Array, Array, None]:
    x, w, scale, sizes, index = saved
    dx, dw = _gradients(stride, x, w, g, sizes, index, scale)
    if scale.size:
        (dscale,) = _operation("scale_gradient", stride, ())(x, w, g, index, sizes)
    else:
        dscale = jnp.zeros_like(scale)
    return dx, dw, dscale, None


_several.defvjp(_several_forward, _several_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _moments(stride: int, x: Array, w: Array, sizes: Array) -> tuple[Array, Array]:
    mean, variance = _operation("moments", stride, ())(x, w, sizes)
    return mean, variance


def _moments_forward(stride: int, x: Array, w: Array, sizes: Array) -> tuple[tuple[Array, Array], Any]:
    mean, variance = _moments(stride, x, w, sizes)
    return (mean, variance), (x, w, sizes, mean)


def _moments_backward(stride: int, saved: Any, g: tuple[Array, Array]) -> tuple[Array, Array, None]:
    x, w, sizes, mean = saved
    dx, dw = jnp.zeros_like(x), []
    # Head by head, so that one map at a time is stored.
    for head in range(w.shape[0]):
        filters = w[head : head + 1]
        alone = jnp.stack([jnp.where(head < sizes[2], sizes[0], 0), sizes[1], jnp.int32(1)])
        y = _single(stride, x, filters, alone)
        by_mean, by_variance = (part[:, head, None, None, :] for part in g)
        pixels = y.shape[1] * y.shape[2]
        dy = (by_mean + 2 * by_variance * (y - mean[:, head, None, None, :])) / pixels
        part, filters_gradient = _gradients(stride, x, filters, dy.astype(x.dtype), alone)
        dx = dx + part
        dw.append(filters_gradient)
    return dx, jnp.concatenate(dw), None


_moments.defvjp(_moments_forward, _moments_backward)


def _results(operation: str, stride: int, statics: tuple[Any, ...], operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shapes and types of what the kernel returns."""

    def out(x: Any) -> tuple[int, ...]:
        return (x.shape[0], -(-x.shape[1] // stride), -(-x.shape[2] // stride), x.shape[3])

    first = operands[0]
    if operation == "forward":
        index = out(first) if statics[0] else (0,)
        return jax.ShapeDtypeStruct(out(first), first.dtype), jax.ShapeDtypeStruct(index, jnp.uint8)
    if operation == "input_gradient":
        return (jax.ShapeDtypeStruct((first.shape[0], *statics, first.shape[3]), first.dtype),)
    if operation == "weight_gradient":
        heads, kernel = statics
        return (jax.ShapeDtypeStruct((heads, kernel, kernel, first.shape[3]), jnp.float32),)
    per_map = jax.ShapeDtypeStruct((first.shape[0], operands[1].shape[0], first.shape[3]), jnp.float32)
    return (per_map, per_map) if operation == "moments" else (per_map,)


def _operation(operation: str, stride: int, statics: tuple[Any, ...]) -> Callable[..., Any]:
    """One call of the kernel: sequential under `vmap`, and split over the batch where that is spread over devices."""

    def run(*operands: Array) -> tuple[Array, ...]:
        ranks = tuple(operand.ndim for operand in operands)
        found: tuple[Array, ...] = _partitioned(operation, stride, statics, ranks)(*operands)
        return found

    return sequential_vmap(run)


@cache
def _partitioned(operation: str, stride: int, statics: tuple[Any, ...], ranks: tuple[int, ...]) -> Callable[..., Any]:
    taken, given = _dimensions(operation, ranks, statics)

    def call(*operands: Array) -> tuple[Array, ...]:
        results = _results(operation, stride, statics, operands)
        return tuple(jax.ffi.ffi_call(_target(operation), results)(*operands, stride=np.int32(stride)))

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        spec = operands[0].sharding.spec
        axes = spec[0] if len(spec) else None
        if axes is not None:
            names = axes if isinstance(axes, tuple) else (axes,)
            # a batch that does not divide would be padded, and the weights' gradient would count the padding
            if operands[0].shape[0] % math.prod(mesh.shape[name] for name in names):
                axes = None

        def place(letters: str) -> Any:
            return NamedSharding(mesh, PartitionSpec(*(axes if letter == "n" else None for letter in letters.split())))

        def part(*local: Array) -> tuple[Array, ...]:
            found = call(*local)
            # every device has seen its share of the batch
            return jax.lax.psum(found, axes) if operation == "weight_gradient" and axes is not None else found

        return mesh, part, tuple(map(place, given)), tuple(map(place, taken))

    whole = custom_partitioning(call)
    letters = dict.fromkeys(letter for side in (*taken, *given) for letter in side.split() if letter != "n")
    whole.def_partition(
        partition=partition,
        sharding_rule=f"{', '.join(taken)} -> {', '.join(given)}",
        need_replication_factors=tuple(letters),
        **({"reduction_factors": ("n",)} if operation == "weight_gradient" else {}),
    )
    split: Callable[..., Any] = whole
    return split


def _dimensions(
    operation: str, ranks: tuple[int, ...], statics: tuple[Any, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A letter for each dimension of operands and results; only `n`, the batch, may be spread over devices."""
    image, out, filters, per_map, sizes = "n i j c", "n o p c", "e k l c", "n e c", "s"

    def index(rank: int) -> str:
        return out if rank == 4 else "u"

    def scale(rank: int) -> str:
        return per_map if rank == 3 else "v"

    if operation == "forward":
        return (image, filters, scale(ranks[2]), sizes), (out, index(4 if statics[0] else 1))
    if operation == "input_gradient":
        return (out, index(ranks[1]), filters, scale(ranks[3]), sizes), (image,)
    if operation == "weight_gradient":
        return (image, out, index(ranks[2]), scale(ranks[3]), sizes), (filters,)
    if operation == "moments":
        return (image, filters, sizes), (per_map, per_map)
    return (image, filters, out, out, sizes), (per_map,)
