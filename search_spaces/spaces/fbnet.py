"""`fbnet`: 22 layers, each one of nine blocks, in the layout of FBNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hw_models.discover import unknown
from search_spaces.block import Block
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import strides

# output width, layers, stride
ROWS = ((16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1))


def _block(kernel: int, expand: int, groups: int = 1) -> InvertedResidual:
    return InvertedResidual(kernel, expand, activation="relu", groups=groups, keep_expansion=True)


# The nine blocks by the names of the paper, in the order of the genes; g2 is a grouped 1x1 convolution.
BLOCKS: dict[str, Block] = {
    "k3_e1": _block(3, 1),
    "k3_e1_g2": _block(3, 1, 2),
    "k3_e3": _block(3, 3),
    "k3_e6": _block(3, 6),
    "k5_e1": _block(5, 1),
    "k5_e1_g2": _block(5, 1, 2),
    "k5_e3": _block(5, 3),
    "k5_e6": _block(5, 6),
    "skip": Skip(project=True),
}


@recorded
def space(
    input_hw: int = 224, input_channels: int = 3, classes: int = 1000, features: int = 1984
) -> SearchSpace:  # fmt: skip
    """Nine blocks at each of 22 layers: kernel 3 or 5, expansion 1 (also with two groups), 3 or 6, or skip.

    Where the shape changes, the skip of the published space is a 1x1 convolution with normalisation and ReLU. At
    expansion 1 the first 1x1 convolution stays. On small images the first strides are 1, which at 32x32 is the version
    for CIFAR of HW-NAS-Bench. `features` is the width of the last convolution: 1984, or 1504 for FBNet-A.

    Source: Wu et al. 2019, https://arxiv.org/abs/1812.03443, tables 1 and 2.

    Example:
        >>> space().size == 9**22 == 984770902183611232881
        True
    """
    steps = strides((2, *(stride for _, _, stride in ROWS)), input_hw)
    block = Choice(*BLOCKS.values())
    return SearchSpace(
        "fbnet",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3), 16, stride=steps[0]),
        stages=tuple(
            Stage(block, width, layers, stride) for (width, layers, _), stride in zip(ROWS, steps[1:], strict=True)
        ),
        head=Classifier(features=features),
    )


def published(space: SearchSpace, name: str, layers: Sequence[str]) -> SearchSpace:
    """The network of 22 block names as a frozen space.

    Raises:
        InputError: a name that is none of the nine.

    Example:
        >>> published(space(), "all_skips", ["skip"] * 22).params
        2785080
    """
    order = list(BLOCKS)
    for layer in layers:
        if layer not in BLOCKS:
            raise unknown("block of fbnet", layer, order)
    return dataclasses.replace(space.freeze([order.index(layer) for layer in layers]), name=name, options=())
