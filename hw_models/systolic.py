"""Systolic arrays: cycles, utilization and data movement of matrix products, and of whole networks.

A layer is `groups` products of an `m x k` activation matrix by a `k x n` weight matrix (`hw_models.roofline.gemm`). The
array has R rows (its height) and C columns (its width). A dataflow keeps one of the three matrices in the array, a tile
at a time, and streams the others through it. Such a pass is a fold:

    dataflow              tile in the array     streamed per fold   folds
    ws weight stationary  R of k  x  C of n     m                   ceil(k/R) * ceil(n/C)
    os output stationary  R of m  x  C of n     k                   ceil(m/R) * ceil(n/C)
    is input stationary   R of k  x  C of m     n                   ceil(k/R) * ceil(m/C)

Serial folds. With `ws` and `is` a fold takes R cycles to fill the tile, one value per column and cycle, and
`stream + R + C - 2` until the last result has crossed the array; with `os` nothing is filled. The next fold waits for
the last result. Counted as in SCALE-Sim 3.0.0: the index of the last cycle, one less than the cycles that pass.

    cycles = folds * (stream + drain) - 1       drain = 2R + C - 2 for ws and is, R + C - 2 for os

Overlapped folds, `os` and `is`. A fold sends R values through the edge of every column: the tile of the next fold
(`is`), or its own results (`os`: each leaves on the cycle of its last addition, R in a row per column). One value per
column and cycle fits, so folds follow each other every `max(stream, R)` cycles, and only the first fill and the last
drain show:

    cycles = (folds - 1) * max(stream, R) + stream + drain - 1

This never exceeds the serial count, and the cycles that pass, one more, never fall below the ideal `m*k*n / (R*C)` or
the load of any edge. With `is` an element takes two more registers: for a value that passes down to its row, and for
the one that waits until the wave of its fold comes.

Overlapped folds, `ws`, are counted as the Camuy emulator does. It writes weights straight into the elements, along
diagonals, as many per column and cycle as are due, so that even a stream shorter than R hides them; and it adds a
start-up of a few cycles. Rows of `m` are taken in blocks of half the accumulator, where that is limited:

    cycles = (m - last) * folds + max over j of (last * ceil(k/R) * (j+1) + w_j) + R + 6 - [last == 1]
    last = rows of the last block, w_j = columns used by the j-th tile of n

Source: SCALE-Sim (Samajdar et al. 2020, https://arxiv.org/abs/1811.02883, and version 3.0.0 of its MIT-licensed code,
which differs from the paper for output stationary); Camuy (Stehle et al. 2020, https://arxiv.org/abs/2006.14008, and
its MIT-licensed emulator). Closed form of the latter and overlapped `os` and `is`: derived here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from hw_models.discover import unknown
from hw_models.errors import InputError
from hw_models.roofline import ceil_div, gemm, on_vector_unit
from hw_models.workload import Workload

DATAFLOWS = ("ws", "os", "is")


class _Arithmetic(NamedTuple):
    """What exact integers and traced arrays do differently."""

    ceil_div: Callable[[Any, Any], Any]
    maximum: Callable[[Any, Any], Any]
    where: Callable[[Any, Any, Any], Any]


_EXACT = _Arithmetic(lambda a, b: -(-a // b), max, lambda which, yes, no: yes if which else no)
_TRACED = _Arithmetic(ceil_div, jnp.maximum, jnp.where)


class _Mapping(NamedTuple):
    """What lies along the rows, along the columns and in time, and in how many tiles and blocks."""

    down: Any
    across: Any
    stream: Any
    down_tiles: Any
    across_tiles: Any
    blocks: Any
    last: Any  # of the stream, in the last block


def _mapping(on: _Arithmetic, sizes: tuple[Any, ...], dataflow: str, accumulator: Any) -> _Mapping:
    m, k, n, rows, cols = sizes
    down, across, stream = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    blocks, last = 1, stream
    if accumulator is not None:
        buffer = accumulator // 2
        blocks = on.ceil_div(stream, buffer)
        last = stream - (blocks - 1) * buffer
    return _Mapping(down, across, stream, on.ceil_div(down, rows), on.ceil_div(across, cols), blocks, last)


def _cycles(on: _Arithmetic, sizes: tuple[Any, ...], dataflow: str, overlap: bool, accumulator: Any) -> Any:
    rows, cols = sizes[3:]
    at = _mapping(on, sizes, dataflow, accumulator)
    folds = at.down_tiles * at.across_tiles
    drain = (rows if dataflow == "os" else 2 * rows) + cols - 2
    if not overlap:
        return folds * (at.stream + at.blocks * drain) - 1
    if dataflow == "ws":
        # of the maximum over j only the last tile, and the full one before it, can be the largest
        ends = at.last * folds + at.across - (at.across_tiles - 1) * cols
        before = on.where(at.across_tiles > 1, at.last * (folds - at.down_tiles) + cols, 0)
        return (at.stream - at.last) * folds + on.maximum(ends, before) + rows + 6 - on.where(at.last == 1, 1, 0)
    earlier = (at.blocks - 1) * folds * on.maximum(accumulator // 2, rows) if accumulator is not None else 0
    return earlier + (folds - 1) * on.maximum(at.last, rows) + at.last + drain - 1


def _check_dataflow(dataflow: str, accumulator: Any) -> None:
    if dataflow not in DATAFLOWS:
        raise unknown("dataflow", dataflow, DATAFLOWS)
    if accumulator is not None and dataflow == "os":
        raise InputError(
            f"accumulator={accumulator!r} is not allowed with dataflow 'os', which sums inside the array: leave it out"
        )


def _check(sizes: tuple[Any, ...], dataflow: str, accumulator: Any) -> None:
    least = dict.fromkeys(("m", "k", "n", "rows", "cols"), 1)
    named = dict(zip(least, sizes, strict=True))
    if accumulator is not None:
        named["accumulator"], least["accumulator"] = accumulator, 2
    for name, value in named.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least[name]:
            raise InputError(f"systolic array: {name} is {value!r}: give an integer of at least {least[name]}")
    _check_dataflow(dataflow, accumulator)


def systolic_cycles(
    m: int,
    k: int,
    n: int,
    rows: int,
    cols: int,
    dataflow: str = "ws",
    overlap: bool = False,
    *,
    accumulator: int | None = None,
) -> int:
    """Cycles of an `m x k` by `k x n` product on an array of height `rows` and width `cols`; exact.

    Args:
        overlap: fold after fold, or the next one filled while the present one streams.
        accumulator: rows of partial sums that fit below the array, in two buffers: the stream is cut into blocks of
            half as many, each of which runs through all folds. None: as many as it takes.

    Raises:
        InputError: a size below 1 or not an integer, an unknown dataflow, an accumulator below 2 or with `os`.

    Example:
        >>> systolic_cycles(1024, 27, 16, 8, 8)
        8367
        >>> systolic_cycles(196, 576, 64, 32, 32, overlap=True)
        7126
    """
    sizes = (m, k, n, rows, cols)
    _check(sizes, dataflow, accumulator)
    return int(_cycles(_EXACT, sizes, dataflow, overlap, accumulator))


def systolic_cycles_traced(
    m: Any,
    k: Any,
    n: Any,
    rows: Any,
    cols: Any,
    dataflow: str = "ws",
    overlap: bool = False,
    *,
    accumulator: Any = None,
) -> Array:
    """`systolic_cycles` for arrays that broadcast: jittable, differentiable (`ceil_div`), float32 `[...]`.

    Raises:
        InputError: an unknown dataflow, or an accumulator with `os`.

    Example:
        >>> systolic_cycles_traced(1024.0, 27.0, 16.0, jnp.asarray([8.0, 16.0]), 8.0).tolist()
        [8367.0, 4247.0]
    """
    _check_dataflow(dataflow, accumulator)
    sizes = tuple(jnp.asarray(size, jnp.float32) for size in (m, k, n, rows, cols))
    buffer = None if accumulator is None else jnp.asarray(accumulator, jnp.float32)
    return jnp.asarray(_cycles(_TRACED, sizes, dataflow, overlap, buffer), jnp.float32)


def mapping_efficiency(m: int, k: int, n: int, rows: int, cols: int, dataflow: str = "ws") -> float:
    """Share of the array that tiles cover, mean over the folds, in 0..1.

    Raises:
        InputError: as `systolic_cycles`.

    Example:
        >>> mapping_efficiency(1024, 27, 16, 8, 8)
        0.84375
    """
    _check((m, k, n, rows, cols), dataflow, None)
    at = _mapping(_EXACT, (m, k, n, rows, cols), dataflow, None)
    return at.down * at.across / (at.down_tiles * rows * at.across_tiles * cols)


def mac_utilization(
    m: int,
    k: int,
    n: int,
    rows: int,
    cols: int,
    dataflow: str = "ws",
    overlap: bool = False,
    *,
    accumulator: int | None = None,
) -> float:
    """Share of the multipliers that are busy, `m*k*n / (cycles * rows * cols)`, in 0..1.

    At most 1: a count that is the index of the last cycle may be one too few, on an array of one element.

    Raises:
        InputError: as `systolic_cycles`.

    Example:
        >>> round(mac_utilization(196, 576, 64, 32, 32, overlap=True), 3)
        0.99
    """
    cycles = systolic_cycles(m, k, n, rows, cols, dataflow, overlap, accumulator=accumulator)
    macs = m * k * n
    return macs / max(cycles * rows * cols, macs)


class Movements(NamedTuple):
    """Words that one product moves.

    Reads and writes of the memories around the array (SRAM): `activation_reads`, `weight_reads`, `partial_sums` added
    in the accumulator (0 where sums stay in the array), `result_writes`. Between registers: `intra_pe` inside the
    elements, `inter_pe` from one to its neighbour or out of the array's last row.
    """

    activation_reads: int
    weight_reads: int
    partial_sums: int
    result_writes: int
    intra_pe: int
    inter_pe: int


def movements(
    m: int, k: int, n: int, rows: int, cols: int, dataflow: str = "ws", *, accumulator: int | None = None
) -> Movements:
    """Words that an `m x k` by `k x n` product moves on a systolic array; the same with and without overlap.

    The moves between registers are those of the whole array, 3 in every element and step: equal to the emulator's
    where tiles are full. What fills tiles is not among them, nor are the results of `os`, which leave on a bus.

    Source: Camuy for `ws`; `is` by exchanging the operands; `os` by the same reasoning.

    Raises:
        InputError: as `systolic_cycles`.

    Example:
        >>> movements(100, 32, 48, 16, 16).activation_reads
        9600
    """
    sizes = (m, k, n, rows, cols)
    _check(sizes, dataflow, accumulator)
    at = _mapping(_EXACT, sizes, dataflow, accumulator)
    steps = at.stream * at.down_tiles * at.across_tiles
    inside = 3 * steps * rows * cols
    if dataflow == "os":
        between = steps * (rows * (cols - 1) + (rows - 1) * cols)
        return Movements(m * k * at.across_tiles, k * n * at.down_tiles, 0, m * n, inside, between)
    streamed = at.stream * k * at.across_tiles
    held = k * at.across * at.blocks
    reads = (streamed, held) if dataflow == "ws" else (held, streamed)
    between = steps * (rows * (cols - 1) + rows * cols)
    return Movements(*reads, m * n * at.down_tiles, m * n, inside, between)


class NetworkCycles(NamedTuple):
    """Cycles of a network and the share of them in which the array's multipliers are busy; leaves `[..., *sides]`."""

    cycles: Array
    mac_utilization: Array


@functools.partial(jax.jit, static_argnames=("dataflow", "overlap"))
def network_cycles(
    layers: Workload,
    rows: Any,
    cols: Any,
    dataflow: str = "ws",
    overlap: bool = False,
    *,
    accumulator: Any = None,
    batch: ArrayLike = 1,
    vector_macs_per_cycle: Any = None,
) -> NetworkCycles:
    """Cycles of all layers that multiply, one after another, for every array and every network.

    Args:
        layers: leaves `[..., L]`, one network or several.
        rows: heights of arrays; broadcast with `cols`.
        cols: widths of arrays.
        vector_macs_per_cycle: multiply-accumulates per cycle of a vector unit that takes the depthwise layers; the
            array idles meanwhile. None: each of their channels is a small product on the array.

    Returns:
        Leaves `[..., *sides]`, float32, `sides` the common shape of `rows` and `cols`.

    Raises:
        InputError: an unknown dataflow, or an accumulator with `os`.

    Example:
        >>> from hw_models.workload import Layer, Op
        >>> layer = Layer(Op.CONV, 32, 32, 32, 32, 3, 16, 3, 3)
        >>> network_cycles(Workload.of([layer, layer]), jnp.asarray([8, 16]), 8).cycles.tolist()
        [16734.0, 8494.0]
    """
    _check_dataflow(dataflow, accumulator)
    rows, cols = (jnp.asarray(side, jnp.float32)[..., None] for side in jnp.broadcast_arrays(rows, cols))
    sides = tuple(range(-rows.ndim, -1))
    layers = Workload(*(jnp.expand_dims(leaf, sides) for leaf in layers))
    size = gemm(layers, batch)
    used = layers.multiplies * layers.count
    one = systolic_cycles_traced(size.m, size.k, size.n, rows, cols, dataflow, overlap, accumulator=accumulator)
    cycles = used * size.groups * one
    macs = used * size.macs
    if vector_macs_per_cycle is not None:
        vector = on_vector_unit(layers)
        cycles = jnp.where(vector, macs / vector_macs_per_cycle, cycles)
        macs = jnp.where(vector, 0.0, macs)
    total, busy = cycles.sum(axis=-1), macs.sum(axis=-1)
    return NetworkCycles(total, busy / jnp.maximum(total * rows[..., 0] * cols[..., 0], jnp.maximum(busy, 1.0)))
