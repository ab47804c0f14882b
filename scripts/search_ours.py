"""Our strategies on `genes45`, in a process of its own: the answer to `scripts/benchmark_search.py`.

    {"strategy", "population", "evaluations", "seeds": [...], "loop": whether `nas.loop.search` runs as well}
    -> {"compile_s", "searches": [{"seed", "cpu_s", "points": [[latency, error], ...], "loop_s"}, ...]}

Seconds are those of the processor, of the loop with its programs compiled. Points are in milliseconds and percent.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import search_genes45
from search_rollout import judge_of, plan_of, scanned

from hw_models.costs import Costs
from hw_models.programs import SOON
from nas.loop import search
from nas.objectives import Objective
from nas.toy import ToyDevice


class Table:
    """Prices of `genes45`: latency in seconds, everything else free."""

    def exact(self, genes: Any) -> Costs:
        latency_s = search_genes45.latency_ms(genes[None])[0] / 1e3
        return Costs(*[jnp.float32(0)] * len(Costs._fields))._replace(latency_s=latency_s)

    expected = exact  # no relaxed strategy is asked here


def objective(space: Any) -> Objective:
    """Error as a fraction and latency in seconds, without limits."""
    return Objective(space, ToyDevice("genes45"), table=lambda *_: Table())


def error_of(genes: Any) -> Any:
    """`[P, D] -> [P]`, a fraction."""
    return search_genes45.error_percent(genes) / 100


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Compile once, then search with every seed."""
    space, count = search_genes45.Genes45(), question["evaluations"]
    began = time.process_time()
    goal = objective(space)
    plan = plan_of(question["strategy"], goal, question["population"])
    program = jax.jit(scanned(plan, goal, error_of, count), compiler_options=SOON).lower(jax.random.key(0)).compile()
    compile_s = time.process_time() - began
    many = jax.eval_shape(plan.ask, jax.random.key(0), jax.eval_shape(plan.init, jax.random.key(0)))[1].genes.shape[0]
    judge, found = judge_of("genes45", jax.jit(error_of), 4096), []
    if question["loop"]:
        search(space, plan, judge, goal, steps=2, key=jax.random.key(0))  # compiles
    for seed in question["seeds"]:
        key = jax.random.key(seed)
        began = time.process_time()
        seen = np.asarray(program(key), float)
        cpu_s = time.process_time() - began
        points = (seen[:, ::-1] * (1e3, 100)).round(6).tolist()
        found.append({"seed": seed, "cpu_s": cpu_s, "points": points})
        if question["loop"]:
            began = time.process_time()
            search(space, plan, judge, goal, steps=-(-count // many), key=key)
            found[-1]["loop_s"] = time.process_time() - began
    return {"compile_s": compile_s, "searches": found}


if __name__ == "__main__":
    print(json.dumps(answer(json.load(sys.stdin))))
