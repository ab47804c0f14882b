"""Masks at a density against sorting and enumeration; traced densities, ties, and what a dense layer can run."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.sparsity._masks import closed, density, groups_of, kept, kept_overall, n_m_mask
from search_spaces.sparsity._patterns import KINDS, SLICES, Structure

SHAPE = (5, 3, 8, 16)
DENSITIES = (0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0)


def _scores(structure, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 3, structure.decisions) if ties else rng.normal(size=structure.decisions)
    return drawn.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_one_program_for_all_densities_and_one_structure_at_least(kind):
    structure, traces = Structure(kind, SHAPE), []

    @jax.jit
    def run(scores, share):
        traces.append(1)
        mask = kept(structure, scores, share)
        return mask, density(structure.expand(mask))

    measured = []
    largest = np.asarray(structure.sizes).max() / math.prod(SHAPE) if kind != "n_m" else 0.25
    for share in DENSITIES:
        mask, left = jax.tree.map(np.asarray, run(_scores(structure), share))
        assert mask.dtype == bool and mask.shape == structure.decisions and mask.any()
        measured.append(float(left))
        assert left >= share - 1e-6, "rounded up"
        assert left < share + largest or left <= largest * 1.001
    assert len(traces) == 1 and measured == sorted(measured) and measured[-1] == 1


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (*SLICES, "split", "n_m", "block")])
def test_the_largest_are_kept_and_of_equal_ones_the_first(kind, ties):
    structure = Structure(kind, SHAPE)
    scores = _scores(structure, 1, ties)
    flat = scores.ravel()
    for share in DENSITIES:
        count = max(1, math.ceil(share * flat.size - 1e-6 * flat.size))
        expected = sorted(range(flat.size), key=lambda i: (-flat[i], i))[:count]
        assert np.flatnonzero(kept(structure, scores, share)).tolist() == sorted(expected)


def test_a_share_rounds_up_to_whole_channels_as_cost_models_do():
    structure = Structure("output_channel", (1, 30))
    assert [np.asarray(kept(structure, _scores(structure), share)).sum() for share in (0.1, 0.101, 0.99, 1)] == [
        3,
        4,
        30,
        30,
    ]


@pytest.mark.parametrize("share", DENSITIES)
def test_unequal_blocks_fill_the_share_of_weights(share):
    structure = Structure("block", (6, 9))  # of 16, 8, 4 and 2 weights
    scores, sizes = _scores(structure).ravel(), np.asarray(structure.sizes).ravel()
    total, expected = 0, []
    for number in np.argsort(-scores):
        if total < share * 54 - 1e-4 or not expected:
            expected.append(number)
            total += sizes[number]
    assert set(np.flatnonzero(kept(structure, scores.reshape(2, 3), share))) == set(expected)


@pytest.mark.parametrize("share", DENSITIES)
def test_slices_are_the_best_run_of_neighbours(share):
    structure = Structure("horizontal_slice", (5, 1, 1, 1))
    for seed in range(5):
        scores = _scores(structure, seed)
        mask = np.asarray(kept(structure, scores, share)).ravel()
        count = max(1, math.ceil(share * 5 - 1e-5))
        sums = [float(scores.ravel()[start : start + count].sum()) for start in range(6 - count)]
        start = int(np.argmax(sums))
        assert mask.tolist() == [start <= i < start + count for i in range(5)]


SPLIT = Structure("split", SHAPE)


@jax.jit
def _split(scores, share):
    """The mask of a split, the groups and the density that it leaves, and the mask once closed."""
    mask = kept(SPLIT, scores, share)
    return mask, groups_of(SPLIT, mask), density(SPLIT.expand(mask)), closed(SPLIT, mask)


@pytest.mark.parametrize(("share", "groups"), [(1, 1), (0.6, 1), (0.5, 2), (0.25, 4), (0.2, 4), (0.125, 8), (0.01, 8)])
def test_a_split_leaves_a_grouped_convolution_whatever_the_scores(share, groups):
    for seed in range(4):
        mask, left, part, same = _split(_scores(SPLIT, seed), float(share))
        assert int(left) == groups and float(part) == 1 / groups
        np.testing.assert_array_equal(same, mask)


def test_closing_adds_the_least_that_a_dense_layer_needs():
    split, rows = Structure("split", (4, 4)), Structure("horizontal_slice", (4, 1, 1, 1))
    close, groups_left = jax.jit(closed, static_argnums=0), jax.jit(groups_of, static_argnums=0)
    for bits in itertools.product([False, True], repeat=4):
        marks = np.flatnonzero(bits)
        filled = np.ravel(close(rows, np.reshape(bits, (4, 1, 1, 1)))).tolist()
        assert filled == [len(marks) > 0 and marks[0] <= i <= marks[-1] for i in range(4)]
        if not bits[3]:
            levels = close(split, np.asarray(bits[:3]))
            assert levels.tolist() == [len(marks) > 0 and i <= marks[-1] for i in range(3)]
            assert int(groups_left(split, levels)) == (0 if not len(marks) else 2 ** (2 - marks[-1]))
    channels = Structure("output_channel", (1, 2))
    assert closed(channels, jnp.asarray([[False, True]])).tolist() == [[False, True]]


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)])
@pytest.mark.parametrize("shape", [(8, 3), (3, 3, 8, 5)])
def test_n_of_m_is_exact_and_equals_sorting(shape, n, m):
    program = jax.jit(lambda scores: n_m_mask(scores, n, m))
    for ties in (False, True):
        scores = _scores(Structure("weight", shape), 2, ties)
        mask = np.asarray(program(scores))
        for *taps, output in np.ndindex(*shape[:-2], shape[-1]):
            for start in range(0, 8, m):
                where = (*taps, slice(start, start + m), output)
                expected = sorted(range(m), key=lambda i, group=scores[where]: (-group[i], i))[:n]
                assert np.flatnonzero(mask[where]).tolist() == sorted(expected)


def test_n_is_traced_and_checked_and_two_of_four_is_a_density_of_one_half():
    scores, program = _scores(Structure("n_m", (8, 2))), jax.jit(n_m_mask, static_argnums=2)
    assert [float(density(program(scores, n, 4))) for n in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1]
    assert program._cache_size() == 1
    assert (kept(Structure("n_m", (8, 2)), scores, 0.5) == n_m_mask(scores, 2, 4)).all()
    with pytest.raises(InputError, match="n 5 is not allowed: give a whole number from 1 to 4"):
        n_m_mask(scores, 5, 4)
    with pytest.raises(InputError, match=r"8 input channels are no multiple of 3: give one \(nearest: 9\)"):
        n_m_mask(scores, 1, 3)


def test_what_is_no_number_goes_first_and_batches_are_masked_one_by_one():
    structure = Structure("output_channel", (1, 4))
    assert kept(structure, jnp.asarray([[jnp.nan, -jnp.inf, 1.0, 0.0]]), 0.75).tolist() == [[False, True, True, True]]
    scores = np.stack([_scores(structure, seed) for seed in range(6)])
    shares = np.linspace(0.1, 1, 6, dtype=np.float32)
    batched = jax.vmap(lambda score, share: kept(structure, score, share))(scores, shares)
    alone = [kept(structure, *each) for each in zip(scores, shares, strict=True)]
    np.testing.assert_array_equal(batched, np.stack(alone))


def test_layers_compete_for_one_density_and_each_keeps_a_structure():
    layers = [Structure("output_channel", (4, 6)), Structure("column", (3, 3, 2, 8)), Structure("split", (4, 4))]
    scores = [_scores(layer, seed) + 3 * seed for seed, layer in enumerate(layers)]
    sizes = [np.asarray(layer.sizes) for layer in layers]
    for share in (0.01, 0.2, 0.5, 0.9, 1.0):
        masks = jax.tree.map(np.asarray, kept_overall(layers, scores, share))
        assert all(mask.any() for mask in masks)
        left = sum(int((mask * size).sum()) for mask, size in zip(masks, sizes, strict=True))
        assert share * 184 - 1e-3 <= left <= share * 184 + 8 + 8 + 4 + 4
    # without the one that each keeps, the threshold is the same for all
    values = [jnp.asarray([[5.0, 1.0, 2.0]]), jnp.asarray([[4.0, 3.0, 0.0]])]
    masks = kept_overall([Structure("output_channel", (2, 3))] * 2, values, 0.5)
    assert [mask.tolist() for mask in masks] == [[[True, False, False]], [[True, True, False]]]


def test_whole_layers_may_go_but_not_all_of_them():
    layers = [Structure("layer", (3, 3, 4, 4))] * 3
    masks = kept_overall(layers, [jnp.full((1, 1, 1, 1), score) for score in (0.2, 0.9, 0.5)], 0.0)
    assert [bool(mask.all()) for mask in masks] == [False, True, False]


@pytest.mark.parametrize("wrong", [50, -0.1])
def test_shapes_and_shares_are_checked(wrong):
    structure = Structure("output_channel", (2, 4))
    with pytest.raises(InputError, match=r"scores of shape \(4,\) do not fit .* give \(1, 4\)"):
        kept(structure, jnp.ones(4), 0.5)
    with pytest.raises(InputError, match=f"density={wrong} is out of range"):
        kept(structure, jnp.ones((1, 4)), wrong)
    with pytest.raises(InputError, match=f"density={wrong} is out of range"):
        kept_overall([structure], [jnp.ones((1, 4))], wrong)
    with pytest.raises(InputError, match="n_m cannot share a density"):
        kept_overall([Structure("n_m", (4, 4))], [jnp.ones((4, 4))], 0.5)
