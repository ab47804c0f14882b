"""`resnet`: residual, sigmoidal, dense and inception blocks, with group widths and three rules for widths."""

from __future__ import annotations

from hw_models.discover import unknown
from search_spaces.block import Block
from search_spaces.blocks.bottleneck_residual import BottleneckResidual
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.dense_bottleneck import DenseBottleneck
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.sigmoidal_residual import SigmoidalResidual
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import around, check_width, strides
from search_spaces.widths import ConstantRatio, Exponential, Rule

RULES = ("free", "constant_ratio", "exponential")
DEPTHS = (2, 2, 2, 2)
WIDTHS = (48, 96, 192, 384)
WIDTH_RATIOS = (2 / 3, 1.0, 4 / 3)
DIVISOR = 16  # groups of 16 divide every width, groups of 8 half of it


@recorded
def space(
    input_hw: int = 224,
    input_channels: int = 3,
    classes: int = 1000,
    widths: str = "free",
    residual_additions: bool = True,
    width: float = 1.0,
) -> SearchSpace:
    """Four stages of residual (basic, bottleneck), sigmoidal, dense or inception blocks.

    `widths` says how they are chosen: `free` (each stage its own, and its depth of 1 to 3), `constant_ratio` (the first
    width and the ratio alpha between stages; the ratio beta inside a block is its `expand`) or `exponential`
    (`a * exp(n * b) + c` for block n: three decisions in all). `width` multiplies all of them; all are multiples of 16.
    Residual and sigmoidal blocks choose groups of 8 or 16 channels or one group, bottlenecks groups of 8 or one.

    `residual_additions=False` is for tool chains without a sum of two maps: blocks that have one are left out (a space
    of your own that has one is refused). On small images the first strides are 1.

    Source: Schindler 2021 (dissertation, Heidelberg), chapter 7. A group width is the number of channels of a group;
    None is one group.

    Raises:
        InputError: an unknown rule.

    Example:
        >>> space(widths="exponential").names[:3], space(widths="exponential").slots[3].out.values[:3]
        (('widths/a', 'widths/b', 'widths/c'), (32, 48, 64))
    """
    if widths not in RULES:
        raise unknown("rule for widths", str(widths), RULES)
    check_width(width)
    steps = strides((2, 2, 2, 2, 2), input_hw)
    groups, free = Choice(None, 8, 16), widths == "free"
    blocks: list[Block] = [
        Residual(3, group_width=groups),
        # at most 12 branches: with a rule for widths there is no depth to search, but beta
        BottleneckResidual(3, expand=0.5 if free else Choice(0.5, 1.0), group_width=Choice(None, 8)),
        SigmoidalResidual(3, group_width=groups),
        DenseBottleneck(3, growth=make_divisible(8 * width, 4)),
        Inception((1, 3, 5)),
    ]
    if not residual_additions:
        blocks = blocks[2:]
    stages = tuple(
        Stage(
            Choice(*blocks),
            around(of_stage, WIDTH_RATIOS, DIVISOR, width) if free else None,
            Choice(1, 2, 3) if free else depth,
            stride,
        )
        for of_stage, depth, stride in zip(WIDTHS, DEPTHS, steps[1:], strict=True)
    )
    rule: Rule | None = None
    if widths == "constant_ratio":
        rule = ConstantRatio(around(48, WIDTH_RATIOS, DIVISOR, width), Choice(1.5, 2.0, 2.5), DIVISOR)
    elif widths == "exponential":
        a, c = (tuple(value * width for value in values) for values in ((16.0, 32.0, 48.0), (0.0, 16.0, 32.0)))
        rule = Exponential(Choice(*a), Choice(0.15, 0.25, 0.35), Choice(*c), DIVISOR)
    stem = Stage(ConvNorm(3), make_divisible(32 * width, DIVISOR), stride=steps[0])
    return SearchSpace(
        "resnet",
        input_hw,
        input_channels,
        classes,
        stem,
        stages,
        Classifier(),
        widths=rule,
        residual_additions=residual_additions,
    )
