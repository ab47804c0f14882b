"""Structures against loops over weights: who shares a decision, of what shape, and how devices name the zeros."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from hw_models.workload import Pattern
from search_spaces.sparsity._patterns import KINDS, Structure, structure_of

CONV = (3, 3, 8, 16)  # R, S, C, K
LAYERS = {"convolution": (CONV, False, 1), "grouped": ((3, 3, 4, 8), False, 2), "linear": ((8, 12), False, 1)}
LAYERS |= {"depthwise": ((3, 3, 6, 2), True, 1), "odd": ((1, 3, 5, 7), False, 1)}


def structures():
    for kind, (shape, depthwise, groups) in itertools.product(KINDS, LAYERS.values()):
        try:
            yield Structure(kind, shape, depthwise, groups)
        except InputError:
            continue


EVERY = list(structures())


def _weights(structure, seed=0):
    return np.random.default_rng(seed).normal(size=structure.shape).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def _seen(structure, w):
    """Who owns each weight, sums, sizes and rows where there are any, in one program."""
    number = jnp.arange(structure.count).reshape(structure.decisions)
    rows = None if structure.kind in ("split", "block") else structure.rows(w)
    return structure.expand(number), structure.summed(w), structure.sizes, rows


DECISIONS = {
    "weight": (CONV, Pattern.UNSTRUCTURED),
    "n_m": (CONV, Pattern.N_M),
    "block": ((3, 3, 2, 4), Pattern.BLOCK),
    "column": ((3, 3, 8, 1), Pattern.COLUMN),
    "input_channel": ((1, 1, 8, 1), Pattern.CHANNEL),
    "output_channel": ((1, 1, 1, 16), Pattern.CHANNEL),
    "connection": ((1, 1, 8, 16), Pattern.KERNEL),
    "kernel": ((3, 3, 1, 1), Pattern.KERNEL),
    "horizontal_slice": ((3, 1, 1, 1), Pattern.NONE),
    "vertical_slice": ((1, 3, 1, 1), Pattern.NONE),
    "split": ((4,), Pattern.NONE),
    "layer": ((1, 1, 1, 1), Pattern.NONE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_structure_parameters_are_those_of_the_dissertation(kind):
    structure = Structure(kind, CONV)
    assert (structure.decisions, structure.pattern) == DECISIONS[kind]


@pytest.mark.parametrize("structure", EVERY, ids=str)
def test_every_weight_is_in_one_structure_and_sums_are_those_of_its_weights(structure):
    """Each structure in turn, so that a wrong axis shows; `summed` is the transpose of `expand`."""
    w = _weights(structure)
    owner, sums, sizes, found = jax.tree.map(np.asarray, _seen(structure, w))
    assert owner.shape == structure.shape
    expected = np.bincount(owner.ravel(), w.ravel(), structure.count)
    np.testing.assert_allclose(sums.ravel(), expected, atol=1e-4)
    np.testing.assert_array_equal(sizes.ravel(), np.bincount(owner.ravel()))
    if structure.kind not in ("split", "block"):
        rows = [w[owner == each] for each in range(structure.count)]
        np.testing.assert_array_equal(np.sort(found), np.sort(rows))
    else:
        with pytest.raises(InputError, match=f"structure {structure.kind} has no rows"):
            structure.rows(w)


def test_blocks_are_four_by_four_at_one_tap_and_smaller_at_the_border():
    owner = jax.jit(Structure("block", (1, 1, 6, 8)).expand)(np.arange(4).reshape(1, 1, 2, 2))[0, 0]
    assert owner.tolist() == [[0] * 4 + [1] * 4] * 4 + [[2] * 4 + [3] * 4] * 2
    assert Structure("block", (6, 8)).sizes.tolist() == [[16, 16], [8, 8]]
    # a block never reaches over two groups
    grouped = jax.jit(Structure("block", (1, 1, 4, 12), groups=2).expand)(np.arange(4).reshape(1, 1, 1, 4))
    assert np.asarray(grouped)[0, 0, 0].tolist() == [0] * 4 + [1] * 2 + [2] * 4 + [3] * 2


@pytest.mark.parametrize("shape", [(8, 16), (3, 3, 64, 32), (12, 8), (3, 5)])
def test_a_split_keeps_the_diagonal_blocks_of_a_grouped_convolution(shape):
    structure = Structure("split", shape)
    expand = jax.jit(structure.expand)
    for levels in range(structure.levels + 1):
        mask = np.asarray(expand(np.arange(structure.levels) < levels))
        groups = 2 ** (structure.levels - levels) if levels else 0
        expected = np.zeros(shape[-2:], bool)
        for group in range(groups):
            rows, columns = shape[-2] // groups, shape[-1] // groups
            expected[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = True
        assert (mask == expected).all()
    assert structure.levels == {(8, 16): 4, (3, 3, 64, 32): 6, (12, 8): 3, (3, 5): 1}[shape]


def test_groups_share_the_mask_of_output_channels_and_heads_that_of_a_depthwise_channel():
    grouped = Structure("output_channel", (1, 1, 2, 6), groups=2)
    assert grouped.decisions == (1, 1, 1, 3)
    assert grouped.expand(jnp.asarray([0, 1, 2]).reshape(1, 1, 1, 3))[0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]
    for kind in ("input_channel", "output_channel"):
        assert Structure(kind, (3, 3, 6, 2), depthwise=True).decisions == (1, 1, 6, 1)
    inputs = Structure("input_channel", (1, 1, 2, 4), groups=2)  # channels 0, 1 of one group, 2, 3 of the other
    assert inputs.per_channel(jnp.asarray([1.0, 2.0, 3.0, 6.0])).ravel().tolist() == [2.0, 4.0]
    with pytest.raises(InputError, match="do not go with 4 channels"):
        inputs.per_channel(jnp.ones(3))


# 2x2 kernel, 3 inputs, 4 filters as a matrix product of 12 columns: what is left to multiply on a dense engine
@pytest.mark.parametrize(
    ("kind", "dropped", "macs"),
    [("output_channel", 1, 36), ("input_channel", 1, 32), ("column", 1, 44), ("weight", 12, 48)],
)
def test_multiplications_left_on_a_dense_engine(kind, dropped, macs):
    structure = Structure(kind, (2, 2, 3, 4))
    mask = np.asarray(structure.expand(np.arange(structure.count).reshape(structure.decisions) >= dropped))
    mask = np.random.default_rng(0).permuted(mask.ravel()).reshape(12, 4) if kind == "weight" else mask.reshape(12, 4)
    assert int(mask.any(1).sum() * mask.any(0).sum()) == macs


def test_norms_and_their_gradient_at_zero():
    groups, w = Structure("output_channel", (2, 3)), jnp.asarray([[3.0, 0.0, 1.0], [-4.0, 0.0, 0.0]])
    norm = jax.jit(groups.norm, static_argnums=1)
    assert norm(w, 1).tolist() == [[7.0, 0.0, 1.0]] and norm(w, 2).tolist() == [[5.0, 0.0, 1.0]]
    gradient = jax.jit(jax.grad(lambda w: groups.norm(w).sum()))(w)
    np.testing.assert_allclose(gradient, [[0.6, 0, 1], [-0.8, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("filters", CONV), "unknown structure 'filters'"),
        (("weight", (3, 3, 8)), "shape .3, 3, 8. have no structures: give"),
        (("weight", (8, 8), True), "have no structures"),
        (("weight", CONV, False, 3), "groups=3 do not divide 16 output channels"),
        (("weight", CONV, False, 0), "groups 0 is not allowed"),
        (("weight", CONV, True, 2), "groups 2 is not allowed"),
        (("block", CONV, True), "needs a layer that mixes channels"),
        (("split", CONV, False, 2), "needs a layer of one group, not of 2"),
        (("vertical_slice", (8, 8)), "needs a convolution, not a linear layer"),
        (("n_m", (3, 3, 6, 8)), r"6 input channels are no multiple of 4: give one \(nearest: 8\)"),
        (("n_m", (5, 8)), r"nearest: 4\)"),
        (("n_m", (1, 8)), r"nearest: 4\)"),
    ],
)
def test_structures_that_weights_do_not_have(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        Structure(*arguments)
    assert "\n" not in str(caught.value)


def test_structures_are_static_and_equal_for_equal_shapes():
    assert structure_of("column", jnp.ones(CONV)) == Structure("column", CONV)
    assert hash(structure_of("column", np.ones(CONV))) == hash(Structure("column", CONV))
