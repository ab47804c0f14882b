"""A search that was killed, interrupted or extended ends like one that was not."""

import os
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import store
from nas.progress import Silent
from nas.run import differences, same
from nas.toy import toy_objective

CHILD = """
import os, signal, sys
import jax
from nas import store
from nas.loop import search
from nas.strategies import nsga2
from nas.toy import ToySpace, toy_evaluator, toy_objective

out, where, count, snapshot_s = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
space = ToySpace()
judge = toy_evaluator(space, {rounds}, chunk=3)
calls = 0

def dying(function, before):
    def inner(*arguments):
        global calls
        calls += 1
        if before and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments)
        if not before and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return inner

if where == "train":
    judge = judge._replace(train=dying(judge.train, True))
elif where == "evaluate":
    judge = judge._replace(evaluate=dying(judge.evaluate, True))
elif where == "snapshot":
    os.replace = dying(os.replace, True)
elif where == "record":
    append = store.Folder.append
    def half(self, records):
        global calls
        calls += bool(records)
        if records and calls == count:
            text = "".join(store.dumps(record) + "\\n" for record in records).encode()
            os.write(self._file, text[: len(text) - 40])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, records)
    store.Folder.append = half
search(space, nsga2.strategy(space, population=8), judge, toy_objective(space), steps={steps}, key=jax.random.key(7),
       out=out, snapshot_s=snapshot_s)
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Environment in which the killed processes share what XLA compiled."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return os.environ | cache


def _killed(out, where, count, snapshot_s, environment):
    script = textwrap.dedent(CHILD).replace("{rounds}", "5").replace("{steps}", "4")
    command = [sys.executable, "-c", script, str(out), where, str(count), str(snapshot_s)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("where", "count", "snapshot_s"),
    [
        ("train", 3, 0.0),
        pytest.param("train", 3, 1e9, marks=pytest.mark.slow),
        pytest.param("evaluate", 6, 0.0, marks=pytest.mark.slow),
        ("evaluate", 8, 1e9),
        ("snapshot", 7, 0.0),
        ("record", 5, 0.0),
        pytest.param("record", 8, 1e9, marks=pytest.mark.slow),
    ],
)
def test_a_killed_search_continues_to_the_same_result(
    tmp_path, straight, compiled, where, count, snapshot_s, toy_search
):
    out = tmp_path / "run"
    _killed(out, where, count, snapshot_s, compiled)
    before = store.load(out)
    assert len(before.records) < len(straight.records)
    assert bool(before.messages) == (where == "record")
    evaluated = []
    judge = toy_search.evaluator()

    def evaluate(key, state, genes, index):
        evaluated.extend(map(tuple, np.asarray(genes).tolist()))
        return judge.evaluate(key, state, genes, index)

    run = toy_search(out, evaluator=judge._replace(evaluate=evaluate))
    assert differences(run, straight) == []
    assert differences(store.load(out), straight) == [] and store.load(out).messages == ()
    finished = {tuple(record["genes"]) for record in before.records if record["status"] == "ok"}
    assert not finished & set(evaluated), "a finished candidate was evaluated again"
    text = (out / "records.jsonl").read_text()
    assert len(text.splitlines()) == toy_search.steps * 8 and text.endswith("\n")
    snapshot = store.read_snapshot(out)
    assert (snapshot.round, snapshot.step, snapshot.records) == (
        toy_search.rounds,
        toy_search.steps,
        toy_search.steps * 8,
    )


def test_the_final_states_are_equal_too(tmp_path, straight, toy_search):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    toy_search(whole)
    toy_search(parts, steps=2)
    assert len(store.load(parts).records) == 16
    assert same(toy_search(parts), straight)
    one, other = store.read_snapshot(whole), store.read_snapshot(parts)
    for states in ((one.evaluator, other.evaluator), (one.strategy, other.strategy)):
        assert states[0].keys() == states[1].keys()
        assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert store.load(parts).meta["steps"] == toy_search.steps


def test_a_deleted_snapshot_starts_again_from_the_records(tmp_path, straight, toy_search):
    out = tmp_path / "run"
    toy_search(out)
    (out / "state.msgpack").unlink()

    def evaluate(*arguments):
        raise AssertionError("evaluated again")

    run = toy_search(out, evaluator=toy_search.evaluator()._replace(evaluate=evaluate))
    assert same(run, straight)


def test_a_finished_run_returns_at_once_and_says_so(tmp_path, straight, toy_search):
    out = tmp_path / "run"
    toy_search(out)

    def init(key):
        raise AssertionError("started again")

    before = {name: (out / name).read_bytes() for name in ("run.json", "records.jsonl", "state.msgpack")}
    run = toy_search(out, evaluator=toy_search.evaluator()._replace(init=init))
    assert same(run, straight) and "finished" in run.messages[-1]
    assert before == {name: (out / name).read_bytes() for name in before}
    with pytest.raises(InputError, match="has 4 steps already, 2 asked"):
        toy_search(out, steps=2)


@pytest.mark.parametrize(
    ("where", "count"),
    [("training", 1), ("training", 3), ("training", 5), ("front", 1), ("front", 3), ("front", 4), ("evaluated", 1),
     ("evaluated", 11), ("start_search", 1)],
)  # fmt: skip
@pytest.mark.parametrize("snapshot_s", [0.0, 1e9])
def test_an_interrupt_while_somebody_is_told_loses_and_repeats_nothing(
    tmp_path, straight, finished, toy_search, where, count, snapshot_s
):
    out, watcher, calls, trained = tmp_path / "run", Silent(), [], []

    def told(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise KeyboardInterrupt

    judge = toy_search.evaluator()

    def train(key, state):
        trained.append(float(state[0]))
        return judge.train(key, state)

    setattr(watcher, where, told)
    options = {"evaluator": judge._replace(train=train), "config": {"seed": 7, "steps": 4}, "snapshot_s": snapshot_s}
    with pytest.raises(KeyboardInterrupt):
        toy_search(out, progress=watcher, **options)
    run = toy_search(out, **options)
    assert differences(run, straight) == [] and trained == [0, 1, 2, 3, 4]
    one, other = store.read_snapshot(out), store.read_snapshot(finished)
    assert one[:3] == other[:3]
    for states in ((one.evaluator, other.evaluator), (one.strategy, other.strategy)):
        assert all(np.array_equal(states[0][name], states[1][name]) for name in states[1])


def test_a_first_attempt_without_result_does_not_occupy_its_folder(tmp_path, toy_search):
    out = tmp_path / "run"
    with pytest.raises(InputError, match="params=0.1 cannot be met"):
        toy_search(out, objective=toy_objective(toy_search.space, limits={"params": 0.1}))

    def interrupted(key, state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_search(out, evaluator=toy_search.evaluator()._replace(train=interrupted), steps=9)
    assert store.read_snapshot(out) is None
    run = toy_search(out, key=jax.random.key(8))
    assert len(run.records) == 32 and "without any result" in run.messages[0]
    with pytest.raises(InputError, match="holds another run: seed.words"):
        toy_search(out)
