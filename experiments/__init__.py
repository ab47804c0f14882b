"""How people use it: configurations, the command line, figures and tables of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.results import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    # when asked for, so that the command line can start without jax
    if name in __all__:
        from experiments import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
