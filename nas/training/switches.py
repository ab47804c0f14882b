"""A few networks of one space that share their weights: each has a normalisation, statistics and ranges of its own.

Source: Guerra Fernandez, thesis (Monash 2024), chapter 5 (SP-Net), whose switches are pairs of bits, and section 5.3.2,
where they have a width as well. Here they are any networks of a space.

Shape letters: `N` networks, `D` decisions, `S` sets of normalisation: `N`, or 1 where all share one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from hw_models.errors import InputError, check_range
from search_spaces.choice import options
from search_spaces.network import inherit
from search_spaces.precision import FIELDS
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.slots import Decision
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet, with_statistics

NORM = {"scale", "bias"}  # the parameters of a normalisation, and of nothing else


class Switch(NamedTuple):
    """Bits of weights and of activations of all layers that are searched; `width` is a share of the largest widths."""

    weight_bits: int
    act_bits: int
    width: float = 1.0


class Switches(NamedTuple):
    """The networks `genes [N, D]` of a supernet; `private=False` gives them one normalisation in common."""

    supernet: Supernet
    genes: np.ndarray
    private: bool = True

    @classmethod
    def of(cls, space: SearchSpace, genes: Any, private: bool = True, depthwise: str = "auto") -> Switches:
        """The networks `genes` of `space`.

        Raises:
            InputError: no network, genes that are not of the space, or a resolution that is searched.

        Example:
            >>> from search_spaces.spaces import tiny
            >>> Switches.of(tiny.space(), [[0] * 6, [1] * 6]).sets
            2
        """
        if space.resolutions:
            raise InputError(f"space {space.name} searches input_hw: fix it, because maps of all networks are compared")
        rows = [space.validated(row) for row in genes]
        if not rows:
            raise InputError("there is no network to train: give genes of at least one")
        return cls(Supernet(space, depthwise), np.stack(rows), private)

    @property
    def space(self) -> SearchSpace:
        """The space of the networks."""
        return self.supernet.space

    @property
    def sets(self) -> int:
        """`S`."""
        return len(self.genes) if self.private else 1

    def place(self, number: int) -> int:
        """The set of normalisation of network `number`.

        Raises:
            InputError: a number without a network.
        """
        check_range("network", number, 0, len(self.genes) - 1)
        return number if self.private else 0


class State(NamedTuple):
    """Weights of `Switches`.

    Attributes:
        shared: parameters `{slot: {kind: {"params": ...}}}` without those of normalisation.
        private: those of normalisation, `[S, ...]`.
        statistics: means, variances and ranges of activations as of `Supernet.calibrate`, `[S, ...]`.
    """

    shared: Any
    private: Any
    statistics: Any


def genes_of(space: SearchSpace, switches: Sequence[Switch]) -> np.ndarray:
    """Genes `[N, D]` of networks all of whose searched layers have the bits, and the share of channels, of a switch.

    A width is the first `ceil(share * largest)` channels.

    Raises:
        InputError: no switch; a decision of another kind; bits or a width that are none of a decision's values.

    Example:
        >>> from search_spaces.precision import with_bits
        >>> from search_spaces.spaces import tiny
        >>> space = with_bits(tiny.space().freeze([0] * 6), "w2/32a2/32")
        >>> genes_of(space, [Switch(32, 32), Switch(2, 32)]).tolist()
        [[1, 1, 1, 1], [0, 1, 0, 1]]
    """
    if not switches:
        raise InputError("there is no switch: give at least one")
    return np.asarray([_row(space, Switch(*switch)) for switch in switches], np.int32)


def _row(space: SearchSpace, switch: Switch) -> list[int]:
    check_range("width", switch.width, 1e-6, 1)
    names = {decision.name.rpartition("/")[2] for decision in space.decisions}
    for name in FIELDS:
        if name not in names:
            _check_fixed(space, name, getattr(switch, name))
    if "width" not in names and switch.width != 1:
        raise InputError(
            f"width={switch.width} cannot be switched to, space {space.name} searches no widths: give 1, or a Choice "
            "as the width of a stage"
        )
    return [_index(decision, switch) for decision in space.decisions]


def _check_fixed(space: SearchSpace, name: str, wanted: int) -> None:
    """Where bits are not searched, those of all blocks between stem and head are the only ones."""
    blocks = [case.block for slot in space.slots[1:-1] for case in slot.cases]
    known = {EXACT_BITS if bits is None else bits for block in blocks for bits in options(getattr(block, name))}
    if known != {wanted}:
        listed = ", ".join(map(str, sorted(known)))
        raise InputError(
            f"{name}={wanted} cannot be switched to, space {space.name} has {listed} and does not search them: make "
            "the space with search_spaces.precision.with_bits"
        )


def _index(decision: Decision, switch: Switch) -> int:
    what = decision.name.rpartition("/")[2]
    if what not in (*FIELDS, "width"):
        raise InputError(f"{decision.name} is neither bits nor a width: freeze it, or give genes instead of switches")
    if what == "width":
        # rounded first, so that 0.1 * 30 is no more than 3
        wanted = math.ceil(round(switch.width * max(decision.values), 9))
        said = f"width={switch.width} of {max(decision.values)} channels, {wanted},"
    else:
        wanted = getattr(switch, what)
        said = f"{what}={wanted}"
    # a block without bits is as exact as one of 32
    values = [EXACT_BITS if value is None else value for value in decision.values]
    if wanted not in values:
        nearest = min(values, key=lambda value: abs(value - wanted))
        listed = ", ".join(map(str, values))
        raise InputError(f"{said} is no choice of {decision.name}: give one of {listed} (nearest: {nearest})")
    return values.index(wanted)


def check_teacher(of: Switches) -> None:
    """Raise InputError unless the first network is at least as wide and as exact as the others in every layer.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> check_teacher(Switches.of(tiny.space(), [[1] * 6, [0] * 6]))
    """
    for decision, genes in zip(of.space.decisions, of.genes.T, strict=True):
        if decision.name.rpartition("/")[2] not in (*FIELDS, "width"):
            continue
        values = [decision.values[gene] for gene in genes]
        if values[0] is not None and any(value is None or value > values[0] for value in values):
            raise InputError(
                f"{decision.name} of the first network, which teaches the others, is {values[0]}, and one of them has "
                "more: put the widest network of the most bits first"
            )


def split(params: Any) -> tuple[Any, Any]:
    """Parameters without those of normalisation, and these alone.

    Example:
        >>> split({"conv": {"kernel": 1}, "norm": {"scale": 2, "bias": 3}})
        ({'conv': {'kernel': 1}}, {'norm': {'scale': 2, 'bias': 3}})
    """
    flat = flatten_dict(params, keep_empty_nodes=True)
    beside: dict[Any, set[str]] = {}
    for path in flat:
        beside.setdefault(path[:-1], set()).add(path[-1])
    norms = {path for path in flat if beside[path[:-1]] == NORM}
    shared = {path: leaf for path, leaf in flat.items() if path not in norms}
    return unflatten_dict(shared), unflatten_dict({path: flat[path] for path in flat if path in norms})


def joined(shared: Any, private: Any) -> Any:
    """What `split` took apart.

    Example:
        >>> joined({"conv": {"kernel": 1}}, {"norm": {"scale": 2, "bias": 3}})
        {'conv': {'kernel': 1}, 'norm': {'scale': 2, 'bias': 3}}
    """
    return unflatten_dict({**flatten_dict(shared, keep_empty_nodes=True), **flatten_dict(private)})


def started(of: Switches, variables: Any) -> State:
    """Every network with the same weights and a copy of the normalisation of `variables`, which the supernet has.

    They may be those of the same supernet without bits.

    Raises:
        InputError: variables of another space.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[0] * 6, [1] * 6])
        >>> state = started(of, of.supernet.init(jax.random.key(0)))
        >>> state.private["stem/0"]["conv_norm"]["params"]["norm"]["bias"].shape
        (2, 8)
    """
    flat = flatten_dict(variables)

    def known(path: Any, wanted: Any) -> Any:
        names = tuple(key.key for key in path)
        if names not in flat and "batch_stats" in names:
            return np.zeros(wanted.shape, wanted.dtype)  # ranges of activations, until they are measured
        if names not in flat or jnp.shape(flat[names]) != wanted.shape:
            raise InputError(
                f"variables have no {'/'.join(names)} of shape {wanted.shape}: give those of a supernet of this space"
            )
        return flat[names]

    full = jax.tree_util.tree_map_with_path(known, of.supernet.shapes())
    params = {slot: {kind: {"params": part["params"]} for kind, part in kinds.items()} for slot, kinds in full.items()}
    statistics = {slot: {kind: part["batch_stats"] for kind, part in kinds.items()} for slot, kinds in full.items()}
    shared, private = split(params)

    def copies(tree: Any) -> Any:
        return jax.device_put(jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], of.sets, 0), tree))

    return State(shared, copies(private), copies(statistics))


def variables_of(of: Switches, state: State, number: int) -> Any:
    """Variables of the supernet that are those of network `number`.

    Raises:
        InputError: a number without a network.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[0] * 6, [1] * 6])
        >>> first = of.supernet.init(jax.random.key(0))
        >>> jax.tree.structure(variables_of(of, started(of, first), 1)) == jax.tree.structure(first)
        True
    """
    return taken(state, jnp.int32(of.place(number)))


@jax.jit
def taken(state: State, place: Array) -> Any:
    """Variables of the supernet with set `place`, int32 `[]`, of normalisation."""
    private, statistics = jax.tree.map(lambda leaf: leaf[place], (state.private, state.statistics))
    return with_statistics(joined(state.shared, private), statistics)


def network_of(of: Switches, state: State, number: int) -> tuple[SearchSpace, Any]:
    """Network `number` by itself, for a device that needs no other: its frozen space, and variables of `Network`.

    Raises:
        InputError: a number without a network.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> of = Switches.of(tiny.space(), [[0] * 6, [1] * 6])
        >>> space, variables = network_of(of, started(of, of.supernet.init(jax.random.key(0))), 1)
        >>> space.frozen, sorted(variables)
        (True, ['batch_stats', 'params'])
    """
    variables, genes = variables_of(of, state, number), of.genes[number]
    return of.space.freeze(genes), inherit(variables, of.space, genes)
