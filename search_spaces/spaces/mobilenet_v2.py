"""`mobilenet_v2`: inverted residuals in the layout of MobileNetV2, with kernel, expansion, depth and width."""

from __future__ import annotations

import dataclasses

import numpy as np

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import around, check_width, listed, strides

# output width, most blocks, stride; the first stage, without expansion, is apart
ROWS = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


@recorded
def space(input_hw: int = 224, input_channels: int = 3, classes: int = 1000, width: float = 1.0) -> SearchSpace:
    """Kernel 3, 5 or 7 and expansion 3, 4 or 6 of every block; depth up to the published one and width 0.75 or 1 of
    every stage.

    `width` multiplies all channels. On small images the first strides are 1.

    Source: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2, which is a point of it.

    Example:
        >>> space().num_decisions, len(space(32, 3, 10).slots)
        (42, 19)
    """
    check_width(width)
    steps = strides((2, 1, *(stride for _, _, stride in ROWS)), input_hw)
    block = InvertedResidual(kernel=Choice(3, 5, 7), expand=Choice(3, 4, 6))
    stages = [Stage(InvertedResidual(kernel=3, expand=1), make_divisible(16 * width), 1, steps[1])]
    for (channels, most, _), stride in zip(ROWS, steps[2:], strict=True):
        stages.append(Stage(block, around(channels, (0.75 * width, width)), listed(*range(1, most + 1)), stride))
    return SearchSpace(
        "mobilenet_v2",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "relu6"), width=make_divisible(32 * width), stride=steps[0]),
        stages=tuple(stages),
        head=Classifier(features=max(1280, make_divisible(1280 * width)), activation="relu6"),
    )


def published(space: SearchSpace, name: str) -> SearchSpace:
    """The paper's own network as a frozen space: kernel 3, expansion 6, everything else at its largest."""
    genes = np.asarray(space.cardinality) - 1
    for position, decision in enumerate(space.names):
        if decision.endswith("/kernel"):
            genes[position] = 0
    return dataclasses.replace(space.freeze(genes), name=name, options=())
