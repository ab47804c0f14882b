"""Several runs together: merged records, statistics over seeds, standings against the merged front."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hw_models.errors import InputError
from nas import pareto
from nas.comparison import Spread, Standing, chance, merged, points, spread, standings
from nas.run import Run, each_once
from nas.toy import toy_run

RUNS = [toy_run(seed) for seed in range(3)]
NAMES = ["error", "latency_s"]


def test_intervals_are_students():
    found = spread([2.0, 4.0, 4.0, 5.0, 5.0])
    assert found.mean == 4.0 and found.seeds == 5
    half = 2.7764451 * np.std([2, 4, 4, 5, 5], ddof=1) / math.sqrt(5)  # the quantile of a printed table
    assert found.high - 4.0 == pytest.approx(half, rel=1e-6) and 4.0 - found.low == pytest.approx(half, rel=1e-6)


def test_one_value_and_searches_that_never_arrived_have_no_interval():
    assert str(spread([0.25])) == "0.25"
    assert spread([1.0, math.inf]).mean == math.inf and math.isnan(spread([1.0, math.inf]).low)
    with pytest.raises(InputError, match="no value"):
        spread([])


def test_chance_is_that_of_the_exact_test_and_blind_to_units():
    # of the 252 ways to choose five of ten places, two are as extreme as all five first
    low, high = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
    assert chance(low, high) == pytest.approx(2 / 252)
    assert chance(low, high) == chance(np.exp(low), np.exp(high)) == chance(high, low)
    assert chance([1, 1, 1], [2, 2, 2]) == pytest.approx(0.1), "ties are counted, not approximated"
    assert chance(list(range(20)), list(range(20, 40))) < 1e-6
    assert chance([1], [2, 3, 4]) == pytest.approx(0.5)
    assert chance(low, low) == 1.0 and chance([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    for bad in ([], [math.nan]):
        with pytest.raises(InputError, match="ranks need numbers"):
            chance(bad, high)


def test_merged_runs_have_all_records_and_the_front_of_all():
    together = merged(RUNS)
    assert len(together.records) == sum(len(run.records) for run in RUNS)
    assert [record["run"] for record in together.records[::16]] == ["run 0", "run 1", "run 2"]
    mine = {tuple(record["genes"]) for record in together.front()}
    everything = np.concatenate([points(run, NAMES) for run in RUNS])
    assert len(np.unique(everything[pareto.non_dominated(everything)], axis=0)) == len(mine)
    assert together.pick("best")["objectives"]["error"] == min(r.pick("best")["objectives"]["error"] for r in RUNS)
    assert together.messages == () and "run" not in RUNS[0].records[0]  # what was merged stays as it is


def test_what_does_not_go_together_is_named():
    run = RUNS[0]

    def other(**meta):
        return dataclasses.replace(run, meta={**run.meta, **meta})

    with pytest.raises(InputError, match="run 0 and run 1 have different space"):
        merged([run, other(space={"text": "another"})])
    objective = run.meta["objective"]
    for changes, message in (
        ({"batch": 64}, r"run 0 \(None\) and run 1 \(64\) differ in batch"),
        ({"precision": "int8"}, r"run 1 \(int8\) differ in precision"),
        ({"measured": ["table"]}, "differ in measured"),
    ):
        with pytest.raises(InputError, match=message):
            merged([run, other(objective={**objective, **changes})])
    with pytest.raises(InputError, match="run 2.*differ in minimize"):
        merged([run, run, other(objective={**run.meta["objective"], "minimize": ["error"]})])
    with pytest.raises(InputError, match="no run to merge"):
        merged([])


def test_runs_with_different_scalars_go_together_and_are_not_picked_by_them():
    aim = {**RUNS[1].meta["objective"], "scalar": "absolute", "targets": {"latency_s": 8.0}}
    aimed = dataclasses.replace(RUNS[1], meta={**RUNS[1].meta, "objective": aim})
    assert aimed.pick("scalar") and merged([aimed, aimed]).pick("scalar")
    together = merged([aimed, RUNS[0]])
    assert together.messages == ("the runs joined error and costs in different ways: none of them is picked by",)
    assert together.front() and not together.has_reward


def test_standings_do_not_compare_errors_of_different_evaluators_but_seeds():
    judge = RUNS[1].meta["evaluator"]

    def by(**changes):
        return dataclasses.replace(RUNS[1], meta={**RUNS[1].meta, "evaluator": {**judge, **changes}})

    assert standings({"a": [RUNS[0]], "b": [by(seed=3)]})
    with pytest.raises(InputError, match="run 0 and run 1 have different evaluators"):
        standings({"a": [RUNS[0]], "b": [by(name="proxy")]})
    with pytest.raises(InputError, match="b has no run"):
        standings({"a": RUNS, "b": []})


def test_standings_where_the_front_has_no_extent():
    """One network may be the best in everything, or there is one objective."""

    def row(genes, error, macs):
        return {"genes": genes, "status": "ok", "objectives": {"error": error}, "costs": {"macs": macs}}

    def run(names, *rows):
        return dataclasses.replace(RUNS[0], meta={**RUNS[0].meta, "objective": {"minimize": names}}, records=list(rows))

    both = ["error", "macs"]
    found = standings({"best": [run(both, row([0], 0.1, 1e6))], "worse": [run(both, row([1], 0.2, 3e6))]})
    assert found["best"].hypervolumes == (1.0,) and 0 < found["worse"].hypervolumes[0] < 0.1
    alone = standings({"best": [run(both, row([0], 0.1, 1e6))]})
    assert alone["best"] == Standing((1.0,), (0.0,))
    one = standings({n: [run(["error"], row([0], error, 1.0))] for n, error in (("a", 0.1), ("b", 0.1001), ("c", 0.3))})
    assert one["a"].hypervolumes == (1.0,) and one["b"].hypervolumes[0] > 0.99 and 0 < one["c"].hypervolumes[0] < 0.3


def test_errors_of_other_evaluators_are_said_to_be_others():
    records = [{**record, "evaluator_version": "other"} for record in RUNS[1].records]
    together = merged([RUNS[0], dataclasses.replace(RUNS[1], records=records)])
    assert together.messages == ("errors are those of 2 evaluators, and not the same thing in all runs",)


def test_the_merged_front_stands_at_one_and_everything_else_behind_it():
    # one network may have another error in every run (the toy's has noise), and a merged run has it once
    once = [dataclasses.replace(run, records=each_once(merged(RUNS).records)) for run in RUNS[:1]]
    assert standings({"all": once})["all"] == Standing((1.0,), (0.0,))
    found = standings({"all": [merged(RUNS)], "each": RUNS})
    assert 0.99 < found["all"].hypervolumes[0] <= 1
    assert len(found["each"].hypervolumes) == 3 and found["each"].hypervolume.seeds == 3
    assert all(0 < share < 1 for share in found["each"].hypervolumes)
    assert all(behind > 0 for behind in found["each"].behind)
    assert isinstance(found["each"].epsilon, Spread) and found["each"].epsilon.mean > 0


def test_standings_in_other_costs_and_below_a_given_reference():
    names = ("error", "latency_s", "params")
    found = standings({"each": RUNS}, objectives=names)
    assert all(0 < share <= 1 for share in found["each"].hypervolumes)
    table = np.concatenate([points(run, NAMES) for run in RUNS])
    corner = table.max(0) * 2
    given = standings({"each": RUNS}, reference=corner)["each"].hypervolumes
    wanted = [pareto.hypervolume(points(run, NAMES), corner) / pareto.hypervolume(table, corner) for run in RUNS]
    np.testing.assert_allclose(given, wanted)
    with pytest.raises(InputError, match="has no network below it: give larger values"):
        standings({"each": RUNS}, reference=table.min(0))
    with pytest.raises(InputError, match="did you mean 'latency_s'"):
        standings({"each": RUNS}, objectives=("error", "latncy_s"))


def test_runs_without_a_usable_network_are_behind_all_others_and_alone_an_error():
    failed = [{**record, "status": "failed"} for record in RUNS[0].records]
    nothing = dataclasses.replace(RUNS[0], records=failed)
    found = standings({"some": RUNS[1:], "none": [nothing]})
    assert found["none"].hypervolumes == (0.0,) and found["none"].behind == (math.inf,)
    with pytest.raises(InputError, match="nothing to compare: no candidate of the run was evaluated"):
        standings({"none": [nothing]})
    assert points(Run(None, {}, []), NAMES).shape == (0, 2)
