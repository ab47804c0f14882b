"""A differentiable step of ours: gradients of the weights and of the gates, and one update of both.

A program: it reads `{"space", "batch", "form", "spend_s"}` from standard input and prints
`{"seconds", "compile_s", "recompilations"}`. `benchmark_nni` asks it. Forms: `all` is relaxed execution, where blocks
that share no weights run side by side and their results are mixed, as DARTS does; `two` runs two sampled branches at
every position and mixes these, as ProxylessNAS does (https://arxiv.org/abs/1812.00332, section 3.2.1). The second is
put together here, the package does not have it yet.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmark_kernels import seconds


def measure(question: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step, and of the first one, which compiles it."""
    from experiments.process import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from nas.testing_evaluators import Compilations
    from nas.training.loss import cross_entropy
    from nas.training.recipe import Recipe
    from search_spaces.supernet import Supernet
    from search_spaces.texts import resolve

    space = resolve(question["space"]).space
    supernet, batch, size = Supernet(space), question["batch"], space.image_hw
    optimizers = (
        Recipe(batch=batch, learning_rate=0.01, weight_decay=1e-4).update_rule(1000),
        optax.adam(3e-4, b1=0.5),
    )
    options = jnp.arange(int(space.cardinality.max())) < jnp.asarray(space.cardinality)[:, None]  # [D, C]

    def step(state: Any, x: Any, labels: Any, key: Any) -> Any:
        (params, logits), memories = state

        def loss_of(params: Any, logits: Any) -> Any:
            gates = jax.nn.softmax(jnp.where(options, logits, -jnp.inf))
            if question["form"] == "all":
                return cross_entropy(supernet.relaxed(params, x, gates), labels)
            return cross_entropy(_two_paths(supernet, params, x, gates, key), labels)

        loss, gradients = jax.value_and_grad(loss_of, argnums=(0, 1))(params, logits)
        updates = [
            rule.update(gradient, memory, value)
            for rule, gradient, memory, value in zip(optimizers, gradients, memories, (params, logits), strict=True)
        ]
        values = [optax.apply_updates(v, change) for v, (change, _) in zip((params, logits), updates, strict=True)]
        return (tuple(values), tuple(memory for _, memory in updates)), loss

    step = jax.jit(step, donate_argnums=0)
    params = {
        slot: {kind: {"params": jax.tree.map(jnp.copy, part["params"])} for kind, part in kinds.items()}
        for slot, kinds in supernet.init(jax.random.key(0)).items()
    }
    values = (params, 1e-3 * jax.random.normal(jax.random.key(1), options.shape))
    state = values, tuple(rule.init(value) for rule, value in zip(optimizers, values, strict=True))
    x = jax.random.normal(jax.random.key(2), (batch, size, size, space.input_channels))
    labels, key = jnp.arange(batch, dtype=jnp.int32) % space.classes, jax.random.key(3)

    def once() -> Any:
        nonlocal state, key
        key, now = jax.random.split(key)
        state, loss = step(state, x, labels, now)
        return loss

    began = time.perf_counter()
    first = float(once())
    compile_s = time.perf_counter() - began
    once()
    with Compilations() as compilations:
        spent = seconds(once, question["spend_s"])
    if not np.isfinite([first, float(once())]).all():
        raise RuntimeError("the loss is not finite")
    return {"seconds": spent, "compile_s": compile_s, "recompilations": len(compilations.events)}


def _two_paths(supernet: Any, params: Any, x: Any, gates: Any, key: Any) -> Any:
    """Logits with two branches at every position, drawn by their probability and weighted in proportion to it."""
    import jax
    import jax.numpy as jnp

    nothing = jnp.zeros(gates.shape[0], jnp.int32)
    for number, program in enumerate(supernet.programs):
        variables, pick = params[program.slot.name], program.pick(nothing)
        if len(program.branches) == 1:
            x = program.run(variables, x, pick, "train")
            continue
        # without fields inside the blocks what is mixed are the branches
        chance = program.mix(gates).branch
        noise = jax.random.gumbel(jax.random.fold_in(key, number), chance.shape)
        _, pair = jax.lax.top_k(jax.lax.stop_gradient(jnp.log(chance)) + noise, 2)

        def run(branch: Any, program: Any = program, variables: Any = variables, x: Any = x, pick: Any = pick) -> Any:
            return program.run(variables, x, pick._replace(branch=branch), "train")

        x = jnp.tensordot(chance[pair] / chance[pair].sum(), jax.lax.map(run, pair), 1)
    return x


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
