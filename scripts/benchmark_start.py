"""From the start of a process to the first training step of the quickstart configuration and its first evaluation.

`cold` processes find no compiled programs, `warm` ones those that a cold one has kept. Run as a program it is such a
process: it reads `{"began": seconds since the epoch, "cache": folder}` from standard input.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import benchmark_peers
from benchmark_rows import Row, row

ROUNDS = 3
IMAGES = 500  # a round of seven steps: the fewest images that the evaluator's calibration allows
GOALS = {"cold": 30.0, "warm": 15.0}
LISTED = ("import", "build", "first_steps", "first_evaluation", "next_steps", "next_evaluation")


def rows() -> list[Row]:
    """Seconds, medians over rounds, each with an empty folder for compiled programs and two processes that use it."""
    asked: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for number in range(ROUNDS):
        print(f"start: round {number + 1} of {ROUNDS} ...", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for found in asked.values():
                question = {"began": time.time(), "cache": folder}
                found.append(benchmark_peers.ask_ours(Path(__file__), question))
    summary, parts = [], []
    for kind, found in asked.items():
        median = {name: statistics.median(each[name] for each in found) for name in found[0]}
        summary.append(row(f"first_training_step_{kind}_s", median["until_first_step"], goal=GOALS[kind]))
        summary.append(row(f"first_training_step_{kind}_from_the_call_s", median["first_steps"]))
        summary.append(row(f"first_evaluation_{kind}_s", median["until_first_evaluation"]))
        parts += [row(f"{kind}_{name}_s", median[name]) for name in (*LISTED, *TRACED)]
        again = float(max(each["recompilations"] for each in found))
        summary.append(row(f"recompilations_{kind}", again, goal=0.0, at_most=True))
    return summary + parts


TRACED = {
    "tracing": "/jax/core/compile/jaxpr_trace_duration",
    "lowering": "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "compiling": "/jax/core/compile/backend_compile_duration",  # or reading what was kept
}


def measure(question: dict[str, Any]) -> dict[str, float]:
    """Seconds of every part of one start, and what was compiled after both programs had run once."""
    marks = [question["began"]]
    import os

    from experiments.compilation_cache import FOLDER, SWITCH, switch_on

    os.environ[SWITCH] = question["cache"]
    os.environ.pop(FOLDER, None)  # a folder that the caller gave JAX is not empty
    switch_on()
    import dataclasses

    from experiments.build import build
    from experiments.config import load_config

    experiment = load_config("quickstart")
    fewer = experiment.evaluator.with_arguments(train=IMAGES)
    import jax
    import numpy as np

    from nas.testing_evaluators import Compilations

    spent = dict.fromkeys(TRACED, 0.0)
    names = {event: name for name, event in TRACED.items()}

    def hear(event: str, seconds: float, **_: Any) -> None:
        if event in names:
            spent[names[event]] += seconds

    jax.monitoring.register_event_duration_secs_listener(hear)
    marks.append(time.time())
    built = build(dataclasses.replace(experiment, evaluator=fewer))
    judge, key = built.evaluator, built.key
    state = jax.block_until_ready(judge.init(key))
    rows = np.asarray(jax.vmap(built.space.sample)(jax.random.split(key, judge.chunk)))
    marks.append(time.time())
    for number in range(2):
        for call in (
            lambda state=state, number=number: judge.train(jax.random.fold_in(key, number), state)[0],
            lambda state=state: judge.evaluate(key, state, rows[:1], np.arange(1)),
        ):
            jax.block_until_ready(call())
            marks.append(time.time())
    with Compilations() as compilations:
        for number in range(2, 4):
            state, _ = judge.train(jax.random.fold_in(key, number), state)
            jax.block_until_ready(judge.evaluate(key, state, rows[number : number + 1], np.arange(1)))
            jax.block_until_ready(judge.evaluate(key, state, rows, np.arange(len(rows))))
    parts = dict(zip(LISTED, np.diff(marks).tolist(), strict=True))
    return {
        **parts,
        **spent,
        "until_first_step": marks[3] - marks[0],
        "until_first_evaluation": marks[4] - marks[0],
        "recompilations": len(compilations.events),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
