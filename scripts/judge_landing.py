"""How near searches for one number end to the latency they were asked for, and how good their networks are.

    python scripts/judge_landing.py [--space macro|mnasnet] [--devices a,b] [--strategies a,b] [--steps N] [--seeds N]
                                    [--rounded]

Ten targets per device, evenly between the 5th and the 95th percentile of the latencies of the space's networks (of
20,000 drawn ones, for mnasnet). `macro` is judged by its table, `mnasnet` by a surrogate of 400 published networks.
The scalar is `absolute` as it comes. A search lands where the network it ends with is within 2 % of its target: the
last one proposed, of strategies that descend gradients, and the one with the lowest scalar, of policies. Printed for
each device and strategy: searches that landed with and without rounding to the target (of gates), the largest miss, the
error of the network above the lowest and below the median error of networks within 2 % of the target, the gap between
gates and network, seconds. With `--rounded` searches without rounding are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from hw_models import discover
from nas.evaluators import surrogate, tabular
from nas.loop import search
from nas.objectives import Objective
from nas.run import gap
from nas.types import Evaluator, Strategy
from search_spaces.spaces import macro, mnasnet

NEAR, TARGETS = 0.02, 10


class Problem(NamedTuple):
    """A space, who judges it, and networks `[N, D]` with their errors `[N]` to compare with."""

    space: Any
    judge: Evaluator
    genes: np.ndarray
    errors: np.ndarray


def problem(name: str) -> Problem:
    """`macro` or `mnasnet`.

    Example:
        >>> problem("macro").errors.shape
        (3969,)
    """
    if name == "macro":
        space = macro.space()
        judge, genes = tabular.evaluator(space), tabular.networks(space)
        return Problem(space, judge, genes, np.asarray(judge.evaluate(None, (), genes, None).error))
    space = mnasnet.space(activation="relu")
    judge = surrogate.evaluator(space, base="tabular", samples=400, rounds=1)
    state, _ = judge.train(jax.random.key(0), judge.init(jax.random.key(0)))
    # trained once for all searches
    judge = judge._replace(init=lambda key: state, rounds=0)
    genes = np.asarray(jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(9), 20_000)))
    return Problem(space, judge, genes, np.asarray(judge.evaluate(None, state, genes, None).error))


class Landed(NamedTuple):
    """One search: relative miss, error of the network it ended with, gap to its gates, seconds."""

    miss: float
    error: float
    gap: float
    seconds: float


def landed(of: Problem, plan: Strategy, device: str, target: float, steps: int, seed: int) -> Landed:
    """One search that is to land on `target`, a latency in seconds."""
    goal = Objective(of.space, device, scalar="absolute", targets={"latency_s": target})
    began = time.monotonic()
    run = search(of.space, plan, of.judge, goal, steps=steps, key=jax.random.key(seed))
    first, difference = int(plan.describe["population"]), gap(run)
    if difference is None:
        last = run.pick("scalar").record
    else:
        last = next(r for r in run.records if r["step"] == steps - 1 and r["index"] == first)
    spent = time.monotonic() - began
    found = last["costs"]["latency_s"] / target - 1.0
    apart = float("nan") if difference is None else difference.network - difference.soft
    return Landed(found, last["objectives"]["error"], apart, spent)


def row(
    of: Problem, make: Callable[..., Strategy], device: str, steps: int, seeds: int = 1, also_plain: bool = True
) -> list[str]:
    """One line of the table: ten targets with every seed."""
    latencies = np.asarray(Objective(of.space, device).price(of.genes).costs["latency_s"])
    targets = np.repeat(np.linspace(*np.quantile(latencies, (0.05, 0.95)), TARGETS), seeds)
    plan, several = make(of.space), [1 + place % seeds for place in range(len(targets))]
    asked = [(device, float(target), steps, seed) for target, seed in zip(targets, several, strict=True)]
    rounded = [landed(of, plan, *each) for each in asked]
    unrounded = plan._replace(bind=None)
    plain = [landed(of, unrounded, *each) for each in asked] if plan.needs_gradients and also_plain else []
    bands = [of.errors[np.abs(latencies / target - 1.0) <= NEAR] for target in targets]
    above = np.mean([each.error - band.min() for each, band in zip(rounded, bands, strict=True)])
    below = np.mean([np.median(band) - each.error for each, band in zip(rounded, bands, strict=True)])
    hits, without = (sum(abs(each.miss) <= NEAR for each in side) for side in (rounded, plain))
    return [
        device,
        plan.name,
        f"{hits} of {len(targets)}",
        f"{max(abs(each.miss) for each in rounded):.2%}",
        f"{without} of {len(targets)}" if plain else "",
        f"{max(abs(each.miss) for each in plain):.1%}" if plain else "",
        f"{100 * above:+.2f}",
        f"{100 * below:+.2f}",
        f"{100 * np.mean([each.gap for each in rounded]):+.2f}" if plan.needs_gradients else "",
        f"{np.median([each.seconds for each in rounded]):.1f}",
    ]


HEADER = (
    "device",
    "strategy",
    "landed",
    "largest miss",
    "without rounding",
    "its largest miss",
    "error above the best, points",
    "below the median, points",
    "network minus gates, points",
    "seconds",
)


def main() -> None:
    """Print the table in Markdown, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", choices=("macro", "mnasnet"), default="macro")
    parser.add_argument("--devices", default="raspberry_pi_4,edge_tpu,jetson_nano")
    parser.add_argument("--strategies", default="darts,gumbel_gates,proxyless_gates,reinforce,recurrent_controller,ppo")
    parser.add_argument(
        "--steps", type=int, default=150, help="of gates; a third fewer of policies, of 64 candidates each"
    )
    parser.add_argument("--seeds", type=int, default=1, help="searches for every target (%(default)s)")
    parser.add_argument("--rounded", action="store_true", help="leave out searches without rounding")
    asked = parser.parse_args()
    of = problem(asked.space)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for device in asked.devices.split(","):
        for name in asked.strategies.split(","):
            make = discover.load("nas.strategies", name, "strategy")
            steps = asked.steps if make(of.space).needs_gradients else 2 * asked.steps // 3
            print(f"| {' | '.join(row(of, make, device, steps, asked.seeds, not asked.rounded))} |", flush=True)


if __name__ == "__main__":
    main()
