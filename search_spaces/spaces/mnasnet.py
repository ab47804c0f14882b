"""`mnasnet`: the factorised hierarchical space: every stage decides once for all of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hw_models.discover import unknown
from hw_models.errors import InputError
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces._layout import strides

# output width, largest number of layers, stride
ROWS = ((16, 3, 1), (24, 3, 2), (40, 3, 2), (80, 3, 2), (112, 3, 1), (192, 4, 2), (320, 3, 1))
# columns of Accel-NASBench for stage i, and our decisions
FIELDS = {"e": "expand", "k": "kernel", "l": "depth", "se": "attention"}


@recorded
def space(
    input_hw: int = 224, input_channels: int = 3, classes: int = 1000, activation: str = "silu"
) -> SearchSpace:  # fmt: skip
    """Seven stages; each chooses expansion 1, 4 or 6, kernel 3 or 5, depth and squeeze-and-excitation for its layers.

    The space of Accel-NASBench (Ahmad et al. 2024, https://arxiv.org/abs/2404.08005), which follows MnasNet (Tan et al.
    2019, https://arxiv.org/abs/1807.11626); `activation` is silu there for GPUs and TPUs and relu for FPGAs. The
    bottleneck of squeeze-and-excitation has a quarter of the layer's input channels. On small images the first strides
    are 1.

    Example:
        >>> space().size
        104485552128
    """
    steps = strides((2, *(stride for _, _, stride in ROWS)), input_hw)
    block = InvertedResidual(
        kernel=Choice(3, 5),
        expand=Choice(1, 4, 6),
        attention=Choice("none", "se"),
        activation=activation,
        squeeze_from="input",
        squeeze_activation=activation,
        gate="sigmoid",
    )
    return SearchSpace(
        "mnasnet",
        input_hw,
        input_channels,
        classes,
        stem=Stage(ConvNorm(3, activation), 32, stride=steps[0]),
        stages=tuple(
            Stage(block, width, Choice(*range(1, most + 1)), stride, shared=True)
            for (width, most, _), stride in zip(ROWS, steps[1:], strict=True)
        ),
        head=Classifier(features=1280, activation=activation),
    )


def _check(space: SearchSpace) -> None:
    if space.name != "mnasnet" or space.frozen:
        raise InputError(f"space {space.name} has no rows in Accel-NASBench: give mnasnet.space()")


def read(space: SearchSpace, row: Mapping[str, Any]) -> np.ndarray:
    """Genes `[D]` of a row of Accel-NASBench: columns `b0_e`, `b0_k`, `b0_l`, `b0_se`, ... of numbers or their text.

    Raises:
        InputError: a column is missing, or holds a value that the space does not have.

    Example:
        >>> row = {f"b{i}_{c}": v for i in range(7) for c, v in (("e", 4), ("k", 3), ("l", 2), ("se", 1))}
        >>> space().decode(read(space(), row))["stages/0/expand"]
        4
    """
    _check(space)
    genes = np.zeros(space.num_decisions, np.int32)
    columns = {f"stages/{i}/{field}": f"b{i}_{column}" for i in range(len(ROWS)) for column, field in FIELDS.items()}
    for place, decision in enumerate(space.decisions):
        column = columns[decision.name]
        if column not in row:
            raise unknown("column of Accel-NASBench", column, row)
        try:
            number = float(row[column])
        except (TypeError, ValueError):
            raise InputError(f"column {column} is {row[column]!r}: give a whole number") from None
        known = (0, 1) if column.endswith("se") else decision.values
        if number not in known:
            raise InputError(f"column {column} is {number:g}: the space has {', '.join(map(str, known))}")
        value = ("none", "se")[int(number)] if column.endswith("se") else int(number)
        genes[place] = decision.values.index(value)
    return genes


def write(space: SearchSpace, genes: Any) -> dict[str, int]:
    """The columns of Accel-NASBench that describe the network of `genes`; the inverse of `read`.

    Example:
        >>> write(space(), np.zeros(28, int))["b6_k"]
        3
    """
    _check(space)
    row = {}
    array = space.check(genes)
    for gene, decision in zip(array, space.decisions, strict=True):
        _, stage, field = decision.name.split("/")
        column = next(column for column, name in FIELDS.items() if name == field)
        value = decision.values[int(gene)]
        row[f"b{stage}_{column}"] = int(value == "se") if column == "se" else int(value)
    return row
