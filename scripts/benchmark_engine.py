"""The two executions of a supernet on the machine at hand: a training step, and evaluating candidates.

`ours` is the switch with a loop over candidates, `peer` the masks with `vmap` over them; a ratio above 1 says that
masks are the faster there. On CPUs `execution="auto"` is the switch, elsewhere the masks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmark_rows import Row, row

SPACES = ("quickstart", "mobilenet_v3")
EXECUTIONS = ("switch", "masks")
CANDIDATES, BATCH, ROUNDS = 8, 64, 7


def rows(names: Sequence[str] = SPACES) -> list[Row]:
    """Milliseconds of either execution, by space: the first call (compilation included), and the mean of later ones.

    Both run the same networks in alternating rounds, so that what else the machine does slows both.
    """
    from experiments.process import keep_freed_memory

    keep_freed_memory()
    found = []
    for name in names:
        space = _space(name)
        ours, peer = (_calls(space, execution) for execution in EXECUTIONS)
        for what in ours:
            pairs = [(_ms(ours[what], number), _ms(peer[what], number)) for number in range(ROUNDS + 1)]
            found.append(row(f"{name}_{what}_first_ms", *pairs[0]))
            # networks differ in size, so that the mean counts
            means = (statistics.mean(side) for side in zip(*pairs[1:], strict=True))
            found.append(row(f"{name}_{what}_ms", *means))
    return found


def _space(name: str) -> Any:
    from search_spaces.spaces import mobilenet_v3, quickstart

    small: dict[str, Callable[[], Any]] = {
        "quickstart": quickstart.space,
        "mobilenet_v3": lambda: mobilenet_v3.space(input_hw=32, classes=10, width=0.5, resolutions=1),
    }
    return small[name]()


def _calls(space: Any, execution: str) -> dict[str, Callable[[int], Any]]:
    """What is measured, by name: the number of the round decides the networks."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    from nas.training.epoch import Clock
    from nas.training.parallel import Spread
    from nas.training.paths import paths
    from nas.training.recipe import Recipe
    from nas.training.shared import shared_step, started
    from search_spaces.supernet import Supernet, with_statistics

    supernet = Supernet(space, execution=execution)
    variables = supernet.init(jax.random.key(0))
    recipe = Recipe(batch=BATCH, learning_rate=0.01)
    step = shared_step(supernet, recipe, paths(space, "uniform"), 1000, Spread(None))
    params = {  # copies, because a step overwrites what it is given
        slot: {kind: {"params": jax.tree.map(jnp.copy, part["params"])} for kind, part in kinds.items()}
        for slot, kinds in variables.items()
    }
    weights = started(params, recipe, 1000)
    size = (BATCH, space.image_hw, space.image_hw, space.input_channels)
    images = jax.random.randint(jax.random.key(1), size, 0, 256).astype(jnp.uint8)
    pixels = np.float32([0.5]), np.float32([0.25])  # mean and deviation
    labels = jnp.arange(BATCH, dtype=jnp.int32) % space.classes
    x = images.astype(jnp.float32) / 255

    def one(variables: Any, genes: Any) -> Any:
        ready = with_statistics(variables, supernet.calibrate(variables, x, genes))
        return (supernet.apply(ready, x, genes, "eval").argmax(-1) != labels).mean()

    @jax.jit
    def evaluated(variables: Any, genes: Any) -> Any:
        if execution == "masks":
            return jax.vmap(one, (None, 0))(variables, genes)
        return lax.map(lambda row: one(variables, row), genes)

    def train(number: int) -> Any:
        nonlocal weights
        weights, loss = step(
            weights, images, labels, *pixels, jax.random.key(number), Clock(np.int32(0), np.float32(0))
        )
        return loss

    draw = jax.jit(lambda key: jax.vmap(space.sample)(jax.random.split(key, CANDIDATES)))
    populations = [draw(jax.random.key(number)) for number in range(ROUNDS + 1)]

    def evaluate(number: int) -> Any:
        return evaluated(variables, populations[number])

    return {f"train_step_of_{BATCH}": train, f"evaluate_{CANDIDATES}_candidates": evaluate}


def _ms(call: Callable[[int], Any], number: int) -> float:
    import jax

    began = time.perf_counter()
    jax.block_until_ready(call(number))
    return 1e3 * (time.perf_counter() - began)
