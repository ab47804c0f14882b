"""FBNet-A, B and C: points of the space `fbnet`.

Layers are those of the authors' definitions (facebookresearch/mobile-vision). Their released B and C have two 3x3
filters in place of some 5x5, which is none of the nine blocks of the space.
"""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace
from search_spaces.spaces import fbnet as space

# width of the last convolution, and the 22 layers
LAYERS = {
    "a": (
        1504,
        "skip k3_e3 k3_e1 skip skip k5_e6 k3_e3 k5_e1 k3_e3 k5_e6 k5_e3 k5_e1_g2 k5_e6 k3_e6 k5_e1_g2 k5_e3 k3_e1_g2 "
        "k5_e6 k5_e6 k5_e3 k5_e6 k5_e6",
    ),
    "b": (
        1984,
        "k3_e1 k3_e6 k5_e1 k3_e1 k3_e1 k5_e6 k5_e3 k3_e6 k5_e6 k5_e6 k5_e1 skip k5_e3 k5_e6 k3_e1 k5_e1 k5_e3 "
        "k5_e6 k5_e1 k5_e6 k5_e6 k3_e6",
    ),
    "c": (
        1984,
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k5_e6 k5_e3 "
        "k5_e6 k5_e6 k5_e6 k5_e6 k3_e6",
    ),
}
SOURCE = "Wu et al. 2019 (arXiv 1812.03443), table 3"


def _network(letter: str) -> Callable[..., SearchSpace]:
    features, layers = LAYERS[letter]

    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        whole = space.space(input_hw, input_channels, classes, features)
        return space.published(whole, f"fbnet_{letter}", layers.split())

    return recorded(build)


NETWORKS = {
    "fbnet_a": Published(_network("a"), 4.3e6, 249e6, SOURCE),
    "fbnet_b": Published(_network("b"), 4.5e6, 295e6, SOURCE, "the authors' repository says 4.8 million parameters"),
    "fbnet_c": Published(
        _network("c"), 5.5e6, 375e6, SOURCE, "375 million is with a last convolution of 1504, 5.5 million with 1984"
    ),
}
