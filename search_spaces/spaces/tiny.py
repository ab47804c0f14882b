"""`tiny`: 144 encodings on 8x8 images, for documentation and tests."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage


@recorded
def space(input_hw: int = 8, input_channels: int = 1, classes: int = 10) -> SearchSpace:
    """Two stages: an inverted residual with kernel and expansion, a FlyNet block with heads, depth and width.

    Example:
        >>> space().size
        144
    """
    return SearchSpace(
        "tiny",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(kernel=3), width=8),
        stages=(
            Stage(InvertedResidual(kernel=Choice(3, 5), expand=Choice(2, 3), activation="relu"), width=8),
            Stage(
                FlyNet(kernel=3, expand=2, heads=Choice(1, 2, 3)),
                width=Choice(8, 16),
                depth=Choice(1, 2),
                stride=2,
            ),
        ),
        head=Classifier(features=32),
    )
