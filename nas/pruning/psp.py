"""Parameterized structured pruning (PSP): gates of structures, trained jointly with the weights and then folded.

Every structure of a layer has a dense parameter `nu` beside the weights, which its weights are multiplied by unless it
is below a threshold (`search_spaces.sparsity.structure_parameters`). Penalties act on `nu` alone; the recipe's weight
decay acts on weights alone, as without gates. With `latency` the loss has the expected latency as well: the share of
each layer that its gates keep, times what the layer takes on a device, over the latency of all.

Where a normalisation follows, the loss does not depend on the scale of an output channel or of a whole layer: the exact
gradient of such a gate is zero, and the penalty alone moves all of them alike, until a whole network is below the
threshold at once. Columns, input channels and kernels do not have that.

Source: Schindler, dissertation (Heidelberg 2021), chapter 6. Its table 6.1 counts FLOPs as MACs for the baseline; here
MACs are multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from hw_models.device import Device
from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from hw_models.estimate import layer_costs
from hw_models.workload import Workload
from nas.pruning.counting import Count, counted, layer_of
from nas.pruning.coupling import graph_of
from nas.pruning.targets import Target, layers, leaf_of
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.network import fresh, variable_shapes
from search_spaces.quantizers._quantizer import straight_through
from search_spaces.space import SearchSpace
from search_spaces.sparsity._patterns import KINDS, magnitude
from search_spaces.sparsity.penalties import elastic_net
from search_spaces.sparsity.structure_parameters import EXACT, PRINTED, alpha, folded, gated, initial

GATES = "structure_parameters"  # beside the modules of the network, as vectors, which do not decay


@dataclass(frozen=True)
class Parameterization:
    """What is gated, and how gates are driven to zero.

    Attributes:
        structures: kinds of `search_spaces.sparsity._patterns`; of several a weight has one gate each.
        eps: threshold of `|nu|`.
        l1, l2: strengths of the penalty on all `nu`: `l1 * sum |nu| + l2 / 2 * sum nu ** 2`.
        gradient: `exact` or `printed`.
        latency: strength of the expected latency, relative to that of the dense network.
        ends: whether the layer that reads the images and the one that writes the logits have gates too.

    Raises:
        InputError: an unknown structure or gradient, a number out of range.

    Example:
        >>> Parameterization(("column",)).eps
        0.1
    """

    structures: tuple[str, ...] = ("column",)
    eps: float = 0.1
    l1: float = 0.0
    l2: float = 1e-4
    gradient: str = EXACT
    latency: float = 0.0
    ends: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.structures, tuple) or not self.structures:
            raise InputError(f"structures={self.structures!r} is not allowed: give a tuple of structures")
        for kind in self.structures:
            if kind not in KINDS or kind == "n_m":
                raise unknown("structure", str(kind), [each for each in KINDS if each != "n_m"])
        if self.gradient not in (EXACT, PRINTED):
            raise unknown("gradient", str(self.gradient), (EXACT, PRINTED))
        for name in ("eps", "l1", "l2", "latency"):
            check_range(name, getattr(self, name), 0, 1_000)


class Parameterized(NamedTuple):
    """A network with its gates folded: variables, the tree of masks (zeros of structures alone), what is left."""

    variables: Any
    masks: Any
    kept: Count


def gates_of(space: SearchSpace, of: Parameterization) -> tuple[Target, ...]:
    """The layers that have gates, once for each structure.

    Raises:
        InputError: none has such structures.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> [gate.structure.decisions for gate in gates_of(tiny.space().freeze([0] * 6), Parameterization())][:2]
        [(8, 1), (3, 3, 16, 1)]
    """
    return _gates(space, of.structures, of.ends)


@lru_cache(maxsize=64)
def _gates(space: SearchSpace, structures: tuple[str, ...], ends: bool) -> tuple[Target, ...]:
    found = tuple(target for kind in structures for target in layers(space, kind, ends))
    if not found:
        raise InputError(f"space {space.name} has no layer with structures {', '.join(structures)}: give others")
    return found


def _name(target: Target) -> str:
    return f"{target.name}:{target.structure.kind}"


def with_gates(space: SearchSpace, of: Parameterization, variables: Any) -> Any:
    """`variables` with a gate of 1 for every structure, which leave the network as it is.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> variables = with_gates(space, Parameterization(), fresh(space, jax.random.key(0)))
        >>> variables["params"][GATES]["stages_0_0/expand:column"].shape
        (8,)
    """
    gates = {_name(target): initial(target.structure).ravel() for target in gates_of(space, of)}
    return {**variables, "params": {**variables["params"], GATES: gates}}


def in_use(space: SearchSpace, of: Parameterization) -> Partial:
    """Parameters with gates to those that the network runs with; thresholds are traced. For `constrain` of a training.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> params = with_gates(space, Parameterization(), fresh(space, jax.random.key(0)))["params"]
        >>> GATES in in_use(space, Parameterization())(params)
        False
    """
    return Partial(_multiplied(space, of.structures, of.ends, of.gradient), jnp.float32(of.eps))


@lru_cache(maxsize=64)
def _multiplied(space: SearchSpace, structures: tuple[str, ...], ends: bool, gradient: str) -> Callable[..., Any]:
    found = _gates(space, structures, ends)

    def multiplied(eps: Array, params: Any) -> Any:
        used = jax.tree.map(lambda leaf: leaf, {name: tree for name, tree in params.items() if name != GATES})
        for target in found:
            (part,), structure = target.parts, target.structure
            nu = params[GATES][_name(target)].reshape(structure.decisions)
            layer = used
            for name in part.path.split("/"):
                layer = layer[name]
            layer[part.leaf] = gated(structure, layer[part.leaf], nu, eps, gradient)
        return used

    return multiplied


def penalty_of(space: SearchSpace, of: Parameterization, device: Device | None = None) -> Partial:
    """Parameters with gates to the penalty `[]`: the elastic net of all gates, and the expected latency.

    The share that a layer keeps is exact; its gradient is that of the mean of `|nu|`, the gates' sizes as weights. Of
    several structures shares are multiplied.

    Raises:
        InputError: a latency without a device.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space, of = tiny.space().freeze([0] * 6), Parameterization(("layer",), l1=0.5, l2=0.0)
        >>> penalty_of(space, of)(with_gates(space, of, fresh(space, jax.random.key(0)))["params"]).item()
        3.5
    """
    if of.latency and device is None:
        raise InputError(f"latency={of.latency} needs a device: give device=load_device(...)")
    strengths = jnp.asarray([of.l1, of.l2, of.latency, of.eps], jnp.float32)
    seconds = jnp.zeros(0) if device is None else latencies(space, of, device)
    return Partial(_penalty(space, of.structures, of.ends), strengths, seconds)


@lru_cache(maxsize=64)
def _penalty(space: SearchSpace, structures: tuple[str, ...], ends: bool) -> Callable[..., Array]:
    found = _gates(space, structures, ends)
    names = list(dict.fromkeys(target.name for target in found))

    def penalty(strengths: Array, seconds: Array, params: Any, progress: Any = None) -> Array:
        l1, l2, latency, eps = strengths
        total = elastic_net(params[GATES], l1, l2)
        if not seconds.size:
            return total
        shares: list[Any] = [1.0] * len(names)
        for target in found:
            nu, sizes = params[GATES][_name(target)], target.structure.sizes.ravel()
            kept = straight_through(magnitude(nu), jax.lax.stop_gradient((jnp.abs(nu) >= eps).astype(nu.dtype)))
            shares[names.index(target.name)] *= (kept * sizes).sum() / sizes.sum()
        return total + latency * (jnp.stack(shares) @ seconds)

    return penalty


def latencies(space: SearchSpace, of: Parameterization, device: Device) -> Array:
    """Latency of each layer with gates over that of all layers with weights, on `device`: float32 `[layers]`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from search_spaces.spaces import tiny
        >>> shares = latencies(tiny.space().freeze([0] * 6), Parameterization(), load_device("raspberry_pi_4"))
        >>> len(shares), bool(0 < shares.sum() < 1)
        (7, True)
    """
    graph = graph_of(space)
    nodes = [node for node in graph.nodes if any(name in node.params for name in ("kernel", "filters"))]
    seconds = layer_costs(device, Workload.of([layer_of(graph, node) for node in nodes])).latency_s
    by_path = dict(zip((node.path for node in nodes), np.asarray(seconds / seconds.sum()).tolist(), strict=True))
    names = dict.fromkeys(target.name for target in gates_of(space, of))
    return jnp.asarray([by_path[name] for name in names], jnp.float32)


def fold(space: SearchSpace, of: Parameterization, variables: Any) -> Parameterized:
    """The network that is deployed: weights multiplied by their gates once and for all.

    Raises:
        InputError: variables without gates.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> variables = with_gates(space, Parameterization(), fresh(space, jax.random.key(0)))
        >>> fold(space, Parameterization(), variables).kept.params_share
        1.0
    """
    if GATES not in variables["params"]:
        raise InputError("variables have no gates: give those of a training that started from with_gates(...)")
    gates = variables["params"][GATES]
    params = jax.tree.map(lambda leaf: leaf, {n: tree for n, tree in variables["params"].items() if n != GATES})
    masks = jax.tree.map(lambda _: None, variable_shapes(space)["params"])
    for target in gates_of(space, of):
        (part,), structure = target.parts, target.structure
        factors = alpha(gates[_name(target)].reshape(structure.decisions), of.eps)
        layer, mask = params, masks
        for name in part.path.split("/"):
            layer, mask = layer[name], mask[name]
        layer[part.leaf] = folded(structure, layer[part.leaf], factors)
        kept, before = structure.expand(factors != 0), leaf_of(masks, part.path, part.leaf)
        mask[part.leaf] = kept if before is None else before & kept
    return Parameterized({**variables, "params": params}, masks, counted(space, masks))


def train_parameterized(
    space: SearchSpace,
    data: Images,
    recipe: Recipe,
    key: Array,
    of: Parameterization,
    variables: Any = None,
    device: Device | None = None,
    report: Callable[[int, float], None] | None = None,
) -> Parameterized:
    """Train weights and gates together by `recipe`, and fold; the key is consumed.

    `variables` are where to start, fresh ones when None. `device` prices layers where `of.latency` is above 0.

    Raises:
        InputError: as of `nas.training.standalone.train`, `penalty_of` and `gates_of`.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> data = Images(np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int32), np.zeros(1), np.ones(1))
        >>> plain = Recipe(epochs=0, batch=8)
        >>> train_parameterized(space, data, plain, jax.random.key(0), Parameterization()).kept.macs_share
        1.0
    """
    start_key, run_key = jax.random.split(key)
    start = with_gates(space, of, fresh(space, start_key) if variables is None else variables)
    priced = device if of.latency else None
    trained = train(
        space, data, recipe, run_key, start, report, constrain=in_use(space, of), penalty=penalty_of(space, of, priced)
    )
    return fold(space, of, trained)
