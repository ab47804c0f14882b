"""Programs that run seldom: made quickly, not made to run fast.

XLA spends a second on a program that prices one network in a millisecond. On processors the older emitters, in one
piece and without optimisation, make it in a fifth of the time. With a little optimisation they make the programs of
search strategies in half the time, which run nine tenths as fast (measured: NSGA-II on 45 genes 1.8 s in place of 3.8
and 234,000 candidates per second in place of 254,000). Results agree to rounding.
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

SOON: dict[str, bool | int] = QUICK | {"xla_backend_optimization_level": 1}


def for_few_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for few runs, a handful; a second call with the same shapes compiles nothing.

    Example:
        >>> doubled = for_few_runs(lambda x: 2 * x)
        >>> float(doubled(3.0))
        6.0
    """

    return _compiled(function, QUICK)


def for_hundreds_of_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled in half the time, for what runs as often as a search has steps.

    Example:
        >>> doubled = for_hundreds_of_runs(lambda x: 2 * x)
        >>> float(doubled(3.0))
        6.0
    """
    return _compiled(function, SOON)


def _compiled(function: Callable[..., Any], options: dict[str, bool | int]) -> Callable[..., Any]:
    @functools.cache
    def program() -> Callable[..., Any]:
        # Which device computes is known at the first call, not at import.
        return jax.jit(function, compiler_options=options if jax.default_backend() == "cpu" else None)

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        return program()(*arguments)

    return run
