"""The run folder: what is refused, what is written, and what a full disk leaves."""

import errno
import json
import os

import jax
import pytest

from hw_models.errors import InputError
from nas import store
from nas.objectives import Objective
from nas.run import same
from nas.strategies import nsga2
from nas.toy import ToyDevice, ToySpace, toy_evaluator, toy_objective, toy_table

META = {name: {} for name in store.IDENTITY} | {
    "space": {"text": "toy", "tree": {}},
    "objective": {"minimize": ["error"], "limits": {}},
}


def test_another_search_in_the_same_folder_is_refused_and_named(finished, toy_search):
    config = {"seed": 7, "steps": 4}
    for changes, named in [
        ({"key": jax.random.key(8)}, "seed.words"),
        ({"space": ToySpace(options=5)}, "space.fingerprint"),
        ({"strategy": nsga2.strategy(toy_search.space, population=9)}, "strategy.population is 8 there and 9 here"),
        (
            {"evaluator": toy_evaluator(toy_search.space, toy_search.rounds + 1)},
            "evaluator.rounds is 5 there and 6 here",
        ),
        ({"objective": toy_objective(toy_search.space, ("error", "energy_j"))}, "objective.minimize"),
        (
            {"objective": toy_objective(toy_search.space, limits={"params": 9})},
            "objective.limits.params is null there and 9.0",
        ),
        ({"config": {"seed": 7, "steps": 4, "data": "other"}}, "config.data"),
    ]:
        with pytest.raises(InputError) as caught:
            toy_search(finished, steps=9, **({"config": config} | changes))
        text = str(caught.value)
        assert named in text and "--out" in text and "remove" in text and "\n" not in text, text


def test_another_device_of_the_same_name_is_refused(finished, toy_search):

    goal = Objective(toy_search.space, ToyDevice(slowness=2.0), table=toy_table)
    with pytest.raises(InputError, match="devices.toy_device.slowness is 1.0 there and 2.0 here"):
        toy_search(finished, objective=goal, config={"seed": 7, "steps": 4})


def test_other_versions_are_a_message_not_an_error(tmp_path, toy_search):
    out = tmp_path / "run"
    toy_search(out, steps=1, config={"steps": 1})
    meta = json.loads((out / "run.json").read_text())
    meta["versions"]["jax"] = "0.0.1"
    (out / "run.json").write_text(json.dumps(meta))
    longer = toy_search(out, steps=2, config={"steps": 2})
    assert 'versions, results may differ in the last bits: jax is "0.0.1" there' in longer.messages[0]
    said = json.loads((out / "run.json").read_text())
    assert said["versions"]["jax"] == "0.0.1" and said["continued_under"][0]["jax"] != "0.0.1"
    assert said["steps"] == said["config"]["steps"] == 2
    toy_search(out, steps=3, config={"steps": 3})
    assert len(json.loads((out / "run.json").read_text())["continued_under"]) == 1


def test_a_folder_that_is_no_run_is_left_alone(tmp_path, toy_search):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"not a run: it holds thesis.tex and no run.json"):
        toy_search(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="cannot be written"):
        toy_search(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="there is no run folder"):
        store.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no run.json"):
        store.load(tmp_path)


def test_a_search_killed_before_its_first_file_starts_over(tmp_path, toy_search):
    out = tmp_path / "run"
    out.mkdir()
    (out / "lock").write_text("1")
    (out / ".run.json.part").write_text("{")
    assert len(toy_search(out, steps=1).records) == 8


def test_two_searches_cannot_write_one_folder(tmp_path):
    out = tmp_path / "run"
    with store.open_run(out, META, 1):
        with pytest.raises(InputError, match=f"is being written by process {os.getpid()}"):
            store.open_run(out, META, 1)
        assert store.load(out).records == []
    with store.open_run(out, META, 1):
        pass


def test_a_record_cannot_be_written_twice(tmp_path):
    record = {"schema": 1, "step": 0, "index": 0}
    with store.open_run(tmp_path / "run", META, 1) as folder:
        folder.append([record])
        with pytest.raises(RuntimeError, match="written twice"):
            folder.append([record])


def test_run_json_says_what_the_run_depends_on(finished, toy_search):
    meta = store.load(finished).meta
    assert meta["space"]["fingerprint"] == toy_search.space.fingerprint
    assert meta["space"]["tree"] == toy_search.space.to_json()
    assert meta["devices"]["toy_device"]["slowness"] == 1.0
    assert meta["strategy"] == {"name": "nsga2"} | dict(toy_search.strategy.describe)
    assert meta["versions"]["jax"] == jax.__version__ and "threads" in meta["versions"]
    assert meta["objective"]["minimize"] == ["error", "latency_s"] and meta["config"]["seed"] == 7
    assert store.load(finished).space_text == "toy"


def _full(monkeypatch, name, at, when):
    """From its call number `when` on file `at`, `os.<name>` finds the disk full; a write gets half way first."""
    real, calls = getattr(os, name), []

    def failing(target, *rest):
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        if not path.endswith(at):
            return real(target, *rest)
        calls.append(path)
        if len(calls) < when:
            return real(target, *rest)
        if name == "write" and len(calls) == when:
            return real(target, rest[0][: len(rest[0]) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize(
    ("name", "at", "when", "said"),
    [
        ("write", "records.jsonl", 5, "records.jsonl"),
        ("fsync", "records.jsonl", 3, "records.jsonl"),
        ("fsync", ".state.msgpack.part", 7, "state.msgpack"),
        ("replace", ".state.msgpack.part", 2, "state.msgpack"),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_continues(
    tmp_path, straight, toy_search, monkeypatch, name, at, when, said
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        _full(patch, name, at, when)
        with pytest.raises(InputError) as caught:
            toy_search(out)
    text = str(caught.value)
    assert text.startswith(str(out / said)) and "\n" not in text
    assert text.endswith("cannot be written (No space left on device): free space; the same command continues")
    assert sorted(path.name for path in out.iterdir()) == ["lock", "records.jsonl", "run.json", "state.msgpack"]
    snapshot, run = store.read_snapshot(out), store.load(out)
    assert run.messages == () and snapshot.records <= len(run.records), "a half-written line, or one that is not there"
    assert same(toy_search(out), straight)


def test_records_that_did_not_reach_the_disk_are_not_counted(tmp_path, monkeypatch):
    records = [{"schema": 1, "step": 0, "index": i} for i in range(3)]
    with store.open_run(tmp_path / "run", META, 1) as folder:
        folder.append(records[:1])
        with monkeypatch.context() as patch:
            _full(patch, "write", "records.jsonl", 1)
            with pytest.raises(InputError, match="free space"):
                folder.append(records[1:])
        assert list(folder.records) == [(0, 0)]
        folder.append(records[1:])
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 3


def test_a_snapshot_that_fails_does_not_hide_what_went_wrong_before(tmp_path, toy_search, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("oops")

    judge = toy_search.evaluator()._replace(evaluate=broken)
    _full(monkeypatch, "replace", ".state.msgpack.part", 6)  # one for each training round comes before
    with pytest.raises(ZeroDivisionError, match="oops") as caught:
        toy_search(tmp_path / "run", evaluator=judge)
    assert "state.msgpack cannot be written" in caught.value.__notes__[0]


def test_only_a_held_lock_is_another_process(tmp_path, monkeypatch):
    import fcntl

    def refused(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(InputError, match=r"run cannot be written \(No locks available\): give another --out"):
        store.open_run(tmp_path / "run", META, 1)


def test_a_folder_can_be_checked_before_anything_expensive(tmp_path, finished):
    (tmp_path / "thesis.tex").write_text("mine")
    before = sorted(finished.iterdir())
    store.check_out(tmp_path / "new" / "run", 4)
    store.check_out(finished, 4)
    for out, steps, said in [
        (tmp_path / "new", 0, "steps=0 is not allowed"),
        (tmp_path, 4, "not a run: it holds thesis.tex"),
        (tmp_path / "thesis.tex", 4, "Not a directory"),
        (tmp_path / "thesis.tex" / "run", 4, "Not a directory"),
        (finished, 3, "has 4 steps already, 3 asked"),
    ]:
        with pytest.raises(InputError, match=said):
            store.check_out(out, steps)
    assert sorted(finished.iterdir()) == before and [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
