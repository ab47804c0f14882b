"""Reduce and scale equals the dense product with the weights it stands for, by additions and two multiplications."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.compression import INDEX_LIST_BITS
from hw_models.errors import InputError
from search_spaces.arithmetic.reduce_and_scale import index_lists, operations, reduce_and_scale

EXAMPLE = np.asarray([[0, 1, 1, 0, -1], [-1, 0, 0, 1, 0], [1, -1, 0, -1, -1]])


def random_ternary(seed, shape, density):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.choice([-1, 1], shape), 0)


def by_row(indices, rows, count):
    return [np.asarray(indices)[np.asarray(rows) == row].tolist() for row in range(count)]


def test_the_lists_of_the_published_example():
    """Dissertation, equation 5.14; the last index of I_n is 4, printed as 5."""
    lists = index_lists(EXAMPLE)
    assert by_row(lists.positive, lists.positive_row, 3) == [[1, 2], [3], [0]]
    assert by_row(lists.negative, lists.negative_row, 3) == [[4], [0], [1, 3, 4]]
    assert lists.positive.dtype == jnp.uint16


@pytest.mark.parametrize("density", [0.0, 0.1, 0.42, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 90, 5), (16, 200, 3)])
def test_it_equals_the_dense_product(shape, density):
    outputs, count, columns = shape
    ternary = random_ternary(count, (outputs, count), density)
    codes = np.random.default_rng(0).integers(0, 256, (count, columns), np.uint8)
    lists = index_lists(ternary, accumulator_bits=32)
    exact = reduce_and_scale(lists, codes, 0.75, -1.25)
    weights = np.where(ternary > 0, 0.75, np.where(ternary < 0, -1.25, 0.0))
    np.testing.assert_array_equal(exact, weights @ codes)  # these scales do not round
    scales = 0.0731, -0.1293
    weights = np.where(ternary > 0, scales[0], np.where(ternary < 0, scales[1], 0.0))
    np.testing.assert_allclose(reduce_and_scale(lists, codes, *scales), weights @ codes, rtol=1e-5, atol=1e-3)


def test_16_bit_accumulators_hold_the_longest_list_they_allow():
    ternary = np.ones((2, 128), int) * [[1], [-1]]
    full = np.full((128, 1), 255, np.uint8)
    assert reduce_and_scale(index_lists(ternary), full, 1.0, -1.0).ravel().tolist() == [32640, -32640]
    signed = np.full((256, 1), -128, np.int8)
    lists = index_lists(np.ones((1, 256), int), activation=(-128, 127))
    assert reduce_and_scale(lists, signed, 1.0, -1.0).item() == -32768


@pytest.mark.parametrize(
    ("ternary", "options", "message"),
    [
        (np.eye(3, 200, dtype=int) + 1, {}, r"ternary\[0, 0\] is 2: give integers from -1 to 1"),
        (np.ones((2, 129), int), {}, "row 0 adds 129 activations, which may overflow 16 bits: split its inputs into "
         "lists of at most 128, or accumulator_bits=32"),
        (np.ones((1, 9), int), {"capacity": 8}, "capacity=8 is too little for 9 indices"),
        (np.ones((1, 9), int), {"accumulator_bits": 8}, "accumulator_bits=8 are not allowed: give 16 or 32"),
        (np.zeros((1, 65537), int), {}, "65537 inputs do not fit 16-bit indices"),
        (np.ones(3, int), {}, r"ternary weights have 1 axes: give \[outputs, inputs\]"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(ternary, options, message):
    with pytest.raises(InputError, match=message):
        index_lists(ternary, **options)


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"inputs of shape \(4, 1\) do not go with these lists: give \[5, columns\]"):
        reduce_and_scale(index_lists(EXAMPLE), jnp.zeros((4, 1), jnp.uint8), 1.0, -1.0)


def test_one_program_serves_all_weights_of_a_shape():
    traces = []

    @jax.jit
    def run(lists, codes, positive, negative):
        traces.append(1)
        return reduce_and_scale(lists, codes, positive, negative)

    codes = np.random.default_rng(0).integers(0, 256, (40, 3), np.uint8)
    for seed, density in ((1, 0.2), (2, 0.9), (3, 0.0)):
        ternary = random_ternary(seed, (6, 40), density)
        result = run(index_lists(ternary, capacity=240), codes, 0.5, -2.0)
        np.testing.assert_array_equal(result, np.where(ternary < 0, -2.0, 0.5 * ternary) @ codes)
    assert len(traces) == 1


def test_operations_are_additions_of_non_zeros_and_two_multiplications_an_output():
    ternary = random_ternary(0, (32, 64), 0.42)
    counts = operations(ternary, columns=100)
    kept = np.count_nonzero(ternary)
    assert tuple(counts) == (kept * 100, 2 * 32 * 100, 32 * 100, INDEX_LIST_BITS * kept)
    # what the compiled function multiplies is the two scales alone
    program = jax.make_jaxpr(reduce_and_scale)(index_lists(ternary), np.zeros((64, 100), np.uint8), 1.0, -1.0)
    multiplied = [e.outvars[0].aval.shape for e in program.jaxpr.eqns if e.primitive.name in ("mul", "dot_general")]
    assert multiplied == [(32, 100), (32, 100)]
