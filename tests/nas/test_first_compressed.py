"""First networks of spaces that search bits and densities: half uncompressed, half of one level all over."""

import jax
import numpy as np
import pytest

from nas.loop import search
from nas.objectives import Objective
from nas.screen import evenly_compressed, first_networks
from nas.strategies import nsga2, ppo, random_search
from nas.toy import ToySpace, toy_evaluator
from nas.types import Quality
from search_spaces.precision import with_bits
from search_spaces.spaces import tiny

SPACE, KEY = tiny.space(bits="w2/4/8a4/8", sparsity="channel"), jax.random.key(3)
FIELDS = ("weight_bits", "act_bits", "density")


def _judge():
    return toy_evaluator(ToySpace())._replace(evaluate=lambda key, state, genes, index: Quality(np.ones(len(genes))))


def levels(genes: np.ndarray) -> tuple[set[float], ...]:
    values = SPACE.decode(genes)
    return tuple({value for name, value in values.items() if name.endswith(f"/{field}")} for field in FIELDS)


def test_every_other_one_is_whole_and_the_rest_of_one_level():
    goal = Objective(SPACE, "pynq_z1_dataflow")
    drawn = first_networks(SPACE, goal, 12, KEY)
    found = evenly_compressed(SPACE, goal, drawn, KEY)
    assert all(levels(genes) == ({8}, {8}, {1.0}) for genes in found[::2])
    rest = [levels(genes) for genes in found[1::2]]
    assert all(len(values) == 1 for row in rest for values in row) and len({str(row) for row in rest}) > 2
    assert (found == np.asarray(jax.vmap(SPACE.canonical)(found))).all()


@pytest.mark.parametrize("count", [1, 32])
def test_they_are_distinct_where_only_bits_are_searched(count: int):
    """Many networks of one architecture, of which only one is uncompressed."""
    space = tiny.space().freeze([0] * 6)
    space = with_bits(space, "w2/4/8a4/8/32")
    goal = Objective(space, "pixel_1")
    drawn = first_networks(space, goal, count, KEY)
    found = evenly_compressed(space, goal, drawn, KEY)
    assert len(np.unique(found, axis=0)) == count and found.shape == drawn.shape
    assert (found == evenly_compressed(space, goal, drawn, KEY)).all()


def test_a_fair_sample_stays_one():
    plan = ppo.strategy(SPACE, population=8)
    run = search(SPACE, plan, _judge(), Objective(SPACE, "pynq_z1_dataflow"), steps=1, key=KEY)
    assert sum(levels(np.asarray(record["genes"])) == ({8}, {8}, {1.0}) for record in run.records) < 4


def test_limits_hold():
    goal = Objective(SPACE, "pynq_z1_dataflow")
    latency_s = np.asarray(goal.price(first_networks(SPACE, goal, 64, KEY)).costs["latency_s"])
    tight = Objective(SPACE, "pynq_z1_dataflow", limits={"latency_s": float(np.quantile(latency_s, 0.2))})
    found = evenly_compressed(SPACE, tight, first_networks(SPACE, tight, 12, KEY), KEY)
    assert (np.asarray(tight.price(found).violation) == 0).all()


@pytest.mark.parametrize("make", [nsga2.strategy, random_search.strategy])
def test_a_search_begins_with_them_where_the_strategy_takes_first_networks(make):
    plan = make(SPACE, population=8)
    run = search(SPACE, plan, _judge(), Objective(SPACE, "pynq_z1_dataflow"), steps=1, key=KEY)
    whole = sum(levels(np.asarray(record["genes"])) == ({8}, {8}, {1.0}) for record in run.records)
    assert whole >= 4 if plan.start is not None else whole < 4
