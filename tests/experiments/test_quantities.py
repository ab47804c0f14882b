"""Numbers with units, read and written."""

from __future__ import annotations

import math

import pytest

from experiments.final import report_rows
from experiments.quantities import parse_limit, scale_of, shown
from hw_models.errors import InputError


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("latency=5ms", "latency_s", 5e-3),
        ("latency_s = 250us", "latency_s", 2.5e-4),
        ("latency@zcu102=1s", "latency_s@zcu102", 1.0),
        ("latency=0.004", "latency_s", 4e-3),
        ("energy=2mJ", "energy_j", 2e-3),
        ("size=300KB", "weight_bytes", 3e5),
        ("size=1.5MB", "weight_bytes", 1.5e6),
        ("memory=2MiB", "peak_memory_bytes", 2.0**21),
        ("weight_bytes=5e5", "weight_bytes", 5e5),
        ("params=0.5M", "params", 5e5),
        ("macs=300M", "macs", 3e8),
        ("throughput=50/s", "interval_s", 0.02),
        ("throughput@a100=4000", "interval_s@a100", 2.5e-4),
        ("activations=2M", "activations", 2e6),
        ("error=10%", "error", 0.1),
        ("error=0.1", "error", 0.1),
    ],
)
def test_limits_are_read(text: str, name: str, value: float) -> None:
    found = parse_limit(text)
    assert found[0] == name and math.isclose(found[1], value, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "is no limit"),
        ("latency=", "is no limit"),
        ("latency=fast", "is no limit"),
        ("latency=5KB", "unit 'KB' does not belong to latency_s"),
        ("size=3ms", "unit 'ms' does not belong to weight_bytes"),
        ("latncy=5ms", "did you mean 'latency'"),
        ("throughput=5ms", "unit 'ms' does not belong to throughput: use one of /s"),
        ("throughput=0", "above 0"),
        ("throughput=1e999", "finite number above 0"),
        ("latency=0ms", "above 0"),
        ("latency=-1ms", "above 0"),
    ],
)
def test_bad_limits(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_limit(text)


def test_what_is_shown_reads_back() -> None:
    for name, short in (("latency_s", "latency"), ("weight_bytes", "size"), ("params", "params"), ("error", "error")):
        for value in (1.23e-4, 0.0456, 0.5, 7.0, 12.3e3, 4.56e6):
            text = shown(name, value).replace(",", "")
            assert math.isclose(parse_limit(f"{short}={text}")[1], value, rel_tol=6e-3), (name, value, text)


def test_unknown_values_are_a_dash_and_axes_carry_units() -> None:
    assert shown("latency_s", None) == shown("latency_s", math.nan) == shown("latency_s", math.inf) == "-"
    assert scale_of("latency_s@zcu102").axis == "latency on zcu102 (ms)"
    assert scale_of("weight_bytes", 3e6).unit == "MB" and scale_of("weight_bytes", 3e5).unit == "KB"


def test_an_export_prints_the_error_of_a_calibrated_device() -> None:
    costs = {"latency_s": 0.0123, "weight_bytes": 4e5, "precision": "int8", "fits": True}
    report = {"test_accuracy": 0.9, "params": 10, "macs": 20, "measured": {}}
    predicted = {"mine": costs | {"latency_error": 0.081}, "plain": costs | {"latency_error": None}}
    rows = dict(report_rows(report | {"predicted": predicted}))
    assert rows["predicted on mine"] == "12.3 ms +- 8.1 %, 400 KB (int8)"
    assert rows["predicted on plain"] == "12.3 ms, 400 KB (int8)"


def test_an_export_prints_what_reduce_and_scale_takes() -> None:
    found = {
        "bytes": 5e4,
        "estimated_bytes": 4.7e4,
        "multiplications": 1000,
        "macs": 90_000,
        "integer_additions": 30_000,
    }
    report = {"test_accuracy": 0.9, "params": 10, "macs": 20, "measured": {}, "predicted": {}}
    rows = dict(report_rows(report | {"reduce_and_scale": found}))
    assert rows["ternary layers, stored"] == "50 KB, estimated 47 KB"
    assert rows["by reduce and scale"] == "1,000 of 90,000 multiplications, 30,000 integer additions"
