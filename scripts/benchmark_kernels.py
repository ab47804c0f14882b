"""Depthwise kernels against PyTorch's (channels last), shape by shape, in alternating rounds.

Run as a program it times our kernels: it reads a question from standard input as `peers/ask_torch.py` does.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_peers
from benchmark_rows import Row, row

SIZES = ((32, 96), (16, 192), (8, 384))
# batch, height and width, channels, kernel, stride, heads
SINGLE = [(64, size, channels, kernel, s, 1) for size, channels in SIZES for s in (1, 2) for kernel in (3, 5, 7)]
# Several filters per channel and their maximum.
SEVERAL = [(64, size, channels, kernel, 1, heads) for size, channels in SIZES for kernel, heads in ((3, 5), (5, 3))]
ROUNDS = 5
# glibc gives memory back and asks for it again at every step unless told otherwise. FlyNAS tells it, so the peer does.
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "4294967295", "MALLOC_TRIM_THRESHOLD_": "4294967295"}


def rows(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Speed against PyTorch: geometric means, the worst shape, and every shape.

    `peers` are as in `benchmark_pricing.rows`. Without PyTorch there is nothing to say.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    question = {"shapes": SINGLE + SEVERAL, "threads": threads, "spend_s": 0.2}
    ours, peer, versions = [], [], []
    try:
        python = benchmark_peers.python_of("torch", folder)
        for number in range(ROUNDS):
            print(f"kernels: round {number + 1} of {ROUNDS} ...", file=sys.stderr, flush=True)
            ours.append(benchmark_peers.ask(Path(sys.executable), Path(__file__), question)["seconds"])
            script = benchmark_peers.SCRIPTS / "ask_torch.py"
            answer = benchmark_peers.ask(python, script, question, KEPT_MEMORY)
            peer.append(answer["seconds"])
            versions = answer["versions"]
    except benchmark_peers.NotMeasured as error:
        return [], [{"name": "torch", "versions": list(benchmark_peers.PEERS["torch"]), "reason": str(error)}]
    return _compared(ours, peer), [{"name": "torch", "versions": versions, "reason": None}]


def _compared(ours: list[Any], peer: list[Any]) -> list[Row]:
    """Rows from `[round][shape][forward, both]` seconds; speeds are ratios of one round, and of these the median."""
    shapes, found, summary = SINGLE + SEVERAL, [], []
    speeds: dict[tuple[int, int], float] = {}
    for position, (_, size, channels, kernel, stride, heads) in enumerate(shapes):
        for direction, name in enumerate(("forward", "forward_and_gradients")):
            pairs = [(a[position][direction], b[position][direction]) for a, b in zip(ours, peer, strict=True)]
            speeds[position, direction] = statistics.median(theirs / mine for mine, theirs in pairs)
            heads_text = "" if heads == 1 else f"_heads{heads}"
            label = f"{size}x{size}x{channels}_k{kernel}_stride{stride}{heads_text}_{name}_ms"
            medians = [1e3 * statistics.median(side) for side in zip(*pairs, strict=True)]
            found.append(row(label, *medians))
    first, rest = range(len(SINGLE)), range(len(SINGLE), len(shapes))
    groups = (("depthwise", first, (0.85, 1.7), 0.5), ("max_of_heads", rest, (), None))
    for group, members, goals, least in groups:
        for direction, name in enumerate(("forward", "forward_and_gradients")):
            each = [speeds[position, direction] for position in members]
            mean = math.exp(statistics.fmean(map(math.log, each)))
            summary.append(row(f"{group}_{name}_speed_of_pytorchs", mean, goal=goals[direction] if goals else None))
            summary.append(row(f"{group}_{name}_worst_shape", min(each), goal=least))
    return summary + found


def seconds(call: Callable[[], Any], spend_s: float) -> float:
    """The lower quartile of several calls, after two that compile and warm up."""
    import jax

    for _ in range(2):
        jax.block_until_ready(call())
    spent: list[float] = []
    while sum(spent) < spend_s or len(spent) < 5:
        began = time.perf_counter()
        jax.block_until_ready(call())
        spent.append(time.perf_counter() - began)
    return sorted(spent)[len(spent) // 4]


def _measure(question: dict[str, Any]) -> list[list[float]]:
    from experiments.process import keep_freed_memory

    keep_freed_memory()
    import jax

    from search_spaces.kernels.depthwise import largest_depthwise

    found = []
    for batch, size, channels, kernel, stride, heads in question["shapes"]:
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (batch, size, size, channels))
        w = jax.random.normal(keys[1], (kernel, kernel, channels, heads))

        def forward(x: Any, w: Any, stride: int = stride) -> Any:
            return largest_depthwise(x, w, stride)

        def with_gradients(x: Any, w: Any, g: Any, forward: Any = forward) -> Any:
            y, backward = jax.vjp(forward, x, w)
            return y, *backward(g)

        g = jax.random.normal(keys[2], jax.eval_shape(forward, x, w).shape)
        alone, both = jax.jit(forward), jax.jit(with_gradients)
        calls = (lambda alone=alone, x=x, w=w: alone(x, w), lambda both=both, x=x, w=w, g=g: both(x, w, g))
        found.append([seconds(call, question["spend_s"]) for call in calls])
    return found


if __name__ == "__main__":
    print(json.dumps({"seconds": _measure(json.load(sys.stdin))}))
