"""Utilization of arrays of many sizes: the findings of the literature, and figure, table and JSON of `flynas plot`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import arrays
from experiments.arrays import NETWORKS, SIDES, Utilization, utilizations
from hw_models.systolic import systolic_cycles
from hw_models.workload import MULTIPLYING
from search_spaces.published import factory


@pytest.fixture(scope="module")
def four() -> list[Utilization]:
    return utilizations()


def at(row: Utilization, height: int, width: int) -> float:
    return float(row.mac_utilization[SIDES.index(height), SIDES.index(width)])


def test_networks_are_ordered_as_the_dissertation_finds(four: list[Utilization]) -> None:
    """Schindler 2021, section 7.2.2: prose on a figure, without numbers."""
    vgg, inception, resnet, densenet = four
    assert [row.name for row in four] == list(NETWORKS)
    # VGG-16 is good up to 128 wide, and no further
    assert at(vgg, 128, 128) > 0.8 > 0.65 > at(vgg, 128, 192)
    # Inception is somewhat worse
    assert at(densenet, 128, 128) < at(inception, 128, 128) < at(vgg, 128, 128)
    # ResNet-152 is good for larger arrays
    assert at(resnet, 128, 128) > at(vgg, 128, 128) and at(resnet, 256, 256) > at(vgg, 256, 256)
    # DenseNet-264 is the worst of all, on every larger array
    for size in (64, 96, 128, 192, 256, 384, 512):
        assert at(densenet, size, size) < min(at(row, size, size) for row in (vgg, inception, resnet))


@pytest.mark.parametrize(("dataflow", "overlap", "batch"), [("ws", True, 1), ("os", False, 4), ("is", True, 2)])
def test_a_network_costs_the_exact_sum_of_its_layers(dataflow: str, overlap: bool, batch: int) -> None:
    (row,) = utilizations(["mobilenet_v2"], dataflow, overlap, batch, sides=(32, 200))
    macs, cycles = 0, np.zeros((2, 2))
    for layer in factory("mobilenet_v2")().lower():
        if layer.op not in MULTIPLYING:
            continue
        m, n = batch * layer.out_h * layer.out_w, layer.out_channels // layer.groups
        k = layer.kernel_h * layer.kernel_w * layer.in_channels // layer.groups
        macs += m * k * n * layer.groups
        for i, j in np.ndindex(2, 2):
            cycles[i, j] += layer.groups * systolic_cycles(m, k, n, row.sides[i], row.sides[j], dataflow, overlap)
    multipliers = np.outer(row.sides, row.sides)
    assert row.macs * batch == macs
    assert np.allclose(row.cycles, cycles, rtol=1e-6)
    assert np.allclose(row.mac_utilization, macs / (cycles * multipliers), rtol=1e-6)


def test_every_map_has_its_numbers_labels_and_the_same_colours(four: list[Utilization]) -> None:
    figure = arrays.draw(four)
    *maps, bar = figure.axes
    assert [axes.get_title(loc="left") for axes in maps] == list(NETWORKS)
    for row, axes in zip(four, maps, strict=True):
        (image,) = axes.images
        assert image.get_clim() == (0, 100)
        assert np.allclose(image.get_array(), row.mac_utilization * 100)
        texts = [text.get_text() for text in axes.texts]
        assert texts == [f"{value * 100:.0f}" for value in row.mac_utilization.ravel()]
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [label.get_text() for label in labels] == [str(side) for side in SIDES]
    assert "busy (%)" in bar.get_ylabel()
    assert maps[2].get_xlabel().startswith("width") and maps[2].get_ylabel().startswith("height")


def test_the_line_goes_round_what_is_busy() -> None:
    busy = np.asarray([[0.9, 0.795, 0.1], [0.9, 0.2, 0.1]])  # 0.795 is printed as 80
    row = Utilization("a", 1, (8, 16, 24), np.ones((2, 3)), busy)
    assert row.busy.tolist() == [[True, True, False], [True, False, False]]
    line, _ = arrays.draw([row]).axes[0].collections
    edges = {tuple(map(tuple, segment.tolist())) for segment in line.get_segments()}
    assert edges == {((1.5, -0.5), (1.5, 0.5)), ((0.5, 0.5), (0.5, 1.5)), ((0.5, 0.5), (1.5, 0.5))}
    assert (row.largest(), row.best()) == ((16, 8), (16, 8))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_networks_fits(four: list[Utilization], count: int) -> None:
    figure = arrays.draw((four * 2)[:count])
    assert len(figure.axes) == count + 1
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_command_draws_and_prints(call: Callable[..., Any], strict: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "new" / "arrays.png"
    words = ("plot", "utilization", "mobilenet_v2", "tiny:1.0.0.0.0.0", "mobilenet_v2", "--out", str(path))
    done = call(*words)
    assert done.exit_code == 0 and path.stat().st_size > 20_000
    assert "weight stationary, overlapped folds, batch 1" in done.stdout and f"wrote {path}" in done.stdout
    rows = strict(call(*words, "--dataflow", "is", "--serial", "--batch", "2", "--json").stdout)
    assert [row["name"] for row in rows] == ["mobilenet_v2", "tiny:1.0.0.0.0.0"]
    (one,) = utilizations(["mobilenet_v2"], "is", False, 2)
    assert rows[0]["rows"] == rows[0]["cols"] == list(SIDES)
    assert np.allclose(rows[0]["mac_utilization"], one.mac_utilization, atol=1e-6)
    assert rows[0]["best"]["rows"] == one.best()[0] and rows[0]["largest_at_80_percent"] is None
    assert rows[0]["macs"] == 300774272
