"""ProxylessNAS for phones, CPUs and GPUs: points of the space `proxylessnas`, each with its own widths.

The paper prints latency and accuracy; parameters and multiply-accumulates are counted from the authors' configurations
(mit-han-lab/proxylessnas).
"""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace
from search_spaces.spaces import proxylessnas as space

# widths, and per stage the kernel and expansion of every layer: 53 is kernel 5 and expansion 3, 0 is left out
TARGETS = {
    "mobile": (
        (32, 16, 32, 40, 80, 96, 192, 320, 1280),
        ((53, 33, 0, 0), (73, 33, 53, 53), (76, 53, 53, 53), (56, 53, 53, 53), (76, 76, 73, 73), (76,)),
    ),
    "cpu": (
        (40, 24, 32, 48, 88, 104, 216, 360, 1432),
        ((36, 33, 33, 33), (36, 33, 33, 53), (36, 0, 0, 33), (56, 33, 33, 33), (56, 53, 53, 33), (56,)),
    ),
    "gpu": (
        (40, 24, 32, 56, 112, 128, 256, 432, 1728),
        ((53, 0, 0, 0), (73, 0, 0, 33), (76, 0, 0, 53), (56, 0, 33, 53), (76, 76, 76, 56), (76,)),
    ),
}
SOURCE = "Cai, Zhu and Han 2019 (arXiv 1812.00332), authors' configurations"


def _network(target: str) -> Callable[..., SearchSpace]:
    widths, stages = TARGETS[target]
    layers = [divmod(layer, 10) if layer else None for stage in stages for layer in stage]

    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        whole = space.space(input_hw, input_channels, classes, widths=widths)
        return space.published(whole, f"proxylessnas_{target}", layers)

    return recorded(build)


NETWORKS = {
    "proxylessnas_mobile": Published(_network("mobile"), 4_080_512, 320e6, SOURCE),
    "proxylessnas_cpu": Published(_network("cpu"), 4_361_648, None, SOURCE),
    "proxylessnas_gpu": Published(_network("gpu"), 7_119_848, None, SOURCE),
}
