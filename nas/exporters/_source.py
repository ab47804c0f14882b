"""What is to be exported: from a pick of a run, or a network of one's own, to the things that training needs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError
from nas.data import Data, Splits, content_hash, load, split
from nas.model import Model
from nas.run import Pick, Run
from nas.store import read_snapshot
from nas.training.recipe import Recipe
from search_spaces import encoding
from search_spaces.network import fresh, inherit
from search_spaces.space import SearchSpace

STARTS = ("fresh", "inherited")
DEFAULT_EPOCHS = 30


class Source(NamedTuple):
    """A frozen space, where its training starts (None: fresh weights), and with what it is trained.

    `recipe` is None where the weights given are to be exported as they are.
    """

    space: SearchSpace
    variables: Any
    name: str
    splits: Splits
    recipe: Recipe | None
    seed: int
    start: str


def source(
    network: Any, data: Any, recipe: Recipe | None, seed: int | None, start: str, name: str | None = None
) -> Source:
    """See `nas.export.export`, whose arguments these are.

    Raises:
        InputError: an unknown start, a network that is neither a pick nor a frozen pair, data that does not fit.
    """
    if start not in STARTS:
        raise unknown("start", start, STARTS)
    if isinstance(network, Pick):
        found = _of_pick(network, data, recipe, seed, start)
    elif isinstance(network, tuple) and len(network) >= 2 and isinstance(network[0], SearchSpace):
        found = _of_pair(network[0], network[1], data, recipe, seed)
        if isinstance(network, Model):
            # the weights are made for the mean and deviation they were trained with, not for those of other images
            mean, std = (np.asarray(part, np.float32) for part in (network.meta.mean, network.meta.std))
            splits = dataclasses.replace(found.splits, mean=mean, std=std)
            found = found._replace(name=network.meta.network, splits=splits)
    else:
        raise InputError(
            f"{type(network).__name__} is nothing to export: give run.pick(...), or a frozen space and its variables"
        )
    _check_data(found.space, found.splits)
    return found if name is None else found._replace(name=name)


def _of_pick(pick: Pick, data: Any, recipe: Recipe | None, seed: int | None, start: str) -> Source:
    run = pick.run
    whole = encoding.space_from_json(run.meta["space"]["tree"])
    space = whole.freeze(pick["genes"])
    settings = run.meta["evaluator"]
    seed = int(settings.get("seed", 0)) if seed is None else seed
    splits = _splits(data, settings, seed)
    if recipe is None:
        final = (run.meta.get("config") or {}).get("final") or {}
        recipe = _recipe(final) if final else Recipe(epochs=DEFAULT_EPOCHS)
    variables = _inherited(run, whole, space, pick["genes"], seed) if start == "inherited" else None
    return Source(space, variables, pick.network, splits, recipe, seed, start)


def _of_pair(space: SearchSpace, variables: Any, data: Any, recipe: Recipe | None, seed: int | None) -> Source:
    if not space.frozen:
        raise InputError(f"space {space.name} still has {space.num_decisions} decisions: freeze it with genes first")
    if data is None:
        raise InputError("data is missing: give the data set the network is for, data=...")
    if recipe is None and variables is None:
        recipe = Recipe(epochs=DEFAULT_EPOCHS)
    seed = 0 if seed is None else seed
    start = "fresh" if variables is None else "given"
    name = f"{space.name}#{space.fingerprint}"
    return Source(space, variables, name, _splits(data, {}, seed), recipe, seed, start)


def _recipe(settings: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe(**settings)
    except TypeError as error:
        raise InputError(f"the run's settings of the final training are not of this version ({error})") from error


def _splits(data: Any, settings: Mapping[str, Any], seed: int) -> Splits:
    """The images: those given, or those the run was made with, cut the same way."""
    if isinstance(data, Splits):
        return data
    if data is not None:
        loaded = data if isinstance(data, Data) else load(data)
        count = settings.get("validation", max(len(loaded.class_names), len(loaded.labels) // 10))
        return split(loaded, int(count), int(settings.get("seed", seed)))
    if not isinstance(settings.get("data"), str) or "validation" not in settings:
        raise InputError(f"the run's evaluator {settings.get('name')} names no data set: give one, data=...")
    name = settings["data"]
    try:
        loaded = load(name)
    except InputError as error:
        raise InputError(f"the run's data set '{name}' cannot be loaded, give it with data=...: {error}") from error
    splits = split(loaded, int(settings["validation"]), int(settings.get("seed", 0)), settings.get("train"))
    stored = settings.get("data_hash")
    if stored is not None and stored != content_hash(splits):
        raise InputError(f"data set '{name}' is not the one the run was made with (its contents differ): give data=...")
    return splits


def _check_data(space: SearchSpace, splits: Splits) -> None:
    have, want = splits.test_images.shape[1:], (space.input_hw, space.input_hw, space.input_channels)
    if have != want:
        texts = ["x".join(map(str, shape)) for shape in (have, want)]
        raise InputError(
            f"data set {splits.name} has images of {texts[0]}, the network takes {texts[1]}: give other data"
        )
    if len(splits.class_names) != space.classes:
        raise InputError(
            f"data set {splits.name} has {len(splits.class_names)} classes, the network is made for {space.classes}: "
            "give other data"
        )


def _inherited(run: Run, whole: SearchSpace, space: SearchSpace, genes: Any, seed: int) -> Any:
    """The picked network's part of the weights the search shared; its statistics are fresh."""
    snapshot = None if run.folder is None else read_snapshot(run.folder)
    shared = {} if snapshot is None else _shared_params(snapshot.evaluator)
    if not shared:
        raise InputError(f"{run.folder or 'the run'} keeps no shared weights to inherit: use start='fresh'")
    try:
        cut = inherit(shared, whole, genes)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the shared weights of {run.folder} do not fit ({error!r}): use start='fresh'") from error
    return {**fresh(space, jax.random.key(seed)), "params": cut["params"]}


def _shared_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`{slot: {kind: {"params": ...}}}` from the arrays by path of an evaluator's state with a field `params`.

    Example:
        >>> list(_shared_params({".params['stem/0']['conv']['params']['w']": np.ones(1), ".round": np.ones(1)}))
        ['stem/0']
    """
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        inside = re.fullmatch(r"(?:\.params|\['params'\])((?:\['[^']*'\])+)", name)
        if inside is None:
            continue
        *path, last = re.findall(r"\['([^']*)'\]", inside.group(1))
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = jnp.asarray(array)
    return tree
