"""The file of a calibrated device: its old text with new numbers, each with what it was before, and the error found."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import tomlkit

from hw_models.accuracy import Accuracy
from hw_models.calibrate import Fit
from hw_models.device_file import read_device_text

DIGITS = 5


def calibrated_text(
    name_or_path: str | Path, fit: Fit, held_out: Accuracy, precision: str, batch: int | None, source: str
) -> str:
    """The text of device `name_or_path` with the constants of `fit` and a table `[calibration]`.

    `batch` is the one all networks were measured at, None if there were several; `source` says what was measured.
    Comments of numbers that stay are kept.

    Raises:
        InputError: no such device.
    """
    document = tomlkit.parse(read_device_text(name_or_path)[2])
    whole: Any = document
    for constant, value in zip(fit.constants, fit.values, strict=True):
        section, key = constant.key.split(".", 1)
        table, rounded = whole[section], float(f"{value:.{DIGITS}g}")
        if constant.precision is not None:
            table[key][constant.precision] = rounded
            before = f"{constant.precision} was {constant.start:.{DIGITS}g}"
        else:
            before = f"was {float(table[key]):.{DIGITS}g}" if key in table else "not given before"
            table[key] = rounded
        table.value.item(key).comment(f"calibrated on {held_out.networks} networks ({before})")
    document["calibration"] = _section(held_out, precision, batch, source)
    return tomlkit.dumps(document)


def _section(held_out: Accuracy, precision: str, batch: int | None, source: str) -> Any:
    section = tomlkit.table()
    section["networks"] = held_out.networks
    section["networks"].comment("each predicted by a fit that had not seen it (five folds)")
    section["precision"] = precision
    if batch is not None:
        section["batch"] = batch
    for key in ("spearman", "kendall", "within_5", "within_10", "mape", "typical_error"):
        share = getattr(held_out, key)
        section[key] = float(f"{share.value:.{DIGITS}g}")
        section[key].comment(f"95 % interval {share.low:.4g} to {share.high:.4g}")
    section["source"] = source
    section["date"] = datetime.date.today()
    return section
