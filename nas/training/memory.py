"""What is said when a device has no memory left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from hw_models.errors import InputError


class OutOfMemory(InputError):
    """A compiled program did not fit into the memory of its device.

    Example:
        >>> str(OutOfMemory("a sum needs more memory than there is: give fewer numbers"))
        'a sum needs more memory than there is: give fewer numbers'
    """


@contextmanager
def within_memory(what: str, fix: str) -> Iterator[None]:
    """Name `what` ran out of memory, and the `fix`; everything else passes unchanged.

    What is computed inside has to be waited for inside, because JAX only queues it.

    Raises:
        OutOfMemory: XLA could not allocate what a program needs.

    Example:
        >>> with within_memory("a sum", "give fewer numbers"):
        ...     raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
        Traceback (most recent call last):
        ...
        nas.training.memory.OutOfMemory: a sum needs more memory than there is (Out of memory allocating 9 bytes): ...
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        told = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
        raise OutOfMemory(f"{what} needs more memory than there is ({told.rstrip('.')}): {fix}") from error
