"""ResNets for ImageNet and CIFAR, and the wide ResNet 28-10."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.block import Block
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.pool import Pool
from search_spaces.blocks.residual import Residual
from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage

WIDTHS = (64, 128, 256, 512)


def _imagenet(name: str, block: Block, depths: tuple[int, ...], ratio: int) -> Callable[..., SearchSpace]:
    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        stages = [Stage(Pool("max", 3), 64, 1, 2)]
        for place, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            stages.append(Stage(block, width * ratio, depth, 2 if place else 1))
        stem = Stage(ConvNorm(7), 64, 1, 2)
        return SearchSpace(name, input_hw, input_channels, classes, stem, tuple(stages), Classifier())

    return recorded(build)


def _cifar(name: str, depth: int) -> Callable[..., SearchSpace]:
    """16, 32 and 64 channels, shortcuts without parameters (option A)."""
    repeats = (depth - 2) // 6

    def build(input_hw: int = 32, input_channels: int = 3, classes: int = 10) -> SearchSpace:
        block = Residual(3, shortcut="pad")
        stages = tuple(Stage(block, width, repeats, stride) for width, stride in ((16, 1), (32, 2), (64, 2)))
        return SearchSpace(name, input_hw, input_channels, classes, Stage(ConvNorm(3), 16), stages, Classifier())

    return recorded(build)


def _wide(name: str, depth: int, width: int) -> Callable[..., SearchSpace]:
    repeats = (depth - 4) // 6

    def build(input_hw: int = 32, input_channels: int = 3, classes: int = 10) -> SearchSpace:
        block = Residual(3, preactivation=True)
        stages = tuple(
            Stage(block, channels * width, repeats, stride) for channels, stride in ((16, 1), (32, 2), (64, 2))
        )
        stem = Stage(ConvNorm(3, "identity", norm=False), 16)
        return SearchSpace(name, input_hw, input_channels, classes, stem, stages, Classifier(preactivation=True))

    return recorded(build)


SOURCE = "He et al. 2016 (arXiv 1512.03385)"
STRIDE = "stride in the 3x3, where the paper has it in the first 1x1"
SCHINDLER = "Schindler 2021 (dissertation, Heidelberg)"
NETWORKS = {
    "resnet18": Published(_imagenet("resnet18", Residual(3), (2, 2, 2, 2), 1), None, 1.8e9, f"{SOURCE}, table 1"),
    "resnet50": Published(
        _imagenet("resnet50", BottleneckResidual(3), (3, 4, 6, 3), 4), 25.61e6, 4.09e9, f"{SCHINDLER}, table 6.3",
        STRIDE,
    ),
    "resnet152": Published(
        _imagenet("resnet152", BottleneckResidual(3), (3, 8, 36, 3), 4), None, 11.3e9, f"{SOURCE}, table 1", STRIDE
    ),
    "resnet44": Published(
        _cifar("resnet44", 44), 655_418, None, f"{SCHINDLER}, section 5.3",
        "without the 3,168 parameters of normalisation, which ours include",
    ),
    "resnet56": Published(_cifar("resnet56", 56), 0.85e6, 0.13e9, f"{SCHINDLER}, table 6.2"),
    "wrn_28_10": Published(
        _wide("wrn_28_10", 28, 10), 36.5e6, 5.2e9, "Zagoruyko and Komodakis 2016 (arXiv 1605.07146), table 5"
    ),
}  # fmt: skip
