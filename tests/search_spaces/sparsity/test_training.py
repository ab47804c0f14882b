"""What a network is trained with: penalties, structure parameters, gates, rules and the schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from search_spaces.sparsity import structure_parameters as psp
from search_spaces.sparsity._patterns import KINDS, Structure
from search_spaces.sparsity.penalties import elastic_net, group_lasso, l1, l2
from search_spaces.sparsity.schedule import gradual_density
from search_spaces.sparsity.soft_gate import soft_gate
from search_spaces.sparsity.training_rules import rewound, soft

SHAPE = (3, 2, 4, 8)
GRADIENTS = ("exact", "printed")


def _normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _loss(q):
    return jnp.tanh(q * 0.7 + 0.1).sum()


@pytest.mark.parametrize(
    ("penalty", "strengths", "step"),
    [(l1, (0.01,), 0.001), (l2, (1e-4,), 5e-6), (elastic_net, (0.01, 1e-4), 0.001005)],
)
def test_penalties_step_as_the_dissertation_says(penalty, strengths, step):
    """Learning rate 0.1, no other gradient: 0.5 becomes 0.498995 with the elastic net."""
    for gate in (0.5, -0.5):
        gradient = jax.grad(penalty)(jnp.float32(gate), *strengths)
        assert float(0.1 * gradient) == pytest.approx(np.sign(gate) * step, rel=1e-5)
    assert jax.grad(penalty)(0.0, *strengths) == 0
    tree = {"a": jnp.asarray([1.0, -2.0]), "b": [jnp.asarray(3.0)]}
    assert float(l1(tree, 0.5)) == 3 and float(l2(tree, 0.5)) == 3.5 and float(l1({}, 1.0)) == 0


@pytest.mark.parametrize(("by_size", "value"), [(False, 0.6), (True, 0.848528)])
def test_group_lasso_of_three_groups(by_size, value):
    groups, w = Structure("output_channel", (2, 3)), jnp.asarray([[3.0, 0.0, 1.0], [4.0, 0.0, 0.0]])
    assert float(group_lasso(groups, w, 0.1, by_size)) == pytest.approx(value, rel=1e-6)
    assert jnp.isfinite(jax.grad(lambda w: group_lasso(groups, w, 0.1, by_size))(w)).all()


def test_the_threshold_keeps_its_boundary_and_is_traced():
    program = jax.jit(psp.alpha)
    nu = jnp.asarray([0.05, -0.1, 0.3], jnp.float32)
    np.testing.assert_array_equal(program(nu, 0.1), jnp.asarray([0, -0.1, 0.3], jnp.float32))
    np.testing.assert_array_equal(program(nu, 0.0), nu)
    np.testing.assert_array_equal(program(nu, 0.2), jnp.asarray([0, 0, 0.3], jnp.float32))
    assert program._cache_size() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_structure_parameters_by_finite_differences(kind):
    """By alpha (exact); by the weights in use, all of a structure moved at once (printed)."""
    structure, h, eps = Structure(kind, SHAPE), 1e-5, 0.5
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        w, factors = jnp.asarray(rng.normal(size=SHAPE)), jnp.asarray(rng.normal(size=structure.decisions))
        nu = factors + jnp.sign(factors) * eps  # none within the threshold, where alpha is no function of nu
        q = psp.folded(structure, w, nu)

        def of_nu(nu, mode="exact"):
            return _loss(psp.gated(structure, w, nu, eps, mode))

        exact, printed = (jax.grad(of_nu)(nu, mode) for mode in GRADIENTS)
        for number in rng.permutation(structure.count)[:4]:
            one = jnp.zeros(structure.count).at[number].set(1).reshape(structure.decisions)
            by_alpha = float(of_nu(nu + h * one) - of_nu(nu - h * one)) / (2 * h)
            moved = h * structure.expand(one)
            by_weights = float(_loss(q + moved) - _loss(q - moved)) / (2 * h)
            assert float((exact * one).sum()) == pytest.approx(by_alpha, rel=1e-6, abs=1e-8)
            assert float((printed * one).sum()) == pytest.approx(by_weights, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_their_formulas_and_weights_have_the_chain_rule(kind):
    structure = Structure(kind, SHAPE)
    w, nu, eps = _normal(0, SHAPE), _normal(1, structure.decisions), 0.5
    factors = psp.alpha(nu, eps)
    by_q = jax.grad(_loss)(psp.folded(structure, w, factors))
    for mode, expected in zip(GRADIENTS, (structure.summed(w * by_q), structure.summed(by_q)), strict=True):
        by_w, by_nu = jax.grad(lambda w, nu, mode=mode: _loss(psp.gated(structure, w, nu, eps, mode)), (0, 1))(w, nu)
        np.testing.assert_allclose(by_nu, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(by_w, by_q * structure.expand(factors), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_pruned_structure_comes_back(gradient):
    """Descent towards weights of one from a parameter inside the threshold, where nothing passes forward."""
    channels, w = Structure("output_channel", (4, 2)), jnp.ones((4, 2))
    nu = jnp.asarray([[0.05, 1.0]])

    @jax.jit
    def step(nu):
        q = psp.gated(channels, w, nu, 0.1, gradient)
        return nu - 0.05 * jax.grad(lambda nu: jnp.square(psp.gated(channels, w, nu, 0.1, gradient) - 1).sum())(nu), q

    assert (step(nu)[1][:, 0] == 0).all()
    for _ in range(20):
        nu, q = step(nu)
    np.testing.assert_allclose(q, 1, atol=0.01)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("kind", ["column", "input_channel", "output_channel", "kernel", "layer", "split"])
def test_folded_weights_give_the_outputs_of_gated_ones(kind, gradient):
    structure = Structure(kind, (3, 3, 4, 8))
    w, nu, x = _normal(0, structure.shape), _normal(1, structure.decisions), _normal(2, (2, 6, 6, 4))

    def convolve(w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    gated = convolve(psp.gated(structure, w, nu, 0.3, gradient))
    np.testing.assert_array_equal(gated, convolve(psp.folded(structure, w, psp.alpha(nu, 0.3))))
    np.testing.assert_array_equal(convolve(w), convolve(psp.gated(structure, w, psp.initial(structure), 0.3, gradient)))


def test_structures_that_are_removed_leave_the_outputs_as_they_are():
    x, w = _normal(0, (5, 4)), _normal(1, (4, 6))
    inputs = Structure("input_channel", w.shape)
    factors = psp.alpha(jnp.asarray([1.0, 0.01, -0.5, 0.02]).reshape(4, 1), 0.1)
    there = np.flatnonzero(factors)
    q = psp.folded(inputs, w, factors)
    np.testing.assert_allclose(x @ q, x[:, there] @ q[there], rtol=1e-5)


def test_gated_weights_keep_their_type_batch_and_never_compile_anew():
    structure = Structure("output_channel", (4, 2))
    w = jnp.ones((4, 2), jnp.bfloat16)
    for gradient in GRADIENTS:

        def loss(nu, eps, gradient=gradient):
            return psp.gated(structure, w, nu, eps, gradient).sum()

        assert psp.gated(structure, w, psp.initial(structure), 0.1, gradient).dtype == jnp.bfloat16
        program = jax.jit(jax.vmap(jax.grad(loss), (0, None)))
        for eps in (0.1, 0.2):
            assert program(jnp.ones((3, 1, 2)), eps).tolist() == [[[4.0, 4.0]]] * 3
        assert program._cache_size() == 1
    with pytest.raises(InputError, match="gradient='true' is not known: give exact or printed"):
        psp.gated(structure, w, psp.initial(structure), 0.1, "true")


@pytest.mark.parametrize(("threshold", "expected"), [(0.0, [0, 0, 0.731059]), (-2.0, [0.268941, 0.5, 0.731059])])
def test_the_soft_gate_is_a_sigmoid_above_its_threshold(threshold, expected):
    x = jnp.asarray([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(soft_gate(x, threshold), expected, atol=1e-6)
    slope = jax.grad(lambda x: soft_gate(x, threshold).sum())(x)
    np.testing.assert_allclose(slope, np.asarray(expected) * (1 - np.asarray(expected)), atol=1e-6)


def test_soft_pruning_is_zero_forward_and_trains_on():
    w, mask = jnp.asarray([2.0, 3.0, -1e30]), jnp.asarray([True, False, False])
    assert soft(w, mask).tolist() == [2.0, 0.0, 0.0]
    target = jnp.asarray([1.0, 1.0, 0.0])
    gradient = jax.grad(lambda w: jnp.square(soft(w, mask) - target).sum())(w)
    assert gradient.tolist() == [2.0, -2.0, 0.0]  # evaluated at the pruned weights


def test_rewinding_restores_survivors_and_what_has_no_mask():
    initial = {"layer": {"kernel": jnp.asarray([[1.0, 2.0]]), "bias": jnp.asarray([3.0])}}
    masks = {"layer": {"kernel": jnp.asarray([[True, False]]), "bias": None}}
    new = rewound(initial, masks)
    assert new["layer"]["kernel"].tolist() == [[1.0, 0.0]] and new["layer"]["bias"].tolist() == [3.0]


def test_the_schedule_is_cubic_between_its_ends():
    program = jax.jit(gradual_density)
    t = np.linspace(0, 1, 21)
    values = np.asarray([program(p, 0.1, 0.9, 0.2, 0.7) for p in t])
    sparsity = 0.9 + (0.1 - 0.9) * (1 - np.clip((t - 0.2) / 0.5, 0, 1)) ** 3  # equation 1 of the paper
    np.testing.assert_allclose(1 - values, sparsity, atol=1e-6)
    assert program._cache_size() == 1 and (np.diff(values) <= 1e-7).all()
    assert float(gradual_density(0.5, 0.2, start=0.5, end=0.5)) == 1 and float(
        gradual_density(0.6, 0.2, end=0.5)
    ) == pytest.approx(0.2)
    with pytest.raises(InputError, match="last=20 is out of range: give 0 to 1"):
        gradual_density(0.5, 20)
