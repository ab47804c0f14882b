"""The growing strength of a penalty, and what trains when weights are frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hw_models.errors import InputError
from nas.training.angle import AnglePenalty, bn_only, exponential, linear, penalised
from search_spaces.network import fresh
from search_spaces.spaces import tiny


def test_the_published_strength_is_five_and_grows_by_three_tenths_with_every_epoch():
    strength = exponential(steps_per_epoch=10)
    np.testing.assert_allclose([strength(10 * epoch + 9) for epoch in range(30)], 5 * 1.3 ** np.arange(30), rtol=1e-5)


def test_linear_strength_ends_where_it_is_told():
    np.testing.assert_allclose([linear(4, 2.0, 1.0)(step) for step in (0, 1, 4, 9)], [1, 1.25, 2, 2])


def test_the_penalty_grows_with_a_traced_step_and_nothing_compiles_twice():
    traces = []

    @jax.jit
    def slope(weight, step):
        traces.append(1)
        return jax.grad(lambda w: penalised(w, w**2, exponential(1), step))(weight)

    found = [float(slope(1.0, step)) for step in (0, 1, 2)]
    np.testing.assert_allclose(found, [1 + 2 * 5 * 1.3**step for step in (0, 1, 2)], rtol=1e-6)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "strengths"),
    [({"first": 2.0, "factor": 1.5, "epochs": 2}, (2, 2, 3)), ({"first": 1.0, "last": 5.0}, (1, 2.6, 3))],
)
def test_the_penalty_of_a_network_grows_by_epochs_or_evenly(options, strengths):
    params = {"conv": {"kernel": jnp.asarray([[1.0], [0.0]])}, "head": {"kernel": jnp.eye(2)}}
    penalty = AnglePenalty(1, "channel", **options)
    found = [float(penalty(params, jnp.float32(progress))) for progress in (0, 0.4, 0.5)]
    np.testing.assert_allclose(found, np.asarray(strengths) * (1 - 0.5**0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: exponential(0), "steps_per_epoch 0 is not allowed"),
        (lambda: exponential(1, factor=0), "factor 0 is not allowed"),
        (lambda: linear(2.5, 1.0), "steps 2.5 is not allowed"),
        (lambda: linear(2, -1.0), "last -1.0 is not allowed"),
    ],
)
def test_schedules_name_what_is_wrong(build, said):
    with pytest.raises(InputError, match=said):
        build()


def test_only_batch_normalisation_trains():
    space = tiny.space()
    params = fresh(space.freeze([0] * len(space.decisions)), jax.random.key(0))["params"]
    mask = bn_only(params)
    rule = optax.selective_transform(optax.sgd(1.0), freeze_mask=jax.tree.map(lambda trained: not trained, mask))
    change, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(change):
        assert (np.asarray(leaf) == (-1 if "norm" in path[-2].key else 0)).all(), path
    assert 0 < sum(jax.tree.leaves(mask)) < len(jax.tree.leaves(mask))


def test_linear_layers_with_biases_and_learned_scales_of_quantizers_stay_frozen():
    node = {"kernel": 1.0, "bias": 1.0, "scale": 1.0}
    assert not any(jax.tree.leaves(bn_only({"logits": node, "quantizer": {"scale": 1.0}, "layer": {"bias": 1.0}})))
