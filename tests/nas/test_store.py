"""The run folder: what survives a kill, what is refused, and what is read back."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas import store
from nas.loop import search
from nas.plain import arrays_of, dumps, plain, tree_from
from nas.run import differences, same
from nas.strategies import nsga2
from nas.testing import ToyDevice, ToySpace, toy_evaluator, toy_objective, toy_table

SPACE = ToySpace()
PLAN = nsga2.strategy(SPACE, population=8)
GOAL = toy_objective(SPACE)
STEPS, ROUNDS = 4, 5


def _run(out=None, steps=STEPS, **changes):
    parts = {"space": SPACE, "strategy": PLAN, "evaluator": toy_evaluator(SPACE, ROUNDS, chunk=3), "objective": GOAL}
    options = {"key": jax.random.key(7), "snapshot_s": 0.0, "out": out}
    for name, value in changes.items():
        (parts if name in parts else options)[name] = value
    return search(**parts, steps=steps, **options)


@pytest.fixture(scope="module")
def straight():
    """The search that nobody interrupted."""
    return _run()


CHILD = """
import os, signal, sys
import jax
from nas import store
from nas.loop import search
from nas.strategies import nsga2
from nas.testing import ToySpace, toy_evaluator, toy_objective

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
    script = textwrap.dedent(CHILD).replace("{rounds}", str(ROUNDS)).replace("{steps}", str(STEPS))
    command = [sys.executable, "-c", script, str(out), where, str(count), str(snapshot_s)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("where", "count", "snapshot_s"),
    [
        ("train", 3, 0.0),
        ("train", 3, 1e9),
        ("evaluate", 6, 0.0),
        ("evaluate", 8, 1e9),
        ("snapshot", 7, 0.0),
        ("record", 5, 0.0),
        ("record", 8, 1e9),
    ],
)
def test_a_killed_search_continues_to_the_same_result(tmp_path, straight, compiled, where, count, snapshot_s):
    out = tmp_path / "run"
    _killed(out, where, count, snapshot_s, compiled)
    before = store.load(out)
    assert len(before.records) < len(straight.records)
    assert bool(before.messages) == (where == "record")
    evaluated = []
    judge = toy_evaluator(SPACE, ROUNDS, chunk=3)

    def evaluate(key, state, genes, index):
        evaluated.extend(map(tuple, np.asarray(genes).tolist()))
        return judge.evaluate(key, state, genes, index)

    run = _run(out, evaluator=judge._replace(evaluate=evaluate))
    assert differences(run, straight) == []
    assert differences(store.load(out), straight) == [] and store.load(out).messages == ()
    finished = {tuple(record["genes"]) for record in before.records if record["status"] == "ok"}
    assert not finished & set(evaluated), "a finished candidate was evaluated again"
    text = (out / "records.jsonl").read_text()
    assert len(text.splitlines()) == STEPS * 8 and text.endswith("\n")
    snapshot = store.read_snapshot(out)
    assert (snapshot.round, snapshot.step, snapshot.records) == (ROUNDS, STEPS, STEPS * 8)


def test_the_final_states_are_equal_too(tmp_path, straight):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _run(whole)
    _run(parts, steps=2)
    assert len(store.load(parts).records) == 16
    assert same(_run(parts), straight)
    one, other = store.read_snapshot(whole), store.read_snapshot(parts)
    for states in ((one.evaluator, other.evaluator), (one.strategy, other.strategy)):
        assert states[0].keys() == states[1].keys()
        assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert store.load(parts).meta["steps"] == STEPS


def test_a_deleted_snapshot_starts_again_from_the_records(tmp_path, straight):
    out = tmp_path / "run"
    _run(out)
    (out / "state.msgpack").unlink()

    def evaluate(*arguments):
        raise AssertionError("evaluated again")

    run = _run(out, evaluator=toy_evaluator(SPACE, ROUNDS, chunk=3)._replace(evaluate=evaluate))
    assert same(run, straight)


def test_a_finished_run_returns_at_once_and_says_so(tmp_path, straight):
    out = tmp_path / "run"
    _run(out)

    def init(key):
        raise AssertionError("started again")

    before = {name: (out / name).read_bytes() for name in ("run.json", "records.jsonl", "state.msgpack")}
    run = _run(out, evaluator=toy_evaluator(SPACE, ROUNDS, chunk=3)._replace(init=init))
    assert same(run, straight) and "finished" in run.messages[-1]
    assert before == {name: (out / name).read_bytes() for name in before}
    with pytest.raises(InputError, match="has 4 steps already, 2 asked"):
        _run(out, steps=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    _run(out, config={"seed": 7, "steps": STEPS})
    return out


def test_another_search_in_the_same_folder_is_refused_and_named(finished):
    config = {"seed": 7, "steps": STEPS}
    for changes, named in [
        ({"key": jax.random.key(8)}, "seed.words"),
        ({"space": ToySpace(options=5)}, "space.fingerprint"),
        ({"strategy": nsga2.strategy(SPACE, population=9)}, "strategy.population is 8 there and 9 here"),
        ({"evaluator": toy_evaluator(SPACE, ROUNDS + 1)}, "evaluator.rounds is 5 there and 6 here"),
        ({"objective": toy_objective(SPACE, ("error", "energy_j"))}, "objective.minimize"),
        ({"objective": toy_objective(SPACE, limits={"params": 9})}, "objective.limits.params is null there and 9.0"),
        ({"config": {"seed": 7, "steps": 4, "data": "other"}}, "config.data"),
    ]:
        with pytest.raises(InputError) as caught:
            _run(finished, steps=9, **({"config": config} | changes))
        text = str(caught.value)
        assert named in text and "--out" in text and "remove" in text and "\n" not in text, text


def test_another_device_of_the_same_name_is_refused(finished):
    from nas.objectives import Objective

    goal = Objective(SPACE, ToyDevice(slowness=2.0), table=toy_table)
    with pytest.raises(InputError, match="devices.toy_device.slowness is 1.0 there and 2.0 here"):
        _run(finished, objective=goal, config={"seed": 7, "steps": STEPS})


def test_other_versions_are_a_message_not_an_error(tmp_path):
    out = tmp_path / "run"
    _run(out, steps=1)
    meta = json.loads((out / "run.json").read_text())
    meta["versions"]["jax"] = "0.0.1"
    (out / "run.json").write_text(json.dumps(meta))
    assert 'versions, results may differ in the last bits: jax is "0.0.1" there' in _run(out, steps=2).messages[0]


def _copy(finished, tmp_path):
    out = tmp_path / "copy"
    out.mkdir()
    for name in ("run.json", "records.jsonl", "state.msgpack"):
        (out / name).write_bytes((finished / name).read_bytes())
    return out


def _resume(out):
    return _run(out, config={"seed": 7, "steps": STEPS})


@pytest.mark.parametrize(
    "damage", [b"", b"garbage", b"\xc1", lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"x" + data[-8:]]
)
def test_a_damaged_snapshot_is_named_with_the_fix(finished, tmp_path, damage):
    out = _copy(finished, tmp_path)
    data = (out / "state.msgpack").read_bytes()
    (out / "state.msgpack").write_bytes(damage(data) if callable(damage) else damage)
    with pytest.raises(InputError, match="state.msgpack is damaged.*delete .*state.msgpack to start again"):
        _resume(out)


def test_damaged_or_newer_files_are_named(finished, tmp_path):
    out = _copy(finished, tmp_path)
    good = (out / "run.json").read_text()
    for text, message in [
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged"),
        ('{"schema": 1}', "it lacks space"),
        (good.replace('"schema": 1', '"schema": 99'), "schema 99, this version reads 1"),
    ]:
        (out / "run.json").write_text(text)
        for read in (_resume, store.load):
            with pytest.raises(InputError, match=message):
                read(out)
    (out / "run.json").write_text(good)
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    for changed, message in [
        ([lines[0], "not json\n", *lines[2:]], "records.jsonl line 2 is damaged"),
        ([*lines, lines[3]], "line 33 repeats step 0 index"),
        ([lines[0].replace('"schema": 1', '"schema": 2'), *lines[1:]], "line 1 has schema 2"),
    ]:
        (out / "records.jsonl").write_text("".join(changed))
        for read in (_resume, store.load):
            with pytest.raises(InputError, match=message):
                read(out)


def test_missing_records_are_noticed_and_the_fix_works(finished, tmp_path, straight):
    out = _copy(finished, tmp_path)
    lines = (out / "records.jsonl").read_text().splitlines(keepends=True)
    (out / "records.jsonl").write_text("".join(lines[:10] + lines[11:]))
    with pytest.raises(InputError, match="has 31 records where state.msgpack counts 32: delete"):
        _resume(out)
    (out / "state.msgpack").unlink()
    assert same(_resume(out), straight)


def test_records_of_other_code_or_other_weights_are_refused(finished, tmp_path):
    out = _copy(finished, tmp_path)
    (out / "state.msgpack").unlink()
    lines = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    for change, message in [
        (lambda record: record | {"evaluator_version": "old"}, "made by evaluator version old"),
        (lambda record: record | {"genes": [9] * 6}, "about another network than the one asked now"),
    ]:
        text = "".join(json.dumps(record) + "\n" for record in [change(lines[0]), *lines[1:]])
        (out / "records.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            _resume(out)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"not a run: it holds thesis.tex and no run.json"):
        _run(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="cannot be written"):
        _run(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="there is no run folder"):
        store.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no run.json"):
        store.load(tmp_path)


def test_a_search_killed_before_its_first_file_starts_over(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "lock").write_text("1")
    (out / ".run.json.part").write_text("{")
    assert len(_run(out, steps=1).records) == 8


def test_two_searches_cannot_write_one_folder(tmp_path):
    out = tmp_path / "run"
    meta = {name: None for name in store.IDENTITY} | {"config": None}
    with store.open_run(out, meta, 1):
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()}"):
            store.open_run(out, meta, 1)
        assert store.load(out).records == []
    with store.open_run(out, meta, 1):
        pass


def test_a_record_cannot_be_written_twice(tmp_path):
    meta = {name: None for name in store.IDENTITY}
    record = {"schema": 1, "step": 0, "index": 0}
    with store.open_run(tmp_path / "run", meta, 1) as folder:
        folder.append([record])
        with pytest.raises(RuntimeError, match="written twice"):
            folder.append([record])


def test_run_json_says_what_the_run_depends_on(finished):
    meta = store.load(finished).meta
    assert meta["space"]["fingerprint"] == SPACE.fingerprint and meta["space"]["tree"] == SPACE.to_json()
    assert meta["devices"]["toy_device"]["slowness"] == 1.0
    assert meta["strategy"] == {"name": "nsga2"} | dict(PLAN.describe)
    assert meta["versions"]["jax"] == jax.__version__ and "threads" in meta["versions"]
    assert meta["objective"]["minimize"] == ["error", "latency_s"] and meta["config"]["seed"] == 7
    assert store.load(finished).space_text == "toy"


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


def test_any_pytree_goes_to_plain_arrays_and_back():
    tree = {
        "weights": (jnp.ones((2, 3), jnp.bfloat16), np.arange(3)),
        "key": jax.random.key(3),
        "count": 3,
        "none": None,
        "scalar": np.float32(2.5),
        "empty": jnp.zeros((0, 4)),
    }
    back = tree_from(tree, arrays_of(tree))
    assert jax.tree.structure(back) == jax.tree.structure(tree) and back["count"] == 3
    assert back["weights"][0].dtype == jnp.bfloat16 and bool(back["key"] == tree["key"])
    assert jax.random.uniform(back["key"]) == jax.random.uniform(tree["key"])
    with pytest.raises(InputError, match=r"\['count'\] is on one side only"):
        tree_from({key: value for key, value in tree.items() if key != "count"}, arrays_of(tree))
    with pytest.raises(InputError, match=r"\['empty'\] is float32\[0, 4\] there and float32\[1\] here"):
        tree_from(tree | {"empty": jnp.zeros(1)}, arrays_of(tree))


def test_plain_values():
    assert json.loads(dumps({"a": float("inf"), "b": np.int64(3), "c": jnp.ones(2), "d": {1, 2}})) == {
        "a": None,
        "b": 3,
        "c": [1.0, 1.0],
        "d": [1, 2],
    }
    with pytest.raises(InputError, match="type object"):
        plain({"x": object()})
