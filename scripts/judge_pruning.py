"""How much of a residual network pruning leaves, and what it costs in error, on the shipped part of Fashion-MNIST.

    python scripts/judge_pruning.py [--out FOLDER] [--depth 1|2] [--epochs N] [--tuning N] [--methods a,b] [--tasks N]

The network is a residual network in the style of CIFAR (16, 32 and 64 channels, `--depth` blocks each: ResNet-8 or
ResNet-14, padded shortcuts) on 28x28 images. Judged are

    dense         trained for `--epochs`, and then fine-tuned like the others; the lower error counts for the goal
    psp/<kind>    parameterized structured pruning, weights and gates from scratch for `--epochs`, then, gates folded
                  and zeros kept, fine-tuned for `--tuning` as the others are; the error before that is given too
    <method>/<d>  filters of the dense network pruned to density d, fine-tuned for `--tuning` epochs

Every task adds its row to `FOLDER/pruning.json` (docs/results), so that a run that was stopped goes on, and
`FOLDER/pruning.md` is written from what there is. `--tasks` ends after so many. Printed for each are the error on the
test images, parameters and multiply-accumulates that are left (zeros of structures counted as gone; of filters what the
smaller network has), and the factors of both. The dissertation's table 6.1 has columns 4.64 and 5.30, channels 2.91 and
2.94, kernels 1.11 and 1.13, layers 1.85 and 1.89; its "MACs" are FLOPs there, which leaves the factors as they are.

The goal of the columns: at most 25 % of the parameters within 0.5 points of the dense error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from hw_models.errors import InputError
from nas import disk
from nas.data import Splits, split
from nas.data_source import load
from nas.evaluators.standalone import count_mistakes
from nas.plain import arrays_of, tree_from
from nas.pruning.counting import counted
from nas.pruning.masks import applied
from nas.pruning.methods import METHODS, prune
from nas.pruning.psp import Parameterization, train_parameterized
from nas.pruning.shrink import shrink
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.residual import Residual
from search_spaces.network import fresh
from search_spaces.space import SearchSpace, Stage

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SCRATCH = Path(__file__).resolve().parent.parent / "runs" / "pruning"
DATA, VALIDATION, BATCH = "fashion_mnist_10k", 1000, 64
KINDS = ("column", "input_channel", "kernel", "layer")
FILTERS = ("filter_l1", "filter_l2", "network_slimming", "group_lasso", "apoz", "soft_filter", "geometric_median",
           "snip", "random")  # fmt: skip
DENSITIES = (0.5, 0.25)
# The exponent by which gates shrink over a whole training if nothing holds them: the sum of the learning rates over
# 1 - momentum, times l2, which is what l2 is chosen by. Columns keep 83, 23, 13 and 9 % of the parameters in six epochs
# at exponents of 1.5, 2.2, 3.5 and 6; at eps=0.2 a gate that nothing holds is gone from 1.6 on.
DECAY = 2.2
TUNING_RATE, FIRST_RATE = 0.02, 0.05  # of fine-tuning, and of the training of a method before it prunes
GOAL_SHARE, GOAL_POINTS = 0.25, 0.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """What results depend on; a file holds those of one set of settings."""

    depth: int = 1
    epochs: int = 30
    tuning: int = 8
    images: int = 7000
    eps: float = 0.2
    decay: float = DECAY


def network(depth: int) -> SearchSpace:
    """The residual network of `6 * depth + 2` layers.

    Example:
        >>> network(1).params, network(2).params
        (75002, 172218)
    """
    stages = tuple(
        Stage(Residual(shortcut="pad"), width, depth, stride) for width, stride in ((16, 1), (32, 2), (64, 2))
    )
    return SearchSpace(f"resnet_{6 * depth + 2}", 28, 1, 10, Stage(ConvNorm(), 16), stages, Classifier())


def tasks(methods: list[str]) -> list[str]:
    """All there is to do, the dense network first.

    Example:
        >>> tasks(["filter_l1"])[-3:]
        ['psp/layer', 'filter_l1/0.5', 'filter_l1/0.25']
    """
    pruned = [f"{method}/{density}" for method in methods for density in DENSITIES]
    return ["dense", *(f"psp/{kind}" for kind in KINDS), *pruned]


def recipe_of(epochs: int, rate: float = 0.1) -> Recipe:
    """Of all trainings, which differ in epochs and learning rate."""
    return Recipe(epochs=epochs, batch=BATCH, learning_rate=rate, smoothing=0.0)


def gates_of(kind: str, settings: Settings) -> Parameterization:
    """Gates of all layers, with the l2 by which they would shrink by `decay`.

    Example:
        >>> round(gates_of("column", Settings()).l2, 6)
        0.001346
    """
    recipe, steps = recipe_of(settings.epochs), settings.epochs * (settings.images // BATCH)
    moved = recipe.learning_rate / 2 * steps / (1 - recipe.momentum)
    return Parameterization((kind,), eps=settings.eps, l2=settings.decay / moved, ends=False)


def dense(space: SearchSpace, data: Images, settings: Settings, scratch: Path) -> Any:
    """Variables of the dense network, from the disk if they were trained before."""
    path, template = scratch / f"{space.name}_{settings.epochs}_{settings.images}.npz", fresh(space, jax.random.key(0))
    if path.is_file():
        with np.load(path) as found:
            return tree_from(template, dict(found))
    variables = train(space, data, recipe_of(settings.epochs), jax.random.key(0))
    scratch.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays_of(variables))
    return variables


def row(task: str, space: SearchSpace, splits: Splits, settings: Settings, scratch: Path) -> dict[str, Any]:
    """One network: error in percent, what is left of it, seconds."""
    data, began, key = Images.of(splits), time.monotonic(), jax.random.key(1)
    small, whole, before = space, counted(space, None), None
    if task == "dense":
        variables, left = dense(space, data, settings, scratch), whole
        before = count_mistakes(space, variables, splits.test_images, splits.test_labels, data)
        variables = train(space, data, recipe_of(settings.tuning, TUNING_RATE), jax.random.key(2), variables)
    elif task.startswith("psp/"):
        of = gates_of(task.removeprefix("psp/"), settings)
        made = train_parameterized(space, data, recipe_of(settings.epochs), key, of)
        left, within = made.kept, Partial(applied, made.masks)
        before = count_mistakes(space, made.variables, splits.test_images, splits.test_labels, data)
        variables = train(
            space, data, recipe_of(settings.tuning, TUNING_RATE), jax.random.key(2), made.variables, constrain=within
        )
    else:
        method, _, density = task.partition("/")
        start, tuning = dense(space, data, settings, scratch), recipe_of(settings.tuning, TUNING_RATE)
        pruned = prune(
            space, start, data, method, float(density), recipe=tuning, key=key, structure="output_channel",
            first=recipe_of(settings.tuning, FIRST_RATE),
        )  # fmt: skip
        small, variables = shrink(space, pruned.variables, pruned.masks)
        left = counted(small, None)
    wrong = count_mistakes(small, variables, splits.test_images, splits.test_labels, data)
    return {
        "error_percent": round(100 * wrong / len(splits.test_labels), 3),
        "before_percent": None if before is None else round(100 * before / len(splits.test_labels), 3),
        "params": left.kept_params,
        "macs": left.kept_macs,
        "params_share": round(left.kept_params / whole.params, 4),
        "macs_share": round(left.kept_macs / whole.macs, 4),
        "seconds": round(time.monotonic() - began, 1),
    }


def page(rows: dict[str, Any], settings: Settings) -> str:
    """The table in Markdown, and whether the columns reach their goal.

    Example:
        >>> page({}, Settings()).splitlines()[0]
        '# Pruning of ResNet-8 on 8,000 images of Fashion-MNIST'
    """
    lines = [
        f"# Pruning of ResNet-{6 * settings.depth + 2} on 8,000 images of Fashion-MNIST",
        "",
        f"{settings.images:,} training images, {settings.epochs} epochs of training, {settings.tuning} of fine-tuning, "
        "one seed. Written by `scripts/judge_pruning.py`.",
        "",
        "| network | test error, % | before tuning | parameters | MACs | share of parameters | factors | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, of in rows.items():
        left = f"{of['params']:,} | {of['macs']:,} | {of['params_share']:.1%}"
        factors = f"{1 / of['params_share']:.2f} / {1 / of['macs_share']:.2f}"
        before = "" if of["before_percent"] is None else f"{of['before_percent']:.2f}"
        lines.append(f"| {task} | {of['error_percent']:.2f} | {before} | {left} | {factors} | {of['seconds']:.0f} |")
    if "dense" in rows and "psp/column" in rows:
        whole = (rows["dense"]["error_percent"], rows["dense"]["before_percent"])
        above = rows["psp/column"]["error_percent"] - min(error for error in whole if error is not None)
        share = rows["psp/column"]["params_share"]
        said = "met" if above <= GOAL_POINTS and share <= GOAL_SHARE else "missed"
        lines += ["", f"Columns: {share:.1%} of the parameters at {above:+.2f} points; the goal, at most "
                  f"{GOAL_SHARE:.0%} within {GOAL_POINTS} points, is {said}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def stored(path: Path, settings: Settings) -> dict[str, Any]:
    """Rows that are there already.

    Raises:
        InputError: they belong to other settings.
    """
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    if found["settings"] != dataclasses.asdict(settings):
        raise InputError(
            f"{path} holds results of {found['settings']}: give the same settings, or another folder with --out"
        )
    return dict(found["rows"])


def main(given: list[str] | None = None) -> None:
    """Do what is missing, write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="for the weights of the dense network")
    parser.add_argument("--methods", default=",".join(FILTERS))
    parser.add_argument("--tasks", type=int, default=10**6, help="end after so many")
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    asked = parser.parse_args(given)
    settings = Settings(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(Settings)})
    methods = asked.methods.split(",")
    if unknown := [name for name in methods if name not in METHODS]:
        raise InputError(f"unknown methods {', '.join(unknown)}: give some of {', '.join(METHODS)}")
    splits, space = split(load(DATA), VALIDATION, seed=0, train=settings.images), network(settings.depth)
    path = asked.out / "pruning.json"
    rows = stored(path, settings)
    missing = [task for task in tasks(methods) if task not in rows][: asked.tasks]
    for task in missing:
        rows[task] = row(task, space, splits, settings, asked.scratch)
        print(f"{task}: {rows[task]}", flush=True)
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(of)}" for name, of in rows.items())
        text = f'{{"settings": {json.dumps(dataclasses.asdict(settings))},\n"rows": {{\n{lines}\n}}}}\n'
        with disk.explained(asked.out):
            asked.out.mkdir(parents=True, exist_ok=True)
            disk.replace(path, text.encode())
            disk.replace(path.with_suffix(".md"), page(rows, settings).encode())
    print(page(rows, settings))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
