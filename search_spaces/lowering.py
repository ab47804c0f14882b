"""`Plan`: how a block writes down its plain layers for cost models.

A block calls one method per layer on tensors that remember their shape; what must be kept in memory while each layer
runs is worked out from who uses which tensor last.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw_models.workload import Layer, Op
from search_spaces.block import BlockIO


@dataclass(frozen=True, eq=False)
class Tensor:
    """Activations between two layers, channels last."""

    h: int
    w: int
    channels: int

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return self.h * self.w * self.channels


class Plan:
    """The layers of one block, recorded in the order of execution.

    Methods take and return tensors. `layers(output)` ends it.

    Example:
        >>> plan = Plan(BlockIO(8, 8, 16, 16))
        >>> y = plan.conv(plan.input, 16, kernel=3)
        >>> [(layer.op.name, layer.macs) for layer in plan.layers(plan.add(plan.input, y))]
        [('CONV', 147456), ('ADD', 0)]
    """

    def __init__(self, io: BlockIO):
        self.group = io.group
        assert isinstance(io.in_channels, int)
        self.input = Tensor(io.in_h, io.in_w, io.in_channels)
        self._layers: list[Layer] = []
        self._counted: list[tuple[Tensor, ...]] = []  # what a layer's own input elements stand for
        self._waiting: list[tuple[Tensor, ...]] = []  # what it needs besides
        self._born: dict[Tensor, int] = {self.input: -1}
        self._aliases: dict[Tensor, Tensor] = {}

    def conv(self, x: Tensor, channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, norm: bool = True,
             bias: bool = False, padding: str = "same") -> Tensor:  # fmt: skip
        """A dense or grouped convolution; `padding` is `same` or `valid`."""
        h, w = (output_size(size, kernel, stride, padding) for size in (x.h, x.w))
        return self._add(
            Op.CONV, (x,), Tensor(h, w, channels), kernel=kernel, stride=stride, groups=groups, norm=norm, bias=bias
        )

    def depthwise(self, x: Tensor, *, kernel: int, stride: int = 1, heads: int = 1, norm: bool = True) -> Tensor:
        """`heads` filters per channel. What reduces several heads is normalised, not they."""
        y = Tensor(-(-x.h // stride), -(-x.w // stride), x.channels * heads)
        return self._add(Op.DEPTHWISE, (x,), y, kernel=kernel, stride=stride, groups=x.channels, norm=norm)

    def linear(self, x: Tensor, features: int, bias: bool = True) -> Tensor:
        """A fully connected layer; `x` is a vector."""
        return self._add(Op.LINEAR, (x,), Tensor(1, 1, features), bias=bias)

    def channel_conv(self, x: Tensor, kernel: int, features: int = 1) -> Tensor:
        """One filter along the channel axis of `features` vectors that lie one after another in `x`."""
        length = x.channels // features
        y = Tensor(1, 1, length)
        layer = Layer(Op.CHANNEL_CONV, length, 1, length, 1, features, 1, kernel, 1, group=self.group)
        return self._record(layer, (x,), (), y)

    def global_pool(self, x: Tensor, features: int = 1) -> Tensor:
        """`features` numbers per channel over all pixels (mean; mean and variance)."""
        return self._add(Op.GLOBAL_POOL, (x,), Tensor(1, 1, x.channels * features))

    def pool(self, x: Tensor, *, kernel: int, stride: int, padding: str = "same") -> Tensor:
        """Windowed maximum or mean; `padding` is `same`, `valid` or `ceil`."""
        h, w = (output_size(size, kernel, stride, padding) for size in (x.h, x.w))
        return self._add(Op.POOL, (x,), Tensor(h, w, x.channels), kernel=kernel, stride=stride)

    def activation(self, x: Tensor, *, norm: bool = False) -> Tensor:
        """A non-linearity that no layer before it can take over, with a normalisation of its own or without."""
        return self._add(Op.ACTIVATION, (x,), Tensor(x.h, x.w, x.channels), norm=norm)

    def reduce(self, x: Tensor, channels: int, others: tuple[Tensor, ...] = ()) -> Tensor:
        """The heads of a depthwise convolution, and `others`, reduced to one map per channel, then normalised."""
        return self._add(Op.REDUCE, (x,), Tensor(x.h, x.w, channels), norm=True, waiting=others)

    def scale(self, x: Tensor, vector: Tensor) -> Tensor:
        """Product with one number per channel."""
        return self._add(Op.SCALE, (x,), Tensor(x.h, x.w, x.channels), waiting=(vector,))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two maps of the same shape."""
        return self._add(Op.ADD, (x, y), Tensor(x.h, x.w, x.channels))

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Product of two maps of the same shape."""
        return self._add(Op.MULTIPLY, (x, y), Tensor(x.h, x.w, x.channels))

    def concat(self, *parts: Tensor) -> Tensor:
        """Maps one after another along the channels; one alone is itself."""
        if len(parts) == 1:
            return parts[0]
        first, channels = parts[0], sum(part.channels for part in parts)
        layer = Layer(Op.CONCAT, first.h, first.w, first.h, first.w, channels, channels, group=self.group)
        return self._record(layer, parts, (), Tensor(first.h, first.w, channels))

    def attention(self, x: Tensor, kind: str, squeeze: int | None = None) -> Tensor:
        """Channel attention of `search_spaces.attention.ChannelAttention`: `none`, `se` or `eca`."""
        from search_spaces.attention import ECA_KERNEL, squeeze_channels

        if kind == "none":
            return x
        mean = self.global_pool(x)
        if kind == "se":
            reduced = self.linear(mean, squeeze_channels(x.channels) if squeeze is None else squeeze)
            factors = self.linear(reduced, x.channels)
        else:
            factors = self.channel_conv(mean, ECA_KERNEL)
        return self.scale(x, factors)

    def part(self, x: Tensor, channels: int) -> Tensor:
        """Some of the channels of `x`, as a view: nothing is computed, and all of `x` stays while the part is used."""
        return self._view(x, Tensor(x.h, x.w, channels))

    def view(self, x: Tensor, h: int, w: int, channels: int) -> Tensor:
        """`x` in another shape (flattened, every second pixel, padded): nothing is computed."""
        return self._view(x, Tensor(h, w, channels))

    def layers(self, output: Tensor) -> list[Layer]:
        """The layers, each with the elements that stay alive while it runs besides its own input and output."""
        last: dict[Tensor, int] = {}
        for step, (counted, waiting) in enumerate(zip(self._counted, self._waiting, strict=True)):
            for tensor in (*counted, *waiting):
                last[self._root(tensor)] = step
        last[self._root(output)] = len(self._layers)
        finished = []
        for step, layer in enumerate(self._layers):
            read = {self._root(tensor) for tensor in self._counted[step]}
            held = sum(
                tensor.elements
                for tensor, born in self._born.items()
                if born < step <= last.get(tensor, -1) and tensor not in read
            )
            for tensor in read:
                if last[tensor] > step:  # of a tensor that is read in part the rest is held as well
                    parts = (part.elements for part in set(self._counted[step]) if self._root(part) is tensor)
                    held += max(0, tensor.elements - sum(parts))
            finished.append(layer._replace(held_elements=held))
        return finished

    def _root(self, tensor: Tensor) -> Tensor:
        while tensor in self._aliases:
            tensor = self._aliases[tensor]
        return tensor

    def _view(self, x: Tensor, made: Tensor) -> Tensor:
        self._aliases[made] = x
        return made

    def _add(self, op: Op, inputs: tuple[Tensor, ...], output: Tensor, *, kernel: int = 1, stride: int = 1,
             groups: int = 1, norm: bool = False, bias: bool = False,
             waiting: tuple[Tensor, ...] = ()) -> Tensor:  # fmt: skip
        x = inputs[0]
        layer = Layer(op, x.h, x.w, output.h, output.w, x.channels, output.channels, kernel, kernel, stride, groups,
                      int(norm), int(bias), group=self.group)  # fmt: skip
        return self._record(layer, inputs, waiting, output)

    def _record(self, layer: Layer, counted: tuple[Tensor, ...], waiting: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self._born[output] = len(self._layers)
        self._layers.append(layer)
        self._counted.append(counted)
        self._waiting.append(waiting)
        return output


def output_size(size: int, kernel: int, stride: int, padding: str = "same") -> int:
    """Length of an axis after a window moved over it; with `ceil` the last window may stick out.

    Example:
        >>> output_size(224, 7, 2), output_size(224, 7, 2, "valid"), output_size(224, 7, 2, "ceil")
        (112, 109, 110)
    """
    if padding == "same":
        return -(-size // stride)
    return (-(-(size - kernel) // stride) if padding == "ceil" else (size - kernel) // stride) + 1
