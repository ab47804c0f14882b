"""The contract of blocks, as functions a test can call on any block, ours or yours.

    from search_spaces.testing import check_block
    check_block(MyBlock)

Each check builds small networks (8x8 maps, 8 channels) and compares independent accounts of the same thing. Genes are
known while compiling, so that only the network at hand is compiled; tests/contracts has the compiled switch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from search_spaces.block import FROZEN, Block, BlockIO
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.choice import Choice
from search_spaces.counting import count
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.network import Network, inherit
from search_spaces.space import SearchSpace, Stage
from search_spaces.supernet import Supernet, with_statistics

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "kernel": (3, 5),
    "expand": (2, 3),
    "heads": (1, 2, 3, 4, 5),
    "attention": ("none", "se", "eca"),
}
"""Values that the checks give to a searchable field. A block with other fields defines `EXAMPLES` of its own."""

TOLERANCE = 1e-5
FEW_BRANCHES = 6
MANY = 60


def examples(kind: type[Block]) -> dict[str, tuple[Any, ...]]:
    """Example values of every field of `kind` that can be searched.

    Raises:
        InputError: a field has no example values.

    Example:
        >>> examples(ConvNorm)
        {'kernel': (3, 5)}
    """
    known = EXAMPLES | getattr(kind, "EXAMPLES", {})
    for name in (*kind.BRANCHES, *kind.ELASTIC):
        if name not in known:
            raise InputError(f"block {kind.kind}: no example values for '{name}': define EXAMPLES on the class")
    return {name: known[name] for name in (*kind.BRANCHES, *kind.ELASTIC)}


def searched_blocks(kind: type[Block]) -> list[Block]:
    """`kind` with a `Choice` for every field that can be searched; several blocks where it has many branch fields.

    Example:
        >>> searched_blocks(ConvNorm)[0].kernel
        Choice(3, 5)
    """
    values = examples(kind)
    elastic = {name: Choice(*values[name]) for name in kind.ELASTIC}
    groups: list[dict[str, Choice]] = [{}]
    branches = 1
    for name in kind.BRANCHES:
        if groups[-1] and branches * len(values[name]) > FEW_BRANCHES:
            groups.append({})
            branches = 1
        groups[-1][name] = Choice(*values[name])
        branches *= len(values[name])
    return [kind(**kind.CONTRACT, **group, **elastic) for group in groups]


def concrete_blocks(kind: type[Block]) -> list[Block]:
    """Blocks without a choice in which every combination of branch fields occurs, and every one of elastic fields.

    Of more than `MANY` combinations of elastic fields evenly spread ones.
    """
    values = examples(kind)
    branches = [dict(zip(kind.BRANCHES, row, strict=True)) for row in
                itertools.product(*(values[name] for name in kind.BRANCHES))]  # fmt: skip
    elastic = [dict(zip(kind.ELASTIC, row, strict=True)) for row in
               itertools.product(*(values[name] for name in kind.ELASTIC))]  # fmt: skip
    step = -(-len(elastic) // MANY)
    while math.gcd(step, len(elastic)) > 1:  # else some values would never occur
        step += 1
    elastic = [elastic[place * step % len(elastic)] for place in range(min(len(elastic), MANY))]
    number = max(len(branches), len(elastic))
    return [kind(**kind.CONTRACT, **branches[i % len(branches)], **elastic[i % len(elastic)]) for i in range(number)]


def space_with(block: Block, stride: int = 1, width: Any = 8, stem: Any = 8, depth: Any = 1) -> SearchSpace:
    """A small space with `block` between a stem and a head."""
    stage = Stage(block, width, depth, stride)
    return SearchSpace("contract", 8, 3, 4, Stage(ConvNorm(3), stem), (stage,), Classifier())


def randomised(variables: Any, seed: int) -> Any:
    """`variables` with every leaf moved at random, so that no scale is 1 and no bias 0; variances stay positive."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)

    def moved(leaf: Any) -> np.ndarray:
        # Arrays of NumPy: moving them here, and cutting them in `inherit`, compiles nothing for each of their shapes.
        factor, shift = rng.uniform(0.5, 1.5, leaf.shape), rng.uniform(0, 0.2, leaf.shape)
        return (np.asarray(leaf) * factor + shift).astype(np.float32)

    return jax.tree.unflatten(tree, [moved(leaf) for leaf in leaves])


def widths_of(kind: type[Block]) -> Any:
    """Output widths that the checks search: one where a block cannot change the number of channels."""
    return 8 if kind.KEEPS_WIDTH else Choice(8, 16)


def check_counts(kind: type[Block]) -> None:
    """Parameters and MACs of `lower` equal those counted from the network's program, for stride 1 and 2."""
    cases = itertools.cycle(((1, 8, 1), (2, 8, 1), (1, 16, 2), (2, 16, 1)))
    blocks = concrete_blocks(kind)
    for block, (stride, width, depth) in zip(blocks * (1 if len(blocks) >= 4 else 4), cases, strict=False):
        space = space_with(block, stride, 8 if kind.KEEPS_WIDTH else width, depth=depth)
        counted = count(space)
        assert space.params == counted.params, (block, stride, width, space.params, counted)
        assert space.macs == counted.macs, (block, stride, width, space.macs, counted)


def check_shapes(kind: type[Block]) -> None:
    """Output shapes for stride 1 and 2, even and odd maps, and agreement with the last layer of `lower`."""
    block = concrete_blocks(kind)[-1]
    for size, stride in itertools.product((8, 7), (1, 2)):
        io = BlockIO(size, size, 8, 8 if kind.KEEPS_WIDTH else 16, stride, depthwise="xla")
        net, x = block.net(io), jax.ShapeDtypeStruct((2, size, size, 8), jnp.float32)
        run = jax.make_jaxpr(
            lambda x, net=net: net.init_with_output(jax.random.key(0), x, FROZEN, "train"), return_shape=True
        )
        program, (out, _) = run(x)
        # whoever asks for plain layers gets no compiled kernel, which no exporter and no other backend knows
        assert "flynas_" not in str(program), (block, io)
        if out.ndim == 4:
            assert out.shape == (2, *block.output_size(io), io.out_channels), (block, io, out.shape)
        layers = block.lower(io)
        if layers:
            last = layers[-1]
            assert (last.out_h, last.out_w, last.out_channels)[-(out.ndim - 1) :] == out.shape[1:], (block, io)


def check_supernet(kind: type[Block], candidates: int = 2) -> None:
    """Networks of a supernet equal the stand-alone networks with inherited weights, at stride 1 and 2 in turn.

    At stride 2 those of the masked execution do as well; `check_masks` has the rest of it.
    """
    for position, block in enumerate(searched_blocks(kind)):
        spaces = [space_with(block, stride, widths_of(kind), widths_of(kind)) for stride in (1, 2)]
        masked = position == 0 and bool(kind.BRANCHES)
        for number, genes in enumerate(samples(spaces[0], candidates)):
            # the derivative of one network at each stride: it compiles as long as all the rest
            check_genes(spaces[number % 2], genes, gradients=number < 2, masks=masked and number % 2 == 1)


def samples(space: SearchSpace, number: int) -> list[np.ndarray]:
    """Random genes of `space`: as few as `number`, and as many as it takes to see every value of every decision."""
    rng, found = np.random.default_rng(0), list[np.ndarray]()
    seen: set[tuple[int, int]] = set()
    wanted = {(d, value) for d, count in enumerate(space.cardinality) for value in range(count)}
    for _ in range(1000):
        genes = space.check(rng.integers(0, space.cardinality)) if len(space.cardinality) else space.check([])
        new = {(d, int(gene)) for d, gene in enumerate(genes)} - seen
        if new or len(found) < number:
            found.append(genes)
            seen |= new
        if seen >= wanted and len(found) >= number:
            break
    return found


def check_genes(space: SearchSpace, genes: Any, gradients: bool = True, masks: bool = False) -> None:
    """One network of `space`: sampled and relaxed execution equal the frozen network with inherited weights.

    With `masks` the masked execution does as well.
    """
    supernet, variables, relaxed = _supernet(space)
    x = jax.random.normal(jax.random.key(1), (4, space.image_hw, space.image_hw, space.input_channels))
    frozen, genes = space.freeze(genes), np.asarray(genes)
    network, own = Network(frozen), inherit(variables, space, genes)
    leaves = sum(leaf.size for leaf in jax.tree.leaves(own["params"]))
    assert leaves == frozen.params, (frozen, leaves, frozen.params)

    def shared(variables: Any, x: Any) -> Any:
        statistics = supernet.calibrate(variables, x, genes)
        return supernet.apply(with_statistics(variables, statistics), x, genes, "eval"), statistics

    def alone(own: Any, x: Any) -> Any:
        return network.apply(own, x, "calibrate", mutable=["batch_stats"])[0]

    def score(x: Any, variables: Any) -> Any:
        return jnp.sin(supernet.apply(variables, x, genes, "train")).sum()

    def own_score(x: Any, own: Any) -> Any:
        return jnp.sin(network.apply(own, x, "train", mutable=["batch_stats"])[0]).sum()

    @jax.jit
    def everything(variables: Any, own: Any, x: Any) -> Any:
        # One program, since the calibration and both derivatives begin with the same work.
        slopes = (jax.grad(score)(x, variables), jax.grad(own_score)(x, own)) if gradients else None
        return shared(variables, x), alone(own, x), slopes

    (sampled, statistics), expected, slopes = everything(variables, own, x)
    _close(sampled, expected, TOLERANCE, frozen)
    _close(relaxed(with_statistics(variables, statistics), x, genes), expected, TOLERANCE, frozen)
    if masks:
        _close(_masked(space)(variables, x, genes), expected, TOLERANCE, frozen)
    if gradients:
        found, own_slope = slopes
        _close(found, own_slope, 1e-3, frozen)


@lru_cache(maxsize=4)
def _supernet(space: SearchSpace) -> tuple[Supernet, Any, Callable[..., Any]]:
    """The supernet of `space`, variables of it, and its relaxed execution: one program for all genes."""
    supernet = Supernet(space)

    @jax.jit
    def relaxed(variables: Any, x: Any, genes: Any) -> Any:
        return supernet.relaxed(variables, x, one_hot(space, genes), "eval")

    return supernet, randomised(supernet.init(jax.random.key(0)), 0), relaxed


@lru_cache(maxsize=2)
def _masked(space: SearchSpace) -> Callable[..., Any]:
    """The masked execution of `space` on batch statistics: one program for all genes."""
    supernet = Supernet(space, execution="masks")
    return jax.jit(lambda variables, x, genes: supernet.apply(variables, x, genes, "train"))


def check_masks(kind: type[Block], candidates: int = 2) -> None:
    """A population under `vmap` in the masked execution is the same networks one by one in the other execution.

    Outputs in training and recalibrated, statistics, and derivatives in images and shared weights.
    """
    assert set(kind.MASKED) <= set(kind.BRANCHES), (kind.MASKED, kind.BRANCHES)
    for block, stride in itertools.product(searched_blocks(kind), (1, 2)):
        space = space_with(block, stride, widths_of(kind), widths_of(kind), depth=1 if stride > 1 else Choice(1, 2))
        check_executions(space, np.stack(samples(space, candidates)))


def check_executions(space: SearchSpace, population: np.ndarray, tolerance: float = 1e-4) -> None:
    """Networks of `space`, genes `[P, D]`: masked under `vmap`, and by the switch one after the other."""
    masked, switch = (Supernet(space, execution=execution) for execution in ("masks", "switch"))
    variables = randomised(masked.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, space.image_hw, space.image_hw, space.input_channels))

    def everything(supernet: Supernet, variables: Any, x: Any, genes: Any) -> Any:
        def score(variables: Any, x: Any) -> Any:
            logits = supernet.apply(variables, x, genes, "train")
            return jnp.sin(logits).sum(), logits

        slopes, logits = jax.grad(score, (0, 1), has_aux=True)(variables, x)
        statistics = supernet.calibrate(variables, x, genes)
        return logits, supernet.apply(with_statistics(variables, statistics), x, genes, "eval"), statistics, slopes

    together = jax.jit(jax.vmap(lambda genes: everything(masked, variables, x, genes)))(population)
    for row, genes in enumerate(population):
        # known while compiling: the one network at its own size
        alone = jax.jit(lambda variables, x, genes=genes: everything(switch, variables, x, genes))(variables, x)
        pairs = zip(jax.tree_util.tree_leaves_with_path(together), jax.tree.leaves(alone), strict=True)
        for (path, found), expected in pairs:
            _close(found[row], expected, tolerance, (jax.tree_util.keystr(path), space.decode(genes)))


def check_gates(kind: type[Block]) -> None:
    """Gradients of the gates are finite, and reach every decision that can make a difference."""
    for block in searched_blocks(kind):
        space = space_with(block, 2, widths_of(kind), widths_of(kind))
        supernet, variables, _ = _supernet(space)
        x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

        def score(gates: Any, variables: Any, x: Any, supernet: Supernet = supernet) -> Any:
            return jnp.sin(supernet.relaxed(variables, x, gates)).sum()

        gradient = np.asarray(jax.jit(jax.grad(score))(uniform_gates(space), variables, x))
        assert np.isfinite(gradient).all(), (space.names, gradient)
        assert (np.abs(gradient).max(axis=1) > 0).all(), (space.names, gradient)


def _close(found: Any, expected: Any, tolerance: float, what: Any) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.isfinite(found).all(), what
    difference = float(np.abs(found - expected).max())
    assert difference <= tolerance * max(1.0, float(np.abs(expected).max())), (difference, what)


def check_block(kind: type[Block]) -> None:
    """All of the above, and that the block survives a trip through JSON."""
    from search_spaces.encoding import space_from_json

    assert dataclasses.is_dataclass(kind) and kind.__hash__ is not None
    check_shapes(kind)
    check_counts(kind)
    check_supernet(kind)
    check_masks(kind)
    check_gates(kind)
    for block in searched_blocks(kind):
        space = space_with(block)
        assert space_from_json(space.to_json()) == space
