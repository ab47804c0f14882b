"""MobileNetV3-Small 1.0 (Howard et al. 2019, https://arxiv.org/abs/1905.02244, table 2)."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.space import SearchSpace, Stage, recorded

PAPER = {"params": 2.5e6, "macs": 56e6, "source": "Howard et al. 2019, table 3 (V3-Small 1.0)"}

# kernel, hidden channels (None: no expansion), out, attention, activation, stride
ROWS = (
    (3, None, 16, "se", "relu", 2),
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


@recorded
def network(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """The network as a frozen space.

    Example:
        >>> sum(layer.params for layer in network().lower()), sum(layer.macs for layer in network().lower())
        (2542856, 56510400)
    """
    return SearchSpace(
        "mobilenet_v3_small",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "hard_swish"), width=16, stride=2),
        stages=tuple(
            Stage(InvertedResidual(kernel, 6 if hidden else 1, attention, activation, hidden), out, 1, stride)
            for kernel, hidden, out, attention, activation, stride in ROWS
        ),
        head=Classifier(features=576, hidden=1024, activation="hard_swish"),
    )
