"""Post-training quantization and training with rounding, judged in integers on the test images of Fashion-MNIST.

    python scripts/judge_quantization.py [--data NAME] [--train N] [--epochs N] [--tuning N] [--out FOLDER]
                                         [--work FOLDER]

One network of the space `quickstart` is trained in float32. It is quantized as it is (settings below), and after a few
epochs of training with rounding. What is judged is the network of integers (`nas/quantized`), and for int8 the ONNX
file in ONNX Runtime beside it. Trainings are kept in `--work` and go on from there; results go to
`FOLDER/quantization.json`, and rows that it has are not measured again: take out those that are to be. Prints a table
in Markdown. About twenty minutes on one core; all of the test images are judged, whatever is trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.progress_view import clock
from nas import disk
from nas.data import Splits, split
from nas.data_source import load
from nas.exporters import onnx_int8
from nas.measure import onnxruntime_session
from nas.model import Meta, Model
from nas.quantized.integer import layer_differences
from nas.quantized.own_bits import integers
from nas.quantized.post_training import quantize
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.precision import has_bits, with_bits
from search_spaces.space import SearchSpace
from search_spaces.spaces import quickstart

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
CALIBRATION = 1000  # training images
AT_ONCE = 500  # test images
# how a trained network is quantized: (what it is called, options of `quantize`)
POST_TRAINING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("int8, by channel, asymmetric", {}),
    ("int8, by channel, symmetric activations", {"symmetric_acts": True}),
    ("int8, by tensor", {"per_channel": False}),
    ("int8, moving average", {"observer": "moving_average"}),
    ("int8, percentile", {"observer": "percentile"}),
    ("int8, KL", {"observer": "kl"}),
    ("w7a8", {"weight_bits": 7, "first_last_bits": 7}),
    ("w4a8", {"weight_bits": 4}),
    ("w8a4", {"act_bits": 4}),
    ("w4a4", {"weight_bits": 4, "act_bits": 4}),
    ("w8a4, KL", {"act_bits": 4, "observer": "kl"}),
    ("w4a4, KL", {"weight_bits": 4, "act_bits": 4, "observer": "kl"}),
)
TRAINED = ("8", "w4a8", "4", "w3a8", "w2a8")


def network() -> SearchSpace:
    """The network: of every decision the value in the middle.

    Example:
        >>> network().frozen
        True
    """
    space = quickstart.space()
    return space.freeze(space.cardinality // 2)


def right(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers, in percent."""
    return 100 * float((logits.argmax(-1) == labels).mean())


def in_integers(model: Model, splits: Splits, options: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """The network of integers of `model`, at its own bits if it has some, and its logits of the test images."""
    make = integers if has_bits(model.space) else quantize
    found = make(model, splits.train_images[:CALIBRATION], **options)
    images = splits.test_images
    logits = [found.logits(images[start : start + AT_ONCE]) for start in range(0, len(images), AT_ONCE)]
    return found, np.concatenate(logits)


def by_runtime(found: Any, splits: Splits, logits: np.ndarray) -> dict[str, float]:
    """What ONNX Runtime makes of the file of `found`: accuracy, and the share of answers that are the same."""
    with tempfile.TemporaryDirectory() as folder:
        (name,) = onnx_int8.export(found, folder)
        session = onnxruntime_session(Path(folder) / name)
        pixels = (splits.test_images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
        answers = [session.run(None, {"images": pixels[start : start + AT_ONCE]})[0]
                   for start in range(0, len(pixels), AT_ONCE)]  # fmt: skip
    theirs = np.concatenate(answers)
    same = 100 * float((theirs.argmax(-1) == logits.argmax(-1)).mean())
    return {"runtime_accuracy": right(theirs, splits.test_labels), "same_answers": same}


def judged(model: Model, splits: Splits, options: dict[str, Any]) -> dict[str, float]:
    """Accuracy in integers, in percent, and where all bits are 8 what ONNX Runtime answers."""
    found, logits = in_integers(model, splits, options)
    row = {"accuracy": right(logits, splits.test_labels)}
    worst = max(each.units for each in layer_differences(found, splits.test_images[:64]))
    return row | {"largest_difference_codes": float(worst)} | by_runtime(found, splits, logits)


def main() -> None:
    """Train, quantize, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--train", type=int, default=20_000, help="images (%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="of the training in float32 (%(default)s)")
    parser.add_argument("--tuning", type=int, default=3, help="epochs with rounding (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/judge_quantization"))
    asked = parser.parse_args()
    splits = split(load(asked.data), 2000, 0, asked.train)
    data, space = Images.of(splits), network()
    meta = Meta("quickstart", tuple(map(str, range(10))), tuple(splits.mean.tolist()), tuple(splits.std.tolist()))
    file = asked.out / "quantization.json"
    settings = {"data": asked.data, "epochs": asked.epochs, "tuning": asked.tuning, "params": space.params,
                "train": len(splits.train_labels), "test": len(splits.test_labels)}  # fmt: skip
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows: dict[str, dict[str, float]] = kept.get("rows", {}) if kept.get("settings") == settings else {}
    began = time.monotonic()

    def tell(name: str) -> None:
        print(f"[{clock(time.monotonic() - began)}] {name}: {rows[name]}", flush=True)
        disk.replace(file, (json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n").encode())

    float_recipe = Recipe(asked.epochs, 64, 0.1, smoothing=0.0)
    variables = train(space, data, float_recipe, jax.random.key(0), checkpoint=asked.work / "float32")
    exact = Model(space, variables, meta)
    rows["float32"] = {"accuracy": right(exact.logits(splits.test_images), splits.test_labels)}
    tell("float32")
    for name, options in POST_TRAINING:
        if f"as trained: {name}" not in rows:
            rows[f"as trained: {name}"] = judged(exact, splits, options)
            tell(f"as trained: {name}")
    recipe, longer = Recipe(asked.tuning, 64, 0.02, smoothing=0.0), "float32, as many epochs more"
    if longer not in rows:
        again = train(space, data, recipe, jax.random.key(1), variables, checkpoint=asked.work / "longer")
        rows[longer] = {"accuracy": right(Model(space, again, meta).logits(splits.test_images), splits.test_labels)}
        tell(longer)
    for bits in TRAINED:
        name = f"trained with rounding: {bits}"
        if name in rows:
            continue
        rounding = with_bits(space, bits)
        tuned = train(rounding, data, recipe, jax.random.key(1), variables, checkpoint=asked.work / bits)
        rounded = right(Model(rounding, tuned, meta).logits(splits.test_images), splits.test_labels)
        rows[name] = judged(Model(rounding, tuned, meta), splits, {}) | {"rounded": rounded}
        tell(name)
    print_table(rows)


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """The rows in Markdown."""
    print("\n| network | accuracy, % | to float32, points | ONNX Runtime, % | same answers, % |\n|---|---|---|---|---|")
    for name, row in rows.items():
        change = row["accuracy"] - rows["float32"]["accuracy"]
        runtime, same = (f"{row[key]:.2f}" if key in row else "" for key in ("runtime_accuracy", "same_answers"))
        print(f"| {name} | {row['accuracy']:.2f} | {change:+.2f} | {runtime} | {same} |")


if __name__ == "__main__":
    main()
