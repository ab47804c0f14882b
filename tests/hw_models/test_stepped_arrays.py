"""Cycle counts and movements against arrays that are stepped cycle by cycle, and compute the product as they go.

The steppers know no closed form. Values travel one element per cycle and carry tags of what they are; a result is
taken where its tag comes out; two values on one wire, or one that comes too late, are a `Conflict`. Matrices are padded
with zeros to full tiles, and the array does not know which of its columns are padding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hw_models.systolic import movements, systolic_cycles

NONE = -1
MORE = settings(max_examples=60, deadline=None)


class Conflict(Exception):
    """Two values on one wire, or one that came too late."""


class Stepped(NamedTuple):
    """The product, index of the cycle of its last result, of the last that is no padding; moves between registers."""

    product: np.ndarray
    last: int
    last_used: int
    inside: int
    between: int


class Fold(NamedTuple):
    """A tile and what streams past it; `row` and `column` say where its part of the product is."""

    tile: np.ndarray  # [R, C] that stays in the array, or [T, C] that streams from above
    vectors: np.ndarray  # [T, R] that stream from the left
    row: int
    column: int


class Edge:
    """Values due at the lanes of one edge of the array, each on its cycle."""

    def __init__(self, lanes: int, *blank: Any):
        self.lanes, self.blank = lanes, blank
        self.due: dict[int, dict[int, tuple[Any, ...]]] = defaultdict(dict)

    def put(self, cycle: int, lane: int, *value: Any) -> None:
        if lane in self.due[cycle]:
            raise Conflict(f"lane {lane} is taken on cycle {cycle}")
        self.due[cycle][lane] = value

    def pop(self, cycle: int) -> list[np.ndarray]:
        """One array `[lanes]` per component of the values."""
        here = self.due.pop(cycle, {})
        return [np.asarray(part) for part in zip(*(here.get(i, self.blank) for i in range(self.lanes)), strict=True)]


def right(register: np.ndarray, entering: np.ndarray) -> np.ndarray:
    return np.concatenate([entering[:, None], register[:, :-1]], axis=1)


def down(register: np.ndarray, entering: np.ndarray) -> np.ndarray:
    return np.concatenate([entering[None], register[:-1]], axis=0)


def padded(matrix: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return np.pad(matrix, [(0, -size % tile) for size, tile in zip(matrix.shape, (rows, cols), strict=True)])


def weight_folds(a: np.ndarray, b: np.ndarray, rows: int, cols: int, block: int) -> Iterator[Fold]:
    """Blocks of rows of `a`, in them tiles of columns, in them tiles of the sum."""
    a, b = padded(a, 1, rows), padded(b, rows, cols)
    for top in range(0, len(a), block):
        for left in range(0, b.shape[1], cols):
            for k in range(0, len(b), rows):
                yield Fold(b[k : k + rows, left : left + cols], a[top : top + block, k : k + rows], top, left)


def step_weights(
    folds: Sequence[Fold], starts: Sequence[int], fills: Sequence[int] | None, product: np.ndarray, used: int
) -> Stepped:
    """Weight stationary, added to `product`, of whose columns `used` are no padding.

    Fold f starts to stream on cycle `starts[f]`. Its tile enters through the top edge from cycle `fills[f]` on, one
    weight per column and cycle, passes down to its row and waits there until the first activation of its fold comes;
    with `fills` None the element has it at that moment.
    """
    rows, cols = folds[0].tile.shape
    row_of = np.mgrid[:rows, :cols][0]
    left, top = Edge(rows, 0, NONE), Edge(cols, 0, NONE, NONE)
    vectors = [(number, t) for number, fold in enumerate(folds) for t in range(len(fold.vectors))]
    fold_of = np.asarray([*(number for number, _ in vectors), NONE])  # the last one is that of tag NONE
    tag = 0
    for number, (fold, start) in enumerate(zip(folds, starts, strict=True)):
        for t, vector in enumerate(fold.vectors):
            for r in range(rows):
                left.put(start + t + r, r, vector[r], tag)
            tag += 1
        for r, c in np.ndindex(rows, cols) if fills is not None else ():
            top.put(fills[number] + r + c, c, fold.tile[r, c], r, number)
    value, held, waiting, passing, total = (np.zeros((rows, cols), product.dtype) for _ in range(5))
    value_tag, held_fold, waiting_fold, passing_fold, passing_row, total_tag = (
        np.full((rows, cols), NONE) for _ in range(6)
    )
    missing, cycle, last, last_used, inside, between = len(vectors) * cols, 0, 0, 0, 0, 0
    while missing:
        entering, entering_tag = left.pop(cycle)
        value, value_tag = right(value, entering), right(value_tag, entering_tag)
        swap = (fold_of[value_tag] != NONE) & (fold_of[value_tag] != held_fold)
        if fills is None:
            for r, c in zip(*np.nonzero(swap), strict=True):
                held[r, c] = folds[fold_of[value_tag[r, c]]].tile[r, c]
            held_fold = np.where(swap, fold_of[value_tag], held_fold)
        else:
            if (swap & (waiting_fold != fold_of[value_tag])).any():
                raise Conflict(f"a weight is not there on cycle {cycle}")
            held, held_fold = np.where(swap, waiting, held), np.where(swap, waiting_fold, held_fold)
            weight, row, number = top.pop(cycle)
            passing, passing_row = down(passing, weight), down(passing_row, row)
            passing_fold = down(passing_fold, number)
            arrives = passing_row == row_of
            if (arrives & (waiting_fold != held_fold)).any():
                raise Conflict(f"a waiting weight is overwritten on cycle {cycle}")
            waiting, waiting_fold = np.where(arrives, passing, waiting), np.where(arrives, passing_fold, waiting_fold)
        # the sum comes from the row above, where it was made one cycle before
        total, total_tag = down(total, np.zeros(cols, product.dtype)) + value * held, down(total_tag, value_tag[0])
        assert (total_tag == value_tag).all()
        busy = value_tag != NONE
        inside += 3 * int(busy.sum())
        between += int(busy[:, :-1].sum()) + int(busy.sum())
        for c in np.nonzero(total_tag[-1] != NONE)[0]:
            number, t = vectors[total_tag[-1, c]]
            product[folds[number].row + t, folds[number].column + c] += total[-1, c]
            missing, last = missing - 1, cycle
            last_used = cycle if folds[number].column + c < used else last_used
        cycle += 1
    return Stepped(product, last, last_used, inside, between)


def output_folds(a: np.ndarray, b: np.ndarray, rows: int, cols: int) -> Iterator[Fold]:
    a, b = padded(a, rows, 1), padded(b, 1, cols)
    for top in range(0, len(a), rows):
        for left in range(0, b.shape[1], cols):
            yield Fold(b[:, left : left + cols], a[top : top + rows].T, top, left)


def step_outputs(folds: Sequence[Fold], starts: Sequence[int], product: np.ndarray, used: int) -> Stepped:
    """Output stationary: a sum leaves on the bus of its column on the cycle of its last addition."""
    rows, cols = folds[0].vectors.shape[1], folds[0].tile.shape[1]
    left, top = Edge(rows, 0, NONE), Edge(cols, 0, NONE)
    steps = [(number, t) for number, fold in enumerate(folds) for t in range(len(fold.tile))]
    tag = 0
    for fold, start in zip(folds, starts, strict=True):
        for t in range(len(fold.tile)):
            for r in range(rows):
                left.put(start + t + r, r, fold.vectors[t, r], tag)
            for c in range(cols):
                top.put(start + t + c, c, fold.tile[t, c], tag)
            tag += 1
    across, below, total = (np.zeros((rows, cols), product.dtype) for _ in range(3))
    across_tag, below_tag = (np.full((rows, cols), NONE) for _ in range(2))
    missing, cycle, last, last_used, inside, between = len(folds) * rows * cols, 0, 0, 0, 0, 0
    while missing:
        (x, x_tag), (y, y_tag) = left.pop(cycle), top.pop(cycle)
        across, across_tag = right(across, x), right(across_tag, x_tag)
        below, below_tag = down(below, y), down(below_tag, y_tag)
        assert (across_tag == below_tag).all()
        busy = across_tag != NONE
        total = total + np.where(busy, across * below, 0)
        inside += 3 * int(busy.sum())
        between += int(busy[:, :-1].sum()) + int(busy[:-1].sum())
        on_bus: set[int] = set()
        for r, c in zip(*np.nonzero(busy), strict=True):
            number, t = steps[across_tag[r, c]]
            if t < len(folds[number].tile) - 1:
                continue
            if c in on_bus:
                raise Conflict(f"the bus of column {c} is taken on cycle {cycle}")
            on_bus.add(c)
            product[folds[number].row + r, folds[number].column + c] = total[r, c]
            total[r, c] = 0
            missing, last = missing - 1, cycle
            last_used = cycle if folds[number].column + c < used else last_used
        cycle += 1
    return Stepped(product, last, last_used, inside, between)


def run_weights(
    a: np.ndarray, b: np.ndarray, rows: int, cols: int, how: str, block: int = 0, every: int = 0
) -> Stepped:
    """Serial folds; or hidden fills with folds as close as the edges allow; or with weights that are always there."""
    folds = list(weight_folds(a, b, rows, cols, block or len(a)))
    product, used = np.zeros((len(a), b.shape[1] + -b.shape[1] % cols), a.dtype), b.shape[1]
    if how == "serial":
        done = [step_weights([fold], [rows], [0], product, used) for fold in folds]
        result = Stepped(product, sum(each.last + 1 for each in done) - 1, 0, sum(each.inside for each in done),
                         sum(each.between for each in done))  # fmt: skip
    else:
        starts = [rows if how == "hidden" else 0]
        for fold in folds[:-1]:
            starts.append(
                starts[-1] + (every or (max(len(fold.vectors), rows) if how == "hidden" else len(fold.vectors)))
            )
        fills = [0, *starts[:-1]] if how == "hidden" else None
        result = step_weights(folds, starts, fills, product, used)
    return result._replace(product=result.product[:, :used])


def run_outputs(a: np.ndarray, b: np.ndarray, rows: int, cols: int, how: str, every: int = 0) -> Stepped:
    folds = list(output_folds(a, b, rows, cols))
    product, used = np.zeros((len(a) + -len(a) % rows, b.shape[1] + -b.shape[1] % cols), a.dtype), b.shape[1]
    if how == "serial":
        done = [step_outputs([fold], [0], product, used) for fold in folds]
        result = Stepped(product, sum(each.last + 1 for each in done) - 1, 0, sum(each.inside for each in done),
                         sum(each.between for each in done))  # fmt: skip
    else:
        close = every or max(a.shape[1], rows)
        result = step_outputs(folds, [number * close for number in range(len(folds))], product, used)
    return result._replace(product=result.product[: len(a), :used])


def run(dataflow: str, a: np.ndarray, b: np.ndarray, rows: int, cols: int, how: str, **extra: int) -> Stepped:
    """Input stationary is weight stationary of the transposed product."""
    if dataflow == "is":
        done = run_weights(b.T, a.T, rows, cols, how, **extra)
        return done._replace(product=done.product.T)
    return (run_weights if dataflow == "ws" else run_outputs)(a, b, rows, cols, how, **extra)


class Case(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    rows: int
    cols: int

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        return (*self.a.shape, self.b.shape[1], self.rows, self.cols)


def case(m: int, k: int, n: int, rows: int, cols: int) -> Case:
    random = np.random.default_rng([m, k, n, rows, cols])
    return Case(random.integers(-9, 10, (m, k)), random.integers(-9, 10, (k, n)), rows, cols)


SIZE, SIDE = st.integers(1, 11), st.integers(1, 5)
CASES = st.builds(case, SIZE, SIZE, SIZE, SIDE, SIDE)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@MORE
@given(small=CASES)
@example(small=case(1, 1, 1, 1, 1))
def test_serial_folds_end_on_the_cycle_counted(dataflow: str, small: Case) -> None:
    stepped = run(dataflow, *small, how="serial")
    assert (stepped.product == small.a @ small.b).all()
    assert stepped.last == systolic_cycles(*small.sizes, dataflow)


@pytest.mark.parametrize("dataflow", ["os", "is"])
@MORE
@given(small=CASES)
@example(small=case(1, 9, 1, 4, 3))
def test_overlapped_folds_end_on_the_cycle_counted(dataflow: str, small: Case) -> None:
    stepped = run(dataflow, *small, how="hidden")
    assert (stepped.product == small.a @ small.b).all()
    assert stepped.last == systolic_cycles(*small.sizes, dataflow, overlap=True)


@pytest.mark.parametrize("dataflow", ["os", "is"])
@pytest.mark.parametrize(("m", "k", "n"), [(9, 8, 7), (9, 2, 7), (9, 8, 2)])
def test_overlapped_folds_cannot_be_closer(dataflow: str, m: int, k: int, n: int) -> None:
    """One cycle less between folds, and a wire is taken or a weight is not there."""
    small = case(m, k, n, 4, 3)
    closest = max(k if dataflow == "os" else n, 4)
    run(dataflow, *small, how="hidden", every=closest)
    with pytest.raises(Conflict):
        run(dataflow, *small, how="hidden", every=closest - 1)


@MORE
@given(small=CASES, accumulator=st.integers(2, 14))
@example(small=case(2, 1, 5, 1, 4), accumulator=2)
@example(small=case(9, 3, 9, 5, 4), accumulator=4)
def test_the_emulator_is_weights_that_are_always_there_and_a_start_up(small: Case, accumulator: int) -> None:
    """Its count is the last result that is no padding, and 8 cycles; 7 where the last block has a single row."""
    block = accumulator // 2
    stepped = run("ws", *small, how="direct", block=block)
    assert (stepped.product == small.a @ small.b).all()
    start_up = 7 if (len(small.a) - 1) % block == 0 else 8
    counted = systolic_cycles(*small.sizes, overlap=True, accumulator=accumulator)
    assert counted == stepped.last_used + 1 + start_up


@MORE
@given(small=CASES, accumulator=st.integers(2, 14))
def test_blocks_of_an_input_stationary_array(small: Case, accumulator: int) -> None:
    block = accumulator // 2
    serial, hidden = (run("is", *small, how=how, block=block) for how in ("serial", "hidden"))
    assert serial.last == systolic_cycles(*small.sizes, "is", accumulator=accumulator)
    assert hidden.last == systolic_cycles(*small.sizes, "is", overlap=True, accumulator=accumulator)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@MORE
@given(small=CASES)
def test_moves_between_registers_are_those_of_the_stepped_array(dataflow: str, small: Case) -> None:
    stepped = run(dataflow, *small, how="serial")
    counted = movements(*small.sizes, dataflow)
    assert (stepped.inside, stepped.between) == (counted.intra_pe, counted.inter_pe)
