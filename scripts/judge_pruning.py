"""How much of a residual network pruning leaves, and what it costs in error, on Fashion-MNIST.

    python scripts/judge_pruning.py [--seeds N] [--methods a,b] [--only a,b] [--tasks N] [--out FOLDER] [--epochs N] ...

The network is a residual one in the style of CIFAR (three stages, `--depth` blocks each, padded shortcuts). Judged are

    dense           trained for `--epochs`, and then fine-tuned like the others; the lower error counts for the goal
    psp/<kind>      parameterized structured pruning, weights and gates from scratch for `--epochs`, then, gates folded
                    and zeros kept, fine-tuned for `--tuning` as the others are; the error before that is given too
    psp/<kind>/printed  the same with the gradient of equation 6.3 as it is printed
    <method>/<d>    filters of the dense network pruned to density d, fine-tuned for `--tuning` epochs

Every task adds its row to `FOLDER/pruning.json` (docs/results), so that a run that was stopped goes on, and
`FOLDER/pruning.md` is written from what there is. The dense network and the columns are trained with `--seeds` seeds,
each with training images of its own, all else with one. `--only` names tasks (other kinds too), `--tasks` ends after so
many. Printed for each are the error on the test images and on the validation images by which these settings were
chosen, parameters and multiply-accumulates that are left (zeros of structures counted as gone; of filters what the
smaller network has), and the factors of both. The dissertation's table 6.1 has columns 4.64 and 5.30, channels 2.91 and
2.94, kernels 1.11 and 1.13, layers 1.85 and 1.89; its "MACs" are FLOPs there, which leaves the factors as they are.

The goal of the columns: at most 25 % of the parameters within 0.5 points of the dense error.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from kept_results import rows_of, run_main
from search_summary import cell

from hw_models.discover import unknown
from nas import disk
from nas.data import split
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
from search_spaces.sparsity.structure_parameters import EXACT

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SCRATCH = Path(__file__).resolve().parent.parent / "runs" / "pruning"
VALIDATION, BATCH, SEEDS = 5000, 64, 3
GOAL_TASKS = ("dense", "psp/column")  # which are trained with all seeds
KINDS = ("column", "input_channel", "kernel", "layer")
FILTERS = ("filter_l1", "filter_l2", "network_slimming", "group_lasso", "apoz", "soft_filter", "geometric_median",
           "snip", "random")  # fmt: skip
DENSITIES = (0.5, 0.25)
# The exponent by which gates shrink over a whole training if nothing holds them: the sum of the learning rates over
# 1 - momentum, times l2, which is what l2 is chosen by. At eps=0.5 a gate that nothing holds is gone from 0.69 on; of
# the parameters 24 % are left with columns at 0.72, 18 % at 0.77. Chosen by validation images, of what was tried
# (docs/results/compression.md): the dissertation's eps of 0.2, dense weights to start from, rates of fine-tuning.
DECAY = 0.72
TUNING_RATE, FIRST_RATE = 0.02, 0.05  # of fine-tuning, and of the training of a method before it prunes
GOAL_SHARE, GOAL_POINTS = 0.25, 0.5
FIELDS = ("error_percent", "before_percent", "validation_percent", "params", "macs", "params_share", "macs_share",
          "seconds")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """What results depend on; a file holds those of one set of settings."""

    data: str = "fashion_mnist"
    images: int = 7000
    stages: int = 4
    depth: int = 1
    width: int = 24
    stride: int = 2
    epochs: int = 30
    tuning: int = 10
    eps: float = 0.5
    decay: float = DECAY


class Task(NamedTuple):
    """What is trained, and with which seed."""

    name: str
    seed: int


def layers(settings: Settings) -> int:
    """Layers of the network as they are counted in its name.

    Example:
        >>> layers(Settings(stages=3, depth=9))
        56
    """
    return 2 * settings.stages * settings.depth + 2


def network(settings: Settings) -> SearchSpace:
    """The residual network in the style of CIFAR, `width` channels in the first stage and twice as many in each next.

    Example:
        >>> network(Settings(stages=3, width=16, stride=1)).params, network(Settings()).params
        (75002, 667186)
    """
    # the fourth stage keeps maps of 4x4: where 3x3 kernels write 2x2, XLA takes ten times as long on CPUs
    stages = tuple(
        Stage(Residual(shortcut="pad"), settings.width * 2**number, settings.depth, 2 if number in (1, 2) else 1)
        for number in range(settings.stages)
    )
    stem = Stage(ConvNorm(), settings.width, stride=settings.stride)
    return SearchSpace(f"resnet_{layers(settings)}", 28, 1, 10, stem, stages, Classifier())


def tasks(methods: list[str], seeds: int) -> list[Task]:
    """All there is to do, what the goal is about first.

    Example:
        >>> [task.name for task in tasks(["filter_l1"], 2)]  # doctest: +NORMALIZE_WHITESPACE
        ['dense', 'psp/column', 'psp/input_channel', 'psp/kernel', 'psp/layer', 'filter_l1/0.5', 'filter_l1/0.25',
         'dense', 'psp/column']
    """
    pruned = [f"{method}/{density}" for method in methods for density in DENSITIES]
    names = ["dense", *(f"psp/{kind}" for kind in KINDS), *pruned]
    return [Task(name, 0) for name in names] + [Task(n, seed) for seed in range(1, seeds) for n in GOAL_TASKS]


def recipe_of(epochs: int, rate: float = 0.1) -> Recipe:
    """Of all trainings, which differ in epochs and learning rate."""
    return Recipe(epochs=epochs, batch=BATCH, learning_rate=rate, smoothing=0.0)


def gates_of(name: str, settings: Settings) -> Parameterization:
    """Gates of all layers, with the l2 by which they would shrink by `decay`; `name` is a kind, or kind/gradient.

    Example:
        >>> round(gates_of("column", Settings()).l2, 6)
        0.00044
    """
    kind, _, gradient = name.partition("/")
    recipe, steps = recipe_of(settings.epochs), settings.epochs * (settings.images // BATCH)
    moved = recipe.learning_rate / 2 * steps / (1 - recipe.momentum)
    return Parameterization((kind,), settings.eps, l2=settings.decay / moved, gradient=gradient or EXACT, ends=False)


def dense(space: SearchSpace, data: Images, settings: Settings, seed: int, scratch: Path) -> Any:
    """Variables of the dense network, from the disk if they were trained before."""
    about = "_".join(str(value) for value in dataclasses.astuple(settings)[:-2])  # all but what gates need
    path, template = scratch / f"dense_{about}_{seed}.npz", fresh(space, jax.random.key(0))
    if path.is_file():
        with np.load(path) as found:
            return tree_from(template, dict(found))
    variables = train(space, data, recipe_of(settings.epochs), jax.random.key(3 * seed))
    scratch.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays_of(variables))  # type: ignore[arg-type]
    return variables


def row(task: Task, settings: Settings, scratch: Path) -> dict[str, Any]:
    """One network: errors in percent, what is left of it, seconds."""
    space = network(settings)
    splits = split(load(settings.data), VALIDATION, task.seed, settings.images)
    data, began = Images.of(splits), time.monotonic()
    key, tuning_key = jax.random.key(3 * task.seed + 1), jax.random.key(3 * task.seed + 2)
    small, whole, before = space, counted(space, None), None
    tuning = recipe_of(settings.tuning, TUNING_RATE)

    def error(images: np.ndarray, labels: np.ndarray, variables: Any) -> float:
        return round(100 * count_mistakes(small, variables, images, labels, data) / len(labels), 3)

    kind, _, rest = task.name.partition("/")
    if kind in ("dense", "psp"):
        if kind == "dense":
            start, left, within = dense(space, data, settings, task.seed, scratch), whole, None
        else:
            made = train_parameterized(space, data, recipe_of(settings.epochs), key, gates_of(rest, settings))
            start, left, within = made.variables, made.kept, Partial(applied, made.masks)
        before = error(splits.test_images, splits.test_labels, start)
        variables = train(space, data, tuning, tuning_key, start, constrain=within)
    else:
        pruned = prune(
            space, dense(space, data, settings, task.seed, scratch), data, kind, float(rest), recipe=tuning, key=key,
            structure="output_channel", first=recipe_of(settings.tuning, FIRST_RATE),
        )  # fmt: skip
        small, variables = shrink(space, pruned.variables, pruned.masks)
        left = counted(small, None)
    return {
        "error_percent": error(splits.test_images, splits.test_labels, variables),
        "before_percent": before,
        "validation_percent": error(splits.validation_images, splits.validation_labels, variables),
        "params": left.kept_params,
        "macs": left.kept_macs,
        "params_share": round(left.kept_params / whole.params, 4),
        "macs_share": round(left.kept_macs / whole.macs, 4),
        "seconds": round(time.monotonic() - began, 1),
    }


def above_dense(rows: dict[str, Any], name: str) -> list[float]:
    """Points of error above the dense network's lower one, of the seeds that both have.

    Example:
        >>> rows = {"dense": {"0": {"error_percent": 9.0, "before_percent": 8.5}}, "x": {"0": {"error_percent": 9.0}}}
        >>> above_dense(rows, "x")
        [0.5]
    """
    whole, own = rows.get("dense", {}), rows.get(name, {})
    return [own[seed]["error_percent"] - min(whole[seed]["error_percent"], whole[seed]["before_percent"])
            for seed in own if seed in whole]  # fmt: skip


def page(rows: dict[str, Any], settings: Settings) -> str:
    """The table in Markdown, and whether the columns reach their goal.

    Example:
        >>> page({}, Settings()).splitlines()[0]
        '# Pruning of ResNet-10 on 7,000 images of Fashion-MNIST'
    """
    widths = ", ".join(str(settings.width * 2**number) for number in range(settings.stages))
    lines = [
        f"# Pruning of ResNet-{layers(settings)} on {settings.images:,} images of Fashion-MNIST",
        "",
        f"Stages of {widths} channels, {settings.stride} the stride of the first layer; "
        f"{settings.epochs} epochs of training, {settings.tuning} of fine-tuning. Where there are several seeds, means "
        "and 95 % intervals over them. Written by `scripts/judge_pruning.py`.",
        "",
        "| network | test error, % | before tuning | validation | parameters | MACs | share of parameters | factors | "
        "seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seeds in rows.items():
        found = {field: [of[field] for of in seeds.values() if of[field] is not None] for field in FIELDS}
        errors = " | ".join(cell(found[field], 2) for field in FIELDS[:3])
        params, macs, params_share, macs_share, seconds = (float(np.mean(found[field])) for field in FIELDS[3:])
        left = f"{params:,.0f} | {macs:,.0f} | {params_share:.1%}"
        lines.append(f"| {name} | {errors} | {left} | {1 / params_share:.2f} / {1 / macs_share:.2f} | {seconds:.0f} |")
    if above := above_dense(rows, "psp/column"):
        share = max(of["params_share"] for of in rows["psp/column"].values())
        said = "met" if np.mean(above) <= GOAL_POINTS and share <= GOAL_SHARE else "missed"
        lines += ["", f"Columns, {len(above)} of {SEEDS} seeds: at most {share:.1%} of the parameters at "
                  f"{cell(above, 2)} points above the dense network; the goal, at most {GOAL_SHARE:.0%} within "
                  f"{GOAL_POINTS} points, is {said}."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(given: list[str] | None = None) -> None:
    """Do what is missing, write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="for the weights of the dense network")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the dense network and the columns (%(default)s)")
    parser.add_argument("--methods", default=",".join(FILTERS))
    parser.add_argument("--only", help="names of tasks, in place of all")
    parser.add_argument("--tasks", type=int, default=10**6, help="end after so many")
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    asked = parser.parse_args(given)
    settings = Settings(**{field.name: getattr(asked, field.name) for field in dataclasses.fields(Settings)})
    wanted = tasks([name for name in asked.methods.split(",") if name], asked.seeds)
    if asked.only:
        names = asked.only.split(",")
        wanted = [Task(n, seed) for seed in range(asked.seeds) for n in names if not seed or n in GOAL_TASKS]
    for name, _ in wanted:
        check_task(name)
    path = asked.out / "pruning.json"
    rows = rows_of(path, dataclasses.asdict(settings))
    for task in [each for each in wanted if str(each.seed) not in rows.get(each.name, {})][: asked.tasks]:
        found = row(task, settings, asked.scratch)
        rows.setdefault(task.name, {})[str(task.seed)] = found
        print(f"{task.name}, seed {task.seed}: {found}", flush=True)
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(of)}" for name, of in rows.items())
        text = f'{{"settings": {json.dumps(dataclasses.asdict(settings))},\n"rows": {{\n{lines}\n}}}}\n'
        with disk.explained(asked.out):
            asked.out.mkdir(parents=True, exist_ok=True)
            disk.replace(path, text.encode())
            disk.replace(path.with_suffix(".md"), page(rows, settings).encode())
    print(page(rows, settings))


def check_task(name: str) -> None:
    """Raise InputError for what cannot be done, before anything is.

    Example:
        >>> check_task("psp/column"), check_task("filter_l1/0.5")
        (None, None)
    """
    kind, _, rest = name.partition("/")
    if kind == "psp":
        gates_of(rest, Settings())
    elif kind != "dense":
        if kind not in METHODS:
            raise unknown("method", kind, METHODS)
        if rest not in map(str, DENSITIES):
            raise unknown("density", rest, map(str, DENSITIES))


if __name__ == "__main__":
    run_main(main)
