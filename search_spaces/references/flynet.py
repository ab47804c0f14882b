"""FlyNet as its thesis reports it: three heads at several widths, and width 0.5 with one to five heads.

All are points of the space `flynet`. Guerra Fernandez 2024 (PhD thesis, Monash), tables 8.3 and 8.5. The thesis counts
1.22 to 1.31 times as many multiply-adds as plain MACs, for a reason it does not state: ours are plain MACs.
"""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace
from search_spaces.spaces import flynet as space

BY_WIDTH = {0.4: (0.657e6, 26.5e6), 0.5: (0.86e6, 34e6), 0.6: (1.0e6, 46e6), 0.7: (1.3e6, 54e6), 0.8: (1.6e6, 66e6)}
BY_HEADS = {1: (0.80e6, 24e6), 2: (0.83e6, 29e6), 3: (0.86e6, 34e6), 4: (0.89e6, 39e6), 5: (0.92e6, 44e6)}
LEVELS = 8  # of the quantization noise of the 1.0x network, table 8.6
SOURCE = "Guerra Fernandez 2024 (thesis, Monash)"
NOTE = "the thesis counts more than plain MACs"


def _network(heads: int, width: float) -> Callable[..., SearchSpace]:
    name = f"flynet_h{heads}_{width:.1f}x"

    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        levels = LEVELS if width >= 1 else 0
        whole = space.space(input_hw, input_channels, classes, width, levels)
        return space.published(whole, name, heads, width)

    return recorded(build)


NETWORKS = {
    **{
        f"flynet_h3_{width:.1f}x": Published(_network(3, width), *counts, f"{SOURCE}, tables 8.2 and 8.3", NOTE)
        for width, counts in BY_WIDTH.items()
    },
    **{
        f"flynet_h{heads}_0.5x": Published(_network(heads, 0.5), *counts, f"{SOURCE}, table 8.5", NOTE)
        for heads, counts in BY_HEADS.items()
    },
    "flynet_h3_1.0x": Published(
        _network(3, 1.0), None, None, f"{SOURCE}, table 8.6", "the thesis prints its accuracy only"
    ),
}
