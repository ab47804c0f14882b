"""Automatic pruning of a network of 2 bits, against equal shares of all layers and filters at random.

    python scripts/judge_automatic_pruning.py [--seeds N] [--epochs N] [--train N] [--params-weight A] [--out FOLDER]

The residual network of `judge_switchable.py` with DoReFa weights and activations of 2 bits inside, the first and the
last layer in 32 bits, trained in float32 and from there with rounding, is pruned by

    angle, distance    of the interactions; the share of every layer is searched (`nas/pruning/automatic.py`)
    angle of filters   the same, filters judged by themselves
    uniform            by the angle of interactions, one share of all layers, of the size that `angle` leaves
    random             the shares that `angle` found, filters at random

An epoch of training follows each layer that lost more than 5 % of its filters, and at the end as many as make up
`BUDGET` with those, so that all are trained equally long; `not pruned` is trained for `BUDGET` epochs too. Shares are
judged by 1,000 images that are neither trained on nor counted in the table. Results go to
`FOLDER/automatic_pruning.json` (docs/results) after each seed, so that a run that was stopped goes on. Prints a table,
means with half their 95 % interval. Ten minutes on one core of its own.

Source of the question: Guerra Fernandez, thesis (Monash 2024), tables 4.3 and 4.4.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from judge_switchable import RESULTS, SWITCHES, parts, space_of
from judge_switchable import Settings as Trained
from kept_results import rows_of, run_main
from search_summary import cell

from experiments.progress_view import clock
from nas import disk
from nas.evaluators.standalone import count_mistakes
from nas.pruning.automatic import AutoPruned, prune_automatically
from nas.pruning.masks import applied, masks_of
from nas.pruning.ratio_search import RatioSearch, dropped
from nas.pruning.rounded import prunable, shrink_rounded, size_bytes
from nas.pruning.targets import targets
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from nas.training.switches import genes_of
from search_spaces.precision import without_bits
from search_spaces.space import SearchSpace
from search_spaces.sparsity.angle import Angle
from search_spaces.sparsity.distance import Distance
from search_spaces.sparsity.random import Random

SEARCHED = {"angle": Angle(), "distance": Distance(), "angle of filters": Angle(of="filter")}
BUDGET, BETWEEN, TUNING_RATE = 12, 1, 0.02  # epochs after pruning, of these after a layer, their learning rate
JUDGED = 1000  # images by which shares are judged
W2A2 = SWITCHES[1:2]


class Settings(NamedTuple):
    """What results belong to."""

    network: str = "resnet8"
    epochs: int = 10
    train: int = 6000
    quantizers: str = "dorefa,dorefa[signed=False]"
    params_weight: float = 1.0
    budget: int = BUDGET


def recipe(epochs: int, rate: float) -> Recipe:
    """Of all trainings, which differ in epochs and learning rate."""
    return Recipe(epochs, 64, rate, weight_decay=1e-4, smoothing=0.0)


def uniform_ratio(space: SearchSpace, size: float) -> float:
    """The share of all layers that leaves a network nearest to `size` bytes."""
    plain = without_bits(space)
    found = targets(plain, "output_channel", names=prunable(space))

    def left(ratio: float) -> float:
        chosen = [np.arange(t.structure.count)[None] >= dropped(ratio, t.structure.count) for t in found]
        return size_bytes(space, masks_of(plain, found, chosen))

    return min(np.linspace(0, 0.6, 121).tolist(), key=lambda ratio: abs(left(ratio) - size))


def judged(settings: Settings, seed: int) -> dict[str, dict[str, Any]]:
    """Error in percent, bytes by masks and of the smaller network, and the shares of all layers, of every way."""
    data, others = parts(Trained(network=settings.network, train=settings.train), seed)
    search, rest = (Images(others.images[of], others.labels[of], data.mean, data.std)
                    for of in (slice(JUDGED), slice(JUDGED, None)))  # fmt: skip
    space = space_of(settings.network, settings.quantizers)
    space = space.freeze(genes_of(space, W2A2)[0])

    def wrong(network: SearchSpace, variables: Any) -> float:
        return 100 * count_mistakes(network, variables, rest.images, rest.labels, rest) / len(rest.labels)

    plain = without_bits(space)
    start = train(plain, data, recipe(settings.epochs, 0.1), jax.random.key(seed))
    start = train(space, data, recipe(settings.epochs, 0.05), jax.random.key(1000 + seed), start)
    tuned = train(space, data, recipe(settings.budget, TUNING_RATE), jax.random.key(2000 + seed), start)
    rows: dict[str, dict[str, Any]] = {
        "not pruned": {"error": wrong(space, tuned), "before": wrong(space, start), "bytes": size_bytes(space)}
    }

    def pruned(way: str, **options: Any) -> AutoPruned:
        began, nothing = time.monotonic(), recipe(0, TUNING_RATE)
        made = prune_automatically(
            space, start, data, search, between=recipe(BETWEEN, TUNING_RATE), last=nothing,
            key=jax.random.key(3000 + seed), search=RatioSearch(params_weight=settings.params_weight), **options,
        )  # fmt: skip
        epochs = settings.budget - BETWEEN * sum(layer.tuned for layer in made.layers)
        variables = train(space, data, recipe(epochs, TUNING_RATE), jax.random.key(4000 + seed), made.variables,
                          constrain=Partial(applied, made.masks))  # fmt: skip
        small = shrink_rounded(space, variables, made.masks)
        masked = {**variables, "params": applied(made.masks, variables["params"])}
        rows[way] = {
            "error": wrong(*small),
            "masked_error": wrong(space, masked),
            "bytes": made.size_bytes,
            "small_bytes": size_bytes(small.space),
            "params_share": round(made.kept.params_share, 4),
            "ratios": {layer.name: round(layer.ratio, 4) for layer in made.layers},
            "judged_by": {layer.name: layer.judged_by for layer in made.layers},
            "not_as_asked": {layer.name: layer.why for layer in made.layers if layer.why},
            "trained_between": sum(layer.tuned for layer in made.layers),
            "seconds": round(time.monotonic() - began, 1),
        }
        print(f"  {way}: {rows[way]}", flush=True)
        return made

    by_angle, *_ = [pruned(way, criterion=criterion) for way, criterion in SEARCHED.items()]
    pruned("uniform", criterion=Angle(), ratios=uniform_ratio(space, by_angle.size_bytes))
    shares = {layer.name: layer.ratio for layer in by_angle.layers}
    pruned("random", criterion=Random(), ratios=shares)
    return rows


def table(found: list[dict[str, dict[str, Any]]]) -> str:
    """Means over seeds in Markdown.

    Example:
        >>> print(table([{"angle": {"error": 12.0, "bytes": 51200.0, "small_bytes": 61440.0}}]).splitlines()[-1])
        | angle | 12.00 | 50.0 | 60.0 |
    """
    lines = ["| pruned by | error, % | size, KiB | of the smaller network, KiB |", "|---|---|---|---|"]
    for name in found[0]:
        of = [rows[name] for rows in found]
        sizes = [cell([row.get(field, row["bytes"]) / 1024 for row in of], 1) for field in ("bytes", "small_bytes")]
        lines.append(f"| {name} | {cell([row['error'] for row in of], 2)} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def main(given: list[str] | None = None) -> None:
    """Do the seeds that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Settings()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=usual.epochs)
    parser.add_argument("--train", type=int, default=usual.train)
    parser.add_argument("--params-weight", type=float, default=usual.params_weight)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(given)
    settings = usual._replace(epochs=asked.epochs, train=asked.train, params_weight=asked.params_weight)
    file, began = asked.out / "automatic_pruning.json", time.monotonic()
    kept = {"settings": settings._asdict(), "seeds": rows_of(file, settings._asdict(), "seeds")}
    for seed in range(asked.seeds):
        if str(seed) not in kept["seeds"]:
            kept["seeds"][str(seed)] = judged(settings, seed)
            with disk.explained(asked.out):
                disk.replace(file, (json.dumps(kept, indent=1) + "\n").encode())
            print(f"[{clock(time.monotonic() - began)}] seed {seed} is done", flush=True)
    print(table([kept["seeds"][str(seed)] for seed in range(asked.seeds)]))


if __name__ == "__main__":
    run_main(main)
