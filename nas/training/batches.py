"""Images on their way to a training step: all of them on the device, or batch by batch from the memory of the host.

Both give the same batches in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from hw_models.discover import unknown
from nas.training.parallel import Spread

PLACEMENTS = ("auto", "device", "host")
RESIDENT_BYTES = 1 << 30
"""With `auto`, images up to this many bytes (1 GiB) are kept on the device as a whole."""


class Feed(NamedTuple):
    """Batches of one data set.

    Attributes:
        batches: `order -> iterator of (images, labels)`; order `[steps, N]` are row numbers, images are uint8
            `[N, H, W, C]`, labels int32 `[N]`, on the device.
        total: `M`, images in all.
        streams: whether batches come from the host, one while the step before it runs.
    """

    batches: Callable[[Any], Iterator[tuple[Array, Array]]]
    total: int
    streams: bool


def feed(images: np.ndarray, labels: np.ndarray, over: Spread, placement: str = "auto") -> Feed:
    """Batches of `images` (uint8 `[M, H, W, C]`) and `labels` (int32 `[M]`), spread over the devices.

    `placement` is `device`, `host`, or `auto` for the device up to `RESIDENT_BYTES`. Images that stay on the host may
    be a memory-mapped file.

    Raises:
        InputError: an unknown placement.

    Example:
        >>> rows = feed(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.arange(4), Spread(None), "host")
        >>> [labels.tolist() for _, labels in rows.batches(np.array([[3, 1], [0, 2]]))]
        [[3, 1], [0, 2]]
    """
    if placement not in PLACEMENTS:
        raise unknown("placement", str(placement), PLACEMENTS)
    streams = placement == "host" or (placement == "auto" and images.nbytes > RESIDENT_BYTES)
    if streams:
        return Feed(functools.partial(_from_host, images, labels, over), len(images), True)
    resident = over.placed((images, labels))
    return Feed(functools.partial(_from_device, resident[0], resident[1], over), len(images), False)


def _from_device(images: Array, labels: Array, over: Spread, order: Any) -> Iterator[tuple[Array, Array]]:
    for index in order:
        yield _take(images, labels, index, over)


@functools.partial(jax.jit, static_argnames="over")
def _take(images: Array, labels: Array, index: Array, over: Spread) -> tuple[Array, Array]:
    return over.rows(images[index]), over.rows(labels[index])


def _from_host(images: np.ndarray, labels: np.ndarray, over: Spread, order: Any) -> Iterator[tuple[Array, Array]]:
    rows = np.asarray(order)

    def sent(index: np.ndarray) -> tuple[Array, Array]:
        return jax.device_put((images[index], labels[index]), over.sharding(0))

    if not len(rows):
        return
    ready = sent(rows[0])
    for index in rows[1:]:
        yield ready
        # whoever took it has started the step, which runs on while the next batch is gathered and sent
        ready = sent(index)
    yield ready
