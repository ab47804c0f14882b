"""What a search is made of: checked before anything is computed, and as it is kept with the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.errors import InputError
from nas.objectives import Objective
from nas.store import check_steps
from nas.types import Evaluator, Key, Strategy


def check_parts(
    space: Any,
    strategy: Strategy,
    evaluator: Evaluator,
    steps: Any,
    key: Any,
    snapshot_s: float,
) -> None:
    """Raise InputError where arguments of `nas.search` are wrong by themselves or do not go together.

    Example:
        >>> from nas.strategies import random_search
        >>> from nas.toy import ToySpace, toy_evaluator
        >>> space = ToySpace()
        >>> check_parts(space, random_search.strategy(space), toy_evaluator(space), 1, jax.random.key(0), 30.0)
    """
    check_steps(steps)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    if not typed:
        raise InputError(f"key={key!r} is no random key: give jax.random.key(seed)")
    if not space.num_decisions:
        raise InputError(
            f"space {space.name} has no decisions left, there is nothing to search: price or train it instead"
        )
    if not isinstance(evaluator.chunk, int) or evaluator.chunk < 1:
        raise InputError(f"evaluator {evaluator.name} has chunk {evaluator.chunk!r}: give a whole number from 1")
    if not snapshot_s >= 0:
        raise InputError(f"snapshot_s={snapshot_s!r} is not allowed: give a number from 0")
    if strategy.needs_gradients and not evaluator.gives_gradients:
        raise InputError(
            f"strategy {strategy.name} needs gradients and evaluator {evaluator.name} gives none: "
            "take tabular (with a complete table), surrogate or supernet"
        )
    if evaluator.follow is not None and not strategy.needs_gradients:
        raise InputError(
            f"weights of evaluator {evaluator.name} are to follow gates and strategy {strategy.name} proposes none: "
            "set follow=0, or take darts, gumbel_gates, proxyless_gates or psp"
        )
    if strategy.needs_shares and evaluator.shortened is None:
        raise InputError(
            f"strategy {strategy.name} trains networks for a part of their training and evaluator {evaluator.name} "
            "cannot: take standalone"
        )


def check_warm_start(strategy: Strategy, warm_start: Evaluator | None) -> None:
    """Raise InputError where `strategy`, bound to its objective, cannot begin with what `warm_start` chooses.

    Example:
        >>> from nas.strategies import nsga2
        >>> from nas.toy import ToySpace, toy_evaluator
        >>> check_warm_start(nsga2.strategy(ToySpace()), toy_evaluator(ToySpace()))
    """
    if warm_start is None:
        return
    if strategy.start is None:
        raise InputError(f"strategy {strategy.name} begins by itself and has no warm start: leave warm_start out")
    if strategy.fair_start:
        raise InputError(
            f"strategy {strategy.name} takes its first networks for a fair sample, which those of a warm start are "
            "not: leave warm_start out, or take an evolution or surrogate_bo"
        )
    if warm_start.rounds:
        raise InputError(
            f"warm_start: evaluator {warm_start.name} is trained before it judges: take proxy, or another that is not"
        )


def identity(
    space: Any,
    strategy: Strategy,
    evaluator: Evaluator,
    objective: Objective,
    key: Key,
    config: Mapping[str, Any] | None,
    warm_start: Evaluator | None = None,
) -> dict[str, Any]:
    """What a search is, as plain values: runs that differ in any of it are different runs.

    Example:
        >>> from nas.strategies import random_search
        >>> from nas.toy import ToySpace, toy_evaluator, toy_objective
        >>> space = ToySpace()
        >>> parts = random_search.strategy(space), toy_evaluator(space), toy_objective(space)
        >>> identity(space, *parts, jax.random.key(0), None)["strategy"]
        {'name': 'random_search', 'population': 64}
    """
    text = space.text(np.zeros(space.num_decisions, np.int32)).rsplit(":", 1)[0]
    tree = {"name": space.name, "text": text, "fingerprint": space.fingerprint, "tree": space.to_json()}
    warm = {} if warm_start is None else {"warm_start": {"name": warm_start.name, **warm_start.describe}}
    return {
        "space": tree,
        "devices": {device.name: device.to_json() for device in objective.devices},
        "objective": objective.describe(),
        "strategy": {"name": strategy.name, **strategy.describe, **warm},
        "evaluator": {"name": evaluator.name, "rounds": evaluator.rounds, **evaluator.describe},
        "seed": {"kind": str(jax.random.key_impl(key)), "words": np.asarray(jax.random.key_data(key)).tolist()},
        "config": None if config is None else dict(config),
    }
