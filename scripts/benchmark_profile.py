"""Where a training step of shared weights goes: traced steps of the first network of `benchmark_step`, by operation.

Run as a program it traces: it reads a question as `benchmark_step` does and prints milliseconds a step by kind.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import benchmark_peers
from benchmark_rows import Row, row
from benchmark_step import SETTINGS, SPACE, drawn, training

STEPS = 5
# the beginnings of what compiled kernels are called
KERNELS = {
    "flynas_normalise": "normalisation_with_activation",
    "flynas_depthwise": "depthwise_convolutions",
    "flynas_attention": "attention",
    "flynas_frame": "cutting_weights_and_sharing_buffers",
    "flynas_sgd": "updating_weights",
}
PRODUCTS, OTHERS = "products", "other_loops_of_xla"
CALLS = ("conditional", "while", "call")  # their time is that of what they call
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z\-]+)\(")


def rows() -> list[Row]:
    """Milliseconds a step and shares by kind of operation, the largest first."""
    question = {**SETTINGS, "space": SPACE, "networks": drawn()[:1]}
    print("profile: compiling and tracing ...", file=sys.stderr, flush=True)
    spent = benchmark_peers.ask_ours(Path(__file__), question)
    total = sum(spent.values())
    largest = sorted(spent.items(), key=lambda item: -item[1])
    return [
        row("all_operations_ms", total),
        *(row(f"{kind}_ms", ms) for kind, ms in largest),
        *(row(f"{kind}_share", ms / total) for kind, ms in largest),
    ]


def kinds_of(program: str) -> dict[str, str]:
    """The kind of every instruction of a compiled program by its name, from the text of the program."""
    multiplying, computation = set(), ""
    for line in program.splitlines():
        if line.endswith("{") and "=" not in line.split("(")[0]:
            computation = line.split()[1 if line.startswith("ENTRY") else 0].lstrip("%")
        elif re.search(r"\s(dot|convolution)\(", line):
            multiplying.add(computation)
    kinds = {}
    for line in program.splitlines():
        found = INSTRUCTION.match(line)
        if not found or found[2] in CALLS:
            continue
        called = re.search(r"calls=%?([\w.\-]+)", line)
        target = re.search(r'custom_call_target="([^"]*)"', line)
        kind = OTHERS
        if target:
            kind = next((name for start, name in KERNELS.items() if target[1].startswith(start)), OTHERS)
        if found[2] in ("dot", "convolution") or (called and called[1] in multiplying):
            kind = PRODUCTS
        kinds[found[1]] = kind
    return kinds


def measure(question: dict[str, Any]) -> dict[str, float]:
    """Milliseconds a step by kind of operation."""
    from experiments.process import keep_freed_memory

    keep_freed_memory()
    import jax
    from jax.profiler import ProfileData

    ours = training(question)
    inputs = ours.inputs(0)
    step = ours.step.lower(ours.weights, *inputs).compile()
    kinds, state = kinds_of(step.as_text()), ours.weights
    for _ in range(2):
        state, _ = step(state, *inputs)
    jax.block_until_ready(state)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = step(state, *inputs)
            jax.block_until_ready(state)
        (path,) = Path(folder).rglob("*.xplane.pb")
        traced = ProfileData.from_file(str(path))
    spent: dict[str, float] = defaultdict(float)
    for plane in traced.planes:
        for line in plane.lines:
            for event in line.events:
                kind = kinds.get(dict(event.stats).get("hlo_op", ""))
                if kind is not None:
                    spent[kind] += event.duration_ns / 1e6 / STEPS
    return dict(spent)


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
