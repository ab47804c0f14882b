"""Networks with bits of their own in integers: the codes and ranges that they were trained with."""

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.model import Meta, Model
from nas.quantized.own_bits import NoIntegers, check_exact, integers
from nas.quantized.post_training import quantize
from nas.training.rounded import completed
from search_spaces.network import fresh
from search_spaces.spaces import tiny
from search_spaces.testing import randomised

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), np.uint8)


def model(**options) -> Model:
    space = tiny.space(**options)
    genes = [0] * space.num_decisions
    genes[space.names.index("stages/1/0/heads")] = 2
    frozen = space.freeze(genes)
    variables = randomised(fresh(frozen, jax.random.key(0)), 0)
    start = {"params": variables["params"], "batch_stats": {}}
    # normalisations and ranges as they are on these images
    variables = completed(frozen, start, IMAGES, [0.5], [0.25])
    return Model(frozen, variables, Meta("tiny", tuple("0123456789"), (0.5,), (0.25,)))


@pytest.mark.parametrize(
    "options",
    [
        {"bits": "w2a8"},
        {"bits": "w4a8"},
        {"bits": "w4a8", "act_quantizer": "gaussian"},
        *({"bits": "w4a8", "sparsity": each} for each in ("2:4", "channel")),
    ],
)
def test_integers_answer_as_the_network_that_was_trained(options):
    trained = model(**options)
    found, expected = integers(trained, IMAGES).logits(IMAGES), trained.logits(IMAGES)
    spread = float(np.abs(expected - expected.mean(1, keepdims=True)).max())
    assert np.abs(found - expected).max() < 0.05 * spread, (np.abs(found - expected).max(), spread)


def test_weights_have_the_codes_of_the_training():
    trained = model(bits="w2a8")
    found = integers(trained, IMAGES)
    for place in ("stages_1_0/expand", "stages_1_0/project"):
        slot, layer = place.split("/")
        weight = np.asarray(trained.variables["params"][slot][layer]["kernel"])
        codes = np.abs(np.clip(np.rint(weight / np.abs(weight).max(0)), -1, 1)).T  # signs go with the normalisation's
        np.testing.assert_array_equal(np.abs(found.weights[place].codes[0, :, :, 0, 0]), codes)


@pytest.mark.parametrize("quantizer", ["affine", "gaussian"])
def test_inputs_of_layers_have_the_ranges_of_the_training(quantizer: str):
    trained = model(bits="w8a4", act_quantizer=quantizer)
    found = integers(trained, IMAGES)
    stored = trained.variables["batch_stats"]["stages_0_0"]["project"]
    low, high = (float(stored[name][0]) for name in ("input_low", "input_high"))
    if quantizer == "gaussian":
        assert low == 0  # after a ReLU
        whole, high = high, min(high, 2.898728 * float(stored["input_spread"][0]))
        assert high < whole
    reach = high - min(0.0, low)
    (node,) = (node for node in found.graph.nodes if node.path == "stages_0_0/project")
    coding = found.codings[node.inputs[0]]
    assert coding.bits == 4 and coding.step == pytest.approx(reach / 15, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": "w16a8"}, "has 16 bits, and integer kernels multiply 2 to 8"),
        ({"bits": "w1a8", "weight_quantizer": "apsq"}, "has 1 bits"),
        ({"bits": "w2a8", "weight_quantizer": "dorefa"}, "trained with weights=dorefa, and integer kernels have symm"),
        ({"bits": "8", "granularity": "tensor"}, "trained with granularity=tensor"),
    ],
)
def test_networks_that_no_integers_compute_are_refused(options, words):
    space = tiny.space(**options)
    with pytest.raises(NoIntegers) as error:
        check_exact(space.freeze([0] * space.num_decisions))
    assert words in str(error.value)


def test_bits_are_not_overwritten_by_a_quantization_afterwards():
    with pytest.raises(InputError, match="this network has bits of its own"):
        quantize(model(bits="w4a8"), IMAGES)
