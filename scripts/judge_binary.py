"""Ways to train weights of 1 bit against each other, on a residual network and Fashion-MNIST.

    python scripts/judge_binary.py [--seeds N] [--epochs N] [--train N] [--out FOLDER]

A residual network is trained in float32, and from there with weights of 1 bit inside (activations, the first and the
last layer stay in float32):

    binary         signs times their mean absolute value, straight-through gradients (BWN)
    APSQ           the same, and a penalty on the angle between weights and their signs that grows by 1.3 an epoch
    sphere         filters turn on unit spheres, no penalty
    sphere + APSQ  both

each with one scale per output channel and per kernel. All are judged on images that none was trained on. Results go to
`FOLDER/binary.json` after each training, so that a run that was stopped goes on. Prints errors in percent, means over
seeds with half their 95 % interval. Ten minutes on one core.

Source of the question: Guerra Fernandez, thesis (Monash 2024), tables 6.1 and 7.1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from judge_switchable import RESULTS, Settings, parts, space_of
from search_summary import cell

from experiments.progress_view import clock
from nas import disk
from nas.evaluators.standalone import count_mistakes
from nas.training.angle import AnglePenalty
from nas.training.recipe import Recipe
from nas.training.standalone import train
from search_spaces.precision import Scheme, with_bits, without_bits

WAYS = ("binary", "APSQ", "sphere", "sphere + APSQ")
GRANULARITIES = ("channel", "kernel")
USUAL = Settings(epochs=10, learning_rate=0.05, quantizers="symmetric,affine")


def errors(settings: Settings, seed: int) -> dict[str, float]:
    """Errors in percent of every way with one seed; `float32` are where all start."""
    data, judged = parts(settings, seed)
    space = space_of(settings.network, settings.quantizers)
    plain = without_bits(space.freeze([0] * space.num_decisions))
    key, again = jax.random.key(seed), jax.random.key(1000 + seed)

    def wrong(network: Any, variables: Any) -> float:
        return 100 * count_mistakes(network, variables, judged.images, judged.labels, data) / len(judged.labels)

    recipe = Recipe(settings.epochs, settings.batch, 0.1, weight_decay=1e-4, smoothing=0.0)
    start = train(plain, data, recipe, key)
    found = {"float32": wrong(plain, start)}
    for granularity in GRANULARITIES:
        for way in WAYS:
            bits = with_bits(plain, "w1a32", 32, Scheme("apsq", "affine", granularity))
            optimizer = "sphere" if "sphere" in way else "sgd"
            tuned = Recipe(
                settings.epochs, settings.batch, settings.learning_rate, weight_decay=1e-4, smoothing=0.0,
                optimizer=optimizer,
            )  # fmt: skip
            penalty = AnglePenalty(1, granularity, epochs=settings.epochs) if "APSQ" in way else None
            variables = train(bits, data, tuned, again, start, penalty=penalty)
            found[f"{way}, by {granularity}"] = wrong(bits, variables)
    return found


def by_seed(about: str | None, name: str, judge: Callable[[Settings, int], dict[str, Any]]) -> list[dict[str, Any]]:
    """What `judge` finds with each seed that the command line asks for; what `FOLDER/name.json` has is not done again.

    `about` is what `--help` says.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=USUAL.epochs)
    parser.add_argument("--train", type=int, default=USUAL.train)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    settings, began = USUAL._replace(epochs=asked.epochs, train=asked.train), time.monotonic()
    file = asked.out / f"{name}.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows: dict[str, dict[str, Any]] = kept.get("seeds", {}) if kept.get("settings") == settings._asdict() else {}
    for seed in range(asked.seeds):
        if str(seed) not in rows:
            rows[str(seed)] = judge(settings, seed)
            disk.replace(file, (json.dumps({"settings": settings._asdict(), "seeds": rows}, indent=1) + "\n").encode())
            print(f"[{clock(time.monotonic() - began)}] seed {seed}: {rows[str(seed)]}", flush=True)
    return [rows[str(seed)] for seed in range(asked.seeds)]


def main() -> None:
    """Train what is missing and print the table."""
    found = by_seed(__doc__, "binary", errors)
    print("\n| weights | error, % |\n|---|---|")
    for name in found[0]:
        print(f"| {name} | {cell([rows[name] for rows in found], 2)} |")


if __name__ == "__main__":
    main()
