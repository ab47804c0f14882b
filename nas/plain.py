"""Values as plain JSON, and PyTrees as plain arrays by path: what a run folder holds instead of pickles."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError


def plain(value: Any) -> Any:
    """`value` in terms of JSON: dataclasses become objects, arrays lists, NaN and infinities None.

    Raises:
        InputError: something that has no such form.

    Example:
        >>> plain({"a": np.float32(0.5), "b": (1, float("inf"))})
        {'a': 0.5, 'b': [1, None]}
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, PurePath | datetime.date):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.bool_ | jax.Array):
        return plain(np.asarray(value).tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    raise InputError(
        f"a setting of type {type(value).__name__} ({value!r}) cannot be kept with a run: give plain values"
    )


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON text of `plain(value)`, never with NaN or Infinity.

    Example:
        >>> dumps({"error": float("nan")})
        '{"error": null}'
    """
    return json.dumps(plain(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def arrays_of(tree: Any) -> dict[str, np.ndarray]:
    """Leaves of a PyTree as NumPy arrays by path; random keys as their words.

    Example:
        >>> arrays_of({"w": jnp.ones(2), "b": None})
        {"['w']": array([1., 1.], dtype=float32)}
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in leaves
    }


def tree_from(template: Any, arrays: Mapping[str, Any]) -> Any:
    """The inverse of `arrays_of`, in the structure, shapes and dtypes of `template`.

    Raises:
        InputError: paths, shapes or dtypes differ, which are named.

    Example:
        >>> tree_from((jnp.zeros(2),), arrays_of((jnp.ones(2),)))[0].tolist()
        [1.0, 1.0]
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = arrays_of(template)
    if set(expected) != set(arrays):
        odd = sorted(set(expected) ^ set(arrays))[0]
        raise InputError(f"the stored state does not fit: {odd} is on one side only")
    restored = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        stored = np.asarray(arrays[name])
        wanted = expected[name]
        if stored.shape != wanted.shape or stored.dtype != wanted.dtype:
            raise InputError(
                f"the stored state does not fit: {name} is {stored.dtype}{list(stored.shape)} there "
                f"and {wanted.dtype}{list(wanted.shape)} here"
            )
        if _is_key(leaf):
            restored.append(jax.random.wrap_key_data(jnp.asarray(stored), impl=jax.random.key_impl(leaf)))
        elif isinstance(leaf, jax.Array):
            restored.append(jnp.asarray(stored))
        elif isinstance(leaf, np.ndarray | np.generic):
            restored.append(stored if isinstance(leaf, np.ndarray) else stored[()])
        else:
            restored.append(type(leaf)(stored[()]))
    return jax.tree_util.tree_unflatten(structure, restored)
