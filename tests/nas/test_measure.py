"""Measured latency: the table's columns, honest counts, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw_models.errors import InputError
from nas.measure import onnxruntime_latency


@pytest.fixture
def small_onnx(tmp_path: Path) -> Path:
    from onnx import TensorProto, helper, save

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, 8, 8]) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["out"])], "small", value[:1], value[1:])
    path = tmp_path / "small.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def test_the_columns_of_a_measured_table(small_onnx: Path) -> None:
    found = onnxruntime_latency(small_onnx, batch=2, min_seconds=0.05, max_seconds=0.2)
    assert set(found) == {"latency_s", "spread_s", "count", "batch", "precision", "threads", "runtime"}
    assert 0 < found["latency_s"] < 0.1 and found["spread_s"] >= 0 and found["count"] >= 1
    assert (found["batch"], found["threads"]) == (2, 1) and found["runtime"].startswith("onnxruntime 1.")


def test_a_file_and_its_bytes_are_the_same_to_it(small_onnx: Path) -> None:
    assert onnxruntime_latency(small_onnx.read_bytes(), min_seconds=0.02, max_seconds=0.05)["count"] >= 1


def test_a_time_limit_holds(small_onnx: Path) -> None:
    import time

    began = time.perf_counter()
    onnxruntime_latency(small_onnx, min_seconds=0.01, max_seconds=0.1, confidence=0.0)
    assert time.perf_counter() - began < 2


def test_what_cannot_be_measured_is_an_error(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        onnxruntime_latency(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not onnx")
    with pytest.raises(InputError, match="broken.onnx is no usable ONNX") as error:
        onnxruntime_latency(broken)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="threads=0"):
        onnxruntime_latency(small_onnx, threads=0)
    with pytest.raises(InputError, match="min_seconds"):
        onnxruntime_latency(small_onnx, min_seconds=2, max_seconds=1)


def test_a_missing_runtime_is_named(small_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        onnxruntime_latency(small_onnx)
