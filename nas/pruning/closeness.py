"""Scores of channels of a network with bits: how close its weights are to what they are rounded to.

A channel is judged by the kernels that read it (`interactions`), as the thesis has found better, or by the filters that
write it (`filter`). Layers that are not rounded say nothing, and kernels of one weight have no angle: where none is
left that reads the channel, the filters count, and the other way around; `judged_by` says where and why. So the first
layer, in full precision, is judged by the second, the last but one by itself, and by the angle all channels that 1x1
convolutions read: everything in inverted residuals.

Source: Guerra Fernandez, thesis (Monash 2024), sections 4.3.1 to 4.3.3, and "Pruning full-precision layers".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import Array

from nas.pruning.coupling import Member
from nas.pruning.evidence import activations_of, gradients_of
from nas.pruning.masks import applied, scores_of
from nas.pruning.rounded import images_of, weight_bits
from nas.pruning.targets import CHANNELS, WEIGHTS, Target, leaf_of
from nas.training.standalone import Images
from search_spaces.network import variable_shapes
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.space import SearchSpace
from search_spaces.sparsity._closeness import FILTER, INTERACTIONS, Closeness
from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure
from search_spaces.sparsity.angle import Angle


class Judged(NamedTuple):
    """What a target is judged by.

    Attributes:
        by: `interactions` or `filter`, the kind of a criterion that does not look at rounding, or None for nothing.
        why: the reason where that is not what was asked for, else empty.
        members: the weights that are compared with what they are rounded to.
    """

    by: str | None
    why: str = ""
    members: tuple[Member, ...] = ()


def judged_by(space: SearchSpace, found: Sequence[Target], criterion: Criterion) -> list[Judged]:
    """What `scores_in` judges every target by, and why where that is not what was asked for.

    Example:
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.precision import without_bits
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a32", first_last_bits=None).freeze([0] * 6)
        >>> judged_by(space, targets(without_bits(space), "output_channel"), Angle())[1][:2]
        ('filter', 'the kernels that read it have one weight, and no angle')
    """
    if not isinstance(criterion, Closeness):
        return [Judged(criterion.kind) for _ in found]
    shapes, bits = variable_shapes(space)["params"], weight_bits(space)
    return [_judged(target, criterion, shapes, bits) for target in found]


def _judged(target: Target, criterion: Closeness, shapes: Any, bits: dict[str, int]) -> Judged:
    assert target.group is not None
    members: dict[str, list[Member]] = {INTERACTIONS: [], FILTER: []}
    reasons = {INTERACTIONS: "no layer that reads it is rounded", FILTER: "no layer that writes it is rounded"}
    for member in target.group.members:
        if member.leaf not in WEIGHTS.values() or bits[member.path.partition("/")[0]] >= EXACT_BITS:
            continue
        if not member.reads:
            members[FILTER].append(member)
        elif isinstance(criterion, Angle) and math.prod(leaf_of(shapes, member.path, member.leaf).shape[:-2]) == 1:
            reasons[INTERACTIONS] = "the kernels that read it have one weight, and no angle"
        else:
            members[INTERACTIONS].append(member)
    asked, other = criterion.of, FILTER if criterion.of == INTERACTIONS else INTERACTIONS
    if members[asked]:
        return Judged(asked, "", tuple(members[asked]))
    if members[other]:
        return Judged(other, reasons[asked], tuple(members[other]))
    return Judged(None, f"{reasons[asked]}; {reasons[other]}")


def scores_in(
    space: SearchSpace, found: Sequence[Target], criterion: Criterion, variables: Any, data: Images, masks: Any = None,
    key: Array | None = None,
) -> list[Array | None]:  # fmt: skip
    """Scores `D` of every target of a network with bits, by any criterion; None where it sees nothing of it.

    Not all targets may be judged by what the criterion says: `judged_by`.

    Args:
        space: frozen, with bits.
        found: channels of the same network without bits (`nas.pruning.targets.targets`).
        criterion: angle and distance compare weights with what they are rounded to; the others are as in `scores_of`.
        variables: of the network.
        data: for criteria that look at activations or gradients.
        masks: what is pruned already, and counts as 0 on either side.
        key: for `random`; consumed.

    Raises:
        InputError: a criterion that does not serve channels.

    Example:
        >>> import jax, numpy as np
        >>> from nas.pruning.targets import targets
        >>> from search_spaces.network import fresh
        >>> from search_spaces.precision import without_bits
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w2a32", first_last_bits=None).freeze([0] * 6)
        >>> data = Images(np.zeros((3, 8, 8, 1), np.uint8), np.zeros(3, np.int32), np.zeros(1), np.ones(1))
        >>> found, variables = targets(without_bits(space), "output_channel"), fresh(space, jax.random.key(0))
        >>> scores_in(space, found, Angle(), variables, data)[1].shape
        (1, 16)
    """
    params = variables["params"]
    if isinstance(criterion, Closeness):
        images = images_of(space, params)
        images = images if masks is None else applied(masks, images)
        seen = judged_by(space, found, criterion)
        return [_closeness(target, each, criterion, params, images) for target, each in zip(found, seen, strict=True)]
    needs = criterion.needs
    gradients = gradients_of(space, variables, data) if "gradient" in needs else None
    activations = activations_of(space, variables, data) if "activations" in needs else None
    return scores_of(found, criterion, params, gradients, activations, key)


def _closeness(target: Target, seen: Judged, criterion: Closeness, params: Any, images: Any) -> Array | None:
    """Of all channels of a target, the mean over the layers that it is judged by."""
    rows = []
    for member in seen.members:
        weight, image = (leaf_of(tree, member.path, member.leaf) for tree in (params, images))
        if member.reads:
            # each input channel of the reader, of one group where it has several, is what it scores
            structure = Structure(CHANNELS, (1, weight.shape[-2]))
            evidence = Evidence(next_weight=weight, next_image=image)
        else:
            structure = Structure(CHANNELS, tuple(weight.shape), member.leaf == "filters")
            evidence = Evidence(weight=weight, image=image)
        read_or_written = dataclasses.replace(criterion, of=INTERACTIONS if member.reads else FILTER)
        scores = read_or_written(structure, evidence)
        rows.append(scores.ravel()[member.places].mean(1))
    return sum(rows[1:], rows[0]).reshape(target.structure.decisions) / len(rows) if rows else None
