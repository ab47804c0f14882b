"""Training every candidate alone, on real digits."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.evaluators import standalone, supernet
from nas.loop import search
from nas.objectives import Objective
from nas.strategies import random_search
from nas.training import standalone as alone
from nas.training.recipe import Recipe
from nas.types import CandidateFailure
from search_spaces.choice import Choice
from search_spaces.network import Network
from search_spaces.spaces import tiny

GENES = np.asarray([[0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 2, 0]], np.int32)
OPTIONS = {"data": "digits", "validation": 203, "train": 600, "epochs": 3, "shift": 0, "flip": False}


def test_errors_are_those_of_the_trained_networks():
    space = tiny.space()
    judge = standalone.evaluator(space, **OPTIONS)
    key = jax.random.key(3)
    errors = judge.evaluate(key, (), GENES, np.asarray([4, 9])).error
    splits = split(load("digits"), 203, 0, 600)
    images = alone.Images.of(splits)
    recipe = Recipe(epochs=3, batch=64, learning_rate=0.1, shift=0, flip=False)
    for row, index in enumerate((4, 9)):
        network = space.freeze(GENES[row])
        variables = alone.train(network, images, recipe, jax.random.fold_in(key, index))
        x = (splits.validation_images / np.float32(255) - splits.mean) / splits.std
        answers = np.argmax(jax.jit(Network(network).apply)(variables, x), -1)
        wrong = int((answers != splits.validation_labels).sum())
        assert errors[row] == pytest.approx(wrong / 203, abs=1.01 / 203), "at most one image may tip by rounding"
    assert (errors < 0.7).all(), "three epochs beat guessing"
    other = judge.evaluate(jax.random.key(4), (), GENES[:1], np.asarray([4])).error
    assert other[0] != errors[0], "another key, other weights"


def test_it_sees_the_images_that_the_supernet_sees():
    same = {"data": "digits", "validation": 203, "train": 600, "seed": 3}
    described = [factory.evaluator(tiny.space(), **same).describe for factory in (standalone, supernet)]
    for name in ("data", "data_hash", "seed", "train", "validation", "test", "data_from"):
        assert described[0][name] == described[1][name], name


def test_every_setting_of_a_training_is_an_option_and_described():
    asked = {"optimizer": "adamw", "learning_rate": 0.002, "ema": 0.9, "cutout": 2, "mixup": 0.2, "accumulate": 2}
    asked |= {"warmup": 0.1, "precision": "bfloat16"}
    for factory in (standalone, supernet):
        options = inspect.signature(factory.evaluator).parameters
        assert {field.name for field in dataclasses.fields(Recipe)} - {"momentum"} <= set(options)
        described = factory.evaluator(tiny.space(), data="digits", validation=203, train=600, **asked).describe
        assert {name: described[name] for name in asked} == asked


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_network_that_diverges_fails_and_the_search_goes_on(monkeypatch):
    space = tiny.space()
    judge = standalone.evaluator(space, **{**OPTIONS, "epochs": 1})
    train = alone.train

    def broken(network, images, recipe, key, *rest):
        if network.stages[0].block[0].kernel == 5:
            images = images._replace(std=np.full(1, np.nan, np.float32))
        return train(network, images, recipe, key, *rest)

    monkeypatch.setattr(alone, "train", broken)
    with pytest.raises(CandidateFailure, match="the loss of epoch 0 is nan at step 0, learning rate 0: lower"):
        judge.evaluate(jax.random.key(0), (), np.asarray([[1, 0, 0, 0, 0, 0]]), np.arange(1))
    goal = Objective(space, "raspberry_pi_4")
    run = search(space, random_search.strategy(space, population=2), judge, goal, steps=1, key=jax.random.key(1))
    statuses = {record["names"]["stages/0/0/kernel"]: record["status"] for record in run.records}
    assert statuses == {3: "ok", 5: "failed"}


def test_running_out_of_memory_fails_one_network_and_other_mistakes_end_the_search(monkeypatch):
    judge = standalone.evaluator(tiny.space(), **OPTIONS)

    def raising(text):
        def train(*_):
            raise jax.errors.JaxRuntimeError(text)

        return train

    monkeypatch.setattr(alone, "train", raising("RESOURCE_EXHAUSTED: 9 GB\nmore"))
    with pytest.raises(
        CandidateFailure, match=r"candidate needs more memory than there is \(9 GB\): take a space of smaller networks$"
    ):
        judge.evaluate(jax.random.key(0), (), GENES[:1], np.arange(1))
    monkeypatch.setattr(alone, "train", raising("INTERNAL: a mistake"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a mistake"):
        judge.evaluate(jax.random.key(0), (), GENES[:1], np.arange(1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs=0 is out of range: give at least 1"),
        ({"batch": 5000}, "600 training images are fewer than a batch of 5000"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 is out of range"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"data": "fashion_mnist_10k", "train": None}, "space tiny takes 8x8x1"),
    ],
)
def test_bad_settings_are_named(options, said):
    with pytest.raises(InputError, match=said):
        standalone.evaluator(tiny.space(), **{**OPTIONS, **options})


def test_a_network_of_a_lower_resolution_sees_scaled_images(monkeypatch):
    """It was trained on full images, by which a search would have found resolution to cost nothing."""
    space = dataclasses.replace(tiny.space(), input_hw=Choice(6, 8))
    judge = standalone.evaluator(space, data="digits", validation=200, train=128, epochs=1)
    trained, genes = [], np.zeros((2, space.num_decisions), np.int32)
    genes[1, -1] = 1
    train = alone.train

    def watched(network, images, *others):
        trained.append((network.image_hw, images.images.shape))
        return train(network, images, *others)

    monkeypatch.setattr(alone, "train", watched)
    judge.evaluate(jax.random.key(0), (), genes, np.arange(2))
    assert trained == [(6, (128, 6, 6, 1)), (8, (128, 8, 8, 1))]


def test_images_of_another_size_are_refused():
    images = np.zeros((64, 8, 8, 1), np.uint8)
    data = alone.Images(images, np.zeros(64, np.int32), np.zeros(1, np.float32), np.ones(1, np.float32))
    with pytest.raises(InputError, match="images of 8x8x1 do not fit the network, which takes 6x6x1"):
        alone.train(dataclasses.replace(tiny.space(), input_hw=6).freeze([0] * 6), data, Recipe(), jax.random.key(0))
