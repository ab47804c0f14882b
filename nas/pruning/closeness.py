"""Scores of channels of a network with bits: how close its weights are to what they are rounded to.

A channel is judged by the kernels that read it (`interactions`), as the thesis has found better, or by the filters that
write it (`filter`). Layers that are not rounded say nothing, and kernels of one weight have no angle: where none is
left that reads the channel, the filters count, and the other way around. So the first layer, in full precision, is
judged by the second, and the last but one by itself.

Source: Guerra Fernandez, thesis (Monash 2024), sections 4.3.1 to 4.3.3, and "Pruning full-precision layers".
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jax import Array

from nas.pruning.evidence import activations_of, gradients_of
from nas.pruning.masks import applied, scores_of
from nas.pruning.rounded import images_of, weight_bits
from nas.pruning.targets import CHANNELS, WEIGHTS, Target, leaf_of
from nas.training.standalone import Images
from search_spaces.quantizers._quantizer import EXACT_BITS
from search_spaces.space import SearchSpace
from search_spaces.sparsity._closeness import FILTER, INTERACTIONS, Closeness
from search_spaces.sparsity._criterion import Criterion, Evidence
from search_spaces.sparsity._patterns import Structure
from search_spaces.sparsity.angle import Angle


def scores_in(
    space: SearchSpace, found: Sequence[Target], criterion: Criterion, variables: Any, data: Images, masks: Any = None,
    key: Array | None = None,
) -> list[Array | None]:  # fmt: skip
    """Scores `D` of every target of a network with bits, by any criterion; None where it sees nothing of it.

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
        bits = weight_bits(space)
        return [_closeness(target, criterion, params, images, bits) for target in found]
    needs = criterion.needs
    gradients = gradients_of(space, variables, data) if "gradient" in needs else None
    activations = activations_of(space, variables, data) if "activations" in needs else None
    return scores_of(found, criterion, params, gradients, activations, key)


def _closeness(target: Target, criterion: Closeness, params: Any, images: Any, bits: dict[str, int]) -> Array | None:
    """Of all channels of a target, the mean over the layers that read or write them."""
    assert target.group is not None
    coarse = [
        part
        for part in target.group.members
        if part.leaf in WEIGHTS.values() and bits[part.path.partition("/")[0]] < EXACT_BITS
    ]
    rows: dict[str, list[Array]] = {INTERACTIONS: [], FILTER: []}
    for member in coarse:
        weight, image = (leaf_of(tree, member.path, member.leaf) for tree in (params, images))
        if not member.reads:
            structure = Structure(CHANNELS, tuple(weight.shape), member.leaf == "filters")
            own = dataclasses.replace(criterion, of=FILTER)
            rows[FILTER].append(own(structure, Evidence(weight=weight, image=image)).ravel()[member.places].mean(1))
        elif not isinstance(criterion, Angle) or math.prod(weight.shape[:-2]) > 1:
            # each input channel of the reader, of one group where it has several, is what it scores
            structure = Structure(CHANNELS, (1, weight.shape[-2]))
            read = dataclasses.replace(criterion, of=INTERACTIONS)
            scores = read(structure, Evidence(next_weight=weight, next_image=image))
            rows[INTERACTIONS].append(scores.ravel()[member.places].mean(1))
    wanted = rows[criterion.of] or rows[FILTER] or rows[INTERACTIONS]
    return sum(wanted[1:], wanted[0]).reshape(target.structure.decisions) / len(wanted) if wanted else None
