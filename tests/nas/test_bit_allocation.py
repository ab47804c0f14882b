"""Bits by integer programming against all combinations, and what is said when budgets cannot be met."""

import itertools
import time

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.bit_allocation import allocate, front
from nas.sensitivity import sensitivities

LOSS = np.asarray([[0.9, 0.2, 0.0], [0.5, 0.1, 0.0], [2.0, 0.7, 0.0]])
BYTES = np.asarray([[2.0, 4, 8], [20, 40, 80], [1, 2, 4]])
SECONDS = np.asarray([[3e-9, 2e-9, 1e-9], [1e-9, 2e-9, 4e-9], [5e-9, 5e-9, 5e-9]])


def brute(loss, costs, budgets, pinned=None):
    """The least loss of all combinations within the budgets, None where there is none."""
    layers, options = loss.shape
    rows = np.arange(layers)
    every = np.asarray(list(itertools.product(range(options), repeat=layers)))
    fits = np.ones(len(every), bool)
    for layer, option in (pinned or {}).items():
        fits &= every[:, layer] == option
    for name, budget in budgets.items():
        fits &= costs[name][rows, every].sum(1) <= budget + 1e-9 * abs(budget)
    sums = loss[rows, every].sum(1)[fits]
    return sums.min() if len(sums) else None


@pytest.mark.parametrize("wide", [False, True])
def test_the_best_of_all_combinations_whatever_the_units(wide):
    rng, refused = np.random.default_rng(0), 0
    for _ in range(60):
        shape = rng.integers(2, 6), rng.integers(2, 5)
        loss = 10.0 ** rng.uniform(-7, 4, shape) if wide else rng.random(shape).round(1)
        costs = {"weight_bytes": rng.integers(1, 30, shape) * 1e6, "energy_j": rng.random(shape) * 1e-6}
        rows = np.arange(len(loss))
        # budgets that one combination meets to the last digit, of two costs, or one of each
        picks = rng.integers(shape[1], size=(2, len(loss)))
        budgets = {name: float(table[rows, picks[rng.integers(2)]].sum()) for name, table in costs.items()}
        pinned = {0: int(rng.integers(shape[1]))} if rng.random() < 0.3 else {}
        best = brute(loss, costs, budgets, pinned)
        if best is None:
            refused += 1
            with pytest.raises(InputError, match="cannot be met"):
                allocate(loss, costs, budgets, pinned)
            continue
        found = allocate(loss, costs, budgets, pinned)
        assert found.optimal and found.loss == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert found.loss == loss[rows, found.choice].sum()
        for name, budget in budgets.items():
            assert found.costs[name] == costs[name][rows, found.choice].sum() <= budget * (1 + 2e-9)
        assert all(found.choice[layer] == option for layer, option in pinned.items())
    assert refused > 0


def test_without_budgets_every_layer_takes_its_best():
    found = allocate(LOSS, {"bytes": BYTES}, {})
    assert found.choice.tolist() == [2, 2, 2] and found.loss == 0 and found.costs == {"bytes": 92.0}


def test_infinite_losses_and_costs_are_never_chosen():
    loss, size = LOSS.copy(), BYTES.copy()
    loss[0, 0], size[1, 1] = np.inf, np.inf
    found = allocate(loss, {"bytes": size}, {"bytes": 30})
    assert found.choice.tolist() == [1, 0, 2]
    assert found.loss == pytest.approx(brute(np.where(np.isinf(loss), 1e6, loss), {"bytes": size}, {"bytes": 30}))
    with pytest.raises(InputError, match="layer 1 has no option"):
        allocate(loss, {"bytes": size}, {}, pinned={1: 1})


@pytest.mark.parametrize(
    ("budgets", "pinned", "said"),
    [
        ({"bytes": 22.5}, {}, "budget bytes=22.5 cannot be met: the least that is possible is 23"),
        ({"bytes": 40}, {1: 1}, "budget bytes=40 cannot be met: the least that is possible is 43"),
        ({"seconds": 6.9e-9}, {}, "budget seconds=6.9e-09 cannot be met: the least that is possible is 7e-09"),
        ({"bytes": 23, "seconds": 8e-9}, {}, "seconds=8e-09 cannot be met: .* possible within bytes=23 is 9e-09"),
        ({"seconds": 7e-9, "bytes": 23}, {}, "bytes=23 cannot be met: .* possible within seconds=7e-09 is 29"),
        ({"bytes": float("inf")}, {}, "budget bytes=inf is not allowed: give a finite number"),
        ({"byte": 3}, {}, "unknown budget 'byte': did you mean 'bytes'"),
        ({}, {3: 0}, "pinned layer 3 is not allowed: give a whole number from 0 to 2"),
        ({}, {1: 3}, "pinned option of layer 1 3 is not allowed"),
    ],
)
def test_what_cannot_be_is_named_with_the_least_that_can(budgets, pinned, said):
    with pytest.raises(InputError, match=said):
        allocate(LOSS, {"bytes": BYTES, "seconds": SECONDS}, budgets, pinned)


def test_arrays_that_do_not_fit_are_named():
    for loss, costs, said in (
        (LOSS[0], {}, r"loss of shape \(3,\)"),
        (LOSS, {"bytes": BYTES[:2]}, r"costs of bytes have shape \(2, 3\): give that of the loss, \(3, 3\)"),
        (LOSS * np.nan, {}, "loss holds NaN"),
    ):
        with pytest.raises(InputError, match=said):
            allocate(loss, costs, {})


def test_a_front_never_gets_worse_with_more_and_comes_one_by_one():
    series = np.arange(23, 93, 5)
    found = front(LOSS, {"bytes": BYTES, "seconds": SECONDS}, "bytes", series, {"seconds": 1.1e-8})
    losses = [allocation.loss for allocation in found]
    expected = [brute(LOSS, {"bytes": BYTES, "seconds": SECONDS}, {"bytes": b, "seconds": 1.1e-8}) for b in series]
    assert losses == pytest.approx(expected) and (np.diff(losses) <= 0).all()
    one_by_one = front(LOSS, {"bytes": BYTES}, "bytes", [92, 1])
    assert next(one_by_one).loss == 0
    with pytest.raises(InputError, match="bytes=1 cannot be met"):
        next(one_by_one)


def test_a_large_network_takes_seconds_and_a_time_limit_holds():
    rng = np.random.default_rng(1)
    loss = np.sort(10.0 ** rng.uniform(-5, 1, (150, 16)), 1)
    size = np.sort(rng.random((150, 16)), 1)[:, ::-1] * rng.uniform(1, 1e6, (150, 1))
    costs = {"weight_bytes": size, "latency_s": size * 1e-9 * rng.uniform(0.5, 1.5, size.shape)}
    budgets = {name: float(table.mean(1).sum()) * 0.9 for name, table in costs.items()}
    start = time.perf_counter()
    found = allocate(loss, costs, budgets)
    assert found.optimal and time.perf_counter() - start < 20
    with pytest.raises(InputError, match="no allocation was found in time_limit_s=0"):
        allocate(loss, costs, budgets, time_limit_s=0.0)


def test_sensitivities_go_in_as_they_come_out():
    def judge(bits):
        return 1 + (np.asarray([1.0, 4.0]) * (2.0 ** -bits.astype(float)).sum(2)).sum(1)

    options = [(2, 8), (4, 8), (8, 8)]
    table = sensitivities(judge, 2, options)
    found = allocate(table, {"weight_bits": np.tile([2.0, 4, 8], (2, 1))}, {"weight_bits": 10})
    assert found.choice.tolist() == [0, 2], "the layer that loses most keeps most bits"
