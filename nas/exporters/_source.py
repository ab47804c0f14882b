"""What is to be exported: from a pick of a run, or a network of one's own, to the things that training needs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError, check_range
from nas.data import Data, Splits, check_fits, content_hash, resized, split
from nas.data_source import load
from nas.model import Model
from nas.run import Pick, Run
from nas.run_files import read_snapshot
from nas.training.recipe import Recipe
from search_spaces import encoding
from search_spaces.network import fresh, inherit
from search_spaces.space import SearchSpace

STARTS = ("fresh", "inherited")
TEACHERS = ("none", "supernet")
DISTILLATION = 0.5


class Source(NamedTuple):
    """A frozen space, where its training starts (None: fresh weights), and with what it is trained.

    `recipe` is None where the weights given are to be exported as they are; `notes` are what a person should know.
    `guide` answers images as `teacher`, and the training follows it by the share `distillation`; None without one.
    """

    space: SearchSpace
    variables: Any
    name: str
    splits: Splits
    recipe: Recipe | None
    seed: int
    start: str
    notes: tuple[str, ...] = ()
    teacher: str = "none"
    guide: Callable[[jax.Array], jax.Array] | None = None
    distillation: float = 0.0


def source(
    network: Any,
    data: Any,
    recipe: Recipe | None,
    seed: int | None,
    start: str,
    name: str | None = None,
    teacher: str = "none",
    distillation: float | None = None,
) -> Source:
    """See `nas.export.export`, whose arguments these are.

    Raises:
        InputError: an unknown start or teacher, a network that is neither a pick nor a frozen pair, data that does not
            fit, a share of distillation out of range or without a teacher.
    """
    if start not in STARTS:
        raise unknown("start", start, STARTS)
    if teacher not in TEACHERS:
        raise unknown("teacher", teacher, TEACHERS)
    if teacher == "none" and distillation is not None:
        raise InputError(f"distillation={distillation} has no teacher to follow: give teacher='supernet' (--teacher)")
    share = DISTILLATION if distillation is None else distillation
    check_range("distillation", share, 0, 1)
    if isinstance(network, Pick):
        found = _of_pick(network, data, recipe, seed, start)
        if teacher == "supernet":
            if found.recipe is not None and not found.recipe.epochs:
                raise InputError("teacher='supernet' teaches nothing in 0 epochs: give epochs, or leave it out")
            found = found._replace(teacher=teacher, guide=_largest(network.run), distillation=share)
    elif isinstance(network, tuple) and len(network) >= 2 and isinstance(network[0], SearchSpace):
        if start == "inherited":
            raise InputError("start='inherited' is for picks of a run: give the pair (space, variables)")
        if teacher == "supernet":
            raise InputError("teacher='supernet' is for picks of a run, whose shared weights teach: leave it out")
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
    sizes = (found.space.image_hw, found.space.input_channels, found.space.classes)
    check_fits(found.splits, "the network", *sizes, "give other data")
    return found if name is None else found._replace(name=name)


def _of_pick(pick: Pick, data: Any, recipe: Recipe | None, seed: int | None, start: str) -> Source:
    run = pick.run
    whole = _space_of(run)
    space = whole.freeze(pick["genes"])
    settings = run.meta["evaluator"]
    seed = int(settings.get("seed", 0)) if seed is None else seed
    splits, notes = _splits(data, settings, seed)
    if whole.resolutions:
        splits = resized(splits, space.image_hw)
    if recipe is None:
        final = (run.meta.get("config") or {}).get("final") or {}
        recipe = _recipe(final)
    variables = _inherited(run, whole, space, pick["genes"], seed) if start == "inherited" else None
    return Source(space, variables, pick.network, splits, recipe, seed, start, notes)


def _space_of(run: Run) -> SearchSpace:
    try:
        return encoding.space_from_json(run.meta["space"]["tree"])
    except (ValueError, IndexError) as error:
        raise InputError(f"{run.folder or 'the run'}: key 'space.tree' of run.json cannot be used: {error}") from error


def _of_pair(space: SearchSpace, variables: Any, data: Any, recipe: Recipe | None, seed: int | None) -> Source:
    if not space.frozen:
        raise InputError(f"space {space.name} still has {space.num_decisions} decisions: freeze it with genes first")
    if data is None:
        raise InputError("data is missing: give the data set the network is for, data=...")
    if recipe is None and variables is None:
        recipe = Recipe()
    seed = 0 if seed is None else seed
    start = "fresh" if variables is None else "given"
    name = f"{space.name}#{space.fingerprint}"
    return Source(space, variables, name, _splits(data, {}, seed)[0], recipe, seed, start)


def _recipe(settings: Mapping[str, Any]) -> Recipe:
    try:
        return Recipe(**settings)
    except TypeError as error:
        raise InputError(f"the run's settings of the final training are not of this version ({error})") from error


def _splits(data: Any, settings: Mapping[str, Any], seed: int) -> tuple[Splits, tuple[str, ...]]:
    """The images, those given or those the run was made with, cut the same way; and what should be said about them."""
    if isinstance(data, Splits):
        splits = data
    else:
        loaded = _own(settings) if data is None else data if isinstance(data, Data) else load(data)
        splits = _cut(loaded, settings, seed)
    if settings.get("data_hash") in (None, content_hash(splits)):
        return splits, ()
    if data is None:
        raise InputError(
            f"data set '{splits.name}' is not the one the run was made with (its contents differ): "
            "give it with data=... (--data)"
        )
    return splits, (f"the images given ({splits.name}) are not those the run was made with: their contents differ",)


def _cut(data: Data, settings: Mapping[str, Any], seed: int) -> Splits:
    counts = {name: settings[name] for name in ("validation", "train", "seed") if settings.get(name) is not None}
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise InputError(f"the run's evaluator has {name}={count!r}, not a whole number: its run.json is damaged")
    validation = counts.get("validation", max(len(data.class_names), len(data.labels) // 10))
    try:
        return split(data, validation, counts.get("seed", seed), counts.get("train"))
    except InputError as error:
        if "train" not in counts:
            raise
        raise InputError(
            f"the run was made with {counts['train']:,} training and {validation:,} validation images: {error}"
        ) from error


def _own(settings: Mapping[str, Any]) -> Data:
    """The data set the run was made with. Evaluators that do not say how to load it may still name a shipped one."""
    name = settings.get("data_from", settings.get("data"))
    if name is None and "data_from" in settings:
        raise InputError(
            f"the run's images ({settings.get('data')}) were given in memory and cannot be loaded again: "
            "give them with data=... (--data)"
        )
    if not isinstance(name, str) or "validation" not in settings:
        raise InputError(f"the run's evaluator {settings.get('name')} names no data set: give one, data=... (--data)")
    try:
        return load(name)
    except InputError as error:
        raise InputError(
            f"the run's data set '{name}' cannot be loaded, give it with data=... (--data): {error}"
        ) from error


def _inherited(run: Run, whole: SearchSpace, space: SearchSpace, genes: Any, seed: int) -> Any:
    """The picked network's part of the weights the search shared; its statistics are fresh."""
    shared = _shared_by(run, "inherit: use start='fresh'")
    try:
        cut = inherit(shared, whole, genes)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the shared weights of {run.folder} do not fit ({error!r}): use start='fresh'") from error
    return {**fresh(space, jax.random.key(seed)), "params": cut["params"]}


def _largest(run: Run) -> Callable[[jax.Array], jax.Array]:
    """The largest network of the weights the search shared, as a teacher."""
    from nas.training.teacher import supernet_teacher
    from search_spaces.supernet import Supernet

    shared, supernet = _shared_by(run, "teach: use teacher='none'"), Supernet(_space_of(run))
    wanted = {(slot, kind) for slot, kinds in supernet.shapes().items() for kind in kinds}
    if {(slot, kind) for slot, kinds in shared.items() for kind in kinds} != wanted:
        raise InputError(f"the shared weights of {run.folder} do not fit its space: use teacher='none'")
    return supernet_teacher(supernet, shared)


def _shared_by(run: Run, purpose: str) -> dict[str, Any]:
    """The weights the search shared, from its snapshot; an error ends with what is not possible for want of them."""
    snapshot = None if run.folder is None else read_snapshot(run.folder)
    shared = {} if snapshot is None else _shared_params(snapshot.evaluator)
    if not shared:
        raise InputError(f"{run.folder or 'the run'} keeps no shared weights to {purpose}")
    return shared


def _shared_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`{slot: {kind: {"params": ...}}}` from the arrays by path of an evaluator's state, from its field `average` (what
    networks were judged with) or else `params`.

    Example:
        >>> list(_shared_params({".params['stem/0']['conv']['params']['w']": np.ones(1), ".round": np.ones(1)}))
        ['stem/0']
    """
    for field in ("average", "params"):
        tree: dict[str, Any] = {}
        for name, array in arrays.items():
            inside = re.fullmatch(rf"(?:\.{field}|\['{field}'\])((?:\['[^']*'\])+)", name)
            if inside is None:
                continue
            *path, last = re.findall(r"\['([^']*)'\]", inside.group(1))
            branch = tree
            for part in path:
                branch = branch.setdefault(part, {})
            branch[last] = jnp.asarray(array)
        if tree:
            return tree
    return {}
