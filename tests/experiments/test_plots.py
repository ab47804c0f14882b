"""Figures and data frames of made-up runs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import load_run, plots
from experiments.results import front_rows
from hw_models.errors import InputError
from nas import pareto


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def ink(path: Path) -> float:
    """Share of the picture that is not white."""
    from PIL import Image

    return float((np.asarray(Image.open(path).convert("L")) < 250).mean())


@pytest.mark.parametrize("figure", ["front", "progress"])
def test_pictures_are_as_wide_as_a_column_and_not_empty(figure: str, two_objectives: Path, tmp_path: Path) -> None:
    run = load_run(two_objectives)
    path = tmp_path / "one.png"
    plots.FIGURES[figure]([run, run]).savefig(path)
    assert png_size(path) == (1020, 750)
    assert 0.01 < ink(path) < 0.4


def test_the_staircase_goes_through_the_front(two_objectives: Path) -> None:
    run = load_run(two_objectives)
    drawn = plots.front(run)
    (axes,) = drawn.axes
    points = np.asarray([[r["costs"]["latency_s"] * 1e3, r["objectives"]["error"] * 1e2] for r in run.front()])
    line = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    stairs = np.column_stack(line.get_data())
    assert np.allclose(stairs[:-1], points[np.argsort(points[:, 0])])
    assert (np.diff(stairs[:-1, 0]) > 0).all() and (np.diff(stairs[:-1, 1]) < 0).all()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency (ms)", "error (%)")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["knee", "limit"]
    limit = next(line for line in axes.lines if line.get_label() == "limit")
    assert limit.get_xdata()[0] == pytest.approx(2.0)


def test_a_third_objective_becomes_colour(three_objectives: Path) -> None:
    run = load_run(three_objectives)
    axes, bar = plots.front(run).axes
    assert bar.get_ylabel() == "size of weights (KB)"
    coloured = [c for c in axes.collections if c.get_array() is not None and c.get_array().size]
    assert len(coloured) == 1 and coloured[0].get_array().size == len(run.front())
    swapped = plots.front(run, x="size", y="latency")
    assert swapped.axes[0].get_xlabel() == "size of weights (KB)" and swapped.axes[1].get_ylabel() == "error (%)"


def test_progress_grows_and_ends_at_the_hypervolume_of_the_front(two_objectives: Path) -> None:
    run = load_run(two_objectives)
    (axes,) = plots.progress(run).axes
    count, share = axes.lines[0].get_data()
    assert (np.diff(share) >= -1e-12).all() and 0 < share[-1] <= 1
    points = np.asarray([[r["objectives"][n] for n in run.objectives] for r in run.records if r["status"] == "ok"])
    assert count[-1] == len(points)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    assert share[-1] == pytest.approx(pareto.hypervolume((points - low) / extent, [1.01, 1.01]) / 1.01**2)


def test_numbers_are_those_drawn(
    call: Callable[..., Any], strict: Callable[[str], Any], two_objectives: Path, tmp_path: Path
) -> None:
    run = load_run(two_objectives)
    words = (str(two_objectives), "--out", str(tmp_path / "a.png"), "--json")
    rows = strict(call("plot", "front", *words).stdout)
    assert [(row["name"], row["error"], row["latency_s"]) for row in rows] == [
        (record["network"], record["objectives"]["error"], record["costs"]["latency_s"]) for record in run.front()
    ]
    (row,) = strict(call("plot", "progress", *words).stdout)
    evaluated, share = plots.progress(run).axes[0].lines[0].get_data()
    assert (row["name"], row["evaluated"], row["hypervolume"]) == ("two", evaluated.tolist(), share.tolist())


def test_figures_refuse_what_they_cannot_draw(two_objectives: Path, three_objectives: Path) -> None:
    two, three = load_run(two_objectives), load_run(three_objectives)
    with pytest.raises(InputError, match="plot it alone"):
        plots.progress([two, three])
    with pytest.raises(InputError, match="both axes"):
        plots.front(two, x="error")
    with pytest.raises(InputError, match="unknown objective or cost 'speed'"):
        plots.front(two, x="speed")
    with pytest.raises(InputError, match="its own axes"):
        plots.progress(two, x="error")
    with pytest.raises(InputError, match="no run"):
        plots.front([])


def test_a_frame_has_a_row_per_record(two_objectives: Path) -> None:
    run = load_run(two_objectives)
    frame = run.frame()
    assert len(frame) == len(run.records) == 240
    assert frame["on_front"].sum() == len(run.front())
    assert frame["error"].isna().sum() == (frame["status"] == "infeasible").sum() > 0
    assert set(frame["gene:stages/0/0/kernel"]) == {3, 5}
    best = frame[frame["on_front"]].sort_values("error").iloc[0]
    assert best["network"] == run.pick("best").network


def test_a_shortened_front_keeps_its_ends_and_the_knee(two_objectives: Path) -> None:
    front = load_run(two_objectives).front()
    objectives = ("error", "latency_s")
    whole, short = front_rows(front, objectives), front_rows(front, objectives, most=5)
    assert len(whole) == len(front) > 5 and len(short) == 5
    assert {whole[0], whole[-1]} <= set(short) <= set(whole)
    assert sum(row[1] == "knee" for row in short) == 1
