"""Strategies against each other on one frozen supernet, by the network they find per evaluation.

    python scripts/judge_strategies.py [--keep FOLDER] [--out FOLDER] [--seeds N] [--evaluations N] [--only NAME,...]
                                       [--page]

Trains the supernet of the quickstart once, on images of clothes, and lets every strategy evaluate 300 networks with
its weights, five times, for low error and latency on a Raspberry Pi 4 within the limits of the quickstart; then again
for one number, MnasNet's reward with a target of 2 ms. Errors are those of 1,000 validation images; networks that any
search evaluated before are taken from a file. Everything is kept in FOLDER (runs/judge_strategies), so that a run that
was stopped goes on. Writes `strategies.json` and `strategies.png` to the other FOLDER (docs/results), and prints the
tables of the page; with `--page` from what there is, without searching. Takes an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# by what is asked: strategies, and options that give all of them about the same number of candidates per step
FRONT: dict[str, dict[str, Any]] = {
    "random_search": {"population": 20},
    "local_search": {"population": 10},
    "regularized_evolution": {"population": 30, "batch": 10},
    "tournament_evolution": {"population": 20},
    "nsga2": {"population": 20},
    "nsga3": {"population": 20},
    "reinforce": {"population": 20},
    "surrogate_bo": {"population": 10},
    "predictor_evolution": {"population": 10},
    "netadapt": {"population": 10},
}
NUMBER: dict[str, dict[str, Any]] = {
    "random_search": {"population": 20},
    "local_search": {"population": 5},
    "regularized_evolution": {"population": 30, "batch": 10},
    "reinforce": {"population": 20},
    "recurrent_controller": {"population": 20},
    "ppo": {"population": 20},
    "surrogate_bo": {"population": 10},
    "gumbel_gates": {"judge_every": 2},
}
TARGET_S = 2e-3
QUESTIONS = {"front": FRONT, "number": NUMBER}
MARKS = (50, 100, 200, 300)


def objective(space: Any, question: str) -> Any:
    """What is asked: a front of error and latency, or one number."""
    from nas import Objective

    limits = {"latency_s": 3e-3, "weight_bytes": 6e5}
    if question == "front":
        return Objective(space, "raspberry_pi_4", ("error", "latency_s"), limits)
    aim: dict[str, Any] = {"scalar": "mnasnet_soft", "targets": {"latency_s": TARGET_S}}
    return Objective(space, "raspberry_pi_4", ("error", "latency_s"), limits, **aim)


def frozen(space: Any, keep: Path) -> Any:
    """The evaluator with weights that are trained once, and errors that are computed once, both kept in `keep`."""
    import jax

    from nas.evaluators import supernet
    from nas.loop import search
    from nas.plain import tree_from
    from nas.run_files import read_snapshot
    from nas.strategies import random_search
    from nas.types import Quality

    judge = supernet.evaluator(space, data="fashion_mnist_10k", epochs=14)
    folder = keep / "supernet"
    search(space, random_search.strategy(space, population=1), judge, objective(space, "front"), steps=1,
           key=jax.random.key(0), out=folder, progress=_Said())  # fmt: skip
    stored = read_snapshot(folder)
    assert stored is not None
    state = tree_from(judge.init(jax.random.key(0)), stored.evaluator)
    version, errors, path = judge.version(state), {}, keep / "errors.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else []:
        row = json.loads(line)
        if row["version"] == version:
            errors[tuple(row["genes"])] = row["error"]

    def evaluate(key: Any, state: Any, genes: Any, index: Any) -> Quality:
        if np.ndim(genes) == 3:
            return judge.evaluate(key, state, genes, index)
        rows = np.asarray(genes, np.int32)
        missing = [row for row in rows if tuple(row.tolist()) not in errors]
        if missing:
            found = np.asarray(judge.evaluate(key, state, np.stack(missing), index[: len(missing)]).error)
            with path.open("a") as file:
                for row, error in zip(missing, found.tolist(), strict=True):
                    errors[tuple(row.tolist())] = error
                    file.write(json.dumps({"version": version, "genes": row.tolist(), "error": error}) + "\n")
        return Quality(np.asarray([errors[tuple(row.tolist())] for row in rows], np.float32))

    return judge._replace(init=lambda key: state, rounds=0, evaluate=evaluate)


class _Said:
    """Progress in lines: the training of the supernet takes minutes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: print(*arguments, flush=True) if name in ("training", "message") else None


def curve(
    space: Any, judge: Any, goal: Any, name: str, options: dict[str, Any], seed: int, count: int, out: Path
) -> Any:
    """What one search had evaluated, in order: objectives of every distinct network within the limits, `[N, M]`, and
    the lowest scalar so far `[N]`. A step of gates counts as an evaluation, and so does a network judged beside it."""
    import jax

    from hw_models import discover
    from nas.loop import search
    from nas.run_files import read_snapshot
    from nas.types import bound

    plan = discover.load("nas.strategies", name, "strategy")(space, **options)
    ready = bound(plan, goal)
    per_step = len(jax.eval_shape(ready.ask, jax.random.key(0), jax.eval_shape(ready.init, jax.random.key(0)))[1].genes)
    stored, run = read_snapshot(out) if out.is_dir() else None, None
    steps = max(-(-count // per_step), stored.step if stored else 0)  # a search that was stopped may have had more
    while run is None or _evaluations(run) < count:
        run = search(space, plan, judge, goal, steps=steps, key=jax.random.key(seed), out=out)
        steps += max(1, (count - _evaluations(run)) // per_step)
        if steps > 4 * count:  # a strategy that only repeats itself
            break
    rows, spent = [], 0
    seen = set()
    for record in run.records:
        fresh = record["status"] in ("ok", "failed", "relaxed") or (
            record["status"] == "infeasible" and record["objectives"]["error"] is not None
        )
        spent += fresh
        if spent > count:
            break
        if record["status"] == "ok" and tuple(record["genes"]) not in seen:
            seen.add(tuple(record["genes"]))
            rows.append([spent, record["objectives"]["error"], record["costs"]["latency_s"]])
    return rows


def _evaluations(run: Any) -> int:
    return sum(record["status"] in ("ok", "failed", "relaxed") for record in run.records)


def main() -> None:
    """Search what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", default=Path("runs/judge_strategies"))
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=Path("docs/results"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--only", default="", metavar="NAME,...", help="these strategies only")
    parser.add_argument("--page", action="store_true", help="write the page from what there is")
    arguments = parser.parse_args()
    from experiments.process import prepare

    prepare("all")
    store = arguments.keep / "curves.json"
    arguments.keep.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {}
    if not arguments.page:
        _search(arguments, found, store)
    import strategies_page

    strategies_page.write(found, arguments.out, MARKS)


def _search(arguments: Any, found: dict[str, Any], store: Path) -> None:
    from search_spaces.spaces import quickstart

    space = quickstart.space()
    judge = frozen(space, arguments.keep)
    wanted: Sequence[str] = arguments.only.split(",") if arguments.only else ()
    for seed in range(arguments.seeds):  # all strategies have one seed before any has two
        for question, strategies in QUESTIONS.items():
            goal = objective(space, question)
            for name, options in strategies.items():
                key = f"{question}/{name}/{seed}"
                if key in found or (wanted and name not in wanted):
                    continue
                out = arguments.keep / "runs" / question / f"{name}_{seed}"
                found[key] = curve(space, judge, goal, name, options, seed, arguments.evaluations, out)
                store.write_text(json.dumps(found))
                print(key, f"{len(found[key])} networks within the limits", flush=True)


if __name__ == "__main__":
    main()
