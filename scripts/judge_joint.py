"""Search architecture, bits and densities at once, or the architecture first and compress what was found.

    python scripts/judge_joint.py [--seeds 0,1,2] [--evaluations N] [--epochs N] [--out FOLDER]

Both have the same images, as many networks trained on a batch, most evaluations of networks, and final trainings:

    joint   shared weights are trained, two networks a step for half the epochs, in the last three tenths of them with
            bits and densities (`compress_last`); evolution with a predictor searches all of it by error and latency
    after   shared weights are trained in float32; the same strategy searches architectures, priced in int8, with three
            fifths of the evaluations; the rest goes to three networks of its front: errors with one block alone in
            fewer bits or channels, and networks that an integer program allocates by them within latency budgets
            (`nas/allocated.py`)

The space has three to six blocks, weights of 2, 4 or 8 bits, activations of 4 or 8 (rounded by `gaussian`), and a
quarter to all of the hidden channels of a block; first and last layer have 8 bits. The devices are a phone whose CPU
has no dot product, where fewer than 8 bits gain nothing, and a streaming FPGA, where they gain most. Networks evenly
along each front are given the bits and channels that cost nothing (`nas.allocated.raised`), trained from scratch, with
rounding, and judged on all test images.

Two differences besides: the weights by which `after` measures few bits have not seen rounding, as those of a search of
architectures have not; and prices of a pipeline do not add up over blocks, as the integer program takes them to.

Printed are hypervolumes of these networks in percent of error times decades of latency, below 40 % and the latency of
the largest network of the space in 8 bits, means with half their 95 % intervals over seeds; and the bits and densities
of the networks that were trained. Results go to `FOLDER/joint.json` after every network, shared weights to
`runs/joint`, so that a run that was stopped goes on; processes with different seeds may share them. A quarter of an
hour for a seed, on one core. Needs the whole of Fashion-MNIST (`flynas data fashion_mnist` says how).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from joint_page import DEVICES, WAYS, picture, table
from kept_results import run_main

from experiments.process import prepare
from experiments.progress_view import clock
from hw_models.errors import InputError
from nas import disk, pareto
from nas.allocated import allocated, least, measured, raised, single_changes
from nas.data import Splits, split
from nas.data_source import load
from nas.evaluators import supernet
from nas.evaluators.standalone import count_mistakes
from nas.loop import search
from nas.objectives import Objective
from nas.plain import arrays_of, tree_from
from nas.strategies import predictor_evolution
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from nas.types import Evaluator
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.precision import Scheme, with_bits
from search_spaces.space import SearchSpace, Stage
from search_spaces.sparse_space import with_sparsity

ROOT = Path(__file__).resolve().parent.parent
DATA = "fashion_mnist"
BITS, DENSITIES, UNIFORM = "w2/4/8a4/8", "0.25/0.5/0.75/1", "int8"
SCHEME = Scheme(activations="gaussian")
# What ranks networks best on seed 0, of as many trained networks (docs/results/compression.md); in float32 one network
# a step does.
NETWORKS, PATHS = 2, "compress_last[full=0.7,networks=2]"
POPULATION, COMPRESSED = 16, 3  # networks of the front that are compressed


class Settings(NamedTuple):
    """What results depend on."""

    train: int = 8000
    validation: int = 2000
    epochs: int = 16
    evaluations: int = 320
    final: int = 8
    final_epochs: int = 8


def spaces() -> tuple[SearchSpace, SearchSpace]:
    """The architectures alone, and with bits and densities.

    Example:
        >>> [space.num_decisions for space in spaces()]
        [18, 36]
    """
    block = InvertedResidual(kernel=Choice(3, 5), expand=Choice(2, 4), activation="relu")
    plain = SearchSpace(
        "compact", 28, 1, 10, Stage(ConvNorm(3), 16, stride=2),
        (
            Stage(block, Choice(16, 24), Choice(1, 2), 1),
            Stage(block, Choice(24, 40), Choice(1, 2), 2),
            Stage(block, Choice(40, 64), Choice(1, 2), 2),
        ),
        Classifier(),
    )  # fmt: skip
    return plain, with_bits(with_sparsity(plain, "channel", DENSITIES, False), BITS, scheme=SCHEME)


def uncompressed(plain: SearchSpace, joint: SearchSpace, genes: np.ndarray) -> np.ndarray:
    """Genes `[..., D]` of `plain` as those of the same networks in `joint`, in 8 bits and with all channels.

    Example:
        >>> uncompressed(*spaces(), np.zeros(18, np.int32))[:6].tolist()
        [0, 0, 2, 1, 3, 0]
    """
    found = np.broadcast_to(np.asarray(joint.cardinality) - 1, (*genes.shape[:-1], joint.num_decisions)).copy()
    found[..., [joint.names.index(name) for name in plain.names]] = genes
    return found.astype(np.int32)


def shared(space: SearchSpace, name: str, splits: Splits, settings: Settings, seed: int, kept: Path) -> Evaluator:
    """An evaluator whose shared weights are trained, from the disk if they were before."""
    epochs, paths = (settings.epochs, "uniform") if name == "plain" else (settings.epochs // NETWORKS, PATHS)
    judge = supernet.evaluator(space, data=splits, epochs=epochs, paths=paths, calibration=500)
    key = jax.random.key(seed)
    state = judge.init(key)
    file = kept / f"{name}_{seed}_{settings.train}_{settings.validation}_{epochs}_{paths}_{SCHEME.activations}.npz"
    if file.is_file():
        with np.load(file) as found:
            state = tree_from(state, dict(found))
    else:
        assert judge.train is not None
        for epoch in range(epochs):
            state, _ = judge.train(jax.random.fold_in(key, epoch), state)
        kept.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays_of(state))
    return judge._replace(init=lambda key: state, rounds=0)


class Candidates(NamedTuple):
    """Networks to choose from, genes `[N, D]`, errors `[N]` and latencies in seconds `[N]`; how many were evaluated."""

    genes: np.ndarray
    error: np.ndarray
    latency_s: np.ndarray
    evaluated: int

    def evenly(self, count: int, first: float = 0.0) -> list[int]:
        """So many of the front, evenly by place from the share `first` of it on, fastest first."""
        front = np.flatnonzero(pareto.non_dominated(np.stack([self.latency_s, self.error], 1)))
        front = front[np.argsort(self.latency_s[front])]
        places = np.linspace(first * (len(front) - 1), len(front) - 1, count).round().astype(int)
        return [int(front[place]) for place in dict.fromkeys(places.tolist())]


def searched(space: SearchSpace, judge: Evaluator, goal: Objective, evaluations: int, seed: int) -> Candidates:
    """What evolution with a predictor evaluated."""
    plan = predictor_evolution.strategy(space, population=POPULATION)
    run = search(space, plan, judge, goal, steps=evaluations // POPULATION, key=jax.random.key(seed))
    rows = [record for record in run.records if record["status"] == "ok"]
    return Candidates(
        np.asarray([row["genes"] for row in rows], np.int32),
        np.asarray([row["objectives"]["error"] for row in rows]),
        np.asarray([row["objectives"]["latency_s"] for row in rows]),
        len(rows),
    )


def jointly(joint: SearchSpace, judge: Evaluator, device: str, settings: Settings, seed: int) -> Candidates:
    """Everything at once."""
    return searched(joint, judge, Objective(joint, device), settings.evaluations, seed)


def one_after_the_other(
    plain: SearchSpace, joint: SearchSpace, judge: Evaluator, on_joint: Evaluator, device: str, settings: Settings,
    seed: int,
) -> Candidates:  # fmt: skip
    """Architectures first. `on_joint` evaluates networks of the joint space with the weights of `judge`."""
    goal = Objective(joint, device)
    first = searched(plain, judge, Objective(plain, device, precision=UNIFORM), settings.evaluations * 3 // 5, seed)
    found = uncompressed(plain, joint, first.genes)
    left, state = settings.evaluations - len(found), on_joint.init(jax.random.key(0))

    def errors(rows: np.ndarray) -> np.ndarray:
        size = on_joint.chunk
        parts = [on_joint.evaluate(None, state, rows[at : at + size], None).error for at in range(0, len(rows), size)]
        return np.concatenate([np.asarray(part) for part in parts])

    def prices(rows: np.ndarray) -> np.ndarray:
        return np.asarray(goal.price(rows).costs["latency_s"], np.float64)

    chosen = found[first.evenly(COMPRESSED, 1 / 3)]
    allowed = [left // len(chosen) - len(single_changes(joint, base)) for base in chosen]
    compressed = []
    for base, count in zip(chosen, allowed, strict=True):
        blocks, whole = measured(joint, base, errors, prices), float(prices(base[None])[0])
        # in a pipeline gains of blocks add up to more than the whole
        lowest = max(least(blocks, whole) * (1 + 1e-6), whole / 10)
        budgets = np.geomspace(lowest, whole, max(count, 1))
        compressed += list(allocated(base, blocks, whole, budgets))
    more = np.unique(np.stack(compressed), axis=0)
    return Candidates(
        np.concatenate([found, more]),
        np.concatenate([first.error, errors(more)]),
        np.concatenate([prices(found), prices(more)]),
        len(found) + sum(len(single_changes(joint, base)) for base in chosen) + len(more),
    )


def described(joint: SearchSpace, genes: np.ndarray) -> dict[str, float]:
    """Means of bits and density over the blocks of a network.

    Example:
        >>> described(spaces()[1], np.zeros(36, np.int32))
        {'weight_bits': 2.0, 'act_bits': 4.0, 'density': 0.25}
    """
    values = joint.decode(genes)
    return {
        field: float(np.mean([value for name, value in values.items() if name.endswith(f"/{field}")]))
        for field in ("weight_bits", "act_bits", "density")
    }


def finals(joint: SearchSpace, found: Candidates, device: str, count: int) -> list[dict[str, Any]]:
    """The networks to train, with all that costs nothing on the device."""
    goal, networks = Objective(joint, device), []
    for row in found.evenly(count):
        genes = raised(joint, found.genes[row], lambda rows: goal.price(rows).costs["latency_s"])
        named = {"network": "-".join(map(str, genes.tolist())), "latency_s": float(found.latency_s[row])}
        networks.append({**named, "shared_percent": 100 * float(found.error[row]), **described(joint, genes)})
    return networks


def trained(joint: SearchSpace, genes: np.ndarray, splits: Splits, settings: Settings, key: Any) -> float:
    """Error in percent on the test images after training from scratch, with rounding."""
    network, data = joint.freeze(genes), Images.of(splits)
    recipe = Recipe(settings.final_epochs, 64, 0.1, smoothing=0.0)
    variables = train(network, data, recipe, key)
    return (
        100 * count_mistakes(network, variables, splits.test_images, splits.test_labels, data) / len(splits.test_labels)
    )


class Kept:
    """Results by `seed/device/way`, on the disk after every change; this process changes those of `seeds`."""

    def __init__(self, file: Path, settings: Settings, seeds: list[int]):
        self.file, self.settings = file, settings
        found = json.loads(file.read_text()) if file.is_file() else {"settings": settings._asdict(), "rows": {}}
        if found["settings"] != settings._asdict():
            raise InputError(f"{file} holds results of {found['settings']}: give the same, or another --out")
        self.rows: dict[str, Any] = found["rows"]
        self.seeds = [str(seed) for seed in seeds]

    def save(self) -> None:
        """Write all of it, beside what another process with other seeds has written."""
        if self.file.is_file():
            own = {name: row for name, row in self.rows.items() if name.partition("/")[0] in self.seeds}
            self.rows = {**json.loads(self.file.read_text())["rows"], **own}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in self.rows.items())
        text = f'{{"settings": {json.dumps(self.settings._asdict())},\n"rows": {{\n{lines}\n}}}}\n'
        with disk.explained(self.file.parent):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(self.file, text.encode())

    def complete(self, seed: int) -> bool:
        """Whether everything of a seed is there."""
        rows = [self.rows.get(f"{seed}/{device}/{way}") for device in DEVICES for way in WAYS]
        return all(row and all("error_percent" in net for net in row["networks"]) for row in rows)


def do(seed: int, kept: Kept, scratch: Path) -> None:
    """What is missing of one seed."""
    settings, (plain, joint), began = kept.settings, spaces(), time.monotonic()

    def said(text: str) -> None:
        print(f"[{clock(time.monotonic() - began)}] seed {seed}: {text}", flush=True)

    splits = split(load(DATA), settings.validation, seed, settings.train)
    names = [f"{seed}/{device}/{way}" for device in DEVICES for way in WAYS]
    if any(name not in kept.rows for name in names):
        of_joint = shared(joint, "joint", splits, settings, seed, scratch)
        said("shared weights with bits are there")
        of_plain = shared(plain, "plain", splits, settings, seed, scratch)
        said("shared weights in float32 are there")
        # the same modules and parameters, whatever bits they are rounded to
        on_joint = of_joint._replace(init=of_plain.init)
    for name in names:
        _, device, way = name.split("/")
        if name in kept.rows:
            continue
        start = time.monotonic()
        if way == "joint":
            found = jointly(joint, of_joint, device, settings, seed)
        else:
            found = one_after_the_other(plain, joint, of_plain, on_joint, device, settings, seed)
        networks = finals(joint, found, device, settings.final)
        kept.rows[name] = {
            "evaluated": found.evaluated, "seconds": round(time.monotonic() - start, 1), "networks": networks
        }  # fmt: skip
        kept.save()
        said(f"{device}, {way}: {found.evaluated} networks evaluated")
    for name in names:
        for place, network in enumerate(kept.rows[name]["networks"]):
            if "error_percent" not in network:
                genes = np.asarray([int(gene) for gene in network["network"].split("-")], np.int32)
                key = jax.random.fold_in(jax.random.key(seed), place)
                network["error_percent"] = trained(joint, genes, splits, settings, key)
                kept.save()
                said(f"{name}: {network}")


def main() -> None:
    """Do what is missing, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3,4,5", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--scratch", type=Path, default=ROOT / "runs" / "joint", help="for shared weights")
    for name, value in Settings()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    settings = Settings(*(getattr(asked, name) for name in Settings._fields))
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    kept = Kept(asked.out / "joint.json", settings, seeds)
    prepare(1)
    for seed in seeds:
        if not kept.complete(seed):
            do(seed, kept, asked.scratch)
    joint = spaces()[1]
    largest = np.asarray(joint.cardinality - 1)[None]
    worst_s = {device: float(Objective(joint, device).price(largest).costs["latency_s"][0]) for device in DEVICES}
    print(table(kept.rows, seeds, worst_s))
    image = io.BytesIO()
    picture(kept.rows, seeds).savefig(image, format="png", dpi=150, bbox_inches="tight")
    disk.replace(asked.out / "joint.png", image.getvalue())


if __name__ == "__main__":
    run_main(main)
