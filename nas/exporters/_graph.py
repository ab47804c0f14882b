"""A frozen network as a small graph of plain layers, recorded by watching the calls of its leaf modules.

All arithmetic of a network happens in the leaf layers of `search_spaces/layers.py`, `normalisation.py` and
`rearrange.py`; their calls are the graph; what a value is called is known by its identity. Nothing is computed: the
network is traced with shapes only.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from hw_models.errors import InputError
from search_spaces import layers, normalisation, rearrange
from search_spaces.network import Network, pruned_variables
from search_spaces.space import SearchSpace
from search_spaces.sparse_space import without_sparsity

LEAVES: tuple[type[nn.Module], ...] = tuple(
    kind
    for module in (layers, normalisation, rearrange)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == module.__name__
)
INPUT = "images"


@dataclass(frozen=True, eq=False)
class Node:
    """One layer: the name of its class, where it is, its settings, its weights and the values it joins.

    Numbers and words that the layer is called with are settings too.
    """

    op: str
    path: str
    attributes: dict[str, Any]
    params: dict[str, np.ndarray]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """Layers in the order of execution; `shapes` of every value for one image, channels last."""

    nodes: tuple[Node, ...]
    output: str
    shapes: dict[str, tuple[int, ...]]

    def consumers(self, value: str) -> list[Node]:
        """The layers that take `value`, each as often as it takes it."""
        return [node for node in self.nodes for name in node.inputs if name == value]


def record(space: SearchSpace, variables: Any) -> Graph:
    """The graph of `Network(space)` with the weights of `variables`, zeros for those it leaves out, in mode `eval`.

    Raises:
        InputError: the space is not frozen, the variables do not fit it, or a block computes outside the leaf layers.
    """
    if space.sparsity is not None and not space.sparsity.channels:
        space, variables = without_sparsity(space), pruned_variables(space, variables)
    recorder = _Recorder(variables)
    network = Network(space, depthwise="xla")

    def run(x: Any) -> Any:
        recorder.name(x, INPUT)
        with nn.intercept_methods(recorder.watch):
            y = network.apply(variables, x, "eval")
        recorder.output = recorder.known(y, "network", "its result")
        return y

    shape = (1, space.image_hw, space.image_hw, space.input_channels)
    try:
        jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
    except FlaxError as error:
        raise InputError(f"the weights do not fit space {space.name}: {str(error).splitlines()[0]}") from error
    return Graph(tuple(recorder.nodes), recorder.output, recorder.shapes)


class _Recorder:
    def __init__(self, variables: Any):
        self.variables = variables
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.output = ""
        self._names: dict[int, str] = {}
        self._foreign: dict[int, str] = {}
        self._alive: list[Any] = []  # an identity is unique only as long as the object lives
        self._inside = False

    def name(self, value: Any, wanted: str) -> str:
        name, number = wanted, 1
        while name in self.shapes:
            number += 1
            name = f"{wanted}_{number}"
        self._names[id(value)] = name
        self._alive.append(value)
        self.shapes[name] = tuple(value.shape)
        return name

    def known(self, value: Any, path: str, what: str) -> str:
        if id(value) not in self._names:
            where = self._foreign.get(id(value)) or path.rpartition("/")[0] or path
            raise InputError(
                f"{path}: {what} was computed in {where} outside the layers of search_spaces/layers.py: "
                "use those layers for all arithmetic of a block"
            )
        return self._names[id(value)]

    def watch(self, call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module, path = context.module, "/".join(context.module.path)
        if self._inside or context.method_name != "__call__":
            return call(*args, **kwargs)
        if type(module) not in LEAVES:
            result = call(*args, **kwargs)
            for value in _arrays(result):
                if id(value) not in self._names:
                    self._foreign.setdefault(id(value), path or "network")
                    self._alive.append(value)
            return result
        op = type(module).__name__
        bound = inspect.signature(type(module).__call__).bind(module, *args, **kwargs)
        taken = _arrays([value for name, value in bound.arguments.items() if name != "self"])
        inputs = tuple(self.known(value, path, "its input") for value in taken)
        self._inside = True
        try:
            result = call(*args, **kwargs)
        finally:
            self._inside = False
        outputs = tuple(self.name(value, path) for value in _arrays(result))
        settings = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
        settings = {name: value for name, value in settings.items() if name not in ("name", "parent")}
        settings |= {name: value for name, value in bound.arguments.items() if isinstance(value, int | float | str)}
        self.nodes.append(Node(op, path, settings, self._params(module.path), inputs, outputs))
        return result

    def _params(self, path: tuple[str, ...]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for tree in self.variables.values():
            for part in path:
                tree = tree.get(part, {})
            found |= {name: np.asarray(leaf, np.float32) for name, leaf in tree.items()}
        return found


def _arrays(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array | np.ndarray)]
