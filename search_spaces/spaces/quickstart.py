"""`quickstart`: small enough to search on a laptop in minutes, large enough that the search matters."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import strides


@recorded
def space(input_hw: int = 28, input_channels: int = 1, classes: int = 10) -> SearchSpace:
    """Three stages of inverted residuals and FlyNet blocks, seven searchable blocks.

    Each block is an inverted residual (kernel 3, 5 or 7, expansion 2 or 4) or a FlyNet block (kernel 3, 5 or 7, one
    to three heads), with attention none, SE or ECA; each stage chooses its width and depth. On small images the first
    strides are 1.
    """
    steps = strides((2, 1, 2, 2), input_hw)
    attention = Choice("none", "se", "eca")
    block = Choice(
        InvertedResidual(kernel=Choice(3, 5, 7), expand=Choice(2, 4), attention=attention, activation="relu"),
        FlyNet(kernel=Choice(3, 5, 7), expand=2, heads=Choice(1, 2, 3), attention=attention),
    )
    return SearchSpace(
        "quickstart",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(kernel=3), width=16, stride=steps[0]),
        stages=(
            Stage(block, width=Choice(16, 24), depth=Choice(1, 2), stride=steps[1]),
            Stage(block, width=Choice(40, 64), depth=Choice(1, 2, 3), stride=steps[2]),
            Stage(block, width=Choice(96, 128), depth=Choice(1, 2), stride=steps[3]),
        ),
        head=Classifier(features=256),
    )
