"""Measured latency on this machine."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.errors import InputError

WARM_UP = 5
LEAST_RUNS = 30


def onnxruntime_latency(
    model: str | Path | bytes,
    threads: int = 1,
    batch: int = 1,
    min_seconds: float = 0.5,
    max_seconds: float = 5.0,
    confidence: float = 0.02,
) -> dict[str, Any]:
    """Latency of an ONNX model (a file, or its bytes) in ONNX Runtime on this CPU, as columns of a measured table.

    Runs are timed one by one, for at least `min_seconds` and until the median is known to within the share
    `confidence` (95 % interval from order statistics), at most `max_seconds`. The result has `latency_s` (the median,
    of a whole batch), `spread_s` (between the quartiles), `count`, `batch`, `precision`, `threads` and `runtime`.

    Raises:
        InputError: onnxruntime is not installed, no such file, or a number that is not allowed.
    """
    if threads < 1 or batch < 1:
        raise InputError(f"threads={threads}, batch={batch} is not allowed: give at least 1 of each")
    if not 0 < min_seconds <= max_seconds:
        raise InputError(
            f"min_seconds={min_seconds}, max_seconds={max_seconds}: give positive numbers, the first smaller"
        )
    session = onnxruntime_session(model, threads)
    feed = {}
    for value in session.get_inputs():
        shape = [length if isinstance(length, int) else batch for length in value.shape]
        feed[value.name] = np.random.default_rng(0).random(shape, np.float32)
    for _ in range(WARM_UP):
        session.run(None, feed)
    seconds: list[float] = []
    began = time.perf_counter()
    while True:
        start = time.perf_counter()
        session.run(None, feed)
        end = time.perf_counter()
        seconds.append(end - start)
        spent = end - began
        if spent >= max_seconds:
            break
        checked = len(seconds) >= LEAST_RUNS and len(seconds) % LEAST_RUNS == 0
        if checked and spent >= min_seconds and _uncertainty(seconds) <= confidence:
            break
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return {
        "latency_s": float(median),
        "spread_s": float(high - low),
        "count": len(seconds),
        "batch": batch,
        "precision": "float32",
        "threads": threads,
        "runtime": f"onnxruntime {_version()}",
    }


def onnxruntime_session(model: str | Path | bytes, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU with that many threads.

    Raises:
        InputError: onnxruntime is not installed, no such file, or it is no ONNX model.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        fix = "pip install onnxruntime"
        raise InputError(f"this needs the package onnxruntime, which is not installed: {fix}") from error
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise InputError(f"there is no file {model}: give the path of an ONNX model")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception type per status, all private
        reason = str(error).splitlines()[0]
        raise InputError(f"{'the model' if isinstance(model, bytes) else model} is no usable ONNX: {reason}") from error


def _version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _uncertainty(seconds: list[float]) -> float:
    """Half the 95 % interval of the median, as a share of it."""
    ordered = sorted(seconds)
    count = len(ordered)
    reach = 0.98 * math.sqrt(count)  # 1.96 standard deviations of the rank of the median, sqrt(count) / 2 each
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return (high - low) / 2 / ordered[count // 2]
