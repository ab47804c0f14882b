"""Automatic pruning of networks with bits: layer by layer, of each the share of filters that a search finds best.

Source: Guerra Fernandez, thesis (Monash 2024), chapter 4. What is left open there, and how it is here: a "layer" is a
group of channels that go together, so that residual branches agree; layers follow in the order of execution; ratios are
whole numbers of filters, each judged once; normalisation statistics are those before a layer is pruned, until it is
trained on. An erratum is corrected in `nas.pruning.ratio_search.lower_bound`, another one in
`search_spaces.sparsity.angle.similarity`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.tree_util import Partial

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.evaluators.standalone import count_mistakes
from nas.pruning.closeness import judged_by, scores_in
from nas.pruning.counting import Count, counted
from nas.pruning.masks import applied, masks_of
from nas.pruning.ratio_search import USUAL, RatioSearch, Searched, dropped, searched
from nas.pruning.rounded import prunable, shrink_rounded, size_bytes
from nas.pruning.shrink import Shrunk
from nas.pruning.targets import CHANNELS, Target, targets
from nas.training.images import EVALUATION_BATCH
from nas.training.recipe import Recipe
from nas.training.rounded import completed
from nas.training.standalone import Images, check_data, train
from search_spaces.precision import without_bits
from search_spaces.space import SearchSpace
from search_spaces.sparsity._criterion import Criterion
from search_spaces.sparsity._masks import kept
from search_spaces.sparsity.angle import Angle

ANGLE = Angle()  # of the interactions
TUNED_FROM = 0.05  # the pruned share of a layer from which the network is trained on before the next


class LayerRatio(NamedTuple):
    """What was decided for one layer.

    Attributes:
        name: of its group of channels.
        channels, dropped: how many it had, and how many were pruned.
        ratios, losses: what was judged, in that order; the objective of equation 4.5.
        tuned: whether the network was trained on before the next layer.
        judged_by: what said which channels go: `interactions` or `filter`, the kind of a criterion that has no such
            choice, or None where the criterion sees nothing of the layer, which then stays whole.
        why: where that is not what the criterion was asked for, the reason.
    """

    name: str
    channels: int
    dropped: int
    ratios: tuple[float, ...]
    losses: tuple[float, ...]
    tuned: bool
    judged_by: str | None
    why: str

    @property
    def ratio(self) -> float:
        """The pruned share."""
        return self.dropped / self.channels


class AutoPruned(NamedTuple):
    """A pruned network with bits.

    Attributes:
        layers: what was decided, in order.
        masks: a tree as of `nas.pruning.masks.masks_of`.
        variables: after the last training, pruned weights zero.
        kept: what the masks leave.
        size_bytes, whole_bytes: what the masks leave by bits, and the network before.
        small: the network without the pruned channels. Some may be left in it, as zeros, where a block has no field
            for just so many (`nas.pruning.shrink`).
    """

    layers: tuple[LayerRatio, ...]
    masks: Any
    variables: Any
    kept: Count
    size_bytes: float
    whole_bytes: float
    small: Shrunk


def prune_automatically(
    space: SearchSpace,
    variables: Any,
    data: Images,
    judged: Images,
    *,
    between: Recipe,
    last: Recipe,
    key: Array,
    search: RatioSearch = USUAL,
    criterion: Criterion = ANGLE,
    ratios: float | Mapping[str, float] | None = None,
    tune_from: float = TUNED_FROM,
    report: Callable[[LayerRatio], None] | None = None,
) -> AutoPruned:
    """Prune the filters of a network with bits, each layer by the share that a search finds best; the key is consumed.

    Args:
        space: frozen, with bits.
        variables: of the trained network; of the one without bits, what rounding needs besides is completed.
        data: what to train on.
        judged: images by which shares are judged, a few hundred that are not trained on.
        between: recipe of the training after a layer that lost more than `tune_from` of its filters (the source: 5
            epochs).
        last: recipe of the training at the end (the source: 10 epochs).
        key: typed random key.
        search: the interval, the evaluations, the objective.
        criterion: which filters go first: `Angle` or `Distance`, of filters or of interactions; or any other that
            serves channels.
        ratios: shares that are given and not searched: one for all that the criterion sees, or by the name of the layer
            (others stay whole).
        tune_from: see `between`.
        report: is given the decision of every layer.

    Raises:
        InputError: as of `nas.pruning.rounded.prunable`, images that do not fit, shares out of range or that leave a
            layer empty, an unknown layer, a criterion that sees none of them or not one that is named.

    Example:
        >>> from search_spaces.network import fresh
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space(bits="w4a8").freeze([0] * 6)
        >>> data = Images(np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int32), np.zeros(1), np.ones(1))
        >>> still = Recipe(epochs=0, batch=8)
        >>> made = prune_automatically(space, fresh(space, jax.random.key(0)), data, data, between=still, last=still,
        ...                            key=jax.random.key(1), ratios={"stages_0_0/expand": 0.25})
        >>> [(layer.channels, layer.dropped, layer.tuned) for layer in made.layers][:2]
        [(8, 0, False), (16, 4, True)]
    """
    names = prunable(space)
    check_range("tune_from", tune_from, 0, 1)
    for images in (data, judged):
        check_data(space, images)
    if not len(judged.images):
        raise InputError("there are no images to judge by: give some in judged")
    found = targets(without_bits(space), CHANNELS, names=names)
    options = _options(found, search, ratios)
    score_key, tune_key, last_key = jax.random.split(key, 3)
    variables = completed(space, variables, data.images[:EVALUATION_BATCH], data.mean, data.std)
    first_key = jax.random.fold_in(score_key, len(found))
    scores = scores_in(space, found, criterion, variables, data, key=first_key)
    unseen = [target.name for target, score in zip(found, scores, strict=True) if score is None]
    if len(unseen) == len(found):
        raise InputError(f"criterion {criterion.kind} sees none of the layers that can be pruned: give another one, or "
                         "bits to their weights")  # fmt: skip
    for name in unseen:
        if isinstance(ratios, Mapping) and ratios.get(name, 0.0) > 0:
            raise InputError(
                f"criterion {criterion.kind} does not see {name}, ratio {ratios[name]}: leave it out, give another "
                "criterion, or bits to its weights"
            )
    chosen = [np.ones(target.structure.decisions, bool) for target in found]
    layers = []
    for place, (target, seen) in enumerate(zip(found, judged_by(space, found, criterion), strict=True)):
        masks = _masks(space, found, chosen)
        own_key = jax.random.fold_in(score_key, place)
        score = scores_in(space, (target,), criterion, variables, data, masks, own_key)[0]
        made = _searched(space, variables, judged, found, chosen, place, score, options[place], search)
        count = round(made.best)
        chosen[place] = _decided(target, score, count)
        size = target.structure.count
        tunes = count / size > tune_from
        variables = _within(variables, _masks(space, found, chosen))
        if tunes:
            variables = _tuned(space, variables, data, between, jax.random.fold_in(tune_key, place), found, chosen)
        shares = tuple(value / size for value in made.values)
        layers.append(LayerRatio(target.name, size, count, shares, made.losses, tunes, seen.by, seen.why))
        if report is not None:
            report(layers[-1])
    variables = _tuned(space, variables, data, last, last_key, found, chosen)
    masks = _masks(space, found, chosen)
    small = shrink_rounded(space, variables, masks)
    left = counted(without_bits(space), masks)
    return AutoPruned(tuple(layers), masks, variables, left, size_bytes(space, masks), size_bytes(space), small)


def _options(
    found: tuple[Target, ...], search: RatioSearch, ratios: float | Mapping[str, float] | None
) -> list[np.ndarray]:
    """How many channels of every target may be pruned."""
    sizes = [(target.name, target.structure.count) for target in found]
    if ratios is None:
        return [search.counts(size, name) for name, size in sizes]
    given = ratios if isinstance(ratios, Mapping) else {name: ratios for name, _ in sizes}
    for name in given:
        if name not in dict(sizes):
            raise unknown("layer", name, [name for name, _ in sizes])
    counts = []
    for name, size in sizes:
        ratio = given.get(name, 0.0)
        check_range(f"ratio of {name}", ratio, 0, 1)
        if dropped(ratio, size) == size:
            raise InputError(f"ratio of {name}={ratio} leaves it of {size} channels empty: give at most "
                             f"{(size - 1) / size:.3g}")  # fmt: skip
        counts.append(np.asarray([dropped(ratio, size)]))
    return counts


def _searched(
    space: SearchSpace, variables: Any, judged: Images, found: tuple[Target, ...], chosen: list[np.ndarray],
    place: int, score: Array | None, counts: np.ndarray, search: RatioSearch,
) -> Searched:  # fmt: skip
    """The search for the number of channels that one target loses; one that was not scored loses none."""
    plain = without_bits(space)
    whole_params, whole_bytes = counted(plain, None).params, size_bytes(space)

    def judge(count: float) -> float:
        tried = [*chosen[:place], _decided(found[place], score, round(count)), *chosen[place + 1 :]]
        masks = _masks(space, found, tried)
        wrong = count_mistakes(space, _within(variables, masks), judged.images, np.asarray(judged.labels), judged)
        params = counted(plain, masks).kept_params / whole_params
        size = size_bytes(space, masks) / whole_bytes
        return search.objective(100 * wrong / len(judged.images), 100 * params, 100 * size)

    return searched(judge, counts if score is not None else np.zeros(1), search)


def _decided(target: Target, score: Array | None, count: int) -> np.ndarray:
    """What of a target is kept where `count` channels of the lowest scores go, bool `D`."""
    if score is None:
        return np.ones(target.structure.decisions, bool)
    return np.asarray(kept(target.structure, score, 1.0 - count / target.structure.count))


def _masks(space: SearchSpace, found: tuple[Target, ...], chosen: list[np.ndarray]) -> Any:
    return masks_of(without_bits(space), found, chosen)


def _within(variables: Any, masks: Any) -> Any:
    return {**variables, "params": applied(masks, variables["params"])}


def _tuned(
    space: SearchSpace, variables: Any, data: Images, recipe: Recipe, key: Array, found: tuple[Target, ...],
    chosen: list[np.ndarray],
) -> Any:  # fmt: skip
    """The network trained on within the masks, which are operands: other ones do not compile it anew."""
    masks = _masks(space, found, chosen)
    return _within(train(space, data, recipe, key, variables, constrain=Partial(applied, masks)), masks)
