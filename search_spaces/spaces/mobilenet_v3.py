"""`mobilenet_v3`: the once-for-all space: kernel, expansion, depth and resolution of MobileNetV3."""

from __future__ import annotations

from hw_models.errors import check_range
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import check_width, listed, strides

# output width, stride, attention, activation
ROWS = (
    (24, 2, "none", "relu"),
    (40, 2, "se", "relu"),
    (80, 2, "none", "hard_swish"),
    (112, 1, "se", "hard_swish"),
    (160, 2, "se", "hard_swish"),
)
RESOLUTIONS = 4


@recorded
def space(
    input_hw: int = 224,
    input_channels: int = 3,
    classes: int = 1000,
    width: float = 1.0,
    resolutions: int = RESOLUTIONS,
) -> SearchSpace:
    """Kernel 3, 5 or 7 and expansion 3, 4 or 6 of every block, 2 to 4 blocks in each of five stages, resolution.

    `width` multiplies all channels (1.0 and 1.2 were published). The largest of the `resolutions` is `input_hw`, the
    others are 6/7, 5/7 and 4/7 of it: 128, 160, 192 and 224 pixels as trained; `resolutions=1` fixes it, which makes
    the supernet's program that much smaller. On small images the first strides are 1.

    Source: Cai et al. 2020, "Once-for-All", https://arxiv.org/abs/1908.09791.

    Raises:
        InputError: `resolutions` is not 1 to 4.

    Example:
        >>> space(resolutions=1).size == (3 * 9**4) ** 5, space().input_hw
        (True, Choice(128, 160, 192, 224))
    """
    check_width(width)
    check_range("resolutions", resolutions, 1, RESOLUTIONS)
    parts = range(8 - resolutions, 8)
    sizes = tuple(dict.fromkeys(round(input_hw * part / 7 / 2) * 2 if part < 7 else input_hw for part in parts))
    steps = strides((2, 1, *(stride for _, stride, _, _ in ROWS)), min(sizes))

    def scaled(channels: int) -> int:
        return make_divisible(channels * width)

    stages = [Stage(InvertedResidual(3, 1, activation="relu"), scaled(16), stride=steps[1])]
    for (channels, _, attention, activation), stride in zip(ROWS, steps[2:], strict=True):
        block = InvertedResidual(Choice(3, 5, 7), Choice(3, 4, 6), attention, activation)
        stages.append(Stage(block, scaled(channels), Choice(2, 3, 4), stride))
    return SearchSpace(
        "mobilenet_v3",
        listed(*sizes),
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "hard_swish"), scaled(16), stride=steps[0]),
        stages=tuple(stages),
        head=Classifier(features=scaled(960), hidden=scaled(1280), activation="hard_swish", hidden_bias=False),
    )
