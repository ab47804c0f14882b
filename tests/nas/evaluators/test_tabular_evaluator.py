"""The tabular evaluator: lookups, missing networks, and a search with it."""

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.accuracy_tables import load_accuracy_table
from nas.evaluators import tabular
from nas.loop import search
from nas.objectives import Objective
from nas.strategies import nsga2
from nas.types import CandidateFailure
from search_spaces.spaces import macro, mnasnet, tiny


def test_runs_and_their_mean():
    space, genes = macro.space(), np.asarray([[2] * 8, [0] * 8], np.int32)
    errors = [tabular.evaluator(space, run=run).evaluate(None, (), genes, np.arange(2)).error for run in (0, 1, 2)]
    mean = tabular.evaluator(space).evaluate(None, (), genes, np.arange(2)).error
    np.testing.assert_allclose(mean, np.mean(errors, 0), rtol=1e-6)
    assert len({row[0] for row in map(tuple, errors)}) > 1
    versions = {tabular.evaluator(space, run=run).version(()) for run in (0, 1, 2, "mean")}
    assert len(versions) == 4


def test_every_encoding_is_found_and_those_of_one_network_are_equal():
    space, genes = macro.space(), load_accuracy_table("nas_bench_macro").genes
    canonical = np.asarray(jax.jit(jax.vmap(space.canonical))(genes))
    assert len(np.unique(canonical, axis=0)) == 3969 == len(tabular.networks(space))
    judge = tabular.evaluator(space, run=1)
    found, same = (judge.evaluate(None, (), rows, None).error for rows in (genes, canonical))
    assert np.array_equal(found, same)


def test_a_missing_network_fails_and_is_named():
    space = mnasnet.space(activation="relu")
    judge = tabular.evaluator(space)
    known = tabular.networks(space)[:1]
    assert 0.3 < judge.evaluate(None, (), known, np.arange(1)).error[0] < 0.6
    missing = np.zeros((1, 28), np.int32)
    with pytest.raises(CandidateFailure, match=r"mnasnet\[activation=relu\]:0.0.0.*2,567 networks of table accel"):
        judge.evaluate(None, (), np.concatenate([known, missing]), np.arange(2))


def test_a_search_finds_the_best_networks_of_the_table():
    space = macro.space()
    judge = tabular.evaluator(space)
    goal = Objective(space, "raspberry_pi_4", minimize=("error", "latency_s"))
    run = search(space, nsga2.strategy(space, population=32), judge, goal, steps=12, key=jax.random.key(0))
    networks = tabular.networks(space)
    errors = np.asarray(judge.evaluate(None, (), networks, np.arange(len(networks))).error)
    found = run.pick("best").record["objectives"]["error"]
    assert (errors < found).mean() < 0.01


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        (tiny.space(), {}, "no table of accuracies has networks of tiny"),
        (macro.space(), {"table": "accel_nasbench"}, "table accel_nasbench has no networks of macro: search mnasnet"),
        (macro.space(), {"table": "macro"}, "unknown table of accuracies 'macro'"),
        (macro.space(), {"run": 3}, "run=3 is not in table nas_bench_macro: give mean, or one of 0, 1, 2"),
        (macro.space(), {"run": "median"}, "run='median'"),
        (macro.space(), {"run": True}, "run=True"),
        (mnasnet.space(), {"run": 1}, "give mean, or one of 0"),
    ],
)
def test_bad_settings_are_named(space, options, said):
    with pytest.raises(InputError, match=said):
        tabular.evaluator(space, **options)
