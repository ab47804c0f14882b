"""`SearchSpace`: a tree of stages and blocks with `Choice`s, used as an integer vector of genes.

Shape letters: `D` decisions. Functions on genes take one candidate `[D]`, are jittable, and are batched by the
caller's `vmap`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.errors import InputError
from hw_models.workload import Layer
from search_spaces import encoding
from search_spaces.block import Block
from search_spaces.choice import Choice, options
from search_spaces.slots import Decision, Slot, Walk, Width

LARGEST = 2**20  # image sizes, channels and classes; products of them stay finite in float32


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first may change width and stride, its repeats keep both.

    `depth` counts the blocks. With `shared=True` all repeats take the same decisions (factorised, MnasNet), otherwise
    each has its own (layer-wise, FBNet). `block` may also be a tuple, one entry per repeat.
    """

    block: Any
    width: int | Choice
    depth: int | Choice = 1
    stride: int = 1
    shared: bool = False


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks; with no `Choice` left in it, one network.

    Example:
        >>> from search_spaces.blocks.inverted_residual import InvertedResidual
        >>> from search_spaces.blocks.conv_norm import ConvNorm
        >>> from search_spaces.blocks.classifier import Classifier
        >>> block = InvertedResidual(kernel=Choice(3, 5), expand=3)
        >>> space = SearchSpace("demo", 28, 1, 10, Stage(ConvNorm(), 8, stride=2),
        ...                     (Stage(block, 16, depth=Choice(1, 2)),), Classifier())
        >>> space.names
        ('stages/0/depth', 'stages/0/0/kernel', 'stages/0/1/kernel')
        >>> space.size, space.decode([0, 1, 0])["stages/0/0/kernel"]
        (8, 5)
    """

    name: str
    input_hw: int
    input_channels: int
    classes: int
    stem: Stage
    stages: tuple[Stage, ...]
    head: Block
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for label, least in (("input_hw", 2), ("input_channels", 1), ("classes", 2)):
            value = getattr(self, label)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
                raise InputError(f"{label}={value!r} is not allowed: give a whole number from {least} to {LARGEST}")
        _ = self._walked

    @cached_property
    def _walked(self) -> Walk:
        walk = Walk()
        h = w = self.input_hw
        width = Width((self.input_channels,))
        for path, stage in (("stem", self.stem), *((f"stages/{i}", s) for i, s in enumerate(self.stages))):
            width, h, w = _walk_stage(walk, path, stage, width, h, w)
        cases, _ = walk.cases("head", self.head, ())
        walk.place(Slot("head", len(walk.slots), cases, None, None, width, Width((self.classes,)), h, w, 1))
        return walk

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is searched, in the order of the genes."""
        return tuple(self._walked.decisions)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Block positions in the order of execution, stem and head included."""
        return tuple(self._walked.slots)

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the decisions, such as `stages/2/1/kernel`."""
        return tuple(decision.name for decision in self.decisions)

    @property
    def num_decisions(self) -> int:
        """`D`."""
        return len(self.decisions)

    @cached_property
    def cardinality(self) -> np.ndarray:
        """Number of values of each decision, int32 `[D]`."""
        return np.asarray([len(decision.values) for decision in self.decisions], np.int32)

    @property
    def size(self) -> int:
        """Exact number of encodings (product of the cardinalities); several may describe one network."""
        product = 1
        for decision in self.decisions:
            product *= len(decision.values)
        return product

    @property
    def frozen(self) -> bool:
        """Whether nothing is left to decide."""
        return not self.decisions

    @cached_property
    def fingerprint(self) -> str:
        """Eight hexadecimal characters that change with anything in the tree."""
        return encoding.fingerprint(self.to_json())

    @cached_property
    def _liveness(self) -> tuple[np.ndarray, np.ndarray]:
        """Conditions as arrays: decision `[D, R]` and allowed values `[D, R, C]`."""
        rows = max([len(decision.conditions) for decision in self.decisions], default=0) or 1
        widest = int(self.cardinality.max(initial=1))
        parents = np.zeros((self.num_decisions, rows), np.int32)
        allowed = np.ones((self.num_decisions, rows, widest), bool)
        for d, decision in enumerate(self.decisions):
            for r, (parent, values) in enumerate(decision.conditions):
                parents[d, r] = parent
                allowed[d, r] = [value in values for value in range(widest)]
        return parents, allowed

    def active(self, genes: Array) -> Array:
        """Which genes matter under the others, bool `[D]`."""
        parents, allowed = self._liveness
        values = jnp.asarray(genes)[parents]
        return jnp.take_along_axis(jnp.asarray(allowed), values[..., None], axis=-1)[..., 0].all(-1)

    def canonical(self, genes: Array) -> Array:
        """Genes with the dead ones set to 0, so that equal networks have equal genes."""
        return jnp.where(self.active(genes), genes, 0).astype(jnp.int32)

    def sample(self, key: Array) -> Array:
        """Canonical genes, every value of every decision equally likely; the key is consumed."""
        return self.canonical(jax.random.randint(key, (self.num_decisions,), 0, jnp.asarray(self.cardinality)))

    def mutate(self, key: Array, genes: Array, rate: float | Array) -> Array:
        """Give each live gene another value with probability `rate`, at least one of them; the key is consumed."""
        where_key, one_key, value_key = jax.random.split(key, 3)
        live = self.active(genes)
        chance = jax.random.uniform(one_key, (self.num_decisions,))
        forced = jnp.arange(self.num_decisions) == jnp.argmax(jnp.where(live, chance, -1.0))
        change = live & (forced | (jax.random.uniform(where_key, (self.num_decisions,)) < rate))
        cardinality = jnp.asarray(self.cardinality)
        shift = jax.random.randint(value_key, (self.num_decisions,), 1, jnp.maximum(cardinality, 2))
        return self.canonical(jnp.where(change, (genes + shift) % cardinality, genes))

    def crossover(self, key: Array, a: Array, b: Array) -> Array:
        """Uniform crossover of two parents; the key is consumed."""
        return self.canonical(jnp.where(jax.random.bernoulli(key, 0.5, (self.num_decisions,)), a, b))

    def check(self, genes: Any) -> np.ndarray:
        """Genes as a canonical int32 array.

        Raises:
            InputError: wrong length, or a gene out of range (which is named).
        """
        array = np.asarray(genes)
        if array.shape != (self.num_decisions,):
            raise InputError(
                f"{array.size} genes given, space {self.name} has {self.num_decisions} decisions: "
                "give one number per decision"
            )
        for decision, gene in zip(self.decisions, array, strict=True):
            if not 0 <= int(gene) < len(decision.values):
                raise InputError(
                    f"gene {decision.name} is {gene}: give 0 to {len(decision.values) - 1} "
                    f"(values {', '.join(map(str, decision.values))})"
                )
        return np.asarray(self.canonical(jnp.asarray(array, jnp.int32)))

    def decode(self, genes: Any) -> dict[str, Any]:
        """The chosen value of every live decision, by name."""
        array = np.asarray(genes)
        chosen = {}
        for decision, gene in zip(self.decisions, array, strict=True):
            if all(int(array[parent]) in values for parent, values in decision.conditions):
                chosen[decision.name] = decision.values[int(gene)]
        return chosen

    def text(self, genes: Any) -> str:
        """One line a person can paste: `space[options]:genes#fingerprint`."""
        return encoding.text(self, self.check(genes))

    def parse(self, text: str) -> np.ndarray:
        """Genes from `text()`, or from the part after the colon.

        Raises:
            InputError: another space, a fingerprint that differs, wrong genes.
        """
        return encoding.parse(self, text)

    def freeze(self, genes: Any) -> SearchSpace:
        """The one network that `genes` describe: the same type with every `Choice` replaced by its value."""
        array = self.check(genes)

        def chosen(width: Width) -> int:
            return int(width.values[0 if width.decision is None else array[width.decision]])

        stages: dict[str, Stage] = {}
        for slot in self.slots[:-1]:
            if slot.depth is not None and int(array[slot.depth[0]]) not in slot.depth[1]:
                continue
            case = slot.cases[0 if slot.kind_decision is None else int(array[slot.kind_decision])]
            fields = {name: self.decisions[d].values[int(array[d])] for name, d in case.decisions}
            singles = {name: choice.values[0] for name, choice in case.block.searched().items()}
            block = case.block.with_values(**(singles | fields))
            path = slot.name.rsplit("/", 1)[0]
            before = stages.get(path)
            if before is None:
                stages[path] = Stage((block,), chosen(slot.out), 1, slot.stride)
            else:
                stages[path] = dataclasses.replace(before, block=(*before.block, block), depth=len(before.block) + 1)
        stem = stages.pop("stem")
        return dataclasses.replace(self, stem=stem, stages=tuple(stages.values()))

    def lower(self) -> list[Layer]:
        """The plain layers of a frozen space.

        Raises:
            InputError: something is still to be decided.
        """
        if not self.frozen:
            raise InputError(f"space {self.name} still has {self.num_decisions} decisions: freeze it with genes first")
        layers = []
        for slot in self.slots:
            layers += slot.cases[0].block.lower(slot.io(slot.inp.values[0], slot.out.values[0]))
        return layers

    def to_json(self) -> dict[str, Any]:
        """The whole tree as plain data; `encoding.space_from_json` is the inverse."""
        return encoding.to_json(self)


def recorded(factory: Callable[..., SearchSpace]) -> Callable[..., SearchSpace]:
    """Decorator of `space(...)` and `network(...)` functions: keeps the options that are not defaults in the space.

    They become part of its network texts (`quickstart[classes=5]:...`), so that a text names the same space again.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> tiny.space(classes=5).options, tiny.space(classes=10).options
        ((('classes', 5),), ())
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def build(*args: Any, **kwargs: Any) -> SearchSpace:
        given = signature.bind(*args, **kwargs).arguments
        changed = {name: value for name, value in given.items() if value != signature.parameters[name].default}
        return dataclasses.replace(factory(*args, **kwargs), options=tuple(sorted(changed.items())))

    return build


def _walk_stage(walk: Walk, path: str, stage: Stage, width: Width, h: int, w: int) -> tuple[Width, int, int]:
    if stage.stride not in (1, 2):
        raise InputError(f"{path}: stride {stage.stride} is not allowed: use 1 or 2")
    for depth in options(stage.depth):
        if not isinstance(depth, int) or depth < 1:
            raise InputError(f"{path}/depth: {depth!r} is not allowed: give whole numbers from 1")
    repeats = max(options(stage.depth))
    if isinstance(stage.block, tuple) and len(stage.block) != repeats:
        raise InputError(f"{path}: {len(stage.block)} blocks for depth {repeats}: give one per repeat")
    out = walk.width(f"{path}/width", stage.width)
    depth_decision = walk.decide(f"{path}/depth", stage.depth)
    shared: Any = walk.cases(path, stage.block, ()) if stage.shared else None
    for position in range(repeats):
        depth = None
        conditions: tuple[tuple[int, frozenset[int]], ...] = ()
        reaching = frozenset(i for i, value in enumerate(options(stage.depth)) if value > position)
        if depth_decision is not None and len(reaching) < len(options(stage.depth)):
            depth = (depth_decision, reaching)
            conditions = (depth,)
        block = stage.block[position] if isinstance(stage.block, tuple) else stage.block
        name = f"{path}/{position}"
        cases, kind = shared if stage.shared else walk.cases(name, block, conditions)
        stride = stage.stride if position == 0 else 1
        walk.place(Slot(name, len(walk.slots), cases, kind, depth, width, out, h, w, stride))
        h, w = -(-h // stride), -(-w // stride)
        width = out
    return out, h, w
