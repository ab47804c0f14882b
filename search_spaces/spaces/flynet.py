"""`flynet`: FlyNet blocks in the layout of MobileNetV3-Small: heads, attention, reduction, residual and width."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import MAX_HEADS, FlyNet
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import around, check_width, strides

# output width, stride, activation, and of every block: kernel, expanded channels (0: no expansion)
ROWS: tuple[tuple[int, int, str, tuple[tuple[int, int], ...]], ...] = (
    (16, 2, "relu", ((3, 0),)),
    (24, 2, "relu", ((3, 72), (3, 88))),
    (40, 2, "hard_swish", ((5, 96), (5, 240), (5, 240))),
    (48, 1, "hard_swish", ((5, 120), (5, 144))),
    (96, 2, "hard_swish", ((5, 288), (5, 576), (5, 576))),
)
WIDTH_RATIOS = (0.75, 1.0, 1.25)
# The 3x3 convolution of the thesis' ablation is left out: where kinds share weights all of them are computed, and it
# would cost more than the block it stands beside.
RESIDUALS = ("none", "default", "depthwise_pointwise", "light")
ATTENTION = ("none", "eca", "mean_variance", "mean_variance_softmax")


@recorded
def space(
    input_hw: int = 224,
    input_channels: int = 3,
    classes: int = 1000,
    width: float = 0.5,
    quantization_levels: int = 0,
) -> SearchSpace:
    """Eleven FlyNet blocks; each chooses heads 1 to 5, attention, reduction and residual, each stage its width.

    `width` multiplies all channels, the last convolution and the hidden layer of the classifier included: only that
    reproduces the parameters of the thesis. Stages may be 0.75, 1 or 1.25 times as wide as it says, where that rounds
    to different multiples of 8. Kernels and
    expanded channels are those of MobileNetV3-Small. Inside a stage shapes match, so that the residual is identity or
    nothing there. `quantization_levels` is the regulariser of the classifier (see `Classifier`).

    Source: Guerra Fernandez 2024 (PhD thesis, Monash), chapter 8. It does not name the backbone; the printed parameters
    fit MobileNetV3-Small with everything scaled, and no other.

    Example:
        >>> space().num_decisions, len(space().slots)
        (48, 13)
    """
    check_width(width)
    steps = strides((2, *(stride for _, stride, _, _ in ROWS)), input_hw)
    stages = []
    for (channels, _, activation, blocks), stride in zip(ROWS, steps[1:], strict=True):
        made = tuple(
            FlyNet(
                kernel=kernel,
                expand=6 if wide else 1,
                heads=Choice(*range(1, MAX_HEADS + 1)),
                attention=Choice(*ATTENTION),
                activation=activation,
                reduction=Choice("max", "funnel", "sum"),
                residual=_residuals(stride) if position == 0 else Choice("none", "default"),
                hidden=make_divisible(wide * width) if wide else None,
            )
            for position, (kernel, wide) in enumerate(blocks)
        )
        stages.append(Stage(made, around(channels * width, WIDTH_RATIOS), len(made), stride))
    return SearchSpace(
        "flynet",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "hard_swish"), make_divisible(16 * width), stride=steps[0]),
        stages=tuple(stages),
        head=Classifier(
            features=make_divisible(576 * width),
            hidden=make_divisible(1024 * width),
            activation="hard_swish",
            quantization_levels=quantization_levels,
        ),
    )


def _residuals(stride: int) -> Choice:
    """At stride 2 shapes never match, so that the identity would be nothing under another name."""
    return Choice(*(kind for kind in RESIDUALS if stride == 1 or kind != "default"))


def published(space: SearchSpace, name: str, heads: int, width: float) -> SearchSpace:
    """A network of the thesis as a frozen space: max-out, attention in every block, light residuals.

    Attention is mean and variance with the annealed softmax, the best row of table 8.1; with one head, where a softmax
    over heads says nothing, with a sigmoid.
    """
    wanted: dict[str, Any] = {
        "heads": heads,
        "attention": "mean_variance_softmax" if heads > 1 else "mean_variance",
        "reduction": "max",
    }
    genes = np.zeros(space.num_decisions, np.int32)
    for place, decision in enumerate(space.decisions):
        path, _, field = decision.name.rpartition("/")
        if field == "width":
            value: Any = make_divisible(ROWS[int(path.rpartition("/")[2])][0] * width)
        elif field == "residual":
            value = "light" if "light" in decision.values else "default"
        else:
            value = wanted[field]
        genes[place] = decision.values.index(value)
    return dataclasses.replace(space.freeze(genes), name=name, options=())
