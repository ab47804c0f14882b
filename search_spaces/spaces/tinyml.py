"""`tinyml`: networks of the size of a microcontroller."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import strides

# widths to choose from, depths, stride
ROWS = (
    ((8, 16, 24), (1, 2), 1),
    ((16, 24, 32), (1, 2, 3), 2),
    ((24, 40, 56), (1, 2, 3), 2),
    ((40, 64, 96), (1, 2), 2),
)


@recorded
def space(input_hw: int = 96, input_channels: int = 1, classes: int = 2) -> SearchSpace:
    """Four stages of depthwise separable blocks or inverted residuals without attention, 2,500 to 290,000 parameters.

    The layout of the person-detection and keyword networks of MLPerf Tiny (96x96 grey images, MobileNetV1 at a quarter
    of its width). What fits is set by limits on `peak_memory_bytes` (SRAM) and `weight_bytes` (flash) in a
    configuration; both range here from well below to well above those of common microcontrollers.

    Example:
        >>> space().num_decisions
        49
    """
    steps = strides((2, *(stride for _, _, stride in ROWS)), input_hw)
    block = Choice(
        DepthwiseSeparable(kernel=Choice(3, 5, 7)),
        InvertedResidual(kernel=Choice(3, 5, 7), expand=Choice(2, 4), activation="relu"),
    )
    return SearchSpace(
        "tinyml",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3), Choice(8, 16), stride=steps[0]),
        stages=tuple(
            Stage(block, Choice(*widths), Choice(*depths), stride)
            for (widths, depths, _), stride in zip(ROWS, steps[1:], strict=True)
        ),
        head=Classifier(),
    )
