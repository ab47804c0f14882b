"""What a run offers: its front and its picks."""

import pytest

from hw_models.errors import InputError
from nas import store
from nas.run import front_of


def test_front_and_picks(finished):
    run = store.load(finished)
    front = run.front()
    errors = [record["objectives"]["error"] for record in front]
    latencies = [record["objectives"]["latency_s"] for record in front]
    assert errors == sorted(errors) and latencies == sorted(latencies, reverse=True) and len(front) > 2
    assert run.pick("best").record == front[0] == run.pick(0).record == run.pick("0").record
    assert run.pick("knee").record in front[1:-1] and run.pick(1).network == front[1]["network"]
    assert len(run.front(["latency_s"])) >= 1 and run.front(["params"])[0]["costs"]["params"] == min(
        record["costs"]["params"] for record in run.records
    )
    budget = sorted(latencies)[1]
    best = run.pick("best", under={"latency_s": budget})
    inside = [r for r in run.records if r["objectives"]["latency_s"] <= budget]
    assert best["objectives"]["error"] == min(record["objectives"]["error"] for record in inside)


def test_picks_that_cannot_be_made_are_named(finished):
    run = store.load(finished)
    low = min(record["objectives"]["latency_s"] for record in run.records)
    for which, under, message in [
        ("kne", None, "did you mean 'knee'"),
        (99, None, "pick 99 is not on the front: give 0 to"),
        (-1, None, "pick -1"),
        ("best", {"latency_s": low / 2}, f"the lowest is {low:.6g}"),
        ("best", {"latency": 1.0}, "did you mean 'latency_s'"),
    ]:
        with pytest.raises(InputError, match=message):
            run.pick(which, under)


def test_a_cost_that_is_younger_than_the_run_is_said_to_be(finished):
    run = store.load(finished)
    for record in run.records:
        del record["costs"]["interval_s"]
    with pytest.raises(InputError, match="a record of the run has no interval_s, it is older than that cost"):
        run.front(["error", "interval_s"])
    assert run.front()


def test_the_front_goes_by_the_last_evaluation_of_a_network():
    def record(step, genes, error, status="ok"):
        return {"step": step, "genes": genes, "status": status, "objectives": {"error": error}, "costs": {}}

    # weights that go on learning: a network is judged again and again
    records = [record(0, [1], 0.9), record(5, [2], 0.5), record(9, [1], 0.1), record(9, [1], 0.1, "cached")]
    front = front_of(records, ["error"])
    assert [(each["genes"], each["step"]) for each in front] == [([1], 9)]
