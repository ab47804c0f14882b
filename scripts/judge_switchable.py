"""Networks of several bits in one set of weights, against each of them trained by itself, on Fashion-MNIST.

    python scripts/judge_switchable.py [--network resnet8|resnet14|mobilenet] [--seeds N] [--epochs N] [--train N]
                                       [--ways a,b] [--quantizers a,b] [--out FOLDER]

Four networks, with weights and activations of 32 or 2 bits, stem and head at 32. They share weights
(`nas/training/switchable.py`) and learn from the `labels` or, those of few bits, from the one at full precision
(`distilled`); with `one_normalisation` they share the normalisation as well. `alone` are four networks of the same
recipe and as many epochs, each trained by itself. All are judged on the images that none was trained on.

Results go to `FOLDER/switchable_<network>.json` (docs/results) after each training, so that a run that was stopped
goes on. Prints errors in percent, means over seeds with half their 95 % interval, and how far each way is above
`alone`, seed by seed. Takes about half an hour on one core.

Source of the question: Guerra Fernandez, thesis (Monash 2024), tables 5.1, 5.3 and 5.8.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.progress_view import clock
from hw_models.discover import unknown
from hw_models.errors import InputError
from nas import disk
from nas.comparison import spread
from nas.data import split
from nas.data_source import load
from nas.evaluators.standalone import count_mistakes
from nas.training import standalone, switchable
from nas.training.recipe import Recipe
from nas.training.standalone import Images
from nas.training.switches import Switch, Switches, genes_of
from nas.training.switching import Distillation
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.depthwise_separable import DepthwiseSeparable
from search_spaces.blocks.residual import Residual
from search_spaces.precision import Scheme, with_bits
from search_spaces.space import SearchSpace, Stage

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SWITCHES = (Switch(32, 32), Switch(2, 2), Switch(2, 32), Switch(32, 2))
WAYS = ("alone", "labels", "distilled", "one_normalisation")
HELD = 2000  # images of the training set that are kept for judging, beside those of the test


class Settings(NamedTuple):
    """What results belong to."""

    network: str = "resnet8"
    epochs: int = 20
    train: int = 6000
    batch: int = 64
    learning_rate: float = 0.1
    quantizers: str = "dorefa,dorefa[signed=False]"

    @property
    def recipe(self) -> Recipe:
        """How all of them are trained."""
        return Recipe(self.epochs, self.batch, self.learning_rate, weight_decay=1e-4, smoothing=0.0)


def space_of(network: str, quantizers: str) -> SearchSpace:
    """The four networks: a residual one of 8 or 14 layers, or depthwise separable convolutions.

    Raises:
        InputError: another name, or quantizers that are not two.

    Example:
        >>> space_of("resnet8", "symmetric,affine").size
        64
    """
    stages: tuple[Stage, ...]
    if network in ("resnet8", "resnet14"):
        depth = 1 if network == "resnet8" else 2
        stages = tuple(Stage(Residual(), width, depth, 1 + (width > 16)) for width in (16, 32, 64))
    elif network == "mobilenet":
        block = DepthwiseSeparable()
        stages = (Stage(block, 32), Stage(block, 64, 2, 2), Stage(block, 128, 2, 2))
    else:
        raise unknown("network", network, ("resnet8", "resnet14", "mobilenet"))
    names = quantizers.split(",")
    if len(names) != 2:
        raise InputError(f"quantizers={quantizers} is not allowed: give one of weights and one of activations")
    plain = SearchSpace(network, 28, 1, 10, Stage(ConvNorm(), 16, stride=2), stages, Classifier())
    # the thesis leaves the first and the last layer as they are (section 5.4), and has one scale for a layer
    return with_bits(plain, "w2/32a2/32", 32, Scheme(names[0], names[1], granularity="tensor"))


def parts(settings: Settings, seed: int) -> tuple[Images, Images]:
    """Images to train on, and those to judge by: of the training set what is held back, and all of the test."""
    found = split(load("fashion_mnist_10k"), HELD, seed, settings.train)
    images = np.concatenate([found.validation_images, found.test_images])
    labels = np.concatenate([found.validation_labels, found.test_labels])
    return Images.of(found), Images(images, labels, found.mean, found.std)


def trained(settings: Settings, way: str, switch: int, seed: int) -> dict[str, Any]:
    """Errors of all four networks trained one `way`, or of the one with number `switch` trained `alone`; seconds."""
    space, (data, judged) = space_of(settings.network, settings.quantizers), parts(settings, seed)
    genes, key, began = genes_of(space, SWITCHES), jax.random.key(seed), time.monotonic()

    def report(epoch: int, loss: float) -> None:
        print(f"  epoch {epoch + 1} of {settings.epochs}: loss {loss:.4f}", flush=True)

    if way == "alone":
        frozen = space.freeze(genes[switch])
        variables = standalone.train(frozen, data, settings.recipe, key, report=report)
        wrong = count_mistakes(frozen, variables, judged.images, judged.labels, data)
        errors = [wrong / len(judged.labels)]
    else:
        of = Switches.of(space, genes, private=way != "one_normalisation")
        taught = Distillation() if way == "distilled" else None
        state = switchable.train(of, data, settings.recipe, key, report=report, distillation=taught)
        errors = switchable.evaluate(of, state, judged).tolist()
    return {"errors": errors, "seconds": round(time.monotonic() - began, 1)}


class Kept:
    """Results by task, on the disk after each.

    Raises:
        InputError: the file cannot be read, or holds results of other settings.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.path = folder / f"switchable_{settings.network}.json"
        mine = {**settings._asdict(), "switches": [list(switch) for switch in SWITCHES]}
        self.rows: dict[str, Any] = {"settings": mine}
        if self.path.is_file():
            with disk.explained(self.path, "read"):
                found = self.path.read_text()
            try:
                self.rows = json.loads(found)
            except ValueError as error:
                raise InputError(f"{self.path} is no JSON ({error}): remove it, or give another --out") from None
            if self.rows["settings"] != mine:
                raise InputError(
                    f"{self.path} holds results of {self.rows['settings']}, asked for are {mine}: give the same "
                    "settings, or another --out"
                )

    def add(self, task: str, result: dict[str, Any]) -> None:
        """Keep the result of a task; the file is the old one or the new one at any time."""
        self.rows[task] = result
        lines = [f"{json.dumps(key)}: {json.dumps(self.rows[key])}" for key in sorted(self.rows)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(self.path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def tasks(ways: list[str], seeds: int) -> list[tuple[str, int, int]]:
    """All trainings as `(way, switch, seed)`, seed by seed; the switch matters to those alone.

    Example:
        >>> tasks(["alone", "labels"], 1)[3:]
        [('alone', 3, 0), ('labels', 0, 0)]
    """
    return [
        (way, switch, seed)
        for seed in range(seeds)
        for way in ways
        for switch in range(len(SWITCHES) if way == "alone" else 1)
    ]


def name_of(way: str, switch: int, seed: int) -> str:
    """The key of a task.

    Example:
        >>> name_of("alone", 1, 0), name_of("labels", 0, 2)
        ('alone/2/2/0', 'labels/2')
    """
    bits = f"/{SWITCHES[switch].weight_bits}/{SWITCHES[switch].act_bits}" if way == "alone" else ""
    return f"{way}{bits}/{seed}"


def errors_of(rows: dict[str, Any], way: str) -> np.ndarray:
    """Errors in percent of the seeds that are complete, `[seeds, switches]`.

    Example:
        >>> errors_of({"labels/0": {"errors": [0.1, 0.2, 0.2, 0.3]}}, "labels").tolist()
        [[10.0, 20.0, 20.0, 30.0]]
    """
    found = []
    for seed in range(len(rows)):
        names = [name_of(way, switch, seed) for switch in range(len(SWITCHES) if way == "alone" else 1)]
        if not all(name in rows for name in names):
            break
        found.append([100 * error for name in names for error in rows[name]["errors"]])
    return np.asarray(found).reshape(-1, len(SWITCHES))


def cell(values: Any, sign: str = "") -> str:
    """Mean with half its 95 % interval over seeds.

    Example:
        >>> cell([1.0, 2.0, 3.0])
        '2.00 ± 2.48'
    """
    if not len(values):
        return ""
    mean, low, high, _ = spread(values)
    return f"{mean:{sign}.2f}" + ("" if np.isnan(low) else f" ± {(high - low) / 2:.2f}")


def table(rows: dict[str, Any], ways: list[str]) -> str:
    """The table in Markdown; its last line is the mean of the switches of few bits."""
    errors = {way: errors_of(rows, way) for way in ways}
    others = [way for way in ways if way != "alone"]
    header = ["weights / activations", *ways, *(f"{way} above alone" for way in others if "alone" in ways)]
    picked = [(f"{switch.weight_bits} / {switch.act_bits}", [place]) for place, switch in enumerate(SWITCHES)]
    picked.append(("mean of few bits", list(range(1, len(SWITCHES)))))
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for name, places in picked:
        means = {way: found[:, places].mean(1) for way, found in errors.items()}
        cells = [name, *(cell(means[way]) for way in ways)]
        for way in others if "alone" in ways else ():
            seeds = min(len(means[way]), len(means["alone"]))
            cells.append(cell(means[way][:seeds] - means["alone"][:seeds], "+"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, and print the table."""
    usual = Settings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=usual.network)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=usual.epochs)
    parser.add_argument("--train", type=int, default=usual.train, help="images (%(default)s)")
    parser.add_argument("--ways", default="alone,labels,distilled", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--quantizers", default=usual.quantizers, help="of weights and activations (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    ways = asked.ways.split(",")
    for way in ways:
        if way not in WAYS:
            raise unknown("way", way, WAYS)
    settings = Settings(asked.network, asked.epochs, asked.train, quantizers=asked.quantizers)
    kept = Kept(asked.out, settings)
    missing = [task for task in tasks(ways, asked.seeds) if name_of(*task) not in kept.rows]
    began = time.monotonic()
    for number, task in enumerate(missing, 1):
        print(name_of(*task), flush=True)
        kept.add(name_of(*task), trained(settings, *task))
        left = clock((time.monotonic() - began) / number * (len(missing) - number))
        print(f"{name_of(*task)}: {number} of {len(missing)} done, about {left} left", flush=True)
    print(table(kept.rows, ways))


if __name__ == "__main__":
    main()
