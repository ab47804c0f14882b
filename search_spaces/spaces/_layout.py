"""What the spaces of the MobileNet family share: strides for images of any size, and scaled widths."""

from __future__ import annotations

from collections.abc import Sequence

from hw_models.errors import check_range
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice

LEAST_PIXELS = 4  # the smallest map on which every tap of a kernel of 7 meets a pixel somewhere


def strides(published: Sequence[int], input_hw: int) -> tuple[int, ...]:
    """The published strides, of stem and stages, as far as an image of `input_hw` pixels allows.

    On small images the first strides of 2 become 1 until the last map has at least 4 pixels, as versions for CIFAR do.

    Example:
        >>> strides((2, 1, 2, 2, 2, 1, 2, 1), 224), strides((2, 1, 2, 2, 2, 1, 2, 1), 32)
        ((2, 1, 2, 2, 2, 1, 2, 1), (1, 1, 1, 2, 2, 1, 2, 1))
    """
    chosen = list(published)
    for place, stride in enumerate(published):
        last = input_hw
        for step in chosen:
            last = -(-last // step)
        if last >= LEAST_PIXELS:
            break
        if stride == 2:
            chosen[place] = 1
    return tuple(chosen)


def check_width(width: float) -> None:
    """Raise InputError unless `width` can multiply the channels of a published network.

    Example:
        >>> check_width(0)
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: width=0 is out of range: give 0.1 to 4
    """
    check_range("width", width, 0.1, 4)


def around(channels: float, ratios: Sequence[float], divisor: int = 8, width: float = 1.0) -> int | Choice:
    """Widths at some ratios of `channels` times `width`, each once; one alone is no choice.

    Example:
        >>> around(40, (0.75, 1.0, 1.25)), around(8, (0.75, 1.0))
        (Choice(32, 40, 48), 8)
    """
    widths = tuple(dict.fromkeys(make_divisible(channels * width * ratio, divisor) for ratio in ratios))
    return Choice(*widths) if len(widths) > 1 else widths[0]


def listed(*values: int) -> int | Choice:
    """A choice of what is given, or the one value itself.

    Example:
        >>> listed(1, 2), listed(3)
        (Choice(1, 2), 3)
    """
    return Choice(*values) if len(values) > 1 else values[0]
