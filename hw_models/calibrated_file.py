"""The file of a calibrated device: its old text with new numbers, each with what it was before, and the error found."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Item

from hw_models.accuracy import Accuracy
from hw_models.calibrate import Fit
from hw_models.device_file import parse_device, read_device_text

DIGITS = 5
UNITS, SRAM_RATE = "compute.units", "memory.sram_bytes_per_s"


def calibrated_text(
    name_or_path: str | Path, fit: Fit, held_out: Accuracy, precision: str, batch: int | None, source: str
) -> str:
    """The text of device `name_or_path` with the constants of `fit` and a table `[calibration]`.

    `batch` is the one all networks were measured at, None if there were several; `source` says what was measured.
    Comments of numbers that stay are kept. The number of units is that of the fitted device, which may be the threads
    of the measurement.

    Raises:
        InputError: no such device.
    """
    name, where, content = read_device_text(name_or_path)
    document = tomlkit.parse(content)
    before = parse_device(tomllib.loads(content), name, where)
    fitted = f"calibrated on {held_out.networks} networks"
    for constant, value in zip(fit.constants, fit.values, strict=True):
        old = before.number(constant.name)
        was = "not given before" if old is None else f"was {old:.{DIGITS}g}"
        _write(document, constant.name, _rounded(value), f"{fitted} ({was})", constant.precision)
    units = fit.device.number(UNITS)
    if units != before.number(UNITS):
        _write(document, UNITS, units, f"threads of the measured networks (was {before.number(UNITS):g})")
    # Rounded apart, what stays on the chip could fall below what leaves it.
    memory: Any = document["memory"]
    reached = float(memory["dram_bytes_per_s"]) * float(memory["efficiency"])
    if float(memory["sram_bytes_per_s"]) < reached:
        _write(document, SRAM_RATE, _rounded(reached * (1 + 10 ** (1 - DIGITS))), f"{fitted} (as the main memory)")
    document["calibration"] = _section(held_out, precision, batch, source)
    text = tomlkit.dumps(document)
    parse_device(tomllib.loads(text), name, where)  # what is written can be read
    return text


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _write(document: Any, full: str, value: float, comment: str, precision: str | None = None) -> None:
    """Set `section.key` or `section.key.precision`; where a file spreads a table over lines there is no comment."""
    section, key = full.split(".")[:2]
    table = document[section]
    if precision is None:
        table[key] = value
    else:
        table[key][precision] = value
        comment = f"{precision}: {comment}"
    item = table[key]
    if isinstance(item, Item):
        item.comment(comment)


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
