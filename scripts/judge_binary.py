"""Ways to train weights of 1 bit against each other, on a residual network and Fashion-MNIST.

    python scripts/judge_binary.py [--ways a/b] [--granularities a/b] [--seeds N] [--data NAME] [--train N] [--held N]
                                   [--epochs N] [--out FOLDER] [--work FOLDER]

A residual network is trained in float32, and from there with weights of 1 bit inside (activations, the first and the
last layer stay in float32), as `WAYS` lists them:

    binary         signs times their mean absolute value, straight-through gradients (BWN)
    APSQ           the same, and a penalty on the angle between weights and their signs: of the strength 5 that grows by
                   1.3 an epoch, or begins and grows as the name says, from 0 in equal parts of a step
    sphere         filters turn on unit spheres, no penalty
    sphere + APSQ  both
    not lazy, ...  weights stay exact, so that the penalty alone makes them binary; then they are frozen as binary ones,
                   and normalisations are trained for three epochs more

each with one scale per output channel and per kernel. Settings are to be chosen by the `held` images of the training
set, which none was trained on, and reported by those of the test. Results go to `FOLDER/binary_<data>.json` after each
training, so that a run that was stopped goes on. Prints errors in percent, means over seeds with half their 95 %
interval, and how far each way is above `binary`, seed by seed. A training takes half a minute on one core.

Source of the question: Guerra Fernandez, thesis (Monash 2024), tables 6.1 and 7.1, sections 6.4.3, 6.4.5, 6.5, 7.5.1.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
from judge_switchable import RESULTS, cell, space_of

from experiments.progress_view import clock
from hw_models.discover import unknown
from nas import disk
from nas.data import split
from nas.data_source import load
from nas.evaluators.standalone import count_mistakes
from nas.training.angle import AnglePenalty, bn_only
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.precision import GRANULARITIES, Scheme, with_bits, without_bits
from search_spaces.space import SearchSpace


class Way(NamedTuple):
    """How binary weights are trained; `penalty` are options of `AnglePenalty`, `norms` epochs of normalisations."""

    penalty: dict[str, float] | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    lazy: bool = True
    norms: int = 0


WAYS = {
    "binary": Way(),
    "APSQ": Way({"first": 5.0, "factor": 1.3}),
    "sphere": Way(optimizer="sphere"),
    "sphere + APSQ": Way({"first": 5.0, "factor": 1.3}, "sphere"),
    "APSQ, first 0.5": Way({"first": 0.5}),
    "APSQ, first 0.05": Way({"first": 0.05}),
    "APSQ, first 0.05 x 2.2": Way({"first": 0.05, "factor": 2.2}),  # grows in 10 epochs as the source's in 30
    "APSQ, 0 to 1": Way({"first": 0.0, "last": 1.0}),
    "APSQ, 0 to 5": Way({"first": 0.0, "last": 5.0}),
    "APSQ, not lazy, then norms": Way({"first": 0.5, "factor": 2.2}, lazy=False, norms=3),
    "binary, rate 0.01": Way(learning_rate=0.01),
    "APSQ, 0 to 5, rate 0.01": Way({"first": 0.0, "last": 5.0}, learning_rate=0.01),
}
USUAL = "binary/APSQ/sphere/sphere + APSQ"


class Judged(NamedTuple):
    """Images to train on, and those to choose and to report by."""

    data: Images
    held: Images
    test: Images

    @classmethod
    def of(cls, name: str, train: int, held: int, seed: int) -> Judged:
        """Parts of the data set of that name; the seed draws all but those of the test."""
        found = split(load(name), held, seed, train)
        data = Images.of(found)
        others = data._replace(images=found.validation_images, labels=found.validation_labels)
        return cls(data, others, data._replace(images=found.test_images, labels=found.test_labels))

    def errors(self, network: Any, variables: Any) -> dict[str, float]:
        """Errors in percent on the images that are held back and on those of the test."""
        return {
            name: 100 * count_mistakes(network, variables, part.images, part.labels, self.data) / len(part.labels)
            for name, part in (("held", self.held), ("test", self.test))
        }


def network() -> SearchSpace:
    """The residual network of 8 layers, in float32.

    Example:
        >>> network().frozen
        True
    """
    space = space_of("resnet8", "symmetric,affine")
    return without_bits(space.freeze([0] * space.num_decisions))


def frozen_weights(params: Any) -> Any:
    """`params` of which only normalisations have gradients."""
    return jax.tree.map(lambda leaf, on: leaf if on else jax.lax.stop_gradient(leaf), params, bn_only(params))


def trained(way: Way, granularity: str, data: Images, start: Any, epochs: int, seed: int) -> tuple[SearchSpace, Any]:
    """The network with binary weights and its variables, from those in float32."""
    plain, key = network(), jax.random.key(1000 + seed)
    binary = with_bits(plain, "w1a32", 32, Scheme("apsq", "affine", granularity))
    used = binary if way.lazy else with_bits(plain, "w1a32", 32, Scheme("apsq[lazy=False]", "affine", granularity))
    recipe = Recipe(epochs, 64, way.learning_rate, weight_decay=1e-4, smoothing=0.0, optimizer=way.optimizer)
    penalty = None if way.penalty is None else AnglePenalty(1, granularity, epochs=epochs, **way.penalty)
    variables = train(used, data, recipe, key, start, penalty=penalty)
    if way.norms:
        last = Recipe(way.norms, 64, 0.01, weight_decay=0.0, smoothing=0.0)
        variables = train(binary, data, last, jax.random.key(2000 + seed), variables, constrain=frozen_weights)
    return binary, variables


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Rows by seed and name in Markdown; of every name the seeds that have it.

    Example:
        >>> binary, other = {"held": 12.0, "test": 13.0}, {"held": 11.5, "test": 12.0}
        >>> rows = {"0": {"binary, by kernel": binary, "APSQ, by kernel": other}}
        >>> print(table(rows).splitlines()[-1])
        | APSQ, by kernel | 11.50 | 12.00 | -1.00 |
    """
    lines = ["| weights | error held back, % | error, % | above binary, points |", "|---|---|---|---|"]
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        beside = f"binary, by {name.rpartition(' ')[2]}"
        found = [row[name] for row in rows.values() if name in row]
        above = [row[name]["test"] - row[beside]["test"] for row in rows.values() if name in row and beside in row]
        held, test = (cell([each[part] for each in found]) for part in ("held", "test"))
        lines.append(f"| {name} | {held} | {test} | {cell(above, '+') if name != beside else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=USUAL, help=f"of {'/'.join(WAYS)}")
    parser.add_argument("--granularities", default="channel/kernel")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--train", type=int, default=6000, help="images (%(default)s)")
    parser.add_argument("--held", type=int, default=10_000, help="images to choose by (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="in float32, and as many after it (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/judge_binary"), help="for the networks in float32")
    asked = parser.parse_args()
    for given, known in ((asked.ways, tuple(WAYS)), (asked.granularities, GRANULARITIES)):
        for each in given.split("/"):
            if each not in known:
                raise unknown("way or granularity", each, known)
    name = Path(asked.data.partition("[")[0]).name
    file, began = asked.out / f"binary_{name}.json", time.monotonic()
    settings = {name: getattr(asked, name) for name in ("data", "train", "held", "epochs")}
    kept = json.loads(file.read_text()) if file.is_file() else {}
    rows: dict[str, dict[str, dict[str, float]]] = kept.get("seeds", {}) if kept.get("settings") == settings else {}
    wanted = [(way, kind) for kind in asked.granularities.split("/") for way in asked.ways.split("/")]
    for seed in range(asked.seeds):
        row = rows.setdefault(str(seed), {})
        missing = [each for each in wanted if "{}, by {}".format(*each) not in row]
        if not missing and "float32" in row:
            continue
        parts = Judged.of(asked.data, asked.train, asked.held, seed)
        recipe = Recipe(asked.epochs, 64, 0.1, weight_decay=1e-4, smoothing=0.0)
        start = train(network(), parts.data, recipe, jax.random.key(seed), checkpoint=asked.work / str(seed))
        row["float32"] = parts.errors(network(), start)
        for way, kind in missing:
            row[f"{way}, by {kind}"] = parts.errors(*trained(WAYS[way], kind, parts.data, start, asked.epochs, seed))
            file.parent.mkdir(parents=True, exist_ok=True)
            disk.replace(file, (json.dumps({"settings": settings, "seeds": rows}, indent=1) + "\n").encode())
            took = clock(time.monotonic() - began)
            print(f"[{took}] seed {seed}, {way}, by {kind}: {row[f'{way}, by {kind}']}", flush=True)
    print("\n" + table({seed: row for seed, row in rows.items() if int(seed) < asked.seeds}))


if __name__ == "__main__":
    main()
