"""MobileNetV2 1.0 (Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2)."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.space import SearchSpace, Stage, recorded

PAPER = {"params": 3.4e6, "macs": 300e6, "source": "Sandler et al. 2018, table 4"}

# expand, out, repeats, stride
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@recorded
def network(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """The network as a frozen space.

    Example:
        >>> sum(layer.params for layer in network().lower()), sum(layer.macs for layer in network().lower())
        (3504872, 300774272)
    """
    return SearchSpace(
        "mobilenet_v2",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "relu6"), width=32, stride=2),
        stages=tuple(Stage(InvertedResidual(3, expand), out, repeats, stride) for expand, out, repeats, stride in ROWS),
        head=Classifier(features=1280, activation="relu6"),
    )
