"""What each term of a kind's model buys: the same device with that term switched off.

A kind names its terms in `TERMS` of `hw_models/analytic/<kind>.py`: numbers `section.key` with which the term no longer
counts (rates without limit, overheads of nothing, tiles of one).
"""

from __future__ import annotations

from collections.abc import Mapping

from hw_models.device import Device
from hw_models.discover import load

UNLIMITED = 1e18  # of any rate or size
NOTHING = 1e-15  # seconds or cycles, for numbers that a file may not have at 0


def terms(kind: str) -> dict[str, dict[str, float]]:
    """The terms of a kind by name, each with the numbers that switch it off.

    Raises:
        InputError: no such kind.

    Example:
        >>> terms("gpu")["kernels of normalisation"]
        {'compute.kernels_per_norm': 0.0}
    """
    found: dict[str, dict[str, float]] = load("hw_models.analytic", kind, "TERMS", kind="kind of device")
    return found


def without(device: Device, term: Mapping[str, float]) -> Device:
    """`device` with the numbers of one of its terms replaced. Not a device to price on: no check is made.

    Example:
        >>> from hw_models.device_file import load_device
        >>> without(load_device("a100"), terms("gpu")["kernels of normalisation"]).compute["kernels_per_norm"]
        0.0
    """
    return device.replaced(term)
