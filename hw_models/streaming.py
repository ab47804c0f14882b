"""Engines of a streaming FPGA design: what each layer costs in cycles, logic and memory for a given folding.

Every layer has an engine of its own, all of them work at the same time, and maps stream from one to the next. A dense
layer is a matrix of `rows` (output channels) by `depth` (kernel positions x input channels) that meets one vector per
output pixel; `pe` of its rows and `simd` of its columns are multiplied at once. A depthwise layer has one row per
channel, `depth` kernel positions, and unfolds its rows first. All functions here are exact: Python integers in and out.

Equations, for weights of W bits and activations of A:
    cycles      = rows / pe * depth / simd * pixels,  at least what it takes to read the input, `simd` channels a cycle
    LUT         = 300 + 1.1 pe (simd m + (W + A)(2 simd - 1) + accumulator);  m = (2 ceil((W + A) / 6) - 1)(W + A), or
                  nothing where DSP slices multiply
    DSP         = ceil(pe / lanes) * simd, of which `lanes` products share one slice
    accumulator = ceil(alpha + log2(1 + 2^-alpha) + 1) bits,  alpha = log2(depth) + W + A - 1   (unsigned activations)
    activation  = the cheaper of 2^A - 1 comparators and a product with a scale, in an engine that keeps up
    weights     = a memory `pe simd W` bits wide and `rows depth / (pe simd)` deep: LUTs in rows of 64, blocks of 18 Kb
                  or blocks of 288 Kb
    window      = ((kernel_h - 1) width + kernel_w) pixels of the input, for kernels larger than 1x1
    residual    = the part of the held map that arrives while the window fills

Sources: FINN, `src/finn/custom_op/fpgadataflow/{matrixvectoractivation,vectorvectoractivation,hls/*,rtl/*}.py`
(Xilinx/finn, BSD-3-Clause) for the first five; its authors' FINN-R (arXiv 1809.04570) for the constants 300 and 1.1;
arXiv 2301.13376 for the accumulator. The scale of `SCALE_BITS` bits instead of thresholds, grouped convolutions one
group after another and lanes of element-wise engines are ours. The rest follows from what has to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from hw_models.errors import InputError
from hw_models.workload import MULTIPLYING, Dtype, Layer, Op

FIXED_LUTS = 300
LUT_ROWS = 64  # bits that one LUT stores
BLOCK_BITS = 18_432
ULTRA_BITS = 294_912
BLOCK_PORT_BITS = 36  # a word of the widest port of a block of 18 Kb
ULTRA_PORT_BITS = 72  # and of one of 288 Kb
SCALE_BITS = 16

KINDS = {
    Op.CONV: "MVAU",
    Op.LINEAR: "MVAU",
    Op.CHANNEL_CONV: "MVAU",
    Op.DEPTHWISE: "VVAU",
    Op.POOL: "StreamingMaxPool",
    Op.GLOBAL_POOL: "GlobalAccPool",
    Op.ADD: "AddStreams",
    Op.SCALE: "ElementwiseMul",
    Op.MULTIPLY: "ElementwiseMul",
    Op.REDUCE: "ElementwiseMax",
    Op.CONCAT: "StreamingConcat",
    Op.ACTIVATION: "Thresholding",
    Op.RESIZE: "UpsampleNearestNeighbour",
}


class Budget(NamedTuple):
    """What a design may use: LUTs, DSP slices, memory blocks of 18 Kb and of 288 Kb."""

    luts: int
    dsps: int
    bram18: int
    uram: int


class Memory(NamedTuple):
    """A memory of `depth` words of `width` bits; `ultra` says that blocks of 288 Kb may hold it."""

    width: int
    depth: int
    ultra: bool = False

    def options(self) -> list[tuple[int, int, int]]:
        """LUTs, 18 Kb blocks and 288 Kb blocks of each way to build it.

        Example:
            >>> Memory(8, 4096, ultra=True).options()
            [(512, 0, 0), (0, 2, 0), (0, 0, 1)]
        """
        found = [(self.width * up(self.depth, LUT_ROWS), 0, 0), (0, bram18(self.width, self.depth), 0)]
        if self.ultra:
            words = ULTRA_BITS // ULTRA_PORT_BITS
            found.append((0, 0, up(self.width, ULTRA_PORT_BITS) * up(self.depth, words)))
        return found


class Demand(NamedTuple):
    """What an engine needs. `luts` are those besides multipliers, which take `mult_luts` or instead `mult_dsps`, and
    besides memories."""

    luts: int
    mult_luts: int
    mult_dsps: int
    memories: tuple[Memory, ...]


class Engine(NamedTuple):
    """One layer as an engine. `window_bits` and `fifo_bits` are buffers of maps, `fill` the share of the input that
    must arrive before the first output; `channels` is the width of the input stream."""

    name: str
    kind: str
    rows: int
    depth: int
    pixels: int
    in_pixels: int
    channels: int
    weights: int
    weight_bits: int
    act_bits: int
    window_bits: int
    fifo_bits: int
    fill: Fraction

    @property
    def multiplies(self) -> bool:
        """Whether the engine has weights."""
        return self.kind in ("MVAU", "VVAU")


def up(a: int, b: int) -> int:
    """`a / b` rounded up.

    Example:
        >>> up(9, 4)
        3
    """
    return -(-a // b)


def divisors(number: int) -> list[int]:
    """Divisors, ascending.

    Example:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


def placed(luts: int) -> int:
    """LUTs that a tool places for so many of the equations, rounded down: 1.1 times as many (FINN-R).

    Example:
        >>> placed(15)
        16
    """
    return 11 * luts // 10


def multiplier_luts(bits: int) -> int:
    """LUTs of one multiplier whose two operands have `bits` together.

    Example:
        >>> multiplier_luts(2), multiplier_luts(16)
        (2, 80)
    """
    return (2 * up(bits, 6) - 1) * bits


def accumulator_bits(depth: int, weight_bits: int, act_bits: int, signed: bool = False) -> int:
    """Bits that a sum of `depth` products can need, activations unsigned unless `signed` (arXiv 2301.13376).

    Example:
        >>> accumulator_bits(576, 1, 1)
        12
    """
    return (depth << (weight_bits + act_bits - 1 - signed)).bit_length() + 1


def matrix_luts(pe: int, simd: int, weight_bits: int, act_bits: int, accumulator: int, dsp: bool = False) -> int:
    """LUTs of a matrix-vector engine without activation and memories.

    Example:
        >>> matrix_luts(1, 1, 2, 2, 6), matrix_luts(1, 1, 2, 2, 6, dsp=True)
        (315, 311)
    """
    bits = weight_bits + act_bits
    products = 0 if dsp else simd * multiplier_luts(bits)
    return FIXED_LUTS + placed(pe * (products + bits * (2 * simd - 1) + accumulator))


def activation_luts(lanes: int, channels: int, act_bits: int, accumulator: int) -> int:
    """LUTs that turn sums into activations of `act_bits`: thresholds, or a scale where that is cheaper.

    Example:
        >>> activation_luts(1, 64, 1, 11), activation_luts(1, 64, 8, 25)
        (24, 631)
    """
    stored = up(up(channels, lanes), LUT_ROWS)
    thresholds = ((1 << act_bits) - 1) * accumulator * (1 + stored)
    bits = SCALE_BITS + accumulator
    scale = multiplier_luts(bits) + bits * stored
    return placed(lanes * min(thresholds, scale))


def bram18(width: int, depth: int) -> int:
    """Memory blocks of 18 Kb for a memory of `depth` words of `width` bits.

    Example:
        >>> bram18(36, 512), bram18(36, 513), bram18(8, 2048)
        (1, 2, 1)
    """
    for widest, rows in ((1, 16384), (2, 8192), (4, 4096), (9, 2048)):
        if width <= widest:
            return up(depth, rows)
    if width <= 18 or depth > 512:
        return up(depth, 1024) * up(width, 18)
    return up(width, BLOCK_PORT_BITS)


def dsp_lanes(engine: Engine, lanes: Sequence[tuple[int, int]]) -> int:
    """Products per DSP slice: `lanes` are pairs of the widest operand and how many products of that width share one.

    Example:
        >>> layer = Layer(Op.LINEAR, 1, 1, 1, 1, 8, 8, weight_bits=4, act_bits=4, weight_dtype=Dtype.INT,
        ...               act_dtype=Dtype.INT)
        >>> dsp_lanes(engines([layer])[0], [(4, 4), (8, 2), (16, 1)])
        4
    """
    widest = max(engine.weight_bits, engine.act_bits)
    return max((many for bits, many in lanes if widest <= bits), default=1)


def fill_share(layer: Layer) -> Fraction:
    """Share of the input that must have arrived before the first output is complete.

    Example:
        >>> fill_share(Layer(Op.CONV, 32, 32, 32, 32, 16, 16, 3, 3))
        Fraction(17, 512)
    """
    there = layer.in_h * layer.in_w
    if layer.out_h * layer.out_w == 1:
        return Fraction(1)
    reach = []
    for size, out, kernel in ((layer.in_h, layer.out_h, layer.kernel_h), (layer.in_w, layer.out_w, layer.kernel_w)):
        padding = max(0, (out - 1) * layer.stride + kernel - size)
        reach.append(min(max(kernel - padding // 2, 1), size))
    return Fraction(min((reach[0] - 1) * layer.in_w + reach[1], there), there)


def engines(layers: Sequence[Layer]) -> list[Engine]:
    """The engines of a network's layers, in their order, named as FINN does: the kind and a number.

    Raises:
        InputError: a layer is not in an integer format.

    Example:
        >>> eight = {"weight_bits": 8, "act_bits": 8, "weight_dtype": Dtype.INT, "act_dtype": Dtype.INT}
        >>> engine = engines([Layer(Op.CONV, 8, 8, 8, 8, 4, 16, 3, 3, **eight)])[0]
        >>> engine.name, engine.rows, engine.depth, engine.pixels, engine.window_bits
        ('MVAU_0', 16, 36, 64, 608)
    """
    made: list[Engine] = []
    counts: dict[str, int] = {}
    for position, layer in enumerate(layers):
        if layer.weight_dtype != Dtype.INT or layer.act_dtype != Dtype.INT:
            raise InputError(
                f"layer {position} ({layer.op.name.lower()}) is not in an integer format, which engines on an FPGA "
                f"need: give it int bits, such as int8"
            )
        kind = KINDS[layer.op]
        name = f"{kind}_{counts.get(kind, 0)}"
        counts[kind] = counts.get(kind, 0) + 1
        made.append(_engine(layer, kind, name))
    return made


def _engine(layer: Layer, kind: str, name: str) -> Engine:
    taps = layer.kernel_h * layer.kernel_w
    pixels, in_pixels = layer.out_h * layer.out_w, layer.in_h * layer.in_w
    fill = fill_share(layer)
    if layer.op is Op.DEPTHWISE:
        rows, depth = layer.out_channels, taps
    elif layer.op in MULTIPLYING:
        rows, depth = layer.out_channels // layer.groups, taps * layer.in_channels // layer.groups
        pixels *= layer.groups
    else:
        rows, depth = max(layer.in_channels, layer.out_channels), 1
        pixels = max(pixels, in_pixels)
    window = 0
    if taps > 1 and layer.op is not Op.GLOBAL_POOL:
        window = ((layer.kernel_h - 1) * layer.in_w + layer.kernel_w) * layer.in_channels
    # What is held flows on while the window fills; a map that is scaled waits until all of it has been averaged.
    waiting = 0 if in_pixels == 1 else int(fill * layer.held_elements)
    if layer.op is Op.SCALE:
        waiting += in_pixels * layer.in_channels
    return Engine(
        name, kind, rows, depth, pixels, in_pixels, layer.in_channels, layer.weights,
        layer.weight_bits, layer.act_bits, window * layer.act_bits, waiting * layer.act_bits, fill,
    )  # fmt: skip


def foldings(engine: Engine) -> list[tuple[int, int]]:
    """Every allowed pair of `pe` and `simd`.

    Example:
        >>> eight = {"weight_bits": 8, "act_bits": 8, "weight_dtype": Dtype.INT, "act_dtype": Dtype.INT}
        >>> foldings(engines([Layer(Op.DEPTHWISE, 8, 8, 8, 8, 2, 2, 3, 3, groups=2, **eight)])[0])
        [(1, 1), (2, 1), (2, 3), (2, 9)]
    """
    if engine.kind == "MVAU":
        return [(pe, simd) for pe in divisors(engine.rows) for simd in divisors(engine.depth)]
    first = [(pe, 1) for pe in divisors(engine.rows)]
    return first + [(engine.rows, simd) for simd in divisors(engine.depth)[1:]]


def cycles(engine: Engine, pe: int, simd: int) -> int:
    """Cycles that one image takes.

    Example:
        >>> eight = {"weight_bits": 8, "act_bits": 8, "weight_dtype": Dtype.INT, "act_dtype": Dtype.INT}
        >>> cycles(engines([Layer(Op.CONV, 8, 8, 8, 8, 4, 16, 3, 3, **eight)])[0], 4, 9)
        1024
    """
    stream = pe if engine.kind == "VVAU" else simd if engine.multiplies else pe
    read = engine.in_pixels * up(engine.channels, min(stream, engine.channels))
    return max(engine.rows // pe * (engine.depth // simd) * engine.pixels, read)


def demand(engine: Engine, pe: int, simd: int, lanes: int = 1) -> Demand:
    """What one engine needs at a folding; `lanes` products share a DSP slice.

    Example:
        >>> eight = {"weight_bits": 8, "act_bits": 8, "weight_dtype": Dtype.INT, "act_dtype": Dtype.INT}
        >>> found = demand(engines([Layer(Op.CONV, 8, 8, 8, 8, 4, 16, 3, 3, **eight)])[0], 4, 9, lanes=2)
        >>> found.mult_luts, found.mult_dsps, found.memories[-1]
        (3168, 18, Memory(width=288, depth=16, ultra=True))
    """
    weight_bits, act_bits = engine.weight_bits, engine.act_bits
    stream = act_bits * min(pe if engine.kind == "VVAU" else simd, engine.channels)
    memories = [Memory(stream, up(bits, stream)) for bits in (engine.window_bits, engine.fifo_bits) if bits]
    fixed = FIXED_LUTS if engine.window_bits else 0
    if not engine.multiplies:
        each = multiplier_luts(2 * act_bits) if engine.kind == "ElementwiseMul" else act_bits
        return Demand(fixed + FIXED_LUTS + placed(pe * each), 0, 0, tuple(memories))
    accumulator = accumulator_bits(engine.depth, weight_bits, act_bits)
    with_dsp = matrix_luts(pe, simd, weight_bits, act_bits, accumulator, dsp=True)
    in_logic = matrix_luts(pe, simd, weight_bits, act_bits, accumulator)
    # The activation has lanes of its own, enough for one result of every row and pixel in time.
    keep_up = next(d for d in divisors(engine.rows) if engine.rows // d * engine.pixels <= cycles(engine, pe, simd))
    activation = activation_luts(keep_up, engine.rows, act_bits, accumulator)
    memories.append(Memory(weight_bits * pe * simd, up(engine.weights, pe * simd), ultra=True))
    return Demand(fixed + with_dsp + activation, in_logic - with_dsp, up(pe, lanes) * simd, tuple(memories))
