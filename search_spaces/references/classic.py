"""VGG-16, SqueezeNet 1.0, GoogLeNet (the first Inception) and ShuffleNetV2 1.5x."""

from __future__ import annotations

from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.fire import Fire
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.pool import Pool
from search_spaces.blocks.shufflenet_v2 import ShuffleNetV2
from search_spaces.published import Published
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage

VGG16_ROWS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# output widths of the fire modules between two poolings
SQUEEZENET_ROWS = ((128, 128, 256), (256, 384, 384, 512), (512,))
# 1x1, 3x3 reduction, 3x3, 5x5 reduction, 5x5, pooled; between two poolings
GOOGLENET_ROWS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


@recorded
def vgg16(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """VGG-16, without normalisation.

    Example:
        >>> vgg16().params, vgg16().macs
        (138357544, 15470264320)
    """
    conv = ConvNorm(3, norm=False, bias=True)
    stages: list[Stage] = []
    for place, (width, depth) in enumerate(VGG16_ROWS):
        # the stem is the first convolution
        stages.append(Stage(conv, width, depth if place else depth - 1))
        stages.append(Stage(Pool("max", 2), width, 1, 2))
    head = Classifier(hidden=(4096, 4096), end="flatten")
    return SearchSpace("vgg16", input_hw, input_channels, classes, Stage(conv, 64), tuple(stages), head)


@recorded
def squeezenet(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """SqueezeNet 1.0, without normalisation; windows that stick out at the end count, as in Caffe.

    Example:
        >>> squeezenet().params, squeezenet().macs
        (1248424, 818924576)
    """
    stages: list[Stage] = []
    width = 96
    for row in SQUEEZENET_ROWS:
        stages.append(Stage(Pool("max", 3, "ceil"), width, 1, 2))
        stages.append(Stage(Fire(3, norm=False), row, len(row)))
        width = row[-1]
    stem = Stage(ConvNorm(7, norm=False, bias=True, padding="valid"), 96, 1, 2)
    head = Classifier(end="conv")
    return SearchSpace("squeezenet_1.0", input_hw, input_channels, classes, stem, tuple(stages), head)


@recorded
def inception_v1(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """GoogLeNet without its auxiliary classifiers, without normalisation.

    Example:
        >>> inception_v1().params, inception_v1().macs
        (6998552, 1582671872)
    """

    def conv(kernel: int) -> ConvNorm:
        return ConvNorm(kernel, norm=False, bias=True)

    stages = [Stage(Pool("max", 3), 64, 1, 2), Stage(conv(1), 64), Stage(conv(3), 192)]
    width = 192
    for rows in GOOGLENET_ROWS:
        stages.append(Stage(Pool("max", 3), width, 1, 2))
        for one, reduce3, three, reduce5, five, pooled in rows:
            width = one + three + five + pooled
            module = Inception(
                (1, 3, 5), widths=(one, three, five), reduce=(0, reduce3, reduce5), pool=pooled, norm=False
            )
            stages.append(Stage(module, width))
    stem = Stage(conv(7), 64, 1, 2)
    return SearchSpace("inception_v1", input_hw, input_channels, classes, stem, tuple(stages), Classifier())


@recorded
def shufflenet_v2(input_hw: int = 224, input_channels: int = 3, classes: int = 1000) -> SearchSpace:
    """ShuffleNetV2 1.5x.

    Example:
        >>> shufflenet_v2().params, shufflenet_v2().macs
        (3503624, 295759392)
    """
    stages = (
        Stage(Pool("max", 3), 24, 1, 2),
        *(Stage(ShuffleNetV2(3), width, depth, 2) for width, depth in ((176, 4), (352, 8), (704, 4))),
    )
    stem, head = Stage(ConvNorm(3), 24, 1, 2), Classifier(1024)
    return SearchSpace("shufflenet_v2_1.5x", input_hw, input_channels, classes, stem, stages, head)


NETWORKS = {
    "vgg16": Published(vgg16, 138e6, None, "Simonyan and Zisserman 2015 (arXiv 1409.1556), table 2"),
    "squeezenet_1.0": Published(squeezenet, 1_248_424, None, "Iandola et al. 2016 (arXiv 1602.07360), table 1"),
    "inception_v1": Published(
        inception_v1,
        6.8e6,
        1.5e9,
        "Szegedy et al. 2015 (arXiv 1409.4842), table 1",
        "GoogLeNet; the paper's own columns disagree",
    ),
    "shufflenet_v2_1.5x": Published(shufflenet_v2, None, 299e6, "Ma et al. 2018 (arXiv 1807.11164), table 8"),
}
