"""Values as plain JSON, and PyTrees as arrays by path and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.plain import arrays_of, dumps, plain, tree_from


def test_any_pytree_goes_to_plain_arrays_and_back():
    tree = {
        "weights": (jnp.ones((2, 3), jnp.bfloat16), np.arange(3)),
        "key": jax.random.key(3),
        "count": 3,
        "none": None,
        "scalar": np.float32(2.5),
        "empty": jnp.zeros((0, 4)),
    }
    back = tree_from(tree, arrays_of(tree))
    assert jax.tree.structure(back) == jax.tree.structure(tree) and back["count"] == 3
    assert back["weights"][0].dtype == jnp.bfloat16 and bool(back["key"] == tree["key"])
    assert jax.random.uniform(back["key"]) == jax.random.uniform(tree["key"])
    with pytest.raises(InputError, match=r"\['count'\] is on one side only"):
        tree_from({key: value for key, value in tree.items() if key != "count"}, arrays_of(tree))
    with pytest.raises(InputError, match=r"\['empty'\] is float32\[0, 4\] there and float32\[1\] here"):
        tree_from(tree | {"empty": jnp.zeros(1)}, arrays_of(tree))


def test_plain_values():
    assert json.loads(dumps({"a": float("inf"), "b": np.int64(3), "c": jnp.ones(2), "d": {1, 2}})) == {
        "a": None,
        "b": 3,
        "c": [1.0, 1.0],
        "d": [1, 2],
    }
    with pytest.raises(InputError, match="type object"):
        plain({"x": object()})
