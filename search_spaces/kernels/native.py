"""Depthwise convolution by the compiled kernel (`depthwise.cc`), called through XLA's foreign function interface.

CPU only. The library is built when the package is installed (`setup.py`) and lies beside this file together with a
record of how it was built. Without a compiler there is no library; `load` then says why.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError

FOLDER = Path(__file__).parent
SOURCE = "depthwise.cc"
RECORD = "_depthwise.json"
TARGETS = ("flynas_depthwise_forward", "flynas_depthwise_input_gradient", "flynas_depthwise_weight_gradient")
REINSTALL = "a C++ compiler (g++ or clang++) and `pip install` of flynas again would build it"


class Library(NamedTuple):
    """The compiled kernel: whether it can be used, why not, and how it was built (the record's fields)."""

    available: bool
    reason: str
    build: dict[str, Any]


@lru_cache(maxsize=8)
def load(folder: Path) -> Library:
    """Load the library in `folder` and register its functions with XLA; never raises for what is missing or broken.

    Example:
        >>> load(Path("/nonexistent")).available
        False
    """
    record = folder / RECORD
    if not record.is_file():
        return Library(False, f"the kernel was never built (no {RECORD}): {REINSTALL}", {})
    build: dict[str, Any] = {}
    try:
        build = json.loads(record.read_text())
        if not build.get("built"):
            return Library(False, f"{build.get('reason', 'the build failed')}: {REINSTALL}", build)
        source = folder / SOURCE
        if source.is_file() and hashlib.sha256(source.read_bytes()).hexdigest() != build["source_sha256"]:
            return Library(False, f"{SOURCE} changed after the kernel was built: `pip install` flynas again", build)
        library = ctypes.CDLL(str(folder / build["library"]))
        for target in TARGETS:
            # XLA compares the interface version the library was built for with its own here.
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
        library.flynas_depthwise_isa.restype = ctypes.c_char_p
        build["instruction_set"] = library.flynas_depthwise_isa().decode()
    except (OSError, AttributeError, RuntimeError, ValueError, KeyError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        return Library(False, f"the kernel does not load ({first_line}): {REINSTALL}", build)
    return Library(True, "", build)


def depthwise(x: Array, w: Array, stride: int, active: Array | None) -> Array:
    """Depthwise convolution `[N, H, W, C] * [kh, kw, C] -> [N, Ho, Wo, C]`, SAME padding.

    Raises:
        InputError: the kernel is not available here.

    Example:
        >>> depthwise(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2)), 1, jnp.int32(1))[0, 1, 1]
        Array([9., 0.], dtype=float32)
    """
    library = load(FOLDER)
    if not library.available:
        raise InputError(f"depthwise implementation 'native' is not available: {library.reason}")
    count = jnp.int32(x.shape[-1]) if active is None else active
    return _convolution(stride, x, w, count)


def _call(target: str, shape: tuple[int, ...], stride: int, *operands: Array) -> Array:
    call = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(shape, jnp.float32), vmap_method="sequential")
    return call(*operands, stride=np.int32(stride))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolution(stride: int, x: Array, w: Array, active: Array) -> Array:
    batch, in_h, in_w, channels = x.shape
    return _call(TARGETS[0], (batch, -(-in_h // stride), -(-in_w // stride), channels), stride, x, w, active)


def _forward(stride: int, x: Array, w: Array, active: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _convolution(stride, x, w, active), (x, w, active)


def _backward(stride: int, saved: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, None]:
    x, w, active = saved
    return (
        _call(TARGETS[1], x.shape, stride, g, w, active),
        _call(TARGETS[2], w.shape, stride, x, g, active),
        None,
    )


_convolution.defvjp(_forward, _backward)
