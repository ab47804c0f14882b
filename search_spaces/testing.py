"""The contract of blocks, as functions a test can call on any block, ours or yours.

    from search_spaces.testing import check_block
    check_block(MyBlock)

Each check builds small networks (8x8 maps, 8 channels) and compares independent accounts of the same thing.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from search_spaces.block import Block, BlockIO
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.choice import Choice, options
from search_spaces.counting import count
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


def searched_block(kind: type[Block]) -> Block:
    """`kind` with a `Choice` for every field that can be searched.

    Raises:
        InputError: a field has no example values.

    Example:
        >>> searched_block(ConvNorm).kernel
        Choice(3, 5)
    """
    examples = EXAMPLES | getattr(kind, "EXAMPLES", {})
    fields = (*kind.BRANCHES, *kind.ELASTIC)
    for name in fields:
        if name not in examples:
            raise InputError(f"block {kind.kind}: no example values for '{name}': define EXAMPLES on the class")
    return kind(**{name: Choice(*examples[name]) for name in fields})


def concrete_blocks(kind: type[Block]) -> list[Block]:
    """Every combination of the example values."""
    block = searched_block(kind)
    names = list(block.searched())
    combinations = itertools.product(*(options(getattr(block, name)) for name in names))
    return [block.with_values(**dict(zip(names, values, strict=True))) for values in combinations]


def space_with(block: Block, stride: int = 1, width: Any = 8, stem: Any = 8, depth: Any = 1) -> SearchSpace:
    """A small space with `block` between a stem and a head."""
    stage = Stage(block, width, depth, stride)
    return SearchSpace("contract", 8, 3, 4, Stage(ConvNorm(3), stem), (stage,), Classifier())


def randomised(variables: Any, seed: int) -> Any:
    """`variables` with every leaf moved at random, so that no scale is 1 and no bias 0; variances stay positive."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(
        tree, [leaf * rng.uniform(0.5, 1.5, leaf.shape) + rng.uniform(0, 0.2, leaf.shape) for leaf in leaves]
    )


def check_counts(kind: type[Block]) -> None:
    """Parameters and MACs of `lower` equal those counted from the network's program, for every concrete variant."""
    for block, (stride, width) in zip(
        concrete_blocks(kind), itertools.cycle(((1, 8), (2, 8), (1, 16), (2, 16))), strict=False
    ):
        space = space_with(block, stride, width)
        counted, layers = count(space), space.lower()
        assert sum(layer.params for layer in layers) == counted.params, (block, stride, width)
        assert sum(layer.macs for layer in layers) == counted.macs, (block, stride, width)


def check_shapes(kind: type[Block]) -> None:
    """Output shapes for stride 1 and 2, even and odd maps, and agreement with the last layer of `lower`."""
    block = concrete_blocks(kind)[-1]
    for size, stride in itertools.product((8, 7), (1, 2)):
        io = BlockIO(size, size, 8, 16, stride, depthwise="xla")
        net, x = block.net(io), jax.ShapeDtypeStruct((2, size, size, 8), jnp.float32)
        out, _ = jax.eval_shape(lambda x, net=net: net.init_with_output(jax.random.key(0), x), x)
        if out.ndim == 4:
            assert out.shape == (2, io.out_h, io.out_w, 16), (block, io, out.shape)
        last = block.lower(io)[-1]
        assert (last.out_h, last.out_w, last.out_channels)[-(out.ndim - 1) :] == out.shape[1:], (block, io)


def check_supernet(kind: type[Block], stride: int = 1, candidates: int = 12) -> None:
    """The supernet under genes equals the stand-alone network with inherited weights: outputs and gradients."""
    space = space_with(searched_block(kind), stride, Choice(8, 16), depth=Choice(1, 2))
    supernet = Supernet(space)
    variables = randomised(supernet.init(jax.random.key(0)), 0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    @jax.jit
    def shared(variables: Any, x: Any, genes: Any) -> Any:
        ready = with_statistics(variables, supernet.calibrate(variables, x, genes))
        score, gradient = jax.value_and_grad(lambda x: jnp.sin(supernet.apply(variables, x, genes, "train")).sum())(x)
        return supernet.apply(ready, x, genes, "eval"), score, gradient

    for seed in range(candidates):
        genes = space.sample(jax.random.key(seed))
        frozen = space.freeze(genes)
        network, own = Network(frozen), inherit(variables, space, genes)
        outputs, score, gradient = shared(variables, x, genes)
        expected, _ = network.apply(own, x, "calibrate", mutable=["batch_stats"])
        assert jnp.abs(outputs - expected).max() <= TOLERANCE * max(1, float(jnp.abs(expected).max())), frozen

        def score_of(x: Any, network: Network = network, own: Any = own) -> Any:
            logits, _ = network.apply(own, x, "train", mutable=["batch_stats"])
            return jnp.sin(logits).sum()

        own_gradient = jax.grad(score_of)(x)
        assert jnp.isfinite(gradient).all(), frozen
        scale = max(1.0, float(jnp.abs(own_gradient).max()))
        assert jnp.abs(gradient - own_gradient).max() <= 1e-3 * scale, frozen
        assert sum(leaf.size for leaf in jax.tree.leaves(own["params"])) == sum(
            layer.params for layer in frozen.lower()
        )


def check_block(kind: type[Block]) -> None:
    """All of the above, and that the block survives a trip through JSON."""
    from search_spaces.encoding import space_from_json

    assert dataclasses.is_dataclass(kind) and kind.__hash__ is not None
    check_shapes(kind)
    check_counts(kind)
    check_supernet(kind, 1)
    check_supernet(kind, 2, candidates=4)
    space = space_with(searched_block(kind))
    assert space_from_json(space.to_json()) == space
