"""`macro`: the 6,561 networks of NAS-Bench-Macro: eight layers, each identity or one of two inverted residuals."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import strides

# output width, layers; every stage halves the image
ROWS = ((64, 2), (128, 3), (256, 3))


@recorded
def space(input_hw: int = 32, input_channels: int = 3, classes: int = 10) -> SearchSpace:
    """Identity, an inverted residual of kernel 3 and expansion 3, or one of kernel 5 and expansion 6, at every layer.

    An identity where the shape changes is a 1x1 convolution with normalisation. Genes are the digits of the benchmark.
    6,561 encodings describe 3,969 networks, because after the first layer of a stage an identity changes nothing
    wherever it stands; `canonical` puts it last. Images below 24 pixels get fewer strides of 2.

    Source: Su et al. 2021, "Prioritized Architecture Sampling with Monto-Carlo Tree Search" (CVPR).

    Example:
        >>> space().size, space().freeze([0] * 8).params
        (6561, 387882)
    """
    steps = strides((2, 2, 2), input_hw)
    block = Choice(
        Skip(project=True, activation="identity"),
        InvertedResidual(3, 3, activation="relu"),
        InvertedResidual(5, 6, activation="relu"),
    )
    return SearchSpace(
        "macro",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3), 32),
        stages=tuple(Stage(block, width, layers, stride) for (width, layers), stride in zip(ROWS, steps, strict=True)),
        head=Classifier(features=1280),
    )
