"""The part of an export that is in integers: its file, and what the report says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hw_models.discover import unknown
from nas.data import Splits
from nas.exporters import onnx_int8
from nas.measure import onnxruntime_latency, onnxruntime_session
from nas.model import Model
from nas.quantized.own_bits import integers
from nas.quantized.post_training import quantize
from nas.stratify import drawn
from search_spaces.precision import has_bits

CHOICES = ("none", "int8")
CALIBRATION_IMAGES = 256
BATCH = 100
OBSERVER = "min_max"
WEIGHT_BITS = 7  # a file is used on processors of all kinds, see nas/exporters/onnx_int8.py
FEWEST_ALIKE = 0.995
MOST_LOST = 0.02  # of the accuracy, without a note


def check_choice(name: str) -> None:
    """Raise InputError unless `name` is a way to quantize an export.

    Example:
        >>> check_choice("int8")
    """
    if name not in CHOICES:
        raise unknown("quantization", name, CHOICES)


def write(
    model: Model, folder: Path, splits: Splits, compared_images: int, measure_seconds: float
) -> tuple[dict[str, Any], list[str]]:
    """Write `model_int8.onnx` into `folder`; the report of it, and notes for a person.

    Ranges are observed on training images. A network that was searched with bits keeps them. The accuracy is that of
    ONNX Runtime on all test images; `agreement` is the share of the first `compared_images` of them that it answers as
    the network of integers does.
    """
    images = splits.train_images[drawn(len(splits.train_images), CALIBRATION_IMAGES)]
    weight_bits: int | dict[str, int] = WEIGHT_BITS
    act_bits: int | dict[str, int] = 8
    if has_bits(model.space):
        network = integers(model, images, observer=OBSERVER, most_weight_bits=WEIGHT_BITS)
        weight_bits = {name: each.bits for name, each in network.weights.items()}
        act_bits = {name: each.bits for name, each in network.codings.items()}
    else:
        network = quantize(model, images, observer=OBSERVER, weight_bits=WEIGHT_BITS, first_last_bits=None)
    (name,) = onnx_int8.export(network, folder)
    logits = onnxruntime_logits(folder / name, splits.test_images)
    expected = network.logits(splits.test_images[:compared_images])
    alike = float((logits[:compared_images].argmax(-1) == expected.argmax(-1)).mean())
    notes = []
    if alike < FEWEST_ALIKE:
        notes.append(f"ONNX Runtime answers {alike:.1%} of {len(expected)} images as the int8 network is meant to")
    report = {
        "test_accuracy": float((logits.argmax(-1) == splits.test_labels).mean()),
        "agreement": {"same_answers": alike, "images": len(expected)},
        "measured": {"onnxruntime": {**onnxruntime_latency(folder / name, min_seconds=measure_seconds),
                                     "precision": "int8"}},
        "bytes": (folder / name).stat().st_size,
        "weight_bits": weight_bits,
        "act_bits": act_bits,
        "observer": OBSERVER,
        "calibration_images": len(images),
    }  # fmt: skip
    return report, notes


def lost(trained: float, integers: float) -> list[str]:
    """A note where the network in integers is wrong far more often than the one that was trained.

    Example:
        >>> lost(0.9, 0.8)
        ['in integers 80.0% of the test images are answered correctly, 90.0% as trained']
    """
    if trained - integers <= MOST_LOST:
        return []
    return [f"in integers {integers:.1%} of the test images are answered correctly, {trained:.1%} as trained"]


def readme(report: dict[str, Any]) -> str:
    """What the README says of the file, from its part of the report.

    Example:
        >>> print(readme({"test_accuracy": 0.9})[1:43])
        `model_int8.onnx` takes and gives the same
    """
    return f"""
`{onnx_int8.FILE}` takes and gives the same and computes in integers of 8 bits; {report["test_accuracy"]:.2%} of the
test images are answered correctly. Weights use at most 7 of the bits, so that sums fit on processors of all kinds.
"""


def onnxruntime_logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Logits `[N, classes]` that ONNX Runtime computes of uint8 images `[N, H, W, C]` with an exported file."""
    session = onnxruntime_session(path)
    parts = []
    for start in range(0, len(images), BATCH):
        pixels = (images[start : start + BATCH].astype(np.float32) / 255.0).transpose(0, 3, 1, 2)
        parts.append(session.run(None, {"images": pixels})[0])
    return np.concatenate(parts)
