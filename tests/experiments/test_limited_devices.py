"""Devices with hard limits on the command line: what does not fit, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from experiments.pricing import prepare, price


@pytest.mark.parametrize(
    ("network", "device", "scarcest"),
    [
        ("mobilenet_v3_small", "stm32h743", "flash"),
        ("mobilenet_v2", "stm32h743", "SRAM"),
        ("mobilenet_v2", "ultra96_dataflow", "on-chip memory"),
        ("resnet50", "zcu102", "programmable logic"),
    ],
)
def test_the_scarcest_resource_is_named(network: str, device: str, scarcest: str) -> None:
    row = price(prepare(network, device))
    assert row["scarcest"] == scarcest
    assert row["fits"] == (row["resource_fraction"] <= 1)
    assert (row["latency_s"] is None) == (not row["fits"])


def test_cost_says_what_is_missing(call: Callable[..., Any]) -> None:
    result = call("cost", "mobilenet_v2", "--device", "stm32f746", "--device", "zcu104_dataflow")
    assert result.exit_code == 0
    assert "no: SRAM, 4.66 times what there is" in result.stdout
    assert "precision: each device's default" in result.stdout
    told = json.loads(call("cost", "mobilenet_v2", "--device", "stm32f746", "--json").stdout)
    assert (told["fits"], told["latency_s"], told["scarcest"]) == (False, None, "SRAM")
    assert "it does not fit: SRAM, 4.66 times" in call("explain", "mobilenet_v2", "--device", "stm32f746").stdout


def test_any_width_on_streaming_boards_and_no_floats(call: Callable[..., Any]) -> None:
    latency = []
    for precision in ("w1a2", "int4", "w7a8"):
        told = json.loads(call("cost", "mobilenet_v2", "--device", "u250_dataflow", "--precision", precision,
                               "--batch", "100", "--json").stdout)  # fmt: skip
        assert told["precision"] == precision and told["fits"]
        latency.append(told["latency_s"])
    assert latency == sorted(latency)
    for device in ("u250_dataflow", "stm32f746"):
        result = call("cost", "mobilenet_v2", "--device", device, "--precision", "float32")
        assert result.exit_code == 2
        assert f"precision 'float32' is not supported by {device}" in result.stderr


def test_rows_of_explain_are_layers_alone(call: Callable[..., Any]) -> None:
    rows = json.loads(call("explain", "mobilenet_v3_small", "--device", "zcu104_dataflow", "--json").stdout)
    assert all(row["latency_s"] > 0 for row in rows)
    assert sum(row["share"] for row in rows) == pytest.approx(1, rel=1e-4)
    note = "the layers work at the same time"
    assert note in call("explain", "mobilenet_v3_small", "--device", "zcu104_dataflow").stdout
    assert note not in call("explain", "mobilenet_v3_small", "--device", "pixel_3").stdout
