"""What a search space's decisions do to the error: which of them shared weights judge otherwise than trainings do."""

from __future__ import annotations

from typing import Any

import numpy as np


def steps(space: Any, genes: np.ndarray) -> dict[str, np.ndarray]:
    """By kind of ordered decision, how many steps above their smallest values those of `genes [N, D]` are on average.

    Kinds are the last parts of names, such as `kernel`; decisions without effect on a network do not count for it.
    Kinds without an order (of attention, say) are left out.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space = tiny.space()
        >>> sorted(steps(space, np.zeros((1, space.num_decisions), np.int32)))
        ['depth', 'expand', 'heads', 'kernel', 'width']
    """
    import jax

    genes = np.asarray(genes, np.int32)
    active = np.asarray(jax.vmap(space.active)(genes))
    by_kind: dict[str, list[int]] = {}
    for place, decision in enumerate(space.decisions):
        if all(type(value) is int for value in decision.values) and (np.diff(decision.values) > 0).all():
            by_kind.setdefault(decision.name.rpartition("/")[2], []).append(place)
    return {
        kind: (genes[:, places] * active[:, places]).sum(1) / np.maximum(1, active[:, places].sum(1))
        for kind, places in by_kind.items()
    }


def fitted(means: dict[str, np.ndarray], errors: np.ndarray) -> dict[str, tuple[float, float]]:
    """By kind, the part of the mean of `errors [N]` that one step more everywhere adds, and its standard error.

    Ordinary least squares of all kinds together. Empty where there are too few networks to tell kinds apart.

    Example:
        >>> width, kernel = np.asarray([0, 0, 1, 1, 2.0]), np.asarray([0, 1, 0, 1, 0.0])
        >>> found = fitted({"width": width, "kernel": kernel}, 0.1 - 0.01 * width)
        >>> [round(share, 3) for share, _ in found.values()]
        [-0.109, 0.0]
    """
    relative = errors / errors.mean()
    inputs = np.column_stack([np.ones(len(errors)), *means.values()])
    slopes, _, rank, _ = np.linalg.lstsq(inputs, relative, rcond=None)
    freedom = len(errors) - inputs.shape[1]
    if rank < inputs.shape[1] or freedom < 2:
        return {}
    variance = ((relative - inputs @ slopes) ** 2).sum() / freedom
    spread = np.sqrt(np.diag(np.linalg.inv(inputs.T @ inputs)) * variance)
    return dict(zip(means, zip(slopes[1:].tolist(), spread[1:].tolist(), strict=True), strict=True))


def table(space: Any, genes: np.ndarray, judgements: dict[str, np.ndarray]) -> list[str]:
    """Lines of a table: a row for each judgement of the networks, a column for each kind of decision.

    Example:
        >>> from search_spaces.spaces import tiny
        >>> space, draw = tiny.space(), np.random.default_rng(0)
        >>> genes = draw.integers(0, space.cardinality, (20, space.num_decisions))
        >>> table(space, genes, {"alone": 0.1 + 0.01 * draw.random(20)})[0]
        '| error | mean | kernel | expand | width | depth | heads |'
    """
    means = {kind: values for kind, values in steps(space, genes).items() if np.ptp(values)}
    lines = ["| error | mean | " + " | ".join(means) + " |", "|---|---|" + "---|" * len(means)]
    for judge, errors in judgements.items():
        effects = fitted(means, errors)
        if not effects:
            return []
        cells = [f"{100 * share:+.1f} ± {100 * spread:.1f} %" for share, spread in effects.values()]
        lines.append(f"| {judge} | {errors.mean():.4f} | " + " | ".join(cells) + " |")
    return lines
