"""Gates that are trained beside the weights and folded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.device_file import load_device
from hw_models.errors import InputError
from nas.pruning import psp
from nas.pruning.psp import GATES, Parameterization, fold, in_use, penalty_of, train_parameterized, with_gates
from nas.training.standalone import train
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.residual import Residual
from search_spaces.network import Network

X = np.random.default_rng(3).normal(size=(2, 8, 8, 1)).astype(np.float32)
KINDS = ("weight", "column", "input_channel", "output_channel", "kernel", "vertical_slice", "split", "layer")


def _drawn(space, of, variables, seed=0):
    """Gates of 0 to 0.2, on either side of the threshold of 0.1."""
    rng, gated = np.random.default_rng(seed), with_gates(space, of, variables)
    gates = {
        name: jnp.asarray(rng.uniform(0, 0.2, nu.shape), jnp.float32) for name, nu in gated["params"][GATES].items()
    }
    return {**gated, "params": {**gated["params"], GATES: gates}}


@pytest.mark.parametrize("structures", [*((kind,) for kind in KINDS), ("layer", "output_channel")])
def test_folded_weights_give_the_logits_of_gated_ones(network, lively, structures):
    space, of = network(Residual(), (8, 8)), Parameterization(structures)
    variables = _drawn(space, of, lively(space))
    gated = {**variables, "params": in_use(space, of)(variables["params"])}
    made = fold(space, of, variables)
    run = Network(space, "xla").apply
    np.testing.assert_allclose(run(made.variables, X), run(gated, X), rtol=1e-6, atol=1e-7)
    zeros = {row.path: row.weights - row.kept_weights for row in made.kept.layers}
    for path in ("stages_0_0/conv_1", "stages_0_1/conv_2"):
        module, layer = path.split("/")
        assert zeros[path] == int((made.variables["params"][module][layer]["kernel"] == 0).sum())
    assert made.kept.kept_macs < made.kept.macs and zeros["stem_0/conv"] == 0


def test_gates_of_one_change_nothing_and_gradients_are_named(network, lively):
    space, of = network(FlyNet(), (8,)), Parameterization(("column",), ends=True)
    variables = lively(space)
    used = in_use(space, of)(with_gates(space, of, variables)["params"])
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), used, variables["params"]))
    grads = [
        jax.grad(lambda p, of=each: in_use(space, of)(p)["head"]["conv"]["kernel"].sum())(
            with_gates(space, each, variables)["params"]
        )[GATES]["head/conv:column"]
        for each in (of, Parameterization(("column",), ends=True, gradient="printed"))
    ]
    np.testing.assert_allclose(grads[0], variables["params"]["head"]["conv"]["kernel"].sum(1), rtol=1e-5)
    np.testing.assert_allclose(grads[1], 16)


def test_only_gates_are_penalised_and_weights_decay_as_before(network, lively, images, recipe):
    """Without gradients of the loss by gates, all that moves them is the penalty; a pruned one may come back."""
    space = network(ConvNorm(), (8,))
    strong, longer = Parameterization(("output_channel",), l1=1.0, l2=0.0), dataclasses.replace(recipe, epochs=6)
    made = train_parameterized(space, images, longer, jax.random.key(0), strong)
    none = train_parameterized(space, images, longer, jax.random.key(0), Parameterization(("output_channel",), l2=0.0))
    assert made.kept.params_share < none.kept.params_share == 1.0
    of = Parameterization(("output_channel",), l2=0.0)
    start = with_gates(space, of, lively(space))
    name = "stages_0_0/conv:output_channel"
    start["params"][GATES][name] = jnp.full(8, 0.05)
    after = train(space, images, recipe, jax.random.key(0), start, constrain=in_use(space, of))
    grown = np.abs(np.asarray(after["params"][GATES][name]))
    before, now = (fold(space, of, each).kept.kept_params for each in (start, after))
    assert (grown >= of.eps).any() and now > before


@pytest.mark.parametrize(("kind", "moves"), [("output_channel", False), ("layer", False), ("column", True)])
def test_a_normalisation_hides_the_size_of_what_it_follows(network, lively, kind, moves):
    """The loss does not depend on the scale of an output channel or a layer, so that its gate has no gradient."""
    space, of = network(ConvNorm(), (8,)), Parameterization((kind,))
    variables = with_gates(space, of, lively(space))

    def loss(gates):
        params = in_use(space, of)({**variables["params"], GATES: gates})
        logits, _ = Network(space, "xla").apply({**variables, "params": params}, X, "train", mutable=["batch_stats"])
        return jnp.square(logits).sum()

    largest = jnp.abs(jax.grad(loss)(variables["params"][GATES])[f"stages_0_0/conv:{kind}"]).max()
    assert largest > 0.1 if moves else largest < 0.02


def test_the_expected_latency_follows_the_kept_share(network, lively):
    """Half of the one gated layer: half of its share of the latency; its gradient drives gates down."""
    space, of = network(ConvNorm(), (8,)), Parameterization(("input_channel",), l2=0.0, latency=2.0)
    device = load_device("raspberry_pi_4")
    shares = psp.latencies(space, of, device)
    params = with_gates(space, of, lively(space))["params"]
    cost = penalty_of(space, of, device)
    assert float(cost(params)) == pytest.approx(2 * float(shares.sum()), rel=1e-5)
    params[GATES]["stages_0_0/conv:input_channel"] = jnp.asarray([0.01, 1.0] * 4)
    assert float(cost(params)) == pytest.approx(float(shares[0]) + 2 * float(shares[1:].sum()), rel=1e-5)
    by_gate = jax.grad(cost)(params)[GATES]["stages_0_0/conv:input_channel"]
    np.testing.assert_allclose(by_gate, 2 * float(shares[0]) / 8, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"structures": ("colum",)}, "unknown structure 'colum': did you mean 'column'"),
        ({"structures": "column"}, "give a tuple of structures"),
        ({"gradient": "exactly"}, "unknown gradient 'exactly'"),
        ({"eps": -1}, "eps=-1"),
    ],
)
def test_bad_settings_are_named(fields, said):
    with pytest.raises(InputError, match=said):
        Parameterization(**fields)


def test_latency_needs_a_device_and_folding_needs_gates(network, lively):
    space = network(ConvNorm(), (8,))
    with pytest.raises(InputError, match="needs a device"):
        penalty_of(space, Parameterization(latency=1.0))
    with pytest.raises(InputError, match="variables have no gates"):
        fold(space, Parameterization(), lively(space))
