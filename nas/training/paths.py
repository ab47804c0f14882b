"""Which networks of a space one training step of shared weights runs, and which of them teaches the others.

Rules are named in text, with options in brackets: `uniform`, `sandwich[random=3]`. `auto` is `compress_last` where a
space decides bits or densities, and `uniform` elsewhere.

Shape letters: `R` networks of one step, `D` decisions, `C` options of the widest decision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.training.extremes import extremes
from nas.types import Key
from search_spaces.block import everywhere_field
from search_spaces.options import annotation_of, bracketed, check, typed
from search_spaces.space import SearchSpace

PHASES = (("kernel",), ("depth",), ("width", "expand", "widths"), ("heads",))
"""What `progressive` opens one after another: parts of the names of decisions."""
AUTO = "auto"


class Paths(NamedTuple):
    """How the networks of a step are drawn; the step follows the weighted mean of their gradients.

    Attributes:
        draw: `(key, progress) -> genes`, int32 `[R, D]`, canonical; `progress` is the share of the training that is
            done, float32 `[]`. Pure and jittable.
        weights: `R` weights that add up to 1.
        distillation: share of the loss that follows the first network of the step, in place of the labels; 0 where
            none teaches. The first network itself learns from the labels.
        describe: name and options.
    """

    draw: Callable[[Key, Array], Array]
    weights: tuple[float, ...]
    distillation: float
    describe: Mapping[str, Any]


def paths(space: SearchSpace, name: str, **options: Any) -> Paths:
    """The rule `name` for `space`; options may stand in brackets after the name as well.

    Raises:
        InputError: an unknown rule or option, a value of another type or out of range.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> rule = paths(tiny.space(), "sandwich[random=1]")
        >>> rule.draw(jax.random.key(0), jnp.float32(0)).shape, rule.distillation
        ((3, 6), 1.0)
    """
    if not isinstance(name, str):
        raise InputError(f"paths={name!r} is not allowed: give text, such as uniform or sandwich[random=2]")
    rule, inside = bracketed(name, "paths")
    if rule == AUTO:
        rule = "compress_last" if _compressible(space).any() else "uniform"
    if rule not in RULES:
        raise unknown("rule for paths", rule, (AUTO, *RULES))
    known = {key: entry for key, entry in inspect.signature(RULES[rule]).parameters.items() if key != "space"}
    for option in (*inside, *options):
        if option not in known:
            named = rule if rule == bracketed(name, "paths")[0] else f"{rule}, which {AUTO} is here"
            raise unknown(f"option of paths {named}", option, known)
    given = {key: typed(f"paths.{key}", text, annotation_of(known[key])) for key, text in inside.items()} | options
    for option, value in given.items():
        check(f"paths.{option}", value, annotation_of(known[option]))
    settings = {key: given.get(key, entry.default) for key, entry in known.items()}
    return RULES[rule](space, **settings)._replace(describe={"name": rule, **settings})


def uniform(space: SearchSpace, networks: int = 1) -> Paths:
    """Single path: `networks` drawn independently, every option equally likely before genes are made canonical.

    Source: Guo et al. 2020, https://arxiv.org/abs/1904.00420.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> uniform(tiny.space()).draw(jax.random.key(0), jnp.float32(0)).shape
        (1, 6)
    """
    check_range("paths.networks", networks, 1, 64)
    if networks == 1:
        return _alike(lambda key, progress: space.sample(key)[None], 1)
    return _alike(lambda key, progress: jax.vmap(space.sample)(jax.random.split(key, networks)), networks)


def fair(space: SearchSpace, networks: int = 0) -> Paths:
    """Strict fairness: in one step every option of every decision is used equally often.

    `networks` is how many a step runs; 0 for the options of the widest decision, which is FairNAS' number where all
    decisions have as many. A decision with `c` options uses each `networks // c` times, and a random choice of them
    once more: unequal by one at most, and equal over steps. A multiple of all cardinalities makes it exact in each.
    A decision that is dead in a network (of a block that its depth leaves out) trains nothing there, so that fairness
    is one of draws. Where a layer can be skipped and stands beside one like it (`macro`, `fbnet`, `proxylessnas`), the
    network without the first is the one without the second, and is trained as the latter: fairness holds for such
    layers together, and an earlier one computes more often than a later one.

    Source: Chu et al. 2021, FairNAS, https://arxiv.org/abs/1907.01845; it adds the gradients up where this takes their
    mean, so that its learning rate is `networks` times as large.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> genes = fair(tiny.space()).draw(jax.random.key(0), jnp.float32(0))
        >>> sorted(set(genes[:, 0].tolist()))  # kernel 3 or 5, both of them in three networks
        [0, 1]
    """
    check_range("paths.networks", networks, 0, 64)
    rows = networks or int(space.cardinality.max(initial=1))
    cardinality = jnp.asarray(space.cardinality)
    widest = int(space.cardinality.max(initial=1))

    def draw(key: Key, progress: Array) -> Array:
        option_key, row_key = jax.random.split(key)
        chance = jax.random.uniform(option_key, (space.num_decisions, widest))
        missing = jnp.arange(widest) >= cardinality[:, None]
        shuffled = jnp.argsort(jnp.where(missing, 2.0, chance), axis=1)  # [D, C], a permutation of the options first
        turns = shuffled[jnp.arange(space.num_decisions), jnp.arange(rows)[:, None] % cardinality]  # [R, D]
        order = jnp.argsort(jax.random.uniform(row_key, turns.shape), axis=0)
        return jax.vmap(space.canonical)(jnp.take_along_axis(turns, order, axis=0))

    return _alike(draw, rows)


def sandwich(space: SearchSpace, random: int = 2, distillation: float = 1.0) -> Paths:
    """The largest network, the smallest, and `random` others; the largest teaches the others.

    `distillation` is the share of the others' loss that follows the teacher in place of the labels. Largest and
    smallest are those of `nas.training.extremes`.

    Source: Yu & Huang 2019, https://arxiv.org/abs/1903.05134; Yu et al. 2020, BigNAS, https://arxiv.org/abs/2003.11142.
    They add the gradients up where this takes their mean.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> sandwich(tiny.space()).weights
        (0.25, 0.25, 0.25, 0.25)
    """
    check_range("paths.random", random, 0, 64)
    check_range("paths.distillation", distillation, 0, 1)
    found = extremes(space)
    ends = jnp.asarray(np.stack([found.largest, found.smallest]))

    def draw(key: Key, progress: Array) -> Array:
        if not random:
            return ends
        return jnp.concatenate([ends, jax.vmap(space.sample)(jax.random.split(key, random))])

    return _alike(draw, 2 + random)._replace(distillation=float(distillation))


def progressive(space: SearchSpace, networks: int = 1, full: float = 0.25, teach: float = 0.0) -> Paths:
    """Progressive shrinking: the largest network first, then kernels, depths, widths and heads are opened in turn.

    During the share `full` of the training the largest network is trained; the rest is shared equally by those phases
    of kernel, depth, width and expansion, heads that the space has. A phase opens the values of its decisions from the
    largest down, the second at once, and the smallest before its end; what was opened stays open. Decisions of other
    names (kind of block, attention, resolution, groups) have no such order and are open from the start of the first
    phase. `teach` above 0 runs the largest network in every step besides, as the teacher of that share of the loss.

    Once-for-all transforms the weights of a large kernel into those of a small one by learnt matrices; here small
    kernels are the centre of large ones, as everywhere in this package.

    Source: Cai et al. 2020, Once-for-All, https://arxiv.org/abs/1908.09791.

    Raises:
        InputError: a value out of range, a space in which no phase has a decision.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> rule = progressive(tiny.space())
        >>> tiny.space().decode(rule.draw(jax.random.key(0), jnp.float32(0))[0])["stages/0/0/kernel"]
        5
    """
    check_range("paths.networks", networks, 1, 64)
    check_range("paths.full", full, 0, 0.9)
    check_range("paths.teach", teach, 0, 1)
    phase = np.asarray([phase_of(decision) for decision in space.names], np.int32)
    present = sorted({int(number) for number in phase if number >= 0})
    if not present:
        raise InputError(
            f"paths progressive: space {space.name} has no decision on kernel, depth, width, expansion or heads: "
            "use sandwich, fair or uniform"
        )
    found = extremes(space)
    place = np.asarray([present.index(number) if number >= 0 else -1 for number in phase])
    length = (1 - full) / len(present)
    begins, ordered = jnp.asarray(full + place * length, jnp.float32), jnp.asarray(place >= 0)
    cardinality, order = jnp.asarray(space.cardinality), jnp.asarray(found.order)
    largest = jnp.asarray(found.largest)

    def draw(key: Key, progress: Array) -> Array:
        share = (progress - begins) / length
        opened = jnp.where(share < 0, 1, 2 + jnp.floor((cardinality - 1) * jnp.maximum(share, 0))).astype(jnp.int32)
        count = jnp.where(ordered, jnp.minimum(opened, cardinality), cardinality)

        def one(key: Key) -> Array:
            rank = jax.random.randint(key, (space.num_decisions,), 0, count)
            # what has no place in the order keeps the largest network's value only while that is trained alone
            value = order[jnp.arange(space.num_decisions), rank]
            return space.canonical(jnp.where(progress < full, largest, value))

        genes = jax.vmap(one)(jax.random.split(key, networks))
        return jnp.concatenate([largest[None], genes]) if teach else genes

    return _alike(draw, networks + bool(teach))._replace(distillation=float(teach))


def compress_last(space: SearchSpace, full: float = 0.8, networks: int = 1) -> Paths:
    """Networks of most bits and highest density for the share `full` of the training, then of any; all drawn uniformly.

    Rounding to few bits is noise in the gradient, and at the high learning rates of the start too much of it: shared
    weights that saw it from the first step rank networks with bits much worse (docs/results/compression.md).

    Raises:
        InputError: a value out of range, a space that decides neither bits nor densities.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="2/4/8")
        >>> rule = compress_last(space)
        >>> [space.decode(rule.draw(jax.random.key(0), jnp.float32(at))[0])["stages/0/0/act_bits"] for at in (0.7, 0.9)]
        [8, 2]
    """
    check_range("paths.networks", networks, 1, 64)
    check_range("paths.full", full, 0, 0.9)
    compressed = _compressible(space)
    if not compressed.any():
        raise InputError(
            f"paths compress_last: space {space.name} decides no bits and no densities: use uniform, or give bits=mixed"
        )
    most = jnp.asarray([int(np.argmax(decision.values)) if fewer else 0 for decision, fewer in zip(
        space.decisions, compressed, strict=True)])  # fmt: skip

    def draw(key: Key, progress: Array) -> Array:
        keys = key[None] if networks == 1 else jax.random.split(key, networks)
        genes = jax.vmap(space.sample)(keys)
        return jnp.where(progress < full, jax.vmap(space.canonical)(jnp.where(compressed, most, genes)), genes)

    return _alike(draw, networks)


def _compressible(space: SearchSpace) -> np.ndarray:
    """Which decisions are on bits or a density, bool `[D]`."""
    return np.asarray([everywhere_field(name) is not None for name in space.names], bool)


def phase_of(decision: str) -> int:
    """The place in `PHASES` of a decision, by the parts of its name; -1 for one that has none.

    Example:
        >>> phase_of("stages/0/1/inverted_residual/kernel"), phase_of("widths/a"), phase_of("stages/0/0/attention")
        (0, 2, -1)
    """
    parts = decision.split("/")
    known = (parts[-1], parts[0])  # `widths/a`: the letters of a width rule mean nothing by themselves
    return next((number for number, names in enumerate(PHASES) if any(part in names for part in known)), -1)


def _alike(draw: Callable[[Key, Array], Array], rows: int) -> Paths:
    return Paths(draw, (1.0 / rows,) * rows, 0.0, {})


RULES: dict[str, Callable[..., Paths]] = {
    "uniform": uniform,
    "fair": fair,
    "sandwich": sandwich,
    "progressive": progressive,
    "compress_last": compress_last,
}
