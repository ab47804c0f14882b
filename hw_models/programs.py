"""Programs that run once or a few times: made quickly, not made to run fast.

XLA spends a second on a program that prices one network in a millisecond. On processors the older emitters, in one
piece and without optimisation, make it in a fifth of the time. Results agree to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

QUICK: dict[str, bool | int] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def for_few_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for few runs; a second call with the same shapes compiles nothing.

    Example:
        >>> doubled = for_few_runs(lambda x: 2 * x)
        >>> float(doubled(3.0))
        6.0
    """

    @functools.cache
    def program() -> Callable[..., Any]:
        # Which device computes is known at the first call, not at import.
        return jax.jit(function, compiler_options=QUICK if jax.default_backend() == "cpu" else None)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        return program()(*arguments)

    return run
