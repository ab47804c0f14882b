"""What surrounds a block, and what is decided inside it: shapes, and which widths and fields are in use."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

from jax import Array

from search_spaces.channels import Channels, is_soft
from search_spaces.choice import options
from search_spaces.density import Sparsity
from search_spaces.kernels.window import Window
from search_spaces.precision import Scheme


@dataclass(frozen=True)
class BlockIO:
    """Where a block sits: the shapes around it.

    `in_channels` and `out_channels` are ints in a frozen network. In a supernet whose widths are searched both are
    tuples of the same length, one entry for every pair of widths that can occur. `first` says that the block opens a
    stage. `depthwise` names the implementation of depthwise convolution (see `search_spaces.kernels.depthwise`),
    `scheme` how blocks with bits are rounded, `sparsity` where the zeros of blocks with a density lie.
    """

    in_h: int
    in_w: int
    in_channels: int | tuple[int, ...]
    out_channels: int | tuple[int, ...]
    stride: int = 1
    group: int = 0
    first: bool = False
    depthwise: str = "auto"
    scheme: Scheme | None = None
    sparsity: Sparsity | None = None

    @property
    def out_h(self) -> int:
        """Rows after the stride, padding as XLA's SAME."""
        return -(-self.in_h // self.stride)

    @property
    def out_w(self) -> int:
        """Columns after the stride, padding as XLA's SAME."""
        return -(-self.in_w // self.stride)


class Selection(NamedTuple):
    """What is decided inside a branch, and how far the training is.

    Attributes:
        width: which pair of input and output width is in use; None in a frozen network. An index, or a probability
            for each (relaxed execution).
        fields: the same for the values of the block's elastic and masked fields, by name.
        progress: share of the training that is done, 0 to 1; None stands for 1.
        regularise: whether layers that act only as a regulariser of large networks are on.
    """

    width: Array | None = None
    fields: dict[str, Array] | None = None
    progress: Array | None = None
    regularise: bool = False

    def field(self, name: str) -> Array | None:
        """What is chosen for an elastic or masked field, None when it is not searched."""
        return None if self.fields is None else self.fields.get(name)

    def channels(self, io: BlockIO) -> tuple[Channels, Channels]:
        """Input and output channels of a block at `io`."""
        inp, out = self.sizes(io)
        return inp, out

    def sizes(self, io: BlockIO, **fields: Any) -> tuple[Channels, ...]:
        """Input and output channels of a block at `io`, and the values of masked `fields`, which may be no counts.

        All of them share one index, over every pair of widths with every value of the fields, so that what follows from
        several of them is computed value by value (`Channels.join`).

        Example:
            >>> import jax.numpy as jnp
            >>> from search_spaces.choice import Choice
            >>> chosen = Selection(fields={"expand": jnp.int32(1)})
            >>> inp, out, expand = chosen.sizes(BlockIO(8, 8, 8, 16), expand=Choice(3, 6))
            >>> inp.join(expand, lambda channels, ratio: channels * ratio).active.item()
            48
        """
        widths = [value if isinstance(value, tuple) else (value,) for value in (io.in_channels, io.out_channels)]
        values = [options(value) for value in fields.values()]
        rows = [(*pair, *each) for pair in zip(*widths, strict=True) for each in itertools.product(*values)]
        index = self.joined(self.width, {name: len(several) for name, several in zip(fields, values, strict=True)})
        return tuple(Channels(column, index) for column in zip(*rows, strict=True))

    def joined(self, index: Array | None, counts: dict[str, int]) -> Array | None:
        """`index` over all pairs of widths (None for one) and over the fields of so many values, the last fastest.

        Example:
            >>> import jax.numpy as jnp
            >>> Selection(fields={"expand": jnp.int32(1)}).joined(jnp.int32(2), {"expand": 3, "kernel": 1}).item()
            7
        """
        for name, count in counts.items():
            if count > 1:
                chosen = self.field(name)
                assert chosen is not None
                if index is None:
                    index = chosen
                elif is_soft(chosen):
                    index = (index[:, None] * chosen).ravel()
                else:
                    index = index * count + chosen
        return index

    def largest(self, name: str, field: Any) -> tuple[int, Window | None]:
        """The largest of the kernels in `field`, and which is in use (traced or mixed; None where there is only one).

        Example:
            >>> import jax.numpy as jnp
            >>> from search_spaces.choice import Choice
            >>> size, window = Selection(fields={"kernel": jnp.int32(0)}).largest("kernel", Choice(3, 5, 7))
            >>> size, window.active.item(), FROZEN.largest("kernel", 5)
            (7, 3, (5, None))
        """
        values = options(field)
        if len(values) == 1:
            return values[0], None
        chosen = self.field(name)
        assert chosen is not None
        return max(values), Window(values, chosen)


FROZEN = Selection()
