"""MobileNetV1, V2, V3 and the networks of their family that hand or search made: MnasNet, EfficientNet-B1.

V2 is a point of the space `mobilenet_v2`; the others have ratios that no space here holds, and are trees of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import mobilenet_v2 as v2_space

# output width, stride
V1_ROWS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# kernel, expanded channels (0: no expansion), output width, attention, activation, stride
V3_SMALL_ROWS = (
    (3, 0, 16, "se", "relu", 2),
    (3, 72, 24, "none", "relu", 2),
    (3, 88, 24, "none", "relu", 1),
    (5, 96, 40, "se", "hard_swish", 2),
    (5, 240, 40, "se", "hard_swish", 1),
    (5, 240, 40, "se", "hard_swish", 1),
    (5, 120, 48, "se", "hard_swish", 1),
    (5, 144, 48, "se", "hard_swish", 1),
    (5, 288, 96, "se", "hard_swish", 2),
    (5, 576, 96, "se", "hard_swish", 1),
    (5, 576, 96, "se", "hard_swish", 1),
)
V3_LARGE_ROWS = (
    (3, 0, 16, "none", "relu", 1),
    (3, 64, 24, "none", "relu", 2),
    (3, 72, 24, "none", "relu", 1),
    (5, 72, 40, "se", "relu", 2),
    (5, 120, 40, "se", "relu", 1),
    (5, 120, 40, "se", "relu", 1),
    (3, 240, 80, "none", "hard_swish", 2),
    (3, 200, 80, "none", "hard_swish", 1),
    (3, 184, 80, "none", "hard_swish", 1),
    (3, 184, 80, "none", "hard_swish", 1),
    (3, 480, 112, "se", "hard_swish", 1),
    (3, 672, 112, "se", "hard_swish", 1),
    (5, 672, 160, "se", "hard_swish", 2),
    (5, 960, 160, "se", "hard_swish", 1),
    (5, 960, 160, "se", "hard_swish", 1),
)
# repeats, kernel, stride, expansion, output width, attention
MNASNET_A1_ROWS = (
    (2, 3, 2, 6, 24, "none"),
    (3, 5, 2, 3, 40, "se"),
    (4, 3, 2, 6, 80, "none"),
    (2, 3, 1, 6, 112, "se"),
    (3, 5, 2, 6, 160, "se"),
    (1, 3, 1, 6, 320, "none"),
)
MNASNET_B1_ROWS = (
    (3, 3, 2, 3, 24, "none"),
    (3, 5, 2, 3, 40, "none"),
    (3, 5, 2, 6, 80, "none"),
    (2, 3, 1, 6, 96, "none"),
    (4, 5, 2, 6, 192, "none"),
    (1, 3, 1, 6, 320, "none"),
)
EFFICIENTNET_B1_ROWS = (
    (2, 3, 1, 1, 16, "se"),
    (3, 3, 2, 6, 24, "se"),
    (3, 5, 2, 6, 40, "se"),
    (4, 3, 2, 6, 80, "se"),
    (4, 5, 1, 6, 112, "se"),
    (5, 5, 2, 6, 192, "se"),
    (2, 3, 1, 6, 320, "se"),
)


@recorded
def mobilenet_v1(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """MobileNetV1 1.0.

    Example:
        >>> mobilenet_v1().params, mobilenet_v1().macs
        (4231976, 568740352)
    """
    stages = tuple(Stage(DepthwiseSeparable(3), width, 1, stride) for width, stride in V1_ROWS)
    return _network("mobilenet_v1", input_hw, input_channels, classes, Stage(ConvNorm(3), 32, 1, 2), stages)


@recorded
def mobilenet_v2(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """MobileNetV2 1.0, the largest point of its space at kernel 3.

    Example:
        >>> mobilenet_v2().params, mobilenet_v2().macs
        (3504872, 300774272)
    """
    space = v2_space.space(input_hw, input_channels, classes)
    return v2_space.published(space, "mobilenet_v2")


def _v3(name: str, rows: Sequence[tuple[Any, ...]], features: int, hidden: int) -> Callable[..., SearchSpace]:
    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        stages = tuple(
            Stage(InvertedResidual(kernel, 6 if wide else 1, attention, activation, wide or None), out, 1, stride)
            for kernel, wide, out, attention, activation, stride in rows
        )
        head = Classifier(features=features, hidden=hidden, activation="hard_swish")
        stem = Stage(ConvNorm(3, "hard_swish"), 16, 1, 2)
        return _network(name, input_hw, input_channels, classes, stem, stages, head)

    return recorded(build)


def _mnasnet(name: str, rows: Sequence[tuple[Any, ...]]) -> Callable[..., SearchSpace]:
    def build(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
        first = Stage(DepthwiseSeparable(3, project_activation="identity"), 16)
        stages = tuple(
            Stage(InvertedResidual(k, e, se, "relu", squeeze_from="input", gate="sigmoid"), out, repeats, stride)
            for repeats, k, stride, e, out, se in rows
        )
        stem = Stage(ConvNorm(3), 32, 1, 2)
        return _network(name, input_hw, input_channels, classes, stem, (first, *stages), Classifier(1280))

    return recorded(build)


@recorded
def efficientnet_b1(input_hw: int = 240, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """EfficientNet-B1 at its own resolution.

    Example:
        >>> efficientnet_b1().params, efficientnet_b1().macs
        (7794184, 686802832)
    """
    block = partial(
        InvertedResidual, activation="silu", squeeze_from="input", squeeze_activation="silu", gate="sigmoid"
    )
    stages = tuple(
        Stage(block(k, e, se), out, repeats, stride) for repeats, k, stride, e, out, se in EFFICIENTNET_B1_ROWS
    )
    stem, head = Stage(ConvNorm(3, "silu"), 32, 1, 2), Classifier(1280, activation="silu")
    return _network("efficientnet_b1", input_hw, input_channels, classes, stem, stages, head)


def _network(
    name: str,
    input_hw: int,
    input_channels: int,
    classes: int,
    stem: Stage,
    stages: tuple[Stage, ...],
    head: Classifier = Classifier(),  # noqa: B008
) -> SearchSpace:
    return SearchSpace(name, input_hw, input_channels, classes, stem, stages, head)


V3_SOURCE = "Howard et al. 2019 (arXiv 1905.02244), table 3"
MNASNET_SOURCE = "Tan et al. 2019 (arXiv 1807.11626), table 1"
NETWORKS = {
    "mobilenet_v1": Published(mobilenet_v1, 4.2e6, 569e6, "Howard et al. 2017 (arXiv 1704.04861), table 8"),
    "mobilenet_v2": Published(mobilenet_v2, 3.4e6, 300e6, "Sandler et al. 2018 (arXiv 1801.04381), table 4"),
    "mobilenet_v3_small": Published(
        _v3("mobilenet_v3_small", V3_SMALL_ROWS, 576, 1024), 2.5e6, 56e6, V3_SOURCE
    ),
    "mobilenet_v3_large": Published(
        _v3("mobilenet_v3_large", V3_LARGE_ROWS, 960, 1280), 5.4e6, 219e6, V3_SOURCE
    ),
    "mnasnet_a1": Published(_mnasnet("mnasnet_a1", MNASNET_A1_ROWS), 3.9e6, 312e6, MNASNET_SOURCE),
    "mnasnet_b1": Published(_mnasnet("mnasnet_b1", MNASNET_B1_ROWS), 4.4e6, 315e6, MNASNET_SOURCE),
    "efficientnet_b1": Published(
        efficientnet_b1, 7.8e6, 700e6, "Tan and Le 2019 (arXiv 1905.11946), table 2", "at 240x240"
    ),
}  # fmt: skip
