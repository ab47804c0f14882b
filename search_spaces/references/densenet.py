"""DenseNets: 121 and 264 for ImageNet (bottleneck, compression), 40 and 100 of growth 12 for CIFAR (neither)."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense import Dense
from search_spaces.blocks.dense_bottleneck import DenseBottleneck
from search_spaces.blocks.pool import Pool
from search_spaces.blocks.transition import Transition
from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage


def _stages(block: Dense | DenseBottleneck, depths: tuple[int, ...], width: int, compression: float) -> list[Stage]:
    """Dense stages, whose width grows with every block, and the transitions between them."""
    growth = block.growth
    assert isinstance(growth, int)
    stages: list[Stage] = []
    for place, depth in enumerate(depths):
        if place:
            width = int(width * compression)
            stages.append(Stage(Transition(), width, 1, 2))
        widths = tuple(width + growth * number for number in range(1, depth + 1))
        stages.append(Stage(block, widths, depth))
        width = widths[-1]
    return stages


def _imagenet(name: str, depths: tuple[int, ...]) -> Callable[..., SearchSpace]:
    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        stages = _stages(DenseBottleneck(3, growth=32), depths, 64, 0.5)
        stem = Stage(ConvNorm(7), 64, 1, 2)
        pooled = Stage(Pool("max", 3), 64, 1, 2)
        head = Classifier(preactivation=True)
        return SearchSpace(name, input_hw, input_channels, classes, stem, (pooled, *stages), head)

    return recorded(build)


def _cifar(name: str, depth: int) -> Callable[..., SearchSpace]:
    def build(input_hw: int = 32, input_channels: int = 3, classes: int = 10) -> SearchSpace:
        stages = _stages(Dense(3, growth=12), ((depth - 4) // 3,) * 3, 16, 1.0)
        stem, head = Stage(ConvNorm(3, "identity", norm=False), 16), Classifier(preactivation=True)
        return SearchSpace(name, input_hw, input_channels, classes, stem, tuple(stages), head)

    return recorded(build)


SOURCE = "Huang et al. 2017 (arXiv 1608.06993), table 1"
SCHINDLER = "Schindler 2021 (dissertation, Heidelberg)"
NETWORKS = {
    "densenet121": Published(
        _imagenet("densenet121", (6, 12, 24, 16)), 7.91e6, 2.84e9, f"{SCHINDLER}, table 6.3"
    ),
    "densenet264": Published(_imagenet("densenet264", (6, 12, 64, 48)), None, None, SOURCE),
    "densenet40_k12": Published(_cifar("densenet40_k12", 40), 1.02e6, 0.27e9, f"{SCHINDLER}, table 6.2"),
    "densenet100_k12": Published(_cifar("densenet100_k12", 100), 6.98e6, 1.77e9, f"{SCHINDLER}, table 6.2"),
}  # fmt: skip
