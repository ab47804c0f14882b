"""The loop: what is priced, evaluated, cached, failed, told and kept."""

from collections import Counter

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.loop import search
from nas.progress import InProcess, Silent
from nas.run import same
from nas.strategies import nsga2, random_search
from nas.toy import ToySpace, toy_evaluator, toy_objective
from nas.types import CandidateFailure, Quality

SPACE = ToySpace()
KEY = jax.random.key(0)
PLAN = nsga2.strategy(SPACE, population=8)  # shared, because it is compiled once per object
GOAL = toy_objective(SPACE)


def _spy(evaluator, calls, change=None):
    """The evaluator with every evaluated gene vector noted, and its errors changed by `change(genes, errors)`."""

    def evaluate(key, state, genes, index):
        rows = [tuple(row) for row in np.asarray(genes).tolist()]
        calls.append(rows)
        error = np.asarray(evaluator.evaluate(key, state, genes, index).error).copy()
        return Quality(change(rows, error) if change else error)

    return evaluator._replace(evaluate=evaluate)


def _search(steps=3, evaluator=None, strategy=None, key=KEY, goal=None, **options):
    return search(
        SPACE,
        strategy or PLAN,
        evaluator or toy_evaluator(SPACE),
        goal or GOAL,
        steps=steps,
        key=key,
        **options,
    )


def test_one_record_per_candidate_in_order_and_json_clean(tmp_path):
    run = _search(out=tmp_path / "run")
    assert [(r["step"], r["index"]) for r in run.records] == [(t, i) for t in range(3) for i in range(8)]
    wanted = {"schema", "step", "index", "network", "genes", "names", "objectives", "costs", "status", "attempts"}
    wanted |= {"error", "worker", "seconds", "evaluator_version"}
    assert all(set(record) == wanted for record in run.records)
    text = (tmp_path / "run" / "records.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text and len(text.splitlines()) == 24


def test_costs_and_errors_of_records_are_those_of_the_parts():
    run = _search()
    goal = toy_objective(SPACE)
    for record in run.records[:8]:
        priced = goal.price(np.asarray([record["genes"]]))
        assert record["costs"]["latency_s"] == float(priced.costs["latency_s"][0]) == record["objectives"]["latency_s"]
        assert record["network"] == SPACE.text(record["genes"]) and record["names"]["gene0"] == record["genes"][0]


def test_each_network_is_evaluated_once_and_repeats_carry_its_error():
    calls = []
    tiny = ToySpace(decisions=4, options=2)  # four networks
    run = search(
        tiny,
        random_search.strategy(tiny, population=8),
        _spy(toy_evaluator(tiny), calls),
        toy_objective(tiny),
        steps=3,
        key=KEY,
    )
    times = Counter(row for chunk in calls for row in chunk)
    assert set(times.values()) == {1} and len(times) == 4
    status = Counter(record["status"] for record in run.records)
    assert status == {"ok": 4, "cached": 20}
    errors = {}
    for record in run.records:
        assert errors.setdefault(tuple(record["genes"]), record["objectives"]["error"]) == record["objectives"]["error"]
        assert record["attempts"] == (1 if record["status"] == "ok" else 0)


def test_chunks_are_no_longer_than_asked():
    calls = []
    _search(evaluator=_spy(toy_evaluator(SPACE, chunk=3), calls), steps=1)
    assert [len(chunk) for chunk in calls] == [3, 3, 2]


def test_results_depend_on_neither_chunk_nor_order():
    class Backwards(InProcess):
        def map_chunks(self, evaluator, key, state, genes, index):
            outcomes = list(super().map_chunks(evaluator, key, state, genes, index))
            yield from reversed(outcomes)

    plain = _search()
    assert same(plain, _search(evaluator=toy_evaluator(SPACE, chunk=3)))
    assert same(plain, _search(evaluator=toy_evaluator(SPACE, chunk=1), executor=Backwards()))
    assert not same(plain, _search(key=jax.random.key(1)))


def test_candidates_over_a_limit_are_priced_recorded_and_never_evaluated():
    calls = []
    goal = toy_objective(SPACE, limits={"params": 9.0})
    run = _search(steps=6, evaluator=_spy(toy_evaluator(SPACE), calls), goal=goal)
    over = [record for record in run.records if record["costs"]["params"] > 9]
    assert over and {record["status"] for record in over} == {"infeasible"}
    assert all(r["objectives"]["error"] is None and r["attempts"] == 0 and r["worker"] is None for r in over)
    assert max(1 + sum(row) for chunk in calls for row in chunk) <= 9
    assert all(record["status"] == "ok" for record in run.records[:8]), (
        "the first population is drawn within the limits"
    )
    assert all(record["costs"]["params"] <= 9 for record in run.front())


def test_a_limit_that_nothing_meets_ends_before_the_training(tmp_path):
    def train(key, state):
        raise AssertionError("trained in vain")

    evaluator = toy_evaluator(SPACE, rounds=3)._replace(train=train)
    with pytest.raises(InputError, match="params=0.1 cannot be met.*nearest.*params=1 "):
        _search(evaluator=evaluator, goal=toy_objective(SPACE, limits={"params": 0.1}), out=tmp_path / "run")


def test_the_message_counts_each_network_once():
    space = ToySpace(decisions=4, options=2)  # four networks, drawn thousands of times
    goal = toy_objective(space, limits={"params": 0.1})
    with pytest.raises(InputError, match="of 4 different networks priced the nearest"):
        search(space, random_search.strategy(space, population=4), toy_evaluator(space), goal, steps=1, key=KEY)


def test_a_limit_on_error_makes_evaluated_candidates_infeasible():
    run = _search(goal=toy_objective(SPACE, limits={"error": 0.5}), steps=5)
    late = [record for record in run.records if record["objectives"]["error"] > 0.5]
    assert late and {record["status"] for record in late} == {"infeasible"}
    assert all(record["objectives"]["error"] <= 0.5 for record in run.front())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_error_that_is_not_finite_fails_and_never_wins(bad):
    def spoil(rows, error):
        error[[sum(row) % 2 == 1 for row in rows]] = bad
        return error

    run = _search(evaluator=_spy(toy_evaluator(SPACE), [], spoil), steps=4)
    odd = [record for record in run.records if sum(record["genes"]) % 2 == 1]
    assert odd and all(r["status"] == "failed" and r["objectives"]["error"] is None and r["error"] for r in odd)
    assert run.front() and all(sum(record["genes"]) % 2 == 0 for record in run.front())


def test_nothing_but_failures_still_ends(tmp_path):
    run = _search(evaluator=_spy(toy_evaluator(SPACE), [], lambda rows, error: error * np.nan), out=tmp_path / "run")
    assert {record["status"] for record in run.records} == {"failed"} and run.front() == []
    with pytest.raises(InputError, match="nothing to pick"):
        run.pick()


def test_only_the_candidate_that_fails_fails():
    def refuse(rows, error):
        if any(row[1] == 3 for row in rows):
            raise CandidateFailure("kernel too large")
        return error

    run = _search(evaluator=_spy(toy_evaluator(SPACE), [], refuse))
    for record in run.records:
        failed = record["genes"][1] == 3
        assert (record["status"] == "failed") == failed
        assert record["error"] == ("kernel too large" if failed else None)
    assert any(record["status"] == "failed" for record in run.records)


def test_a_mistake_in_an_evaluator_ends_the_search_and_costs_only_its_step(tmp_path):
    calls = []

    def break_at_step_two(rows, error):
        if len(calls) == 3:
            raise ZeroDivisionError("oops")
        return error

    with pytest.raises(ZeroDivisionError):
        _search(evaluator=_spy(toy_evaluator(SPACE), calls, break_at_step_two), out=tmp_path / "run", steps=4)
    again = []
    run = _search(evaluator=_spy(toy_evaluator(SPACE), again), out=tmp_path / "run", steps=4)
    assert same(run, _search(steps=4)) and len(again) == 2


def test_an_evaluator_that_returns_the_wrong_number_of_errors_is_named():
    with pytest.raises(ValueError, match="toy returned 7 errors for 8"):
        _search(evaluator=_spy(toy_evaluator(SPACE), [], lambda rows, error: error[1:]))


def test_watchers_hear_everything_in_order():
    heard = []

    class Watcher(Silent):
        def __getattribute__(self, name):
            return lambda *arguments: heard.append((name, *arguments))

    run = _search(evaluator=toy_evaluator(SPACE, rounds=2), steps=2, progress=Watcher())
    names = [event[0] for event in heard]
    step = ["evaluated"] * 8 + ["front"]
    assert names == ["start_training", "training", "training", "start_search", *step, *step, "close"]
    assert heard[0][1] == 2 and heard[1][1] == 0 and heard[1][2].keys() == {"loss"} and heard[3][1] == 2
    assert heard[-2][1] == run.front()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"steps": True}, "steps=True"),
        ({"key": 3}, "key=3 is no random key"),
        ({"snapshot_s": -1.0}, "snapshot_s=-1.0"),
        ({"evaluator": toy_evaluator(SPACE, chunk=0)}, "chunk 0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        _search(**options)


def test_nothing_is_compiled_at_later_steps():
    traces = Counter()

    def counted(name, function):
        def inner(*arguments):
            traces[name] += 1
            return function(*arguments)

        return inner

    counting = PLAN._replace(ask=counted("ask", PLAN.ask), tell=counted("tell", PLAN.tell), bind=None)
    _search(strategy=counting, steps=5)
    # shapes of the first proposal are found by one abstract trace, which compiles nothing
    assert traces == {"ask": 2, "tell": 1} or traces == {"ask": 1, "tell": 1}
