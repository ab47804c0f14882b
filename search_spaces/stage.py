"""`Stage`: one row of a space's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search_spaces.choice import Choice


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first may change width and stride, its repeats keep both.

    `depth` counts the blocks. With `shared=True` all repeats take the same decisions (factorised, MnasNet), otherwise
    each has its own (layer-wise, FBNet). `block` and `width` may also be tuples, one entry per repeat. `width=None`
    leaves the widths to the rule of the space.
    """

    block: Any
    width: int | Choice | tuple[int | Choice, ...] | None
    depth: int | Choice = 1
    stride: int = 1
    shared: bool = False
