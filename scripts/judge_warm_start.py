"""What first networks chosen by a zero-cost proxy are worth to a search.

    python scripts/judge_warm_start.py [--seeds N] [--evaluations N] [--problems macro,accel_zcu102]

NSGA-II and a Gaussian process begin with a fair sample, and with the best of sixteen times as many networks by their
parameters or multiply-accumulates (`nas/warm_start.py`), on problems of `search_judges.py`. Prints hypervolumes after
so many distinct networks, in shares of that of all searches together (of the true front's, for `macro`), means with
half their 95 % intervals over seeds. Takes four minutes on one core.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import numpy as np
import search_judges
from search_rollout import judge_of
from search_summary import cell

from nas.comparison import points
from nas.evaluators import proxy
from nas.loop import search
from nas.strategies import nsga2, surrogate_bo

STARTS = (None, "params", "macs")
STRATEGIES = {"nsga2": (nsga2.strategy, 16), "surrogate_bo": (surrogate_bo.strategy, 8)}
MARKS = (16, 32, 64, 128)


def evaluated(problem: Any, name: str, start: str | None, seed: int, evaluations: int) -> np.ndarray:
    """Objectives of the distinct networks of a search, in their order. `[N, M]`"""
    space, (make, population) = problem.objective.space, STRATEGIES[name]
    warm = None if start is None else proxy.evaluator(space, proxy=start)
    steps, key = evaluations // population, jax.random.key(seed)
    plan = make(space, population=population)
    judge = judge_of(problem.name, problem.error_of, 64)
    run = search(space, plan, judge, problem.objective, steps=steps, key=key, warm_start=warm)
    return points(run, problem.objective.minimize)


def rows(problem: Any, seeds: int, evaluations: int) -> list[str]:
    """Lines of the table of one problem."""

    def volume(table: np.ndarray) -> float:
        return search_judges.hypervolume(problem.measured(table), problem.reference)

    found = {
        (name, start): [evaluated(problem, name, start, seed, evaluations) for seed in range(seeds)]
        for name in STRATEGIES
        for start in STARTS
    }
    every = np.concatenate([table for tables in found.values() for table in tables])
    whole = problem.whole or volume(every)
    lines = []
    for (name, start), tables in found.items():
        cells = [cell([volume(table[:mark]) / whole for table in tables], 3) for mark in MARKS]
        lines.append(f"| {problem.name} | {name} | {start or 'a fair sample'} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=160, help="of every search (%(default)s)")
    parser.add_argument("--problems", default="macro,accel_zcu102")
    asked = parser.parse_args()
    header = ("problem", "strategy", "begins with", *(f"HV at {mark}" for mark in MARKS))
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}", flush=True)
    for name in asked.problems.split(","):
        print("\n".join(rows(search_judges.load(name), asked.seeds, asked.evaluations)), flush=True)


if __name__ == "__main__":
    main()
