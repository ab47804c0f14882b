"""FlyNAS' own format: the architecture as JSON and the weights as safetensors, to be read back without loss.

architecture.json     the frozen space, the name of the network, classes, preprocessing, checksum of the weights
weights.safetensors   one array per variable, named by its path (`params/stages_0_0/expand/kernel`)
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from nas.model import Meta, Model
from nas.plain import dumps
from search_spaces import encoding
from search_spaces.network import Network
from search_spaces.space import SearchSpace

ARCHITECTURE, WEIGHTS = encoding.ARCHITECTURE, "weights.safetensors"


def export(model: Model, folder: str | Path) -> tuple[str, ...]:
    """Write `architecture.json` and `weights.safetensors` into `folder` and return their names.

    Raises:
        InputError: the space is not frozen, or the variables do not fit it.
    """
    from safetensors.numpy import save

    space, variables, meta = model
    arrays = {name: np.asarray(leaf) for name, leaf in _flat(variables).items()}
    _check_weights(arrays, space, "the model")
    weights = save(arrays, metadata={"network": meta.network})
    architecture = {
        "format": encoding.FORMAT,
        "schema": encoding.SCHEMA,
        "name": meta.network,
        "network": meta.network,
        "note": meta.note,
        "space_name": space.name,
        "space": space.to_json(),
        "class_names": meta.class_names,
        "input": {
            "shape": [space.image_hw, space.image_hw, space.input_channels],
            "layout": "height, width, channels",
            "preprocessing": "(pixel / 255 - mean) / std",
            "mean": meta.mean,
            "std": meta.std,
        },
        "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)},
    }
    (Path(folder) / WEIGHTS).write_bytes(weights)
    (Path(folder) / ARCHITECTURE).write_text(dumps(architecture, indent=1) + "\n", encoding="utf-8")
    return ARCHITECTURE, WEIGHTS


def load(folder: str | Path) -> Model:
    """The model that `export` wrote: `space, variables, meta = load(folder)`.

    `folder` may also be the path of its `architecture.json`.

    Raises:
        InputError: not such a folder, a file is damaged, or the weights are not those the architecture names.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_arrays

    path = _architecture_path(folder)
    tree, space, meta = _read(path)
    name = tree["weights"]["file"]
    file = path.parent / name
    if Path(name).name != name or not file.is_file():
        raise InputError(f"{path} needs the weights '{name}' beside it: copy the whole exported folder")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != tree["weights"]["sha256"]:
        raise InputError(
            f"{file} is damaged or of another network (its checksum differs from {path.name}): export it again"
        )
    try:
        arrays = load_arrays(data)
    except SafetensorError as error:
        raise InputError(f"{file} is no safetensors file ({error}): export it again") from error
    _check_weights(arrays, space, str(file))
    return Model(space, _nested(arrays), meta)


def load_architecture(path: str | Path) -> tuple[SearchSpace, Meta]:
    """The frozen space and the description of an exported network, without its weights.

    `path` is an exported folder or its `architecture.json`.

    Raises:
        InputError: no such file, or it is not such a description.
    """
    return _read(_architecture_path(path))[1:]


def is_export(folder: str | Path) -> bool:
    """Whether `folder` holds an exported network.

    Example:
        >>> is_export(".")
        False
    """
    try:
        return bool(json.loads((Path(folder) / ARCHITECTURE).read_text(encoding="utf-8"))["format"] == encoding.FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _architecture_path(path: str | Path) -> Path:
    return Path(path) / ARCHITECTURE if Path(path).is_dir() else Path(path)


def _read(path: Path) -> tuple[dict[str, Any], SearchSpace, Meta]:
    tree = encoding.read_architecture(path)
    try:
        space = encoding.space_from_json(tree["space"])
        prepared = tree["input"]
        mean, std = (tuple(float(value) for value in prepared[name]) for name in ("mean", "std"))
        meta = Meta(str(tree["network"]), tuple(tree["class_names"]), mean, std, str(tree["note"]))
        _ = tree["weights"]["file"], tree["weights"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({_reason(error)}): export the network again") from error
    return tree, space, meta


def _reason(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(part.key) for part in path): leaf for path, leaf in leaves}


def _nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, array in arrays.items():
        *path, last = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = jnp.asarray(array)
    return tree


def _check_weights(arrays: dict[str, np.ndarray], space: SearchSpace, source: str) -> None:
    network = Network(space, depthwise="xla")
    shape = (1, space.image_hw, space.image_hw, space.input_channels)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    wanted = _flat(jax.eval_shape(lambda x: network.init(jax.random.key(0), x, "eval"), image))
    odd = sorted(set(wanted) ^ set(arrays))
    if odd:
        which = "lacks" if odd[0] in wanted else "has an unknown"
        raise InputError(
            f"{source} {which} '{odd[0]}', space {space.name} needs other weights: export the network again"
        )
    for name, leaf in wanted.items():
        have = arrays[name]
        if have.shape != leaf.shape or have.dtype != leaf.dtype:
            raise InputError(
                f"{source}: '{name}' is {have.dtype}{list(have.shape)} and space {space.name} needs "
                f"{leaf.dtype}{list(leaf.shape)}: export the network again"
            )
