"""Ternary networks: how often they are wrong, how many zeros they have, and what their storage takes.

    python scripts/judge_ternary.py [--seeds N] [--epochs N] [--train N] [--out FOLDER]

The residual network of `judge_binary.py`, from float32 weights, with ternary weights inside (N-ary quantization with
nested means) whose thresholds are multiplied by some t. The weights are written by the codec of reduce and scale and
read back, and its bytes stand beside the estimate that cost models use, `params * (d + H2(d))` bits. Results go to
`FOLDER/ternary.json` after each seed. Prints a table, means with half their 95 % interval. Five minutes on one core.

Source: Schindler, dissertation (Heidelberg 2021), sections 5.3 and 5.5.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from judge_switchable import RESULTS, Settings, parts, space_of
from search_summary import cell

from experiments.progress_view import clock
from hw_models.compression import ternary_bits
from nas import disk
from nas.evaluators.standalone import count_mistakes
from nas.training.recipe import Recipe
from nas.training.sphere import ENDS, is_weight
from nas.training.standalone import train
from search_spaces.arithmetic import ras_codec
from search_spaces.precision import Scheme, with_bits, without_bits
from search_spaces.quantizers.nary import Nary

FACTORS = (1.0, 1.4, 1.8)
USUAL = Settings(epochs=10, learning_rate=0.05, quantizers="symmetric,affine")


def ternary(params: Any, factor: float) -> list[np.ndarray]:
    """The signs of all ternary weights, -1, 0 and 1, one array `[outputs, inputs]` for each layer."""
    quantizer, found = Nary(t=factor), []
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(is_weight(params, exclude=ENDS)), strict=True)
    for weight in (leaf for leaf, inside in leaves if inside):
        axes = tuple(range(weight.ndim))
        intervals = quantizer.intervals(weight, jax.numpy.float32(2), axes)
        signs = np.asarray(intervals.plus_1).astype(np.int8) - np.asarray(intervals.minus_1).astype(np.int8)
        found.append(signs.reshape(-1, weight.shape[-1]).T)
    return found


def judged(settings: Settings, seed: int) -> dict[str, dict[str, float]]:
    """Error in percent, share of non-zeros, and bytes as written and as estimated, of every t and of float32."""
    data, images = parts(settings, seed)
    space = space_of(settings.network, settings.quantizers)
    plain = without_bits(space.freeze([0] * space.num_decisions))

    def wrong(network: Any, variables: Any) -> float:
        return 100 * count_mistakes(network, variables, images.images, images.labels, data) / len(images.labels)

    recipe = Recipe(settings.epochs, settings.batch, 0.1, weight_decay=1e-4, smoothing=0.0)
    start = train(plain, data, recipe, jax.random.key(seed))
    rows: dict[str, dict[str, float]] = {"float32": {"error": wrong(plain, start)}}
    for factor in FACTORS:
        rounded = with_bits(plain, "w2a32", 32, Scheme(f"nary[t={factor}]", "affine", "tensor"))
        tuned = Recipe(settings.epochs, settings.batch, settings.learning_rate, weight_decay=1e-4, smoothing=0.0)
        variables = train(rounded, data, tuned, jax.random.key(1000 + seed), start)
        layers = ternary(variables["params"], factor)
        written = ras_codec.encode(layers)
        for layer, back in zip(layers, ras_codec.decode(written), strict=True):
            np.testing.assert_array_equal(layer, back)
        weights, kept = sum(layer.size for layer in layers), sum(np.count_nonzero(layer) for layer in layers)
        rows[f"t = {factor}"] = {
            "error": wrong(rounded, variables),
            "density": kept / weights,
            "bytes": len(written),
            "estimate_bytes": float(ternary_bits(weights, kept / weights)) / 8,
            "by_layer_bytes": sum(float(ternary_bits(e.size, np.count_nonzero(e) / e.size)) for e in layers) / 8,
            "weights": weights,
        }
    return rows


def by_seed() -> list[dict[str, dict[str, float]]]:
    """What `judged` finds with each seed that the command line asks for; what the file has is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=USUAL.epochs)
    parser.add_argument("--train", type=int, default=USUAL.train)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    settings, began = USUAL._replace(epochs=asked.epochs, train=asked.train), time.monotonic()
    file = asked.out / "ternary.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows: dict[str, dict[str, Any]] = kept.get("seeds", {}) if kept.get("settings") == settings._asdict() else {}
    for seed in range(asked.seeds):
        if str(seed) not in rows:
            rows[str(seed)] = judged(settings, seed)
            disk.replace(file, (json.dumps({"settings": settings._asdict(), "seeds": rows}, indent=1) + "\n").encode())
            print(f"[{clock(time.monotonic() - began)}] seed {seed}: {rows[str(seed)]}", flush=True)
    return [rows[str(seed)] for seed in range(asked.seeds)]


def main() -> None:
    """Train what is missing and print the table."""
    found = by_seed()
    print("\n| weights | error, % | non-zeros, % | written, bytes | over the estimate, % |\n|---|---|---|---|---|")
    for name in found[0]:
        of = [rows[name] for rows in found]
        line = [cell([row["error"] for row in of], 2)]
        if "bytes" in of[0]:
            line.append(cell([100 * row["density"] for row in of], 1))
            line.append(cell([row["bytes"] for row in of], 0))
            line.append(cell([100 * (row["bytes"] / row["estimate_bytes"] - 1) for row in of], 1))
        print(f"| {name} | {' | '.join(line + [''] * (4 - len(line)))} |")


if __name__ == "__main__":
    main()
