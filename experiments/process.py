"""What this process asks of the machine before XLA computes: threads, freed memory, and whether kernels are there."""

from __future__ import annotations

import ctypes
import os
import sys

# Numbers of glibc's malloc.h, and what they are set to: blocks of any size come from a heap, no heap is cut at its top,
# heaps grow by 64 MB at least, and all threads share one, since those that glibc gives them hold 64 MB at most. Sizes
# are unsigned there, and -1 is the largest: the largest int, 2 GB, is less than some steps need.
MALLOPT = {-3: -1, -1: -1, -2: 64 << 20, -8: 1}


def prepare(threads: int | str) -> str:
    """Set the threads and keep freed memory; the sentence of `set_threads`.

    Where the compiled kernels are missing, standard error says so in one line.

    Example:
        >>> "thread" in prepare("all")
        True
    """
    keep_freed_memory()
    said = set_threads(threads)
    # here, not above: which kernels run depends on the backend, and XLA reads the threads when it makes that
    from search_spaces.kernels.depthwise import tell_fallback

    tell_fallback(lambda sentence: print(f"warning: {sentence}", file=sys.stderr))
    return said


def set_threads(threads: int | str) -> str:
    """Let XLA compute with so many threads, "all" for every core; says what is in force.

    XLA reads the environment variable `NPROC` once, when its first array is made. A process that computed before keeps
    the threads it has, and the sentence says so.

    Example:
        >>> "thread" in set_threads("all")
        True
    """
    number = cores() if threads == "all" else int(threads)
    xla = sys.modules.get("jax._src.xla_bridge")
    if xla is not None and xla.backends_are_initialized():
        kept = os.environ.get("NPROC") or str(cores())
        if kept != str(number):
            return f"{kept} threads: this process has computed before, {number} would need a fresh one"
    else:
        os.environ["NPROC"] = str(number)
    return f"{number} thread{'s' if number > 1 else ''} of {cores()}"


def cores() -> int:
    """Cores that this process may use.

    Example:
        >>> cores() > 0
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> bool:
    """Let the C library keep large freed blocks for the next step; False where it has no such setting.

    XLA takes one block for the temporary arrays of a training step and frees it after the step. glibc gives a large one
    back to the kernel each time, and a third of the training time goes into page faults (docs/results/quickstart.md).
    Other C libraries are left as they are.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    # a null handle is this process itself, which links the C library it runs on
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(setting, value) == 1 for setting, value in MALLOPT.items())
