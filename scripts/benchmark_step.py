"""Steps of a supernet against once-for-all's, plain PyTorch's and NNI's, for the same networks in alternating rounds.

Run as a program it times ours: it reads a question from standard input, with the text of a `space` and `networks` that
are each what is `chosen` by the names of its decisions.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import benchmark_nni
import benchmark_peers
from benchmark_kernels import KEPT_MEMORY, seconds
from benchmark_rows import Row, row

from experiments.process import cores

NETWORKS, ROUNDS = 5, 3
SETTINGS = {"input_hw": 112, "classes": 10, "batch": 32, "spend_s": 2.0}
SPACE = "mobilenet_v3[input_hw=112,classes=10,resolutions=1]"
KINDS = ("train", "evaluate")


def rows(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Speeds against once-for-all and PyTorch, then those of `benchmark_nni`.

    Raises:
        RuntimeError: ours and theirs are not the same networks.
    """
    (first, peers), (second, also) = _against_ofa(folder), benchmark_nni.rows(folder)
    return first + second, peers + also


def _against_ofa(folder: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Median over networks of how long ours take, as a share of the peer's time; then every network.

    Raises:
        RuntimeError: ours and theirs are not the same networks.
    """
    threads = cores()
    question = {**SETTINGS, "space": SPACE, "threads": threads, "networks": drawn()}
    ours, peer, versions = [], [], []
    try:
        python = benchmark_peers.python_of("ofa", folder)
        for number in range(ROUNDS):
            print(f"step: round {number + 1} of {ROUNDS} ...", file=sys.stderr, flush=True)
            script = benchmark_peers.SCRIPTS / "ask_ofa.py"
            answer = benchmark_peers.ask(python, script, question, KEPT_MEMORY)
            peer.append(answer["networks"])
            versions = answer["versions"]
            ours.append(benchmark_peers.ask_ours(Path(__file__), question))
    except benchmark_peers.NotMeasured as error:
        return [], [{"name": "ofa", "versions": list(benchmark_peers.PEERS["ofa"]), "reason": str(error)}]
    for mine, theirs in zip(ours[0]["networks"], peer[0], strict=True):
        if mine["params"] != theirs["params"]:
            raise RuntimeError(f"not the same network: {mine['params']} parameters against {theirs['params']}")
    return _compared(ours, peer), [{"name": "ofa", "versions": versions, "reason": None}]


def _compared(ours: list[Any], peer: list[Any]) -> list[Row]:
    summary, found = [], []
    for rival, label in (("supernet", "ofa"), ("supernet_channels_last", "ofa_channels_last"), ("plain", "pytorch")):
        for position, kind in enumerate(KINDS):
            shares = []
            for network in range(NETWORKS):
                pairs = [
                    (mine["networks"][network]["seconds"][position], theirs[network][rival][position])
                    for mine, theirs in zip(ours, peer, strict=True)
                ]
                shares.append(statistics.median(a / b for a, b in pairs))
                medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
                found.append(row(f"{kind}_network{network}_against_{label}_ms", *(1e3 * value for value in medians)))
            speed = 1 / statistics.median(shares)
            summary.append(row(f"{kind}_speed_of_{label}", speed, goal=None if label == "ofa_channels_last" else 1.0))
    compiled = [round_["compile_s"] for round_ in ours]
    summary += [row(f"{kind}_compile_s", statistics.median(each[kind] for each in compiled)) for kind in KINDS]
    again = float(max(round_["recompilations"] for round_ in ours))
    summary.append(row("recompilations", again, goal=0.0, at_most=True))
    return summary + found


def drawn() -> list[dict[str, Any]]:
    """Random networks in once-for-all's terms, and in ours: stage 0 is fixed, 1 to 5 are once-for-all's five."""
    import random

    rng = random.Random(0)
    networks: list[dict[str, Any]] = [
        {
            "kernel": [rng.choice([3, 5, 7]) for _ in range(20)],
            "expand": [rng.choice([3, 4, 6]) for _ in range(20)],
            "depth": [rng.choice([2, 3, 4]) for _ in range(5)],
        }
        for _ in range(NETWORKS)
    ]
    for network in networks:
        network["chosen"] = {f"stages/{stage + 1}/depth": network["depth"][stage] for stage in range(5)} | {
            f"stages/{stage + 1}/{block}/{field}": network[field][4 * stage + block]
            for stage in range(5)
            for block in range(4)
            for field in ("kernel", "expand")
        }
    return networks


def _genes(space: Any, chosen: dict[str, Any]) -> Any:
    return space.canonical([each.values.index(chosen[each.name]) for each in space.decisions])


class Training(NamedTuple):
    """A training step of shared weights and what it is called with: `step(weights, *inputs(n))` trains network `n`."""

    supernet: Any
    table: Any  # genes of the networks
    variables: Any
    step: Any
    weights: Any
    inputs: Callable[[int], tuple[Any, ...]]


def training(question: dict[str, Any]) -> Training:
    """The step that `question` asks for: `space`, `networks`, `batch` and `input_hw`."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nas.training.epoch import Clock
    from nas.training.parallel import Spread
    from nas.training.paths import Paths
    from nas.training.recipe import Recipe
    from nas.training.shared import shared_step, started
    from search_spaces.supernet import Supernet
    from search_spaces.texts import resolve

    space = resolve(question["space"]).space
    supernet = Supernet(space)
    table = jnp.asarray(np.stack([_genes(space, network["chosen"]) for network in question["networks"]]), jnp.int32)
    # the network is an operand, as in training: the progress of the clock says which
    rule = Paths(lambda key, progress: table[(progress * len(table)).astype(jnp.int32)][None], (1.0,), 0.0, {})
    recipe = Recipe(batch=question["batch"], learning_rate=0.01, weight_decay=1e-4, shift=0, flip=False, smoothing=0.0)
    variables = supernet.init(jax.random.key(0))
    params = {  # copies, because a step overwrites what it is given
        slot: {kind: {"params": jax.tree.map(jnp.copy, part["params"])} for kind, part in kinds.items()}
        for slot, kinds in variables.items()
    }
    step = shared_step(supernet, recipe, rule, 1000, Spread(None))
    size = question["input_hw"]
    images = jax.random.randint(jax.random.key(1), (question["batch"], size, size, 3), 0, 256).astype(jnp.uint8)
    labels = jnp.arange(question["batch"], dtype=jnp.int32) % question["classes"]

    def inputs(number: int) -> tuple[Any, ...]:
        pixels = np.float32([0.5]), np.float32([0.25])  # mean and deviation
        return images, labels, *pixels, jax.random.key(2), Clock(np.int32(0), np.float32((number + 0.5) / len(table)))

    return Training(supernet, table, variables, step, started(params, recipe, 1000), inputs)


def _measure(question: dict[str, Any]) -> dict[str, Any]:
    from experiments.process import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import numpy as np

    from nas.testing_evaluators import Compilations

    ours = training(question)
    supernet, table, weights = ours.supernet, ours.table, ours.weights
    evaluate = jax.jit(lambda variables, x, genes: supernet.apply(variables, x, genes, "eval"))
    x = ours.inputs(0)[0].astype(jnp.float32)

    def train_once(number: int) -> Any:
        nonlocal weights
        weights, loss = ours.step(weights, *ours.inputs(number))
        return loss

    began = time.perf_counter()
    jax.block_until_ready(train_once(0))
    middle = time.perf_counter()
    jax.block_until_ready(evaluate(ours.variables, x, table[0]))
    compile_s = {"train": middle - began, "evaluate": time.perf_counter() - middle}
    found = []
    with Compilations() as compilations:
        for number in range(len(table)):
            calls = (
                lambda number=number: train_once(number),
                lambda genes=table[number]: evaluate(ours.variables, x, genes),
            )
            spent = [seconds(call, question["spend_s"]) for call in calls]
            params = supernet.space.freeze(np.asarray(table[number])).params
            found.append({"params": params, "seconds": spent})
    return {"networks": found, "compile_s": compile_s, "recompilations": len(compilations.events)}


if __name__ == "__main__":
    print(json.dumps(_measure(json.load(sys.stdin))))
