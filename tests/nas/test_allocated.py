"""Allocations against all networks of one architecture."""

import itertools

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.allocated import allocated, compressible, least, measured, raised, single_changes
from nas.objectives import Objective
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.pool import Pool
from search_spaces.blocks.skip import Skip
from search_spaces.choice import Choice
from search_spaces.precision import with_bits
from search_spaces.space import SearchSpace, Stage
from search_spaces.spaces import tiny

SPACE = tiny.space(bits="w2/4/8a4/8", sparsity="channel", densities="0.5/1")


def whole(depth: int) -> np.ndarray:
    """Most of everything, but for the depth of the second stage."""
    genes = np.asarray(SPACE.cardinality, np.int32) - 1
    genes[SPACE.names.index("stages/1/depth")] = depth
    return genes


def test_blocks_in_use_are_changed_alone():
    shallow, deep = (compressible(SPACE, whole(depth)) for depth in (0, 1))
    assert list(shallow) == ["stages/0/0", "stages/1/0"]
    assert list(deep) == [*shallow, "stages/1/1"]
    rows = single_changes(SPACE, whole(0))
    assert ((rows != rows[0]).sum(1) == [0] + [1] * (len(rows) - 1)).all()
    assert len(rows) == 1 + 2 * (2 + 1 + 1)
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("input_hw", [8, Choice(6, 8)])
def test_blocks_without_weights_are_not_measured(input_hw):
    """A skip has weights where the width changes, and pooling never: in the second layer nothing is to be rounded."""
    kinds = Stage(Choice(ConvNorm(), Skip(project=True), Pool()), 8, 2)
    plain = SearchSpace("kinds", input_hw, 1, 10, Stage(ConvNorm(), 8), (kinds, Stage(Skip(True), 16)), Classifier())
    space = with_bits(plain, "w4/8a4/8", None)

    def named(*kinds):
        genes = np.zeros(space.num_decisions, np.int32)
        for place, kind in enumerate(kinds):
            genes[space.names.index(f"stages/0/{place}/block")] = kind
        return [name.removeprefix("stages/") for name in compressible(space, genes)]

    assert named(0, 0) == ["stem/0", "0/0/conv_norm", "0/1/conv_norm", "1/0", "head"]
    assert named(1, 0) == ["stem/0", "0/1/conv_norm", "1/0", "head"]
    assert named(0, 2) == ["stem/0", "0/0/conv_norm", "1/0", "head"]
    assert named(2, 1) == ["stem/0", "1/0", "head"]


def test_a_network_of_nothing_but_skips_has_nothing_to_change():
    stage = Stage(Choice(Skip(), ConvNorm(weight_bits=Choice(4, 8))), 8)
    space = SearchSpace("skips", 8, 1, 10, Stage(ConvNorm(), 8), (stage,), Classifier())
    with pytest.raises(InputError, match="has no block with weights whose bits or density are decided"):
        compressible(space, [0, 0])


def additive(rows: np.ndarray) -> np.ndarray:
    """Every gene below the most costs its own amount."""
    weights = np.linspace(0.01, 0.05, SPACE.num_decisions)
    return 0.1 + ((np.asarray(SPACE.cardinality) - 1 - rows) * weights).sum(1)


@pytest.mark.parametrize("device", ["pixel_1", "raspberry_pi_4"])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_nothing_better_is_within_the_budget(device, share):
    base, goal = whole(0), Objective(SPACE, device)

    def price(rows):
        return np.asarray(goal.price(rows).costs["latency_s"], np.float64)

    blocks, most = measured(SPACE, base, additive, price), float(price(base[None])[0])
    budget = least(blocks, most) + share * (most - least(blocks, most))
    (found,) = allocated(base, blocks, most, [budget])
    places = [place for block in blocks.decisions for place in block]
    every = np.repeat(base[None], np.prod([SPACE.cardinality[place] for place in places]), 0)
    every[:, places] = list(itertools.product(*(range(SPACE.cardinality[place]) for place in places)))
    # layers follow one another on these devices, so that latencies of blocks add up
    within = price(every) <= budget * (1 + 1e-6)
    assert price(found[None])[0] <= budget * (1 + 1e-6)
    assert additive(found[None])[0] == pytest.approx(additive(every[within]).min(), abs=1e-9)


def test_an_option_that_breaks_the_network_is_not_chosen():
    base = whole(0)
    bits = SPACE.names.index("stages/0/0/weight_bits")

    def judge(rows):
        return np.where(rows[:, bits] == 0, np.nan, additive(rows))

    blocks = measured(SPACE, base, judge, lambda rows: rows.sum(1).astype(float))
    (found,) = allocated(base, blocks, float(base.sum()), [least(blocks, float(base.sum()))])
    assert found[bits] == 1


def test_an_error_that_falls_is_no_loss():
    blocks = measured(SPACE, whole(0), lambda rows: -additive(rows), lambda rows: rows.sum(1).astype(float))
    assert blocks.loss[np.isfinite(blocks.loss)].max() == 0


@pytest.mark.parametrize(
    "space, judge, price, said",
    [
        (tiny.space(), additive, additive, "decides no bits and no densities: give bits=mixed or sparsity=channel"),
        (SPACE, lambda rows: np.full(len(rows), np.nan), additive, "the error of the network without changes is nan"),
        (SPACE, additive, lambda rows: np.full(len(rows), np.inf), "the price of the network without changes is inf"),
    ],
)
def test_bad_input(space, judge, price, said):
    with pytest.raises(InputError, match=said):
        measured(space, np.zeros(space.num_decisions, np.int32), judge, price)


def test_a_budget_that_nothing_meets():
    blocks = measured(SPACE, whole(0), additive, lambda rows: rows.sum(1).astype(float))
    with pytest.raises(InputError, match="cannot be met: the least that is possible is"):
        list(allocated(whole(0), blocks, float(whole(0).sum()), [0.5]))


def test_bits_that_cost_nothing_are_given_back():
    goal = Objective(SPACE, "pixel_1", minimize=("error", "latency_s", "weight_bytes"))

    def latency(rows):
        return np.asarray(goal.price(rows).costs["latency_s"])

    def both(rows):
        return np.stack([latency(rows), np.asarray(goal.price(rows).costs["weight_bytes"])], 1)

    least_of_all = np.zeros(SPACE.num_decisions, np.int32)
    faster = SPACE.decode(raised(SPACE, least_of_all, latency))
    assert {value for name, value in faster.items() if name.endswith("weight_bits")} == {8}, "no faster below 8 bits"
    assert latency(raised(SPACE, least_of_all, latency)[None])[0] <= latency(least_of_all[None])[0] * (1 + 1e-6)
    smaller = SPACE.decode(raised(SPACE, least_of_all, both))
    assert {value for name, value in smaller.items() if name.endswith("weight_bits")} == {2}, "but smaller"


def test_the_order_of_values_does_not_matter():
    space = tiny.space(bits="w8/2a8")
    found = space.decode(raised(space, np.ones(space.num_decisions, np.int32), lambda rows: np.zeros(len(rows))))
    assert found["stages/0/0/weight_bits"] == 8


def test_a_network_without_a_price_is_not_changed_silently():
    with pytest.raises(InputError, match="the price of the network is .*inf"):
        raised(SPACE, whole(0), lambda rows: np.full(len(rows), np.inf))
