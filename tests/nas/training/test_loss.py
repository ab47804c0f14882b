"""What a student learns from a teacher, and who of them gets a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.training.loss import divergence, feature_distance, self_distilled, soft_cross_entropy, taught

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32) for _ in range(2))


def test_divergence_is_its_definition_and_zero_between_equals():
    p, q = (np.asarray(jax.nn.softmax(logits)) for logits in (TEACHER, LOGITS))
    assert float(divergence(LOGITS, TEACHER)) == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-5)
    assert float(divergence(LOGITS, LOGITS + 3)) == pytest.approx(0, abs=1e-6)
    assert divergence(LOGITS.astype(jnp.bfloat16), TEACHER.astype(jnp.bfloat16)).dtype == jnp.float32


def test_the_teacher_has_no_gradient_of_the_divergence_and_the_student_that_of_cross_entropy():
    student, teacher = jax.grad(divergence, (0, 1))(LOGITS, TEACHER)
    np.testing.assert_array_equal(teacher, 0)
    expected = jax.grad(lambda x: soft_cross_entropy(x, taught(jnp.zeros((5, 4)), TEACHER, 1.0)))(LOGITS)
    np.testing.assert_allclose(student, expected, atol=1e-6)


def test_features_sum_over_layers_and_pixels_and_pull_both_ways():
    student = {"one": jnp.full((2, 3, 3, 4), 2.0), "two": jnp.ones((2, 5))}
    teacher = jax.tree.map(jnp.zeros_like, student)
    assert float(feature_distance(student, teacher)) == 4 * 36 + 5
    down, up = jax.grad(feature_distance, (0, 1))(student, teacher)
    np.testing.assert_allclose(down["one"], 2.0)
    np.testing.assert_allclose(up["one"], -2.0)


def test_self_distillation_weighs_outputs_and_features_as_published():
    features = [jnp.full((5, 10), 1000.0)], [jnp.zeros((5, 10))]
    expected = float(divergence(LOGITS, TEACHER)) + 1e-7 * 1e7
    assert float(self_distilled(LOGITS, TEACHER, *features)) == pytest.approx(expected, rel=1e-6)
    assert float(self_distilled(LOGITS, TEACHER, output_weight=0.5)) == pytest.approx((expected - 1) / 2, rel=1e-5)
