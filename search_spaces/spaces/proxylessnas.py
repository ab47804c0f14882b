"""`proxylessnas`: 21 layers of inverted residuals of three kernels and two expansions, or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hw_models.errors import InputError
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.skip import Skip
from search_spaces.channels import make_divisible
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import check_width, listed, strides

STRIDES = (2, 2, 2, 1, 2, 1)
LAYERS = (4, 4, 4, 4, 4, 1)
WIDTHS = (32, 16, 24, 40, 80, 96, 192, 320, 1280)
BLOCKS = tuple((kernel, expand) for expand in (3, 6) for kernel in (3, 5, 7))


@recorded
def space(
    input_hw: int = 224,
    input_channels: int = 3,
    classes: int = 1000,
    width: float = 1.0,
    widths: tuple[int, ...] = WIDTHS,
    first_kernels: tuple[int, ...] = (3,),
    shared_weights: bool = False,
) -> SearchSpace:
    """Kernel 3, 5 or 7 and expansion 3 or 6 at each of 21 layers; nothing (identity) where the shape stays.

    `widths` are the channels of stem, first block, six stages and last convolution: those of the search. The networks
    that came out of it have their own, see the references. `width` multiplies them. `first_kernels` are those of the
    first block, which has no expansion; TuNAS searches 3, 5 and 7. On small images the first strides are 1.

    Sources: Cai, Zhu and Han 2019, https://arxiv.org/abs/1812.00332, section 4.2; for `first_kernels` Bender et al.
    2020 (TuNAS), https://arxiv.org/abs/2008.06120.

    As published, each of the six blocks of a layer has weights of its own. With `shared_weights` there is one block
    whose kernel and expansion are searched: the supernet holds a third of the weights, and its relaxed
    execution costs a quarter (Single-Path NAS, https://arxiv.org/abs/1904.02877).

    Raises:
        InputError: not nine widths, no kernel.

    Example:
        >>> space().size == 6**6 * 7**15
        True
    """
    check_width(width)
    if len(widths) != len(WIDTHS):
        raise InputError(f"widths={widths} is not allowed: give {len(WIDTHS)} numbers, such as {WIDTHS}")
    if not first_kernels:
        raise InputError("first_kernels=() is not allowed: give one or several, such as (3, 5, 7)")
    stem, first, *stages, last = widths if width == 1 else (make_divisible(each * width) for each in widths)
    steps = strides((2, 1, *STRIDES), input_hw)
    blocks = [InvertedResidual(kernel, expand) for kernel, expand in BLOCKS]
    if shared_weights:
        blocks = [InvertedResidual(Choice(3, 5, 7), Choice(3, 6))]
    change, keep = Choice(*blocks), Choice(*blocks, Skip())
    return SearchSpace(
        "proxylessnas",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, "relu6"), stem, stride=steps[0]),
        stages=(
            Stage(InvertedResidual(listed(*first_kernels), 1), first, stride=steps[1]),
            *(
                Stage((change, *[keep] * (layers - 1)), out, layers, stride)
                for out, layers, stride in zip(stages, LAYERS, steps[2:], strict=True)
            ),
        ),
        head=Classifier(features=last if width <= 1 or widths != WIDTHS else max(last, WIDTHS[-1]), activation="relu6"),
    )


def published(space: SearchSpace, name: str, layers: Sequence[tuple[int, int] | None]) -> SearchSpace:
    """The network of 21 pairs of kernel and expansion, None for a layer that is left out, as a frozen space.

    Raises:
        InputError: a pair that is none of the six, or not 21 of them.

    Example:
        >>> published(space(), "small", ([(3, 3)] + [None] * 3) * 5 + [(3, 3)]).macs
        102528896
    """
    for layer in layers:
        if layer is not None and layer not in BLOCKS:
            raise InputError(f"layer {layer} is not allowed: give one of {', '.join(map(str, BLOCKS))}, or None")
    genes = [len(BLOCKS) if layer is None else BLOCKS.index(layer) for layer in layers]
    return dataclasses.replace(space.freeze(genes), name=name, options=())
