"""From a trained network to one of integers: accuracy, options, and what is refused."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.model import Meta, Model
from nas.quantized.post_training import quantize
from nas.quantized.ranges import OBSERVERS
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.spaces import tiny


@pytest.fixture(scope="module")
def digits() -> tuple[Model, Any]:
    splits = split(load("digits"), validation=200, seed=0)
    space = tiny.space().freeze([0, 0, 1, 0, 1, 0])
    variables = train(space, Images.of(splits), Recipe(epochs=8, batch=64, shift=0, flip=False), jax.random.key(0))
    mean, std = (tuple(map(float, part)) for part in (splits.mean, splits.std))
    return Model(space, variables, Meta("tiny", tuple("0123456789"), mean, std)), splits


def accuracy(network: Any, splits: Any) -> float:
    return float((network.logits(splits.test_images).argmax(-1) == splits.test_labels).mean())


@pytest.mark.parametrize("observer", OBSERVERS)
def test_eight_bits_cost_little_accuracy(digits: Any, observer: str) -> None:
    model, splits = digits
    assert accuracy(model, splits) > 0.75
    network = quantize(model, splits.train_images[:256], observer=observer)
    assert accuracy(network, splits) > accuracy(model, splits) - 0.02
    alike = network.logits(splits.test_images).argmax(-1) == model.logits(splits.test_images).argmax(-1)
    assert alike.mean() > 0.96


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({"per_channel": False}, 0.02),
        ({"symmetric_acts": True}, 0.02),
        ({"weight_bits": 7}, 0.02),
        ({"weight_bits": 5, "act_bits": 6}, 0.08),
        ({"act_bits": 16}, 0.015),
        ({"first_last_bits": None, "weight_bits": 6}, 0.05),
    ],
)
def test_options(digits: Any, options: dict[str, Any], loss: float) -> None:
    model, splits = digits
    network = quantize(model, splits.train_images[:256], **options)
    assert accuracy(network, splits) > accuracy(model, splits) - loss
    bits = options.get("weight_bits", 8)
    most = max(int(np.abs(weights.codes.astype(int)).max()) for weights in network.weights.values())
    assert most == (127 if options.get("first_last_bits", 8) else 2 ** (bits - 1) - 1)
    if not network.per_channel:
        assert all(np.unique(weights.step).size == 1 for weights in network.weights.values())


def test_bits_of_single_layers(digits: Any) -> None:
    model, splits = digits
    usual = quantize(model, splits.train_images[:64])
    paths = {weights: node.path for node in usual.graph.nodes for weights in node.outputs if weights in usual.weights}
    first, second, *_, last = paths.values()
    network = quantize(
        model, splits.train_images[:64], weight_bits={second: 3, last: 2}, act_bits={second: 4}, first_last_bits=6
    )
    by_path = {path: network.weights[name] for name, path in paths.items()}
    assert (by_path[first].bits, by_path[second].bits, by_path[last].bits) == (6, 3, 2)
    assert np.abs(by_path[second].codes).max() == 3 and np.abs(by_path[last].codes).max() == 1
    (name,) = (name for name, path in paths.items() if path == second)
    assert network.codings[name].last == 15 and network.codings["images"].last == 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observer": "minmax"}, "unknown observer 'minmax': did you mean 'min_max'"),
        ({"weight_bits": 1}, "weight_bits 1 of stem_0/conv is not allowed: give 2 to 8"),
        ({"act_bits": 12}, "act_bits 12 of .* is not allowed: give 2 to 8 or 16"),
        ({"weight_bits": {"stem_0/cnv": 4}}, "unknown layer 'stem_0/cnv' in weight_bits: did you mean 'stem_0/conv'"),
        ({"first_last_bits": 9}, "first_last_bits 9 is not allowed: give a whole number from 2 to 8"),
    ],
)
def test_bad_options_are_named(digits: Any, options: dict[str, Any], message: str) -> None:
    model, splits = digits
    with pytest.raises(InputError, match=message):
        quantize(model, splits.train_images[:8], **options)


@pytest.mark.parametrize("images", [np.zeros((4, 8, 8), np.uint8), np.zeros((4, 9, 8, 1), np.uint8),
                                    np.zeros((0, 8, 8, 1), np.uint8), np.zeros((4, 8, 8, 1))])  # fmt: skip
def test_images_of_another_shape_are_named(digits: Any, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"cannot calibrate this network: give uint8 \[N, 8, 8, 1\]"):
        quantize(digits[0], images)


def test_weights_that_are_no_numbers_are_named(digits: Any) -> None:
    model, splits = digits
    broken = jax.tree.map(lambda leaf: leaf * np.nan, model.variables)
    with pytest.raises(InputError, match="have no range: train the network again"):
        quantize(model._replace(variables=broken), splits.train_images[:8])
