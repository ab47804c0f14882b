"""Zero-cost proxies: networks ranked by what one batch of images says about them before any training.

The networks run as parts of a supernet with fresh weights, so that one compiled program serves the whole space. Two
things make a part the network it stands for: its weights are scaled to the deviation that initial weights have at its
own sizes (`own_scales`), and its normalisation sees the batch. All candidates share the random numbers behind their
weights, which takes noise out of comparisons; `initialisations` draws them several times and averages.

`Quality.error` is a score with its sign turned, so that lower is better: no fraction of images, mostly negative, of any
size. It ranks networks; front, knee and hypervolume read it as any objective. What prints an error in percent prints
one outside 0 to 1 as it is, and a limit on `error` says nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.discover import unknown
from hw_models.errors import InputError
from nas.evaluators._images import described, splits_for
from nas.proxies import DOUBLE, SCORES, WEIGHTS, jacob_cov, linear
from nas.stratify import drawn
from nas.training.images import normalise
from nas.types import Evaluator, Key, Quality
from nas.variants import Variants
from search_spaces.block import variable_shapes
from search_spaces.initial import deviation
from search_spaces.space import SearchSpace
from search_spaces.supernet import Supernet, with_statistics

COUNTS = ("params", "macs")  # what every proxy has to beat


def evaluator(
    space: SearchSpace,
    *,
    proxy: str = "snip",
    data: Any = "fashion_mnist_10k",
    seed: int = 0,
    validation: int = 1000,
    train: int | None = None,
    batch: int = 64,
    initialisations: int = 1,
    chunk: int = 8,
    depthwise: str = "auto",
) -> Evaluator:
    """Evaluator whose error is minus the score of a proxy.

    Proxies are grad_norm, snip, grasp, synflow, fisher, jacob_cov, params and macs. Scores are defined in
    `nas.proxies`; that of synflow is a logarithm. `batch` training images, a fixed random sample of the split that
    `seed` makes, are what gradients are of; synflow looks at none of them, and params and macs load none. The score is
    the mean over `initialisations` draws of weights.

    Raises:
        InputError: an unknown proxy, images or classes that do not match the space, a value out of range.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> judge = evaluator(tiny.space(), proxy="params")
        >>> judge.evaluate(None, judge.init(jax.random.key(0)), [[0, 0, 0, 0, 0, 0]], [0]).error.tolist()
        [-1698.0]
    """
    if proxy not in (*SCORES, *COUNTS):
        raise unknown("proxy", str(proxy), (*SCORES, *COUNTS))
    for name, value in (("initialisations", initialisations), ("chunk", chunk)):
        if value < 1:
            raise InputError(f"{name}={value} is out of range: give at least 1")
    describe: dict[str, Any] = {"proxy": proxy, "error_is": f"minus the score {proxy}, no fraction"}
    if proxy in COUNTS:
        counted = _counts(space, COUNTS.index(proxy))
        return _made(space, lambda key, genes: -counted(genes), chunk, describe)
    splits = splits_for(space, data, validation, seed, train)
    count = len(splits.train_images)
    least = 2 if proxy == "jacob_cov" else 1
    if not least <= batch <= count:
        raise InputError(f"batch={batch} is out of range: give {least} to {count}, the training images")
    rows = drawn(count, batch)
    x = normalise(jnp.asarray(splits.train_images[rows]), jnp.asarray(splits.mean), jnp.asarray(splits.std))
    y = jnp.asarray(splits.train_labels[rows])
    score = _scorer(space, proxy, depthwise, x, y)
    supernet = Supernet(space, depthwise, "switch")

    @lru_cache(maxsize=initialisations)
    def variables(words: bytes, implementation: str, draw: int) -> Any:
        key = jax.random.wrap_key_data(jnp.asarray(np.frombuffer(words, np.uint32)), impl=implementation)
        return supernet.init(jax.random.fold_in(key, draw))

    def errors(key: Key, genes: np.ndarray) -> np.ndarray:
        words, implementation = np.asarray(jax.random.key_data(key)).tobytes(), str(jax.random.key_impl(key))
        # One after the other: a network takes longer than this loop does, and all of them run one program.
        scores = [
            np.mean([score(variables(words, implementation, draw), row) for draw in range(initialisations)])
            for row in genes
        ]
        return -np.asarray(scores, np.float64)

    describe |= {
        **described(splits, data, seed),
        "batch": batch,
        "initialisations": initialisations,
        "depthwise": depthwise,
    }
    return _made(space, errors, chunk, describe)


def _made(space: SearchSpace, errors: Callable[[Key, np.ndarray], Any], chunk: int, describe: Any) -> Evaluator:
    fixed = f"proxy {space.fingerprint} {describe}"

    def evaluate(key: Key, state: Key, genes: Any, index: Any) -> Quality:
        return Quality(np.asarray(errors(state, np.asarray(genes, np.int32)), np.float32))

    def version(state: Key) -> str:
        words = np.asarray(jax.random.key_data(state)).tobytes()
        return hashlib.sha256(fixed.encode() + words).hexdigest()[:16]

    return Evaluator(
        init=lambda key: key,
        train=lambda key, state: (state, {}),
        rounds=0,
        evaluate=evaluate,
        version=version,
        chunk=chunk,
        name="proxy",
        describe=describe,
    )


def _counts(space: SearchSpace, which: int) -> Callable[[np.ndarray], np.ndarray]:
    """Parameters or multiply-accumulates of `genes [P, D]`, `float64 [P]`: sums over the variants of their slots."""
    sizes = [Variants(each) for each in space.resolutions or (space,)]
    tables = [
        [sum((layer.params, layer.macs)[which] for layer in row.plain) for row in variants.rows] for variants in sizes
    ]
    index = jax.jit(jax.vmap(sizes[0].index))  # resolutions share their layout

    def counts(genes: np.ndarray) -> np.ndarray:
        searched = genes[:, :-1] if space.resolutions else genes
        size = genes[:, -1:] if space.resolutions else np.zeros((len(genes), 1), np.int32)
        # summed on the host: float32 does not hold every count
        return np.asarray(tables, np.float64)[size, np.asarray(index(searched))].sum(1)

    return counts


def _scorer(space: SearchSpace, proxy: str, depthwise: str, x: Array, y: Array) -> Callable[[Any, np.ndarray], float]:
    """The score of the network of `genes [D]` cut out of shared variables."""
    function = SCORES[proxy]
    double = proxy in DOUBLE
    # One network at a time: at its own size. The compiled kernel knows float32 only.
    supernet = Supernet(linear(space) if proxy == "synflow" else space, "scan" if double else depthwise, "switch")
    if proxy == "fisher" and not _has_norms(supernet.shapes()):
        raise InputError(f"proxy=fisher needs normalised maps and space {space.name} has none: choose another proxy")

    @jax.jit
    def program(variables: Any, scales: Any, genes: Array, x: Array, y: Array) -> Array:
        variables = jax.tree.map(lambda leaf, scale: leaf * scale, variables, scales)
        if double:
            variables, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (variables, x))
        if proxy == "fisher":
            variables = with_statistics(variables, supernet.calibrate(variables, x, genes))
        return function(lambda v, images, mode: supernet.apply(v, images, genes, mode), variables, x, y)

    def score(variables: Any, genes: np.ndarray) -> float:
        scales = own_scales(space, genes)
        with jax.enable_x64(double):
            found = program(variables, scales, jnp.asarray(space.check(genes)), x, y)
        return jacob_cov(found) if proxy == "jacob_cov" else float(found)

    return score


def _has_norms(shapes: Any) -> bool:
    return any(path[-1].key == "scale" for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0])


def own_scales(space: SearchSpace, genes: Any) -> Any:
    """By what shared initial weights are multiplied to be those of the network of `genes`, float32, a number per leaf.

    Initial weights are as large as their fan asks for, and a part of a larger weight has the fan of the whole. What the
    network does not use keeps its size.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> scales = own_scales(tiny.space(), [0, 0, 0, 0, 0, 0])["stages/0/0"]["inverted_residual"]["params"]
        >>> round(float(scales["depthwise"]["filters"]), 3)  # 3x3 cut out of 5x5
        1.667
    """
    array, sources = space.check(genes), space.sources(genes)
    frozen = {slot.name: slot for slot in space.freeze(array).slots}
    own: dict[tuple[str, str], Any] = {}
    for slot in space.slots:
        if slot.name in frozen:
            target = frozen[slot.name]
            kind = slot.cases[0 if slot.kind_decision is None else int(array[slot.kind_decision])].name
            own[sources[slot.name].name, kind] = variable_shapes(target.cases[0].block, target.only_io())
    return {
        slot: {kind: _scaled(part, own.get((slot, kind), {})) for kind, part in kinds.items()}
        for slot, kinds in shared_shapes(space).items()
    }


@lru_cache(maxsize=8)
def shared_shapes(space: SearchSpace) -> Any:
    """Shapes of the shared variables of `space`, as of `Supernet(space).shapes()`, made once.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> shared_shapes(tiny.space())["head"]["classifier"]["params"]["logits"]["bias"].shape
        (10,)
    """
    return Supernet(space).shapes()


def _scaled(shared: Any, own: Any) -> Any:
    one = np.float32(1)
    if isinstance(shared, dict):
        return {
            name: _ratio(name, value, own[name]) if name in WEIGHTS and name in own
            else _scaled(value, own.get(name, {}) if isinstance(own, dict) else {})
            for name, value in shared.items()
        }  # fmt: skip
    return one


def _ratio(name: str, shared: Any, own: Any) -> np.float32:
    return np.float32(deviation(name, own.shape) / deviation(name, shared.shape))
