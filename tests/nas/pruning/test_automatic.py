"""Automatic pruning from the first layer to the smaller network."""

import dataclasses

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.evaluators import standalone as judge
from nas.evaluators.standalone import count_mistakes
from nas.pruning.automatic import prune_automatically
from nas.pruning.ratio_search import RatioSearch
from nas.pruning.rounded import size_bytes
from nas.training import standalone
from nas.training.recipe import Recipe
from nas.training.standalone import Images
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.network import fresh
from search_spaces.precision import Scheme, with_bits
from search_spaces.spaces import tiny
from search_spaces.sparsity.distance import Distance
from search_spaces.sparsity.random import Random

KEY = jax.random.key(0)
DOREFA = Scheme("dorefa", "dorefa[signed=False]", "tensor")


@pytest.fixture(scope="module")
def space(network):
    return with_bits(network(ConvNorm(), (8, 16), Classifier()), "w2a2", 32, DOREFA)


@pytest.fixture(scope="module")
def given(space, lively, images, recipe):
    """A network that has learned something, what it learned from, and recipes."""
    judged = images._replace(images=images.images[:100], labels=images.labels[:100])
    short = dataclasses.replace(recipe, epochs=1)
    variables = standalone.train(space, images, dataclasses.replace(recipe, epochs=4), KEY, lively(space))
    return {"variables": variables, "data": images, "judged": judged, "between": short, "last": short, "key": KEY}


def _alike(one, other):
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    assert one.layers == other.layers


def test_layers_are_searched_pruned_trained_and_removed(space, given):
    told = []
    made = prune_automatically(space, **given, search=RatioSearch(params_weight=4.0), report=told.append)
    assert tuple(told) == made.layers
    assert [layer.name for layer in made.layers] == ["stem_0/conv", "stages_0_0/conv", "stages_0_1/conv"]
    assert [layer.judged_by for layer in made.layers] == ["interactions", "interactions", "filter"]
    assert [layer.why for layer in made.layers] == ["", "", "no layer that reads it is rounded"]
    for layer in made.layers:
        assert 0 <= layer.ratio <= 0.4 and len(layer.ratios) <= 10
        assert layer.ratio == layer.ratios[int(np.argmin(layer.losses))]
        assert layer.tuned == (layer.ratio > 0.05)
    norms = [made.masks[f"stages_0_{n}"]["norm"]["scale"] for n in (0, 1)]
    assert [int((~norm).sum()) for norm in norms] == [layer.dropped for layer in made.layers[1:]]
    assert sum(layer.dropped for layer in made.layers) > 0
    # ConvNorm has a field for every width, so nothing is left in place as zeros
    assert size_bytes(made.small.space) == made.size_bytes < made.whole_bytes == size_bytes(space)
    assert made.small.space.params == made.kept.kept_params
    judged = given["judged"]
    wrong = [count_mistakes(*of, judged.images, judged.labels, judged) for of in ((space, made.variables), made.small)]
    assert wrong[0] == wrong[1]


def test_losses_are_the_objective_of_what_is_kept(space, given):
    """With nothing pruned it is the error and 125 %, by a1 = 1 and a2 = a1 / 4."""
    still = dataclasses.replace(given["last"], epochs=0)
    made = prune_automatically(space, **{**given, "last": still}, ratios=0.0)
    judged = given["judged"]
    wrong = count_mistakes(space, given["variables"], judged.images, judged.labels, judged)
    assert made.layers[0].losses == pytest.approx((wrong + 125.0,))
    assert [layer.tuned for layer in made.layers] == [False] * 3


def test_the_same_key_prunes_the_same_and_given_ratios_are_kept_to(space, given):
    fixed = {"ratios": {"stages_0_1/conv": 0.25}, "criterion": Random()}
    one, other = (prune_automatically(space, **given, **fixed) for _ in range(2))
    _alike(one, other)
    assert [layer.dropped for layer in one.layers] == [0, 0, 4]
    other = prune_automatically(space, **{**given, "key": jax.random.key(5)}, **fixed)
    assert (one.masks["stages_0_1"]["norm"]["scale"] != other.masks["stages_0_1"]["norm"]["scale"]).any()


def test_other_masks_do_not_compile_anew(space, given):
    standalone._step.cache_clear(), judge._mistakes.cache_clear()
    prune_automatically(space, **given, criterion=Distance(), ratios=0.25)
    recipe = given["last"]
    steps = recipe.epochs * (len(given["data"].images) // recipe.batch)
    over = standalone.spread(recipe)
    assert standalone._step(space, recipe, steps, 0.5, "auto", over)._cache_size() == 1
    assert judge._mistakes(space)._cache_size() == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ratios": 1.0}, r"ratio of stem_0/conv=1.0 leaves it of 8 channels empty: give at most 0.875"),
        ({"ratios": {"stem_0/conv": -0.1}}, "ratio of stem_0/conv=-0.1 is out of range"),
        ({"ratios": {"stem_0": 0.1}}, "unknown layer 'stem_0'"),
        ({"search": RatioSearch(high=1.0)}, "high=1.0 leaves stem_0/conv of 8 channels empty"),
        ({"tune_from": 5.0}, "tune_from=5.0 is out of range"),
        ({"judged": "wide"}, "images of 9x9x1 do not fit the network"),
        ({"judged": "none"}, "there are no images to judge by"),
    ],
)
def test_bad_arguments_are_named(space, given, change, said):
    data = given["data"]
    other = {
        "wide": data._replace(images=np.zeros((2, 9, 9, 1), np.uint8), labels=np.zeros(2, np.int32)),
        "none": Images(data.images[:0], data.labels[:0], data.mean, data.std),
    }
    change = {name: other.get(value, value) if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(InputError, match=said):
        prune_automatically(space, **{**given, **change})


def test_a_criterion_that_sees_nothing_is_named(network, given, lively):
    space = with_bits(network(ConvNorm(), (8, 16), Classifier()), "w32a2", 32, DOREFA)
    with pytest.raises(InputError, match="criterion angle sees none of the layers"):
        prune_automatically(space, **given)


def test_a_share_of_a_layer_that_the_criterion_does_not_see_is_an_error():
    space = tiny.space(bits="w4/32a8", first_last_bits=32).freeze([0, 0, 0, 1, 0, 0, 0, 0, 0])
    data = Images(np.zeros((8, 8, 8, 1), np.uint8), np.zeros(8, np.int32), np.zeros(1), np.ones(1))
    still, keys = Recipe(epochs=0, batch=8), jax.random.split(jax.random.key(0))
    with pytest.raises(InputError, match="criterion angle does not see head/conv, ratio 0.25: leave it out"):
        prune_automatically(
            space, fresh(space, keys[0]), data, data, between=still, last=still, key=keys[1], ratios={"head/conv": 0.25}
        )
