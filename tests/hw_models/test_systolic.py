"""Cycles of a systolic array against a published simulator and against a walk over its folds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hw_models.analytic.tpu import DATAFLOWS, systolic_cycles, systolic_cycles_traced
from hw_models.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden" / "scalesim_cycles.csv"
SIZES = st.integers(1, 2000)
SIDES = st.sampled_from([1, 8, 12, 32, 128, 256])


def _golden_rows() -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in GOLDEN.read_text().splitlines() if not line.startswith("#")))


@pytest.mark.parametrize("row", _golden_rows(), ids=lambda row: f"{row['dataflow']}-{row['rows']}-{row['layer']}")
def test_equals_the_simulator(row: dict[str, str]) -> None:
    sizes = {name: int(row[name]) for name in ("m", "k", "n", "rows", "cols")}
    assert systolic_cycles(**sizes, dataflow=row["dataflow"]) == int(row["cycles"])


def test_golden_rows_cover_every_dataflow_and_array() -> None:
    rows = _golden_rows()
    assert len(rows) >= 12
    assert {row["dataflow"] for row in rows} == set(DATAFLOWS)
    assert {(row["rows"], row["cols"]) for row in rows} == {("8", "8"), ("32", "8"), ("128", "128")}


def _walk(m: int, k: int, n: int, rows: int, cols: int) -> int:
    """Weight stationary, fold by fold: load the weights row by row, then stream m inputs through the array."""
    cycles = 0
    for _ in range(0, k, rows):
        for _ in range(0, n, cols):
            load = rows
            last_result = (m - 1) + (rows - 1) + (cols - 1) + 1  # the last input enters skewed by its row and column
            cycles += load + last_result
    return cycles - 1


@given(SIZES, SIZES, SIZES, SIDES, SIDES)
def test_equals_a_walk_over_the_folds(m: int, k: int, n: int, rows: int, cols: int) -> None:
    assume(-(-k // rows) * -(-n // cols) <= 4096)
    assert _walk(m, k, n, rows, cols) == systolic_cycles(m, k, n, rows, cols)


@given(SIZES, SIZES, SIZES, SIDES, SIDES, st.sampled_from(DATAFLOWS))
def test_never_faster_than_the_multipliers(m: int, k: int, n: int, rows: int, cols: int, dataflow: str) -> None:
    assert systolic_cycles(m, k, n, rows, cols, dataflow) * rows * cols >= m * k * n - rows * cols


@given(SIZES, SIZES, SIZES, SIDES, SIDES)
def test_traced_version_agrees(m: int, k: int, n: int, rows: int, cols: int) -> None:
    exact = systolic_cycles(m, k, n, rows, cols)
    traced = systolic_cycles_traced(float(m), float(k), float(n), float(rows), float(cols))
    assert float(traced) == pytest.approx(exact, rel=1e-6)


def test_large_counts_are_exact_integers() -> None:
    assert systolic_cycles(10**9, 10**6, 10**6, 7, 3) == 142858 * 333334 * (14 + 3 + 10**9 - 2) - 1


def test_traced_version_has_useful_gradients() -> None:
    gradient = jax.grad(systolic_cycles_traced, argnums=(0, 1, 2, 3))(1024.0, 27.0, 16.0, 8.0, 8.0)
    assert all(bool(jnp.isfinite(g)) for g in gradient)
    assert all(float(g) > 0 for g in gradient[:3])


@pytest.mark.parametrize("bad", [{"m": 0}, {"k": 1.5}, {"rows": -1}, {"n": True}])
def test_bad_sizes_are_input_errors(bad: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"m": 4, "k": 4, "n": 4, "rows": 4, "cols": 4} | bad
    with pytest.raises(InputError, match=next(iter(bad))):
        systolic_cycles(**sizes, dataflow="ws")


def test_unknown_dataflow_is_an_input_error() -> None:
    with pytest.raises(InputError, match="did you mean 'ws'"):
        systolic_cycles(1, 1, 1, 1, 1, "wss")
