"""Measures what the project claims about its own speed.

    python scripts/benchmark.py quickstart|engine|start|profile|freed_memory|spaces|tables [--json FILE]
    python scripts/benchmark.py pricing|kernels|step [--json FILE] [--peers FOLDER]
    python scripts/benchmark.py search [--json FILE] [--peers FOLDER] [--problems ...] [--seeds N] [--keep DIR] ...

Every row is `{"name", "ours", "peer", "ratio", "goal", "met"}`; `peer` and `ratio` are null where there is nobody to
compare with, `goal` and `met` where no goal was set. Units are in the names. `pricing`, `kernels`, `step` and
`search` install other packages from PyPI, each into a virtual environment of its own below FOLDER, and reuse them
afterwards.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_search
from benchmark_rows import Row, json_text, row, table_text


def median_s(call: Callable[[], Any], rounds: int = 5) -> float:
    """Median seconds of a call, after one that compiles."""
    import statistics

    import jax

    jax.block_until_ready(call())
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def quickstart() -> list[Row]:
    """The supernet of the quickstart: compilation, training step, evaluation, and pricing of candidates."""
    import jax
    import numpy as np

    from experiments.process import keep_freed_memory
    from hw_models import load_device
    from nas.cost_table import cost_table
    from nas.evaluators import supernet
    from search_spaces.spaces import quickstart as space_module

    keep_freed_memory()
    space, key = space_module.space(), jax.random.key(0)
    steps, batch = 40, 64
    judge = supernet.evaluator(space, train=steps * batch, batch=batch, epochs=4)
    state = judge.init(key)
    began = time.perf_counter()
    state, _ = judge.train(key, state)
    first_round_s = time.perf_counter() - began
    rounds = []
    for position in range(1, 4):
        began = time.perf_counter()
        state, _ = judge.train(jax.random.fold_in(key, position), state)
        rounds.append((time.perf_counter() - began) / steps)
    step_s = float(np.median(rounds))

    genes = np.asarray(jax.vmap(space.sample)(jax.random.split(key, 24)))
    index = np.arange(judge.chunk)
    began = time.perf_counter()
    np.asarray(judge.evaluate(key, state, genes[: judge.chunk], index).error)
    first_evaluation_s = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, len(genes), judge.chunk):
        np.asarray(judge.evaluate(key, state, genes[start : start + judge.chunk], index).error)
    evaluated_per_s = len(genes) / (time.perf_counter() - began)

    table = cost_table(space, load_device("raspberry_pi_4"))
    price = jax.jit(jax.vmap(table.exact))
    many = jax.jit(jax.vmap(space.sample))(jax.random.split(key, 100_000))
    priced_s = median_s(lambda: price(many))
    return [
        row("training_compile_s", first_round_s - steps * step_s),
        row("training_step_of_64_images_s", step_s),
        row("trained_images_per_second", batch / step_s),
        row("evaluation_compile_s", first_evaluation_s - judge.chunk / evaluated_per_s),
        row("evaluated_candidates_per_second", evaluated_per_s),
        row("priced_candidates_per_second", len(many) / priced_s),
    ]


# a network that the quickstart found with the full data set (docs/results/quickstart.md, 22 November)
FOUND = (
    "quickstart:1.0.0.2.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.2.1.1.0.0.0.0.0.0.0"
    ".0.0.0"
)
TRAINING = """
import json, resource, sys, time
from experiments.process import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory(), "this C library has no such setting"
import jax
from nas.data import split
from nas.data_source import load
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.texts import resolve

cut = split(load("fashion_mnist_10k"), 1000, 0)
seen = []
def report(epoch, loss):
    seen.append((time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt))
data = Images.of(cut)
train(resolve(sys.argv[2]).network(), data, Recipe(epochs=4, batch=64), jax.random.key(0), report=report)
steps = 3 * (len(data.images) // 64)
print(json.dumps([(last - first) / steps for first, last in zip(seen[0], seen[-1], strict=True)]))
"""


def freed_memory() -> list[Row]:
    """Final training with freed memory kept (ours) and as glibc has it by default (peer), three processes each."""
    import subprocess
    import sys

    import numpy as np

    found: dict[str, list[list[float]]] = {"kept": [], "default": []}
    for _ in range(3):
        for setting, measured in found.items():
            run = [sys.executable, "-c", TRAINING, setting, FOUND]
            measured.append(json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout))
    (ours_s, ours_faults), (peer_s, peer_faults) = (np.median(found[name], axis=0) for name in ("kept", "default"))
    return [
        row("final_training_step_of_64_images_s", float(ours_s), float(peer_s)),
        row("page_faults_per_step", float(ours_faults), float(peer_faults)),
    ]


def spaces() -> list[Row]:
    """Every space: networks sampled, mutated and priced per second, in batches of 100,000; the first call apart."""
    import jax

    from hw_models import discover, load_device
    from nas.cost_table import cost_table

    rows, count = [], 100_000
    device, keys = load_device("raspberry_pi_4"), jax.random.split(jax.random.key(0), count)
    for name in discover.names("search_spaces.spaces"):
        space = discover.load("search_spaces.spaces", name, "space")()
        began = time.perf_counter()
        table = cost_table(space, device)
        rows.append(row(f"{name}_cost_table_s", time.perf_counter() - began))
        sample, price = jax.jit(jax.vmap(space.sample)), jax.jit(jax.vmap(table.exact))
        mutate = jax.jit(jax.vmap(lambda key, genes, space=space: space.mutate(key, genes, 0.1)))
        genes = sample(keys)
        for what, call in (
            ("sampled", lambda sample=sample: sample(keys)),
            ("mutated", lambda mutate=mutate, genes=genes: mutate(keys, genes)),
            ("priced", lambda price=price, genes=genes: price(genes)),
        ):
            rows.append(row(f"{name}_{what}_per_second", count / median_s(call), goal=100_000))
    return rows


def tables() -> list[Row]:
    """Shipped tables of blocks: errors of rows each interpolated from the others, and networks priced per second."""
    import jax
    import numpy as np

    from hw_models import load_device, load_table, table_names
    from hw_models.lookup import interpolation_errors
    from nas.measured_costs import measured_cost_table, measured_latency
    from search_spaces.spaces import fbnet

    rows = []
    for table in map(load_table, table_names()):
        if table.level == "position":
            continue
        every = interpolation_errors(table)
        errors = [error for error in every if error is not None]
        rows.append(row(f"{table.name}_median_error", float(np.median(errors))))
        rows.append(row(f"{table.name}_mean_error", float(np.mean(errors))))
        rows.append(row(f"{table.name}_refused_rows", float(len(every) - len(errors))))
    space, count = fbnet.space(input_hw=32, classes=100, features=1504), 100_000
    table = load_table("raspi4_fbnet_cifar100")
    genes = jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), count))
    both = measured_cost_table(space, load_device("raspberry_pi_4"), table=table)
    for what, exact in (("latencies", measured_latency(space, table).exact), ("all_costs", both.exact)):
        price = jax.jit(jax.vmap(exact))
        priced_s = median_s(lambda price=price: price(genes))
        rows.append(row(f"{what}_by_table_per_second", count / priced_s, goal=100_000))
    return rows


def engine() -> list[Row]:
    """Both executions of a supernet, training and evaluating: which is the faster on this machine."""
    import benchmark_engine

    return benchmark_engine.rows()


def start() -> list[Row]:
    """Fresh processes until their first training step and evaluation, with and without kept programs."""
    import benchmark_start

    return benchmark_start.rows()


def profile() -> list[Row]:
    """Where a training step of shared weights goes, by kind of operation."""
    import benchmark_profile

    return benchmark_profile.rows()


BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "quickstart": quickstart,
    "engine": engine,
    "start": start,
    "profile": profile,
    "freed_memory": freed_memory,
    "spaces": spaces,
    "tables": tables,
}
WITH_PEERS = ("pricing", "kernels", "step")  # imported when asked for
PEERS = Path(__file__).parents[1] / ".venv-peers"


def main() -> None:
    """Run one benchmark, print its table, and write its rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted((*BENCHMARKS, *WITH_PEERS, "search")))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", default=PEERS, help="environments of other packages")
    benchmark_search.add_options(parser)
    arguments = parser.parse_args()
    also: dict[str, Any] = {}
    if arguments.name == "search":
        rows, also["peers"] = benchmark_search.rows(arguments.peers.resolve(), arguments)
    elif arguments.name in WITH_PEERS:
        module = importlib.import_module(f"benchmark_{arguments.name}")
        rows, also["peers"] = module.rows(arguments.peers.resolve())
    else:
        rows = BENCHMARKS[arguments.name]()
    print(table_text(rows))
    for peer in also.get("peers", ()):
        outcome = "measured" if peer["reason"] is None else f"NOT MEASURED: {peer['reason']}"
        print(f"{peer['name']} ({', '.join(peer['versions'])}): {outcome}")
    if arguments.json is not None:
        arguments.json.write_text(json_text(rows, **also))


if __name__ == "__main__":
    main()
