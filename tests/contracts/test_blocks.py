"""Every block in the folder keeps the contract of blocks."""

import pytest

from hw_models import discover
from search_spaces import testing

NAMES = [name for name in discover.names("search_spaces.blocks") if name != "classifier"]


def kind_of(name):
    return discover.load("search_spaces.blocks", name, "block")


@pytest.mark.parametrize("name", discover.names("search_spaces.blocks"))
def test_block_says_its_name_and_shapes(name):
    assert kind_of(name).kind == name
    testing.check_shapes(kind_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_counts_agree_with_the_network(name):
    testing.check_counts(kind_of(name))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_supernet_equals_standalone(name, stride):
    testing.check_supernet(kind_of(name), stride, candidates=5 if stride == 1 else 3)
