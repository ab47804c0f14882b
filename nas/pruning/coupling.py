"""Which channels of a network must be pruned together, from its recorded graph.

Two channels go together where a layer maps one to the other and to nothing else (normalisation, depthwise convolution),
where two maps are joined entry by entry (residuals, attention, heads), and where weights of a grouped convolution are
shared: channels at the same place of every group. Weights that read a channel go with it too.

Source: the idea of dependency graphs is that of Fang et al. 2023 (DepGraph), https://arxiv.org/abs/2301.12900; here
channels are followed one by one, so that concatenations, parts and shuffles need no rule of their own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hw_models.errors import InputError
from nas.exporters._graph import INPUT, Graph, Node, record
from search_spaces.network import variable_shapes
from search_spaces.space import SearchSpace

STATISTICS = ("mean", "var")


class Member(NamedTuple):
    """Where the channels of a group lie in one array, or in one map (`leaf` empty).

    `places [n, r]` are positions along `axis`: `r` for each of the `n` channels (more than one behind a flattening, and
    where groups of a convolution share a decision). `reads` says that the weights read the channels.
    """

    path: str
    leaf: str
    axis: int
    places: np.ndarray
    reads: bool = False

    @property
    def offset(self) -> int:
        """The first position."""
        return int(self.places.min())


class ChannelGroup(NamedTuple):
    """Channels `0` to `size - 1`, each of which is kept or dropped in all `members` at once.

    `fixed` ones are the channels of the images or the classes, and cannot be pruned. Of `ordered` ones a neighbour
    matters to a layer (attention along channels, repeated channels): they can be zero, but not removed.
    `activations` are the results of activation functions that hold the channels.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    activations: tuple[Member, ...]
    fixed: bool
    ordered: bool


class Coupling(NamedTuple):
    """All groups; of the channels of every value `[2, C]` the number of their group, -1 for none, and that inside."""

    groups: tuple[ChannelGroup, ...]
    values: dict[str, np.ndarray]


class _Wiring:
    """Numbers for the channels of every value, and which of them are the same."""

    def __init__(self, graph: Graph):
        self.graph, self.count = graph, 0
        self.values: dict[str, np.ndarray] = {}
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.leaves: list[tuple[Node, str, int, np.ndarray, bool]] = []
        self.ordered: list[np.ndarray] = []

    def value(self, name: str) -> np.ndarray:
        if name not in self.values:
            size = self.graph.shapes[name][-1]
            self.values[name] = np.arange(self.count, self.count + size)
            self.count += size
        return self.values[name]

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        self.pairs.append((one, np.broadcast_to(other, one.shape)))

    def leaf(self, node: Node, name: str, axis: int, channels: np.ndarray, reads: bool = False) -> None:
        if name in node.params:
            array = node.params[name]
            self.leaves.append((node, name, axis % array.ndim, channels, reads))

    def ends(self, node: Node) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return [self.value(name) for name in node.inputs], [self.value(name) for name in node.outputs]


def _mixing(wiring: _Wiring, node: Node) -> None:
    (x, *_), (y,) = wiring.ends(node)
    groups = int(node.attributes.get("groups", 1))
    if groups > 1 and groups == len(x) == len(y):  # a depthwise convolution
        wiring.join(x, y)
    else:
        shared = x.reshape(groups, -1)
        wiring.join(shared, shared[0])
        wiring.leaf(node, "kernel", -2, shared[0], reads=True)
        written = y.reshape(groups, -1)
        wiring.join(written, written[0])
    for name in ("kernel", "bias"):
        wiring.leaf(node, name, -1, y)


def _depthwise(wiring: _Wiring, node: Node) -> None:
    (x, *_), maps = wiring.ends(node)
    for y in maps:
        wiring.join(x, y)
    wiring.leaf(node, "filters", 2, x)


def _entry_by_entry(wiring: _Wiring, node: Node) -> None:
    inputs, outputs = wiring.ends(node)
    for each in (*inputs[1:], *outputs):
        wiring.join(inputs[0], each)
    for name in ("scale", "bias", *STATISTICS):
        wiring.leaf(node, name, 0, inputs[0])
    if node.op == "ChannelConv":
        wiring.ordered.append(inputs[0])


def _softmax(wiring: _Wiring, node: Node) -> None:
    inputs, outputs = wiring.ends(node)
    for each in (*inputs[1:], *outputs):
        wiring.join(inputs[0], each)


def _flatten(wiring: _Wiring, node: Node) -> None:
    (x,), (y,) = wiring.ends(node)
    wiring.join(y.reshape(-1, len(x)), x)


def _leading(wiring: _Wiring, node: Node) -> None:
    (x,), (y,) = wiring.ends(node)
    both = min(len(x), len(y))
    wiring.join(x[:both], y[:both])


def _tiled(wiring: _Wiring, node: Node) -> None:
    (x, *_), (y,) = wiring.ends(node)
    wiring.join(y, np.resize(x, len(y)))
    wiring.ordered += [x, y]


def _joined(wiring: _Wiring, node: Node) -> None:
    """Parts one after another, on either side."""
    inputs, outputs = wiring.ends(node)
    wiring.join(np.concatenate(inputs), np.concatenate(outputs))


def _interleaved(wiring: _Wiring, node: Node) -> None:
    inputs, outputs = wiring.ends(node)
    parts, whole = (inputs, outputs[0]) if len(outputs) == 1 else (outputs, inputs[0])
    wiring.join(whole, np.stack(parts, -1).ravel())


RULES = {
    **dict.fromkeys(("Conv", "Pointwise", "Linear"), _mixing),
    **dict.fromkeys(("Depthwise", "DepthwiseMaximum"), _depthwise),
    **dict.fromkeys(("Norm", "Activation", "GlobalPool", "Pool", "Subsample", "Variance", "ChannelConv", "Scale", "Add",
                     "Multiply", "Maximum", "HeadSum", "QuantizationNoise"), _entry_by_entry),
    **dict.fromkeys(("Split", "Concat"), _joined),
    **dict.fromkeys(("Interleave", "Deinterleave"), _interleaved),
    "Softmax": _softmax,
    "Flatten": _flatten,
    "FitChannels": _leading,
    "Tile": _tiled,
}  # fmt: skip


def coupled(graph: Graph) -> Coupling:
    """The groups of channels of a recorded network, in the order of execution.

    Raises:
        InputError: a layer whose channels nobody has said how to follow.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> found = coupling_of(tiny.space().freeze([0] * 6))
        >>> [(group.name, group.size, len(group.members)) for group in found.groups if not group.fixed][:2]
        [('stem_0/conv', 8, 12), ('stages_0_0/expand', 16, 11)]
    """
    wiring = _Wiring(graph)
    wiring.value(INPUT)
    for node in graph.nodes:
        if node.op not in RULES:
            raise InputError(f"{node.path}: channels of a layer {node.op} cannot be followed: add a rule for it to "
                             "nas/pruning/coupling.py")  # fmt: skip
        RULES[node.op](wiring, node)
    label = _labels(wiring)
    fixed = {*label[wiring.value(INPUT)].tolist(), *label[wiring.value(graph.output)].tolist()}
    ordered = {int(each) for channels in wiring.ordered for each in label[channels]}
    places: dict[int, dict[Any, list[int]]] = {}
    for number, (node, name, axis, channels, reads) in enumerate(wiring.leaves):
        for place, channel in enumerate(label[channels].tolist()):
            key = (number, node.path, name, axis, reads)
            places.setdefault(channel, {}).setdefault(key, []).append(place)
    alike: dict[Any, list[int]] = {}
    for channel, found in places.items():
        form = tuple((key, len(where)) for key, where in found.items())
        alike.setdefault((form, channel in fixed, channel in ordered), []).append(channel)
    active = {node.path: label[wiring.value(node.outputs[0])] for node in graph.nodes if node.op == "Activation"}
    groups: list[ChannelGroup] = []
    number_of = np.full((2, wiring.count), -1)
    for (_, is_fixed, is_ordered), own in alike.items():
        members = tuple(
            Member(path, name, axis, np.asarray([places[c][key] for c in own]), reads)
            for key in places[own[0]]
            for _, path, name, axis, reads in (key,)
        )
        number_of[:, own] = np.full(len(own), len(groups)), np.arange(len(own))
        held = tuple(filter(None, (_held(path, seen, own) for path, seen in active.items())))
        first = next((m.path for m in members if not m.reads), INPUT)
        groups.append(ChannelGroup(first, len(own), members, held, is_fixed, is_ordered))
    values = {name: number_of[:, label[channels]] for name, channels in wiring.values.items()}
    return Coupling(_named(groups), values)


def _labels(wiring: _Wiring) -> np.ndarray:
    """A number for every channel, equal where channels go together, in the order of execution."""
    ends = [np.concatenate([side[place].ravel() for side in wiring.pairs]) for place in (0, 1)]
    size = wiring.count
    graph = coo_array((np.ones(len(ends[0]), bool), (ends[0], ends[1])), (size, size))
    return connected_components(graph, directed=False)[1]


def _held(path: str, seen: np.ndarray, channels: list[int]) -> Member | None:
    places = [np.flatnonzero(seen == channel) for channel in channels]
    if not all(len(each) == len(places[0]) > 0 for each in places):
        return None
    return Member(path, "", -1, np.stack(places))


def _named(groups: list[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """Groups with names of their own: the layer that writes them first, and a number where it writes several."""
    made: list[ChannelGroup] = []
    for group in groups:
        again = sum(other.name.partition(":")[0] == group.name for other in made)
        made.append(group._replace(name=f"{group.name}:{again}") if again else group)
    return tuple(made)


@lru_cache(maxsize=8)
def graph_of(space: SearchSpace) -> Graph:
    """The graph of a frozen space with weights of zero: all that depends on the form of the network.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> graph_of(tiny.space().freeze([0] * 6)).nodes[0].op
        'Conv'
    """
    return record(space, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variable_shapes(space)))


@lru_cache(maxsize=64)
def coupling_of(space: SearchSpace) -> Coupling:
    """The groups of channels of a frozen space, as `coupled`.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> [group.size for group in coupling_of(tiny.space().freeze([0] * 6)).groups if group.fixed]
        [1, 10]
    """
    return coupled(graph_of(space))
