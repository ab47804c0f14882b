"""Small frozen networks, digits and a short training for the tests of pruning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.data import split
from nas.data_source import load
from nas.training.recipe import Recipe
from nas.training.standalone import Images
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.network import fresh
from search_spaces.space import SearchSpace, Stage


@pytest.fixture(scope="session")
def network():
    """A stem of 8 channels and one block of each width, on 8x8 images."""

    def made(block, widths=(8, 16), head=None):
        stage = Stage(block, tuple(widths), len(widths))
        return SearchSpace("net", 8, 1, 10, Stage(ConvNorm(), 8), (stage,), head or Classifier(features=16))

    return made


@pytest.fixture(scope="session")
def lively():
    """Fresh variables with scales, biases and statistics that are no constants."""

    def made(space, seed=0):
        rng = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: jnp.asarray(rng.uniform(0.3, 1.2, leaf.shape), jnp.float32) if leaf.ndim == 1 else leaf,
            fresh(space, jax.random.key(seed)),
        )

    return made


@pytest.fixture(scope="session")
def images():
    return Images.of(split(load("digits"), 200, 0, train=256))


@pytest.fixture(scope="session")
def recipe():
    return Recipe(epochs=2, batch=64, learning_rate=0.05, shift=0, flip=False)
