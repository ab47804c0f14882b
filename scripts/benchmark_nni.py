"""Steps against NNI's one-shot strategies on its ProxylessNAS space, on one thread and on all.

Single paths are compared network by network, where `benchmark_step` runs ours; differentiable steps by
`benchmark_mixture`. Both sides train weights of the same shapes: NNI's space has a depth where ours skips layers. Only
form `shared` does not, the same candidates with one block for the six of a layer, in which kernels and expansions share
weights: that is how our relaxed execution is meant to be used, and what the goals are asked of.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import benchmark_peers
from benchmark_kernels import KEPT_MEMORY
from benchmark_rows import Row, row

from experiments.process import cores

NETWORKS, ROUNDS = 5, 3
# NNI's widths. Its strides are those of 224 pixels, with which maps of 32 shrink to one pixel; ours for 32 are given.
SPACE = "proxylessnas[input_hw=32,classes=10,widths=(32,16,32,40,80,96,192,320,1280)]"
SHARED = SPACE.removesuffix("]") + ",shared_weights=true]"
SETTINGS = {"input_hw": 32, "classes": 10, "batch": 32, "strides": (1, 1, 1, 2, 2, 1, 2, 1), "spend_s": 1.0}
LAYERS = (4, 4, 4, 4, 4, 1)
KINDS = ("train", "evaluate")
# strategy of NNI's -> how we take such a step, and how many times as fast it is to be
FORMS = {"darts": (("shared", 4.0), ("all", None), ("two", None)), "proxyless": (("shared", 2.0), ("two", None))}
OURS = ("shared", "all", "two")


def rows(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Speeds, medians over networks of medians of ratios; then every measurement. `peers` as in `benchmark_pricing`.

    Raises:
        RuntimeError: ours and theirs are not the same networks.
    """
    every = cores()
    found: list[Row] = []
    try:
        python = benchmark_peers.python_of("nni", folder)
        for threads in dict.fromkeys((1, every)):
            with tempfile.TemporaryDirectory() as cache:
                asked = [asked_once(python, threads, number, cache) for number in range(ROUNDS)]
            found += compared(asked, f"{threads}_thread{'s' if threads > 1 else ''}")
            versions = asked[0]["theirs"]["versions"]
    except benchmark_peers.NotMeasured as error:
        return [], [{"name": "nni", "versions": list(benchmark_peers.PEERS["nni"]), "reason": str(error)}]
    return found, [{"name": "nni", "versions": versions, "reason": None}]


def asked_once(python: Path, threads: int, number: int, cache: str) -> dict[str, Any]:
    """One round: what NNI answers, then what we do. Programs compiled in the first round wait in `cache`.

    Raises:
        NotMeasured: a side could not answer.
    """
    print(f"nni: {threads} threads, round {number + 1} of {ROUNDS} ...", file=sys.stderr, flush=True)
    scripts, ours = benchmark_peers.SCRIPTS.parent, {"NPROC": str(threads), "JAX_COMPILATION_CACHE_DIR": cache}
    networks = drawn()
    question = {**SETTINGS, "threads": threads}
    theirs = {**question, "strategies": list(FORMS), "networks": [network["nni"] for network in networks]}
    mine = {**question, "space": SPACE, "networks": networks}
    return {
        "theirs": benchmark_peers.ask(python, benchmark_peers.SCRIPTS / "ask_nni_step.py", theirs, KEPT_MEMORY),
        "single": benchmark_peers.ask_ours(scripts / "benchmark_step.py", mine, ours),
        **{
            form: benchmark_peers.ask_ours(scripts / "benchmark_mixture.py", asked_of(form, mine), ours)
            for form in OURS
        },
    }


def asked_of(form: str, question: dict[str, Any]) -> dict[str, Any]:
    """What `benchmark_mixture` is asked for one of `OURS`."""
    return {**question, "space": SHARED, "form": "all"} if form == "shared" else {**question, "form": form}


def compared(asked: list[dict[str, Any]], label: str) -> list[Row]:
    """Rows of all rounds on so many threads, which `label` says.

    Raises:
        RuntimeError: a network has other numbers of parameters on both sides.
    """
    summary, found = [], []
    for mine, theirs in zip(asked[0]["single"]["networks"], asked[0]["theirs"]["networks"], strict=True):
        if mine["params"] != theirs["params"]:
            raise RuntimeError(f"not the same network: {mine['params']} parameters against {theirs['params']}")
    for position, kind in enumerate(KINDS):
        speeds = []
        for network in range(NETWORKS):
            sides = [
                [round_[side]["networks"][network]["seconds"][position] for round_ in asked]
                for side in ("single", "theirs")
            ]
            speeds.append(statistics.median(b / a for a, b in zip(*sides, strict=True)))
            medians = (1e3 * statistics.median(side) for side in sides)
            found.append(row(f"{kind}_network{network}_against_nni_{label}_ms", *medians))
        summary.append(row(f"{kind}_speed_of_nni_{label}", statistics.median(speeds), goal=1.0))
    for strategy, forms in FORMS.items():
        for form, goal in forms:
            sides = [[round_[form]["seconds"] for round_ in asked]]
            sides.append([round_["theirs"]["steps"][strategy] for round_ in asked])
            speed = statistics.median(b / a for a, b in zip(*sides, strict=True))
            summary.append(row(f"{form}_paths_speed_of_nni_{strategy}_{label}", speed, goal=goal))
            medians = (1e3 * statistics.median(side) for side in sides)
            found.append(row(f"{form}_paths_against_nni_{strategy}_{label}_ms", *medians))
    compile_s = {form: asked[0][form]["compile_s"] for form in OURS}
    summary += [row(f"{form}_paths_compile_{label}_s", spent) for form, spent in compile_s.items()]
    again = max(round_[form]["recompilations"] for round_ in asked for form in ("single", *OURS))
    summary.append(row(f"recompilations_{label}", float(again), goal=0.0, at_most=True))
    return summary + found


def drawn() -> list[dict[str, Any]]:
    """Random networks as NNI's labels and choices, `nni`, and as the blocks of our stages 1 to 6, `chosen`."""
    import random

    rng, networks = random.Random(0), []
    for _ in range(NETWORKS):
        labels: dict[str, Any] = {}
        chosen = {}
        for stage, layers in enumerate(LAYERS):
            depth = rng.randint(1, layers)
            if layers > 1:
                labels[f"s{stage + 2}_depth"] = depth
            for layer in range(layers):
                kernel, expand = rng.choice([3, 5, 7]), rng.choice([3, 6])
                labels[f"s{stage + 2}_i{layer}"] = f"k{kernel}e{expand}"
                block = f"inverted_residual[kernel={kernel},expand={expand}]" if layer < depth else "skip"
                chosen[f"stages/{stage + 1}/{layer}/block"] = block
        networks.append({"nni": labels, "chosen": chosen})
    return networks
