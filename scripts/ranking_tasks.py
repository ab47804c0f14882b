"""What `judge_ranking.py` has computed, one task to a process: networks trained alone, and supernets that rank them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.errors import InputError

SEEDS = (0, 1)  # of stand-alone trainings: two tell how far chance alone moves a ranking
BATCH = 64  # images of a step, as in the quickstart
SUPERNET_SEED = 0
# The rule and the passes of every image through networks of the supernet that the goal is asked of, chosen before there
# were results. 24 passes are a tenth of what 30 networks take with two seeds.
HEADLINE, PASSES = "uniform", 24


@dataclass(frozen=True)
class Settings:
    """What results depend on; a store holds those of one set of settings.

    Attributes:
        data: images that all networks are trained and tested on.
        networks: how many are drawn, uniformly over the genes of the space.
        epochs: of a stand-alone training.
        validation: images that nothing is trained on, beside the test images.
    """

    data: str = "fashion_mnist"
    networks: int = 30
    epochs: int = 4
    validation: int = 5000


def _halved(space: Any, stages: tuple[int, ...]) -> Any:
    """Maps are halved in the stem and at the first block of `stages`, and nowhere else.

    The spaces themselves keep the last strides and drop the first on small images, so that half of a network runs at
    28x28: up to three times the multiply-accumulates, and more than the quickstart's networks have.
    """
    others = tuple(
        dataclasses.replace(stage, stride=2 if place in stages else 1) for place, stage in enumerate(space.stages)
    )
    return dataclasses.replace(space, stem=dataclasses.replace(space.stem, stride=2), stages=others)


def _mobilenet_v3_of(resolutions: int) -> Any:
    from search_spaces.spaces import mobilenet_v3

    return mobilenet_v3.space(input_hw=28, input_channels=1, classes=10, width=0.15, resolutions=resolutions)


def _mobilenet_v3() -> Any:
    """Its published choices, resolution among them, with 1 to 3 blocks a stage.

    The last stage is not halved, for kernels of 7x7 reach beyond maps that would be 2x2 with images of 16x16.
    """
    from search_spaces.choice import Choice

    space = _halved(_mobilenet_v3_of(4), (1,))
    first, *others = space.stages
    return dataclasses.replace(
        space, stages=(first, *(dataclasses.replace(stage, depth=Choice(1, 2, 3)) for stage in others))
    )


def _mobilenet_v3_fixed() -> Any:
    """At one resolution, with the published 2 to 4 blocks: networks differ by less than two trainings of one do."""
    return _halved(_mobilenet_v3_of(1), (1, 5))


# of the stages after the first; 4 channels are a bottleneck that shows
WIDTHS = ((4, 8, 16), (4, 8, 16), (8, 16, 32), (8, 16, 32), (8, 24, 48))


def _mobilenet_v3_wide() -> Any:
    """With `WIDTHS`, expansions of 1, 3 or 6 and one to three equal blocks to choose from after the first stage.

    Few decisions of great effect: with many small ones, networks drawn uniformly are alike.
    """
    from search_spaces.choice import Choice

    space = _mobilenet_v3_fixed()
    first, *others = space.stages
    stages = [first]
    for stage, allowed in zip(others, WIDTHS, strict=True):
        block = dataclasses.replace(stage.block, expand=Choice(1, 3, 6))
        stages.append(
            dataclasses.replace(stage, block=block, width=Choice(*allowed), depth=Choice(1, 2, 3), shared=True)
        )
    return dataclasses.replace(space, stages=tuple(stages))


def _flynet() -> Any:
    """Its choices of each block and width, with 1 to as many blocks as are published, at the same resolutions."""
    from search_spaces.choice import Choice
    from search_spaces.spaces import flynet

    space = _halved(flynet.space(input_hw=28, input_channels=1, classes=10, width=0.25), (1,))
    stages = tuple(
        dataclasses.replace(stage, depth=Choice(*range(1, stage.depth + 1)) if stage.depth > 1 else 1)
        for stage in space.stages
    )
    return dataclasses.replace(space, stages=stages, input_hw=_mobilenet_v3_of(4).input_hw)


SPACES: dict[str, Callable[[], Any]] = {
    "mobilenet_v3": _mobilenet_v3,
    "flynet": _flynet,
    "mobilenet_v3_wide": _mobilenet_v3_wide,
    "mobilenet_v3_fixed": _mobilenet_v3_fixed,
}


def genes_of(space: Any, count: int) -> np.ndarray:
    """The first `count` of the networks that are judged: int `[count, D]`, the same ones for any count."""
    import jax

    key = jax.random.key(0)
    return np.stack([np.asarray(space.sample(jax.random.fold_in(key, number))) for number in range(count)])


def splits_of(settings: Settings) -> Any:
    """The images that networks and supernets are trained and judged on."""
    from nas.data import split
    from nas.data_source import load

    return split(load(settings.data), settings.validation, seed=0)


def alone(name: str, number: int, settings: Settings) -> dict[str, Any]:
    """Mistakes of network `number` after training from scratch, once for each of `SEEDS`.

    Both trainings share one compiled program. Plain augmentation and no smoothing: so short a training underfits.
    """
    import jax

    from nas.data import resized
    from nas.evaluators.standalone import count_mistakes
    from nas.training.recipe import Recipe
    from nas.training.standalone import Images, train

    space = SPACES[name]()
    genes = genes_of(space, number + 1)[number]
    network = space.freeze(genes)
    splits = resized(splits_of(settings), network.image_hw)
    images = Images.of(splits)
    recipe = Recipe(settings.epochs, BATCH, learning_rate=0.1, weight_decay=1e-4, smoothing=0.0, shift=0)
    found: dict[str, list[int]] = {"validation": [], "test": []}
    watched = _Watched()
    for seed in SEEDS:
        key = jax.random.fold_in(jax.random.key(seed), number)
        variables = train(network, images, recipe, key, report=watched)
        for part, mistakes in found.items():
            x, y = getattr(splits, f"{part}_images"), getattr(splits, f"{part}_labels")
            mistakes.append(count_mistakes(network, variables, x, y, images))
    return {
        "genes": genes.tolist(),
        "params": int(network.params),
        "macs": int(network.macs),
        "of": {part: len(getattr(splits, f"{part}_labels")) for part in found},
        **found,
        "cpu_s": round(time.process_time()),
    }


class _Watched:
    """Called after every epoch; ends the process once whoever started it is gone, for nobody would read its result."""

    def __init__(self) -> None:
        self.parent = os.getppid()

    def __call__(self, *ignored: Any) -> None:
        if os.getppid() != self.parent:
            raise SystemExit("the process that wanted this result has ended")


def shared(
    name: str, rule: str, passes: int, settings: Settings, scratch: Path, learning_rate: float | None = None
) -> dict[str, Any]:
    """Mistakes that a supernet sees in the same networks, with its weights trained by `rule` on the same images.

    `passes` is how often an image goes through a network, so that rules cost about the same: one that runs four
    networks in a step gets a quarter of the epochs. Everything is as the evaluator has it, unless a `learning_rate` is
    given. The state is kept after every epoch in a folder below `scratch`.
    """
    import jax

    from nas.evaluators import supernet
    from nas.training.checkpoints import Checkpoints
    from nas.training.paths import paths

    space, splits = SPACES[name](), splits_of(settings)
    genes = genes_of(space, settings.networks)
    networks = len(paths(space, rule).weights)
    epochs = max(1, round(passes / networks))
    by_part = {
        "validation": splits,
        "test": dataclasses.replace(
            splits, validation_images=splits.test_images, validation_labels=splits.test_labels
        ),
    }  # fmt: skip
    rate = {} if learning_rate is None else {"learning_rate": learning_rate}
    judges = {
        part: supernet.evaluator(space, data=images, epochs=epochs, batch=BATCH, paths=rule, chunk=len(genes), **rate)
        for part, images in by_part.items()
    }
    judge, key = judges["validation"], jax.random.key(SUPERNET_SEED)
    whose = {"space": space.fingerprint, "key": SUPERNET_SEED, **judge.describe}
    folder = scratch / " ".join([name, *shared_task(rule, passes, learning_rate).split("/")])
    kept = Checkpoints(folder, whose)
    done, state = kept.restored(judge.init(key))
    watched, began, loss = _Watched(), time.monotonic(), None
    for epoch in range(done, epochs):
        state, metrics = judge.train(jax.random.fold_in(key, epoch), state)
        loss = metrics["loss"]
        kept.save(epoch + 1, state)
        left = (time.monotonic() - began) / (epoch + 1 - done) * (epochs - epoch - 1)
        print(f"{rule}: epoch {epoch + 1} of {epochs}, loss {loss:.4f}, {left / 60:.0f} min left", file=sys.stderr)
        watched()
    found = {}
    for part, images in by_part.items():
        errors = judges[part].evaluate(key, state, genes, np.arange(len(genes))).error
        found[part] = np.rint(np.asarray(errors, np.float64) * len(images.validation_labels)).astype(int).tolist()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "rule": rule,
        "epochs": epochs,
        "networks_per_step": networks,
        "learning_rate": judge.describe["learning_rate"],
        "loss": loss,
        "of": {part: len(images.validation_labels) for part, images in by_part.items()},
        **found,
        "cpu_s": round(time.process_time()),  # since the last time it was started
    }


def shared_task(rule: str, passes: int, learning_rate: float | None) -> str:
    """The name of the task that trains and asks a supernet.

    Example:
        >>> shared_task("uniform", 24, None), shared_task("uniform", 24, 0.1)
        ('shared/uniform/24', 'shared/uniform/24/0.1')
    """
    rate = "" if learning_rate is None else f"/{np.format_float_positional(learning_rate, trim='-')}"
    return f"shared/{rule}/{passes}{rate}"


def run(name: str, task: str, settings: Settings, scratch: Path) -> dict[str, Any]:
    """The result of a task by its name: `alone/7`, `shared/uniform/24`, or `shared/uniform/24/0.1`."""
    match task.split("/"):
        case ["alone", number] if number.isdigit() and int(number) < settings.networks:
            return alone(name, int(number), settings)
        case ["shared", rule, passes] if passes.isdigit():
            return shared(name, rule, int(passes), settings, scratch)
        case ["shared", rule, passes, rate] if passes.isdigit() and rate.replace(".", "", 1).isdigit():
            return shared(name, rule, int(passes), settings, scratch, float(rate))
    raise InputError(f"task '{task}' is not known: give alone/NUMBER or shared/RULE/PASSES[/LEARNING_RATE]")
