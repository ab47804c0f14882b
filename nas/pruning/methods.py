"""Pruning of a trained network in one call: score, mask, and fine-tune within the masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.pruning.counting import Count, counted
from nas.pruning.evidence import activations_of, gradients_of
from nas.pruning.masks import applied, check_density, decided, masks_of, normalised, scores_of
from nas.pruning.shrink import shrinkable
from nas.pruning.targets import CHANNELS, LAYERS, Target, leaf_of, targets
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.network import fresh
from search_spaces.space import SearchSpace
from search_spaces.sparsity._criterion import Criterion
from search_spaces.sparsity._patterns import Structure
from search_spaces.sparsity.apoz import Apoz
from search_spaces.sparsity.batch_norm_scale import BatchNormScale
from search_spaces.sparsity.geometric_median import GeometricMedian
from search_spaces.sparsity.magnitude import Magnitude
from search_spaces.sparsity.penalties import group_lasso, l1
from search_spaces.sparsity.random import Random
from search_spaces.sparsity.schedule import gradual_density
from search_spaces.sparsity.snip import Snip
from search_spaces.sparsity.training_rules import soft

GRADUAL_END = 0.7  # share of the fine-tuning after which the density of a gradual schedule is the last one
SCALES, GROUPS = "scales", "groups"


@dataclass(frozen=True)
class Method:
    """How structures are scored and what they are, whether scores compete over all layers, and what training precedes.

    `penalty` names what the training before is driven by: the l1 norm of the scales of all normalisations, or the
    group lasso of the structures, of the given `strength`. With `soft` masks of that training change every epoch and
    pruned weights go on being updated; those masks are of the weights that are scored alone, without the normalisation
    after them and the weights that read them, or no gradient would arrive.
    """

    criterion: Criterion
    structure: str = CHANNELS
    overall: bool = False
    penalty: str = ""
    strength: float = 0.0
    soft: bool = False


METHODS: dict[str, Method] = {
    "magnitude": Method(Magnitude(), "weight"),
    "filter_l1": Method(Magnitude(1.0)),
    "filter_l2": Method(Magnitude(2.0)),
    "network_slimming": Method(BatchNormScale(), overall=True, penalty=SCALES, strength=1e-4),
    "group_lasso": Method(Magnitude(2.0), penalty=GROUPS, strength=1e-4),
    "apoz": Method(Apoz()),
    "soft_filter": Method(Magnitude(2.0), soft=True),
    "geometric_median": Method(GeometricMedian()),
    "snip": Method(Snip(), "weight", overall=True),
    "random": Method(Random()),
    "n_m": Method(Magnitude(), "n_m"),
    "block": Method(Magnitude(), "block"),
    "layer": Method(Magnitude(), LAYERS, overall=True),
}


class Pruned(NamedTuple):
    """A pruned network: its variables, dropped weights zero, the masks, and what they leave."""

    variables: Any
    masks: Any
    kept: Count


def prune(
    space: SearchSpace,
    variables: Any,
    data: Images,
    method: str | Method = "filter_l1",
    density: float | Mapping[str, float] = 0.5,
    *,
    recipe: Recipe,
    key: Array,
    structure: str | None = None,
    overall: bool | None = None,
    first: Recipe | None = None,
    strength: float | None = None,
    gradual: bool = False,
    rewind: bool = False,
    initial: Any = None,
    ends: bool = False,
    to_shrink: bool = False,
) -> Pruned:
    """Prune `Network(space)` to a density and fine-tune what is left by `recipe`; the key is consumed.

    Args:
        space: a frozen space.
        variables: of the trained network; None for fresh ones, which are trained by `first` before they are pruned
            (with `snip` they are not, as in its paper).
        data: what to fine-tune on, and to score by (activations, gradients).
        method: a name of `METHODS`, or one of your own.
        density: share that is kept in every layer or group, or by its name (`nas.pruning.masks.decided`).
        recipe: of the fine-tuning.
        key: typed random key.
        structure, overall, strength: in place of those of the method.
        first: recipe of the training before, by which scales or groups shrink and soft masks change; `recipe` if None.
        gradual: whether masks are made anew before every epoch of the fine-tuning, while the density falls.
        rewind: whether what is left returns to its initial values before it is fine-tuned (lottery tickets).
        initial: variables before any training, for `rewind` of given variables.
        ends: see `nas.pruning.targets.targets`.
        to_shrink: whether only channels are pruned that `nas.pruning.shrink.shrink` can remove.

    Raises:
        InputError: an unknown method, structure or layer, a density that leaves a layer empty, channels that cannot be
            divided, a criterion that does not serve the structure, `rewind` without initial values.

    Example:
        >>> import numpy as np
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> data = Images(np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int32), np.zeros(1), np.ones(1))
        >>> variables, plain = fresh(space, jax.random.key(0)), Recipe(epochs=0, batch=8)
        >>> made = prune(space, variables, data, "magnitude", 0.25, recipe=plain, key=jax.random.key(1))
        >>> made.kept.layers[1].kept_weights, made.kept.layers[1].weights
        (32, 128)
    """
    way = _chosen(method, structure, overall, strength)
    if rewind and variables is not None and initial is None:
        raise InputError("rewind=True needs the weights before the training: give initial, or variables=None")
    start_key, train_key, score_key, tune_key = jax.random.split(key, 4)
    found = _found(space, way.structure, ends, to_shrink)
    check_density(density, found)
    writing = tuple(target._replace(parts=tuple(part for part in target.parts if part.scored)) for target in found)

    def masks_at(params: Any, statistics: Any, density: Any, of: tuple[Target, ...] = found) -> Any:
        known = {"params": params, "batch_stats": statistics}
        needs = way.criterion.needs
        gradients = gradients_of(space, known, data, recipe.batch) if "gradient" in needs else None
        activations = activations_of(space, known, data) if "activations" in needs else None
        scores = scores_of(found, way.criterion, params, gradients, activations, score_key)
        if way.structure == LAYERS:  # by weight, or large blocks would always stay
            scores = [None if s is None else s / t.structure.sizes for s, t in zip(scores, found, strict=True)]
        elif way.overall and way.structure != "weight":
            scores = normalised(way.criterion, scores)
        return masks_of(space, of, decided(found, scores, density, way.overall))

    known = variables
    if known is None:
        known = fresh(space, start_key)
        initial = known if initial is None else initial
    untrained = variables is None and way.criterion.kind != "snip"
    if untrained or way.penalty or way.soft:
        penalty = Partial(_penalty(space, way, ends, to_shrink), jnp.float32(way.strength)) if way.penalty else None
        statistics = known["batch_stats"]
        renew = (
            (lambda _, params: Partial(_softly, masks_at(params, statistics, density, writing))) if way.soft else None
        )
        known = train(space, data, recipe if first is None else first, train_key, known, penalty=penalty, renew=renew)
    masks = masks_at(known["params"], known["batch_stats"], density)
    start = initial if rewind else known
    used = [masks]  # the last are those of the last epoch

    def fallen(share: float, params: Any) -> Partial:
        progress = min(1.0, share + 1.0 / recipe.epochs)
        used.append(masks_at(params, known["batch_stats"], _at(progress, density)))
        return Partial(applied, used[-1])

    if not gradual:
        start = {**start, "params": applied(masks, start["params"])}
    within, falls = Partial(applied, masks), fallen if gradual else None
    tuned = train(space, data, recipe, tune_key, start, constrain=within, renew=falls)
    return Pruned({**tuned, "params": applied(used[-1], tuned["params"])}, used[-1], counted(space, used[-1]))


def _chosen(method: str | Method, structure: str | None, overall: bool | None, strength: float | None) -> Method:
    if isinstance(method, str) and method not in METHODS:
        raise unknown("method", method, METHODS)
    way = METHODS[method] if isinstance(method, str) else method
    own = way.structure if structure is None else structure
    if strength is not None:
        check_range("strength", strength, 0, 1_000)
    competes = own == LAYERS or (way.overall if overall is None else overall)  # a layer has no share but that
    return Method(way.criterion, own, competes, way.penalty, way.strength if strength is None else strength, way.soft)


def _found(space: SearchSpace, structure: str, ends: bool, to_shrink: bool) -> tuple[Target, ...]:
    if not to_shrink or structure != CHANNELS:
        return targets(space, structure, ends=ends)
    names = tuple(group.name for group in shrinkable(space))
    if not names:
        raise InputError(f"space {space.name} has no channels that can be removed: give to_shrink=False")
    return targets(space, structure, names=names)


def _at(progress: float, density: float | Mapping[str, float]) -> Any:
    """The density of a gradual schedule, as it is given: one, or one for each name."""
    if isinstance(density, Mapping):
        return {name: float(gradual_density(progress, each, end=GRADUAL_END)) for name, each in density.items()}
    return float(gradual_density(progress, density, end=GRADUAL_END))


def _softly(masks: Any, params: Any) -> Any:
    def one(mask: Array | None, value: Array) -> Array:
        return value if mask is None else soft(value, mask)

    return jax.tree.map(one, masks, params, is_leaf=lambda leaf: leaf is None)


@lru_cache(maxsize=64)
def _penalty(space: SearchSpace, way: Method, ends: bool, to_shrink: bool) -> Callable[..., Array]:
    """Of a strength and parameters; made once, so that a training is not compiled anew."""
    found = _found(space, way.structure, ends, to_shrink)
    scored = [
        (part, part.structure or Structure(way.structure, part.shape, part.leaf == "filters"))
        for target in found
        for part in target.parts
        if part.scored
    ]

    def lasso(strength: Array, params: Any, progress: Any = None) -> Array:
        terms = [group_lasso(structure, leaf_of(params, part.path, part.leaf), strength) for part, structure in scored]
        return sum(terms[1:], terms[0])

    def of_scales(strength: Array, params: Any, progress: Any = None) -> Array:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return l1([leaf for path, leaf in leaves if path[-1].key == "scale"], strength)

    return of_scales if way.penalty == SCALES else lasso
