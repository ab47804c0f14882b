"""QDax: NSGA-II as one compiled program, on `genes45` in JAX. See `conversation.py` for the question.

Further settings: {"population"}; further answers: {"compile_s"}. Genotypes are numbers from 0 to 1, a gene is the third
that its number lies in. Half of the offspring are crossed, half mutated, by its own operators, with the settings that
found most among seven tried.
"""

import json
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import search_genes45
from qdax.baselines.nsga2 import NSGA2
from qdax.core.emitters.mutation_operators import polynomial_crossover, polynomial_mutation
from qdax.core.emitters.standard_emitters import MixingEmitter


def scores(genotypes, key):
    """Fitness, which QDax maximises. `[P, D] -> [P, 2]`"""
    genes = jnp.clip((genotypes * 3).astype(jnp.int32), 0, 2)
    return -search_genes45.evaluate(genes), {}


def main():
    """Compile once, then search with every seed."""
    question = json.loads(sys.stdin.readline())
    size, count = question["population"], question["evaluations"]
    emitter = MixingEmitter(
        mutation_fn=partial(polynomial_mutation, proportion_to_mutate=0.1, eta=1.0, minval=0.0, maxval=1.0),
        variation_fn=partial(polynomial_crossover, proportion_var_to_change=0.5),
        variation_percentage=0.5,
        batch_size=size,
    )
    algorithm = NSGA2(scoring_function=scores, emitter=emitter, metrics_function=lambda repertoire: {})

    def step(carry, key):
        # `algorithm.update` in its parts, because the fitness of every offspring is wanted and it returns survivors
        repertoire, state = carry
        emit_key, score_key = jax.random.split(key)
        genotypes, _ = emitter.emit(repertoire, state, emit_key)
        fitness, _ = scores(genotypes, score_key)
        return (repertoire.add(genotypes, fitness), state), fitness

    def whole(key):
        first, init, rest = jax.random.split(key, 3)
        genotypes = jax.random.uniform(first, (size, len(question["cardinality"])))
        repertoire, state, _ = algorithm.init(genotypes, size, init)
        keys = jax.random.split(rest, -(-count // size) - 1)
        found = jax.lax.scan(step, (repertoire, state), keys)[1]
        return jnp.concatenate([scores(genotypes, init)[0], found.reshape(-1, 2)])[:count]

    began = time.process_time()
    program = jax.jit(whole).lower(jax.random.key(0)).compile()
    compile_s, searches = time.process_time() - began, []
    for one in question["searches"]:
        began = time.process_time()
        points = -np.asarray(program(jax.random.key(one["seed"])), float)
        cpu_s = time.process_time() - began
        searches.append({"seed": one["seed"], "cpu_s": cpu_s, "points": points.round(6).tolist()})
    print(json.dumps({"compile_s": compile_s, "searches": searches}))


main()
