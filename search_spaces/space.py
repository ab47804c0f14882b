"""`SearchSpace`: a tree of stages and blocks with `Choice`s, used as an integer vector of genes.

Shape letters: `D` decisions. Functions on genes take one candidate `[D]`, are jittable, and are batched by the
caller's `vmap`.
"""

from __future__ import annotations

import dataclasses
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
from search_spaces.block import EVERYWHERE, Block
from search_spaces.choice import Choice, options, options_at
from search_spaces.density import Sparsity
from search_spaces.precision import Scheme
from search_spaces.slots import Decision, Slot, Width, Widths, interchangeable
from search_spaces.stage import Stage as Stage
from search_spaces.walk import Ruled, Walk, walk_stage
from search_spaces.widths import Rule

LARGEST = 2**20  # image sizes, channels and classes; products of them stay finite in float32


@dataclass(frozen=True)
class SearchSpace:
    """A family of networks; with no `Choice` left in it, one network.

    `input_hw` may be a `Choice` of resolutions; images then come at the largest and are scaled down. `widths` is a rule
    for the widths of stages that leave them open. `residual_additions=False` refuses blocks that add their input to
    their output, for tool chains without such a sum. `scheme` says how blocks that have bits are rounded,
    `sparsity` where the zeros of blocks that have a density lie.

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
    input_hw: int | Choice
    input_channels: int
    classes: int
    stem: Stage
    stages: tuple[Stage, ...]
    head: Block
    options: tuple[tuple[str, Any], ...] = ()
    widths: Rule | None = None
    residual_additions: bool = True
    scheme: Scheme | None = None
    sparsity: Sparsity | None = None

    def __post_init__(self) -> None:
        self._check_parts()
        for label, least in (("input_hw", 2), ("input_channels", 1), ("classes", 2)):
            for value in options_at(label, self.input_hw) if label == "input_hw" else (getattr(self, label),):
                if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
                    raise InputError(f"{label}={value!r} is not allowed: give a whole number from {least} to {LARGEST}")
        _ = self._walked, self.resolutions
        if self.resolutions and getattr(self.head, "end", "") == "flatten":
            raise InputError("input_hw cannot be searched where the head has end='flatten': use end='mean'")

    def _check_parts(self) -> None:
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("[]:#,\n"):
            raise InputError(f"name={self.name!r} is not allowed: give text without brackets, colon, comma and '#'")
        if not isinstance(self.stages, tuple):
            raise InputError(f"stages={self.stages!r} is not allowed: give a tuple of Stages")
        for path, stage in (("stem", self.stem), *((f"stages/{i}", s) for i, s in enumerate(self.stages))):
            if not isinstance(stage, Stage):
                raise InputError(f"{path}: {stage!r} is not allowed: give a Stage")
        if not isinstance(self.head, Block) or not self.head.HEAD or set(self.head.searched()) - set(EVERYWHERE):
            raise InputError(
                f"head={self.head!r} is not allowed: give a Classifier without choices but of bits and density"
            )
        if self.widths is not None and not isinstance(self.widths, Rule):
            raise InputError(f"widths={self.widths!r} is not allowed: give ConstantRatio or Exponential")
        if not isinstance(self.residual_additions, bool):
            raise InputError(f"residual_additions={self.residual_additions!r} is not allowed: give True or False")

    @cached_property
    def _walked(self) -> Walk:
        walk = Walk(self.residual_additions, self.scheme, self.sparsity)
        h = w = self.image_hw
        width = Width((self.input_channels,))
        ruled = Ruled(walk, self.widths)
        for path, stage in (("stem", self.stem), *((f"stages/{i}", s) for i, s in enumerate(self.stages))):
            width, h, w = walk_stage(walk, path, stage, ruled, width, h, w)
        if self.widths is not None and not ruled.number:
            raise InputError("widths: no stage leaves its width to the rule: give width=None there, or drop the rule")
        cases, _ = walk.cases("head", self.head, ())
        out = Width((self.classes,))
        both = Widths.of(width, out, walk.decisions)
        walk.place(Slot("head", len(walk.slots), cases, None, None, width, out, both, h, w, 1))
        walk.decide("input_hw", self.input_hw)
        return walk

    @property
    def image_hw(self) -> int:
        """Size of the images that the space is searched with: its resolution, or the largest of them."""
        return int(max(options(self.input_hw)))

    @cached_property
    def resolutions(self) -> tuple[SearchSpace, ...]:
        """The same space at each resolution, without the last decision; none where the resolution is fixed."""
        if not isinstance(self.input_hw, Choice) or len(self.input_hw.values) == 1:
            return ()
        return tuple(dataclasses.replace(self, input_hw=size) for size in self.input_hw.values)

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
        return encoding.fingerprint(encoding.to_json(self, defaults=False))

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
        return self._active(jnp.asarray(genes), jnp)

    def _active(self, genes: Any, xp: Any) -> Any:
        parents, allowed = self._liveness
        return xp.take_along_axis(xp.asarray(allowed), genes[parents][..., None], axis=-1)[..., 0].all(-1)

    def canonical(self, genes: Array) -> Array:
        """Genes with the dead ones set to 0, and skipped layers behind those like them that are not.

        Networks that differ in these only have equal genes. Values that happen to mean the same (no residual, and the
        identity where shapes differ) are not recognised.
        """
        return self._canonical(jnp.asarray(genes), jnp)

    def _canonical(self, genes: Any, xp: Any) -> Any:
        """`canonical` by `jax.numpy`, or of one network by NumPy: a hundred times faster than operations of JAX."""
        genes = xp.where(self._active(genes, xp), genes, 0).astype(xp.int32)
        for columns, skip in self._interchangeable:
            rows = genes[columns]
            moved = rows[xp.argsort(rows[:, 0] == skip, stable=True)]
            if xp is np:
                genes[columns] = moved
            else:
                genes = genes.at[columns].set(moved)
        return genes

    def sources(self, genes: Any) -> dict[str, Slot]:
        """The slot of `genes` whose block stands in each slot, by name, once `canonical` has moved skipped layers."""
        array = self.validated(genes)
        at = {slot.kind_decision: slot for slot in self.slots}
        found = {slot.name: slot for slot in self.slots}
        for columns, skip in self._interchangeable:
            kinds = columns[:, 0]
            order = np.argsort(array[kinds] == skip, stable=True)
            found |= {at[kind].name: at[kinds[source]] for kind, source in zip(kinds, order, strict=True)}
        return found

    @cached_property
    def _interchangeable(self) -> list[tuple[np.ndarray, int]]:
        return interchangeable(self.slots)

    def sample(self, key: Array) -> Array:
        """Canonical genes, every value of every decision equally likely beforehand; the key is consumed."""
        return self.canonical(jax.random.randint(key, (self.num_decisions,), 0, jnp.asarray(self.cardinality)))

    def mutate(self, key: Array, genes: Array, rate: float | Array) -> Array:
        """Give each live gene another value with probability `rate`, at least one of them; the key is consumed.

        Where layers are interchangeable several changes may undo each other.
        """
        if self.frozen:
            return self.canonical(genes)
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

    def distance(self, a: Array, b: Array) -> Array:
        """How many decisions two networks take differently, int32 `[]`; what is live in one of them only counts."""
        a, b = self.canonical(a), self.canonical(b)
        live_a, live_b = self.active(a), self.active(b)
        return ((live_a | live_b) & ((a != b) | (live_a != live_b))).sum()

    def check(self, genes: Any) -> np.ndarray:
        """Genes as a canonical int32 array.

        Raises:
            InputError: wrong length, or a gene out of range (which is named).
        """
        return np.asarray(self._canonical(self.validated(genes), np))

    def validated(self, genes: Any) -> np.ndarray:
        """Genes as an int32 array, as they are.

        Raises:
            InputError: as `check`.
        """
        return encoding.validated(self, genes)

    def decode(self, genes: Any) -> dict[str, Any]:
        """The chosen value of every live decision, by name.

        Raises:
            InputError: as `check`.
        """
        array = self.validated(genes)
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
        if self.resolutions:
            return self.resolutions[int(array[-1])].freeze(array[:-1])
        if isinstance(self.input_hw, Choice):
            return dataclasses.replace(self, input_hw=self.image_hw).freeze(array)
        stages: dict[str, tuple[int, list[Block], list[int]]] = {}
        for slot in self.slots[:-1]:
            if slot.depth is not None and int(array[slot.depth[0]]) not in slot.depth[1]:
                continue
            case = slot.cases[0 if slot.kind_decision is None else int(array[slot.kind_decision])]
            _, blocks, widths = stages.setdefault(slot.name.rsplit("/", 1)[0], (slot.stride, [], []))
            blocks.append(case.chosen(self.decisions, array))
            widths.append(slot.out.chosen(self.decisions, array))
        frozen = {
            path: Stage(
                tuple(blocks), widths[0] if len(set(widths)) == 1 else tuple(widths), len(blocks), stride
            )
            for path, (stride, blocks, widths) in stages.items()
        }  # fmt: skip
        stem, head = frozen.pop("stem"), self.slots[-1].cases[0].chosen(self.decisions, array)
        return dataclasses.replace(self, stem=stem, stages=tuple(frozen.values()), head=head, widths=None)

    def lower(self) -> list[Layer]:
        """The plain layers of a frozen space.

        Raises:
            InputError: something is still to be decided.
        """
        if not self.frozen:
            raise InputError(f"space {self.name} still has {self.num_decisions} decisions: freeze it with genes first")
        layers = []
        for slot in self.slots:
            layers += slot.cases[0].block.layers(slot.only_io())
        return layers

    @cached_property
    def params(self) -> int:
        """Trainable parameters of a frozen space."""
        return sum(layer.params for layer in self.lower())

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of a frozen space for one image."""
        return sum(layer.macs for layer in self.lower())

    def to_json(self) -> dict[str, Any]:
        """The whole tree as plain data; `encoding.space_from_json` is the inverse."""
        return encoding.to_json(self)
