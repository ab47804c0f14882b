"""Every evaluator in the folder passes the shipped checks; a new file is tested without being listed here.

One whose defaults take long gets quick options in `QUICK`.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from nas.testing_evaluators import (
    EVALUATOR_CHECKS,
    check_no_recompilation,
    check_rows,
    check_same_key,
    check_snapshot,
    check_version,
    prepared,
)
from nas.toy import ToySpace, toy_evaluator
from nas.types import Quality
from search_spaces.spaces import macro, tiny

EVALUATORS = discover.names("nas.evaluators")
DIGITS = {"data": "digits", "validation": 200, "train": 200}
QUICK = {
    "supernet": (tiny, {**DIGITS, "epochs": 2, "calibration": 100}),
    "standalone": (tiny, {**DIGITS, "epochs": 1}),
    "proxy": (tiny, {**DIGITS, "batch": 32}),
    "tabular": (macro, {}),
    "surrogate": (macro, {"base": "tabular", "samples": 20, "rounds": 2}),
}


@cache
def _case(name):
    space, options = QUICK.get(name, (tiny, {}))
    return prepared(space.space(), discover.load("nas.evaluators", name, "evaluator")(space.space(), **options))


@pytest.mark.parametrize("check", EVALUATOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_passes(name, check):
    check(_case(name))


@pytest.mark.parametrize("name", EVALUATORS)
def test_names_are_those_of_the_files(name):
    assert _case(name).judge.name == name


def test_the_training_of_shared_weights_has_the_second_round_that_is_counted():
    assert _case("supernet").judge.rounds > 1


def _toy(**changes):
    """A toy case with some of its evaluator's functions replaced by `change(original)`."""
    judge = toy_evaluator(ToySpace(), rounds=2)._replace(describe={"toy": True})
    changed = judge._replace(**{field: change(getattr(judge, field)) for field, change in changes.items()})
    return prepared(ToySpace(), changed)


def test_the_toy_passes():
    for check in EVALUATOR_CHECKS:
        check(_toy())


def test_the_checks_see_what_they_are_for():
    def ranks(evaluate):
        return lambda key, state, genes, index: Quality(np.arange(len(genes), dtype=np.float32))

    def forgetful(evaluate):
        calls = []

        def counted(key, state, genes, index):
            calls.append(1)
            return Quality(np.full(len(genes), len(calls), np.float32))

        return counted

    def anew(evaluate):
        return lambda key, state, genes, index: Quality(jax.jit(lambda g: jnp.sum(g, 1) * 1.0)(jnp.asarray(genes)))

    with pytest.raises(AssertionError, match="chunks of 2"):
        check_rows(_toy(evaluate=ranks))
    with pytest.raises(AssertionError, match="one key, two errors"):
        check_same_key(_toy(evaluate=forgetful))

    def trains_anew(train):
        return lambda key, state: (jax.jit(lambda s: s + 1.0)(state), {"loss": 0.0})

    with pytest.raises(AssertionError, match="compiled again"):
        check_no_recompilation(_toy(evaluate=anew))
    with pytest.raises(AssertionError, match="second training round compiled again"):
        check_no_recompilation(_toy(train=trains_anew))
    with pytest.raises(AssertionError, match="does not follow"):
        check_version(_toy(version=lambda version: lambda state: "one"))
    with pytest.raises(AssertionError, match="no numbers"):
        _toy(train=lambda train: lambda key, state: (train(key, state)[0], {"loss": "low"}))
    with pytest.raises(AssertionError, match="on the way to the disk"):
        check_snapshot(_toy(version=lambda version: lambda state: str(id(state))))
