"""Masks of a network: which weights are kept at a density, by the scores of a criterion.

Trees of masks have the form of the parameters, bool leaves, and None where nothing is masked. A density is the share of
what is chosen among that is kept, rounded up in every layer: of weights, and where channels go together of the channels
of a group, so that about its square is left of weights between two pruned groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.pruning.targets import CHANNELS, Part, Target, leaf_of
from search_spaces.network import variable_shapes
from search_spaces.space import SearchSpace
from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._masks import ROUNDING, kept, kept_overall
from search_spaces.sparsity._patterns import Structure
from search_spaces.sparsity.training_rules import rewound

COMPARABLE = ("batch_norm_scale", "apoz", "snip", "random")


def scores_of(
    found: Sequence[Target], criterion: Criterion, params: Any, gradients: Any = None,
    activations: Mapping[str, Any] | None = None, key: Array | None = None,
) -> list[Array | None]:  # fmt: skip
    """Scores `D` of every target; None where the criterion sees nothing of it (no normalisation, no activation).

    What goes together is scored jointly: by the mean over the arrays that write its channels (the scales, the maps).

    Args:
        found: what can be pruned.
        criterion: how it is scored.
        params: parameters of the network.
        gradients: of the loss by them, for `snip`.
        activations: results of activation functions by path, `[N, H, W, C]` or `[N, C]`, for `apoz`.
        key: for `random`; consumed.

    Raises:
        InputError: a structure that the criterion does not serve, what it needs and is not given.

    Example:
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> from search_spaces.sparsity.magnitude import Magnitude
        >>> space = tiny.space().freeze([0] * 6)
        >>> params = fresh(space, jax.random.key(0))["params"]
        >>> scores_of(targets(space, "output_channel"), Magnitude(), params)[0].shape
        (1, 8)
    """
    made: list[Array | None] = []
    for number, target in enumerate(found):
        if "key" in criterion.needs:
            own = None if key is None else jax.random.fold_in(key, number)
            made.append(criterion(target.structure, Evidence(key=own)))
            continue
        rows = [_score(part, target, criterion, *each)
                for part, *each in _seen(target, criterion, params, gradients, activations)]  # fmt: skip
        made.append(sum(rows[1:], rows[0]) / len(rows) if rows else None)
    return made


def _seen(target: Target, criterion: Criterion, params: Any, gradients: Any, activations: Any) -> list[Any]:
    """Parts of a target, the structures in which they are scored, and the evidence."""
    needs = criterion.needs
    if "activations" in needs:
        if activations is None or target.group is None:
            return [(target.parts[0], target.structure, Evidence())]  # which the criterion refuses
        found = []
        for held in target.group.activations:
            maps = jnp.asarray(activations[held.path])
            part = Part(held.path, "", (maps.shape[-1],), places=held.places)
            found.append((part, Structure(CHANNELS, (1, maps.shape[-1])), Evidence(activations=maps)))
        return found
    if "scale" in needs and target.group is not None:
        scales = [(part, leaf_of(params, part.path, part.leaf)) for part in target.parts if part.leaf == "scale"]
        return [(part, Structure(CHANNELS, (1, len(scale))), Evidence(scale=scale)) for part, scale in scales]
    found = []
    for part in target.parts:
        if part.scored:
            weight = leaf_of(params, part.path, part.leaf)
            gradient = None if gradients is None else leaf_of(gradients, part.path, part.leaf)
            kind, depthwise = target.structure.kind, part.leaf == "filters"
            structure = part.structure or Structure(kind, part.shape, depthwise)
            found.append((part, structure, Evidence(weight=weight, gradient=gradient)))
    return found


def _score(part: Part, target: Target, criterion: Criterion, structure: Structure, evidence: Evidence) -> Array:
    scores = criterion(structure, evidence)
    if part.places is not None:
        scores = scores.ravel()[part.places].mean(1)
    return scores.reshape(target.structure.decisions)


def decided(
    found: Sequence[Target],
    scores: Sequence[Array | None],
    density: float | Mapping[str, float],
    overall: bool = False,
) -> list[Array | None]:
    """Which decisions of every target are kept, bool `D`; None where it was not scored and stays dense.

    `density` is that of every target, or given by name (the others stay dense). With `overall` all targets share it,
    and what scores less goes first, wherever it is; scores that are no measure of their own are divided by their root
    mean square in the target first (Molchanov et al. 2017, https://arxiv.org/abs/1611.06440, section 2.2): give scores
    that are `normalised`.

    Raises:
        InputError: a density that leaves a layer empty or is no share, an unknown target, nothing that was scored.

    Example:
        >>> target = Target("conv", Structure("output_channel", (2, 4)), ())
        >>> decided([target], [jnp.asarray([[3.0, 1.0, 2.0, 0.0]])], 0.5)[0].tolist()
        [[True, False, True, False]]
    """
    if all(score is None for score in scores):
        raise InputError("the criterion sees none of what could be pruned: give another criterion or structure")
    if overall:
        if isinstance(density, Mapping):
            raise InputError("densities by name cannot be shared overall: give one number, or overall=False")
        check_density(density, found)
        places = [place for place, score in enumerate(scores) if score is not None]
        masks = kept_overall([found[p].structure for p in places], [scores[p] for p in places], density)  # type: ignore[misc]
        by_place = dict(zip(places, masks, strict=True))
        return [by_place.get(place) for place in range(len(found))]
    names = {target.name for target in found}
    if isinstance(density, Mapping):
        for name in density:
            if name not in names:
                raise unknown("target", name, sorted(names))
    made: list[Array | None] = []
    for target, score in zip(found, scores, strict=True):
        own = density.get(target.name) if isinstance(density, Mapping) else density
        if own is None or score is None:
            made.append(None)
            continue
        check_density(own, [target])
        made.append(kept(target.structure, score, own))
    return made


def check_density(density: Any, found: Sequence[Target]) -> None:
    """Raise InputError unless a density is above 0 and at most 1; what is traced cannot be checked.

    Example:
        >>> check_density(0, [Target("conv", Structure("output_channel", (2, 4)), ())])
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: density=0 leaves conv empty: give above 0 and at most 1 (one structure is 0.25)
    """
    if not isinstance(density, int | float | np.number):
        return
    if density == 0:
        least = min(found, key=lambda target: target.structure.count)
        raise InputError(f"density={density} leaves {least.name} empty: give above 0 and at most 1 (one structure is "
                         f"{1 / least.structure.count:.3g})")  # fmt: skip
    check_range("density", float(density), 0, 1)


def normalised(criterion: Criterion, scores: Sequence[Array | None]) -> list[Array | None]:
    """Scores that can be compared over targets: divided by their root mean square, unless they can be as they are.

    Example:
        >>> from search_spaces.sparsity.magnitude import Magnitude
        >>> normalised(Magnitude(), [jnp.asarray([1.0, 7.0])])[0].tolist()
        [0.20000000298023224, 1.399999976158142]
    """
    if criterion.kind in COMPARABLE:
        return list(scores)
    return [None if s is None else s / jnp.maximum(jnp.sqrt(jnp.square(s).mean()), ROUNDING) for s in scores]


def masks_of(space: SearchSpace, found: Sequence[Target], chosen: Sequence[Any]) -> Any:
    """The tree of masks for decisions, bool `D`, of every target; a weight is kept where all that hold it are kept.

    Example:
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space().freeze([0] * 6)
        >>> first = targets(space, "output_channel", names=("stem_0/conv",))
        >>> masks = masks_of(space, first, [np.arange(8) < 2])
        >>> int(masks["stem_0"]["norm"]["scale"].sum()), masks["head"]["conv"]["kernel"] is None
        (2, True)
    """
    masks = jax.tree.map(lambda _: None, variable_shapes(space)["params"])
    for target, decisions in zip(found, chosen, strict=True):
        if decisions is None:
            continue
        for part in target.parts:
            tree = masks
            for name in part.path.split("/"):
                tree = tree[name]
            mask, before = np.asarray(part.spread(decisions)), tree[part.leaf]
            tree[part.leaf] = mask if before is None else before & mask
    return jax.tree.map(jnp.asarray, masks)


def applied(masks: Any, params: Any) -> Any:
    """Parameters, zero where a mask drops them; for `constrain` as `Partial(applied, masks)`.

    What the tree of masks does not have, such as scales that a quantizer learns, stays as it is.

    Example:
        >>> new = applied({"w": jnp.asarray([True, False]), "b": None}, {"w": jnp.ones(2), "b": jnp.ones(1), "s": 2})
        >>> new["w"].tolist(), new["b"].tolist(), new["s"]
        ([1.0, 0.0], [1.0], 2)
    """
    if masks is None or not isinstance(masks, Mapping):
        return rewound(params, masks)
    return {name: applied(masks.get(name), value) for name, value in params.items()}
