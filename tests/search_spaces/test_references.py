"""Published networks against published counts, from two independent sides."""

import pytest

from hw_models import discover
from search_spaces.counting import count

# torchvision's models of the same names, parameters and multiply-accumulates of convolutions and linear layers at 224.
EXACT = {"mobilenet_v2": (3_504_872, 300_774_272), "mobilenet_v3_small": (2_542_856, 56_510_400)}


@pytest.mark.parametrize("name", discover.names("search_spaces.references"))
def test_counts_of_both_sides_are_the_published_ones(name):
    network = discover.load("search_spaces.references", name, "network")()
    layers = network.lower()
    assert (sum(layer.params for layer in layers), sum(layer.macs for layer in layers)) == EXACT[name]
    assert tuple(count(network)) == EXACT[name]
    paper = discover.load("search_spaces.references", name, "PAPER")
    assert paper["params"] == pytest.approx(EXACT[name][0], rel=0.05)
    assert paper["macs"] == pytest.approx(EXACT[name][1], rel=0.05) and paper["source"]
