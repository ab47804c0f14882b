"""Damaged run folders: the file, the line, the key and the fix are named."""

import json

import pytest

from hw_models.errors import InputError
from nas import store
from nas.run import same


@pytest.mark.parametrize(
    "damage", [b"", b"garbage", b"\xc1", lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"x" + data[-8:]]
)
def test_a_damaged_snapshot_is_named_with_the_fix(damage, copied, resume):
    data = (copied / "state.msgpack").read_bytes()
    (copied / "state.msgpack").write_bytes(damage(data) if callable(damage) else damage)
    with pytest.raises(InputError, match="state.msgpack is damaged.*delete .*state.msgpack to start again"):
        resume(copied)


def test_damaged_or_newer_files_are_named(copied, resume):
    good = (copied / "run.json").read_text()
    for text, message in [
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged"),
        ('{"schema": 1}', "it lacks space"),
        (good.replace('"schema": 1', '"schema": 99'), "schema 99, this version reads 1"),
    ]:
        (copied / "run.json").write_text(text)
        for read in (resume, store.load):
            with pytest.raises(InputError, match=message):
                read(copied)
    (copied / "run.json").write_text(good)
    lines = (copied / "records.jsonl").read_text().splitlines(keepends=True)
    for changed, message in [
        ([lines[0], "not json\n", *lines[2:]], "records.jsonl line 2 is damaged"),
        ([*lines, lines[3]], "line 33 repeats step 0 index"),
        ([lines[0].replace('"schema": 1', '"schema": 2'), *lines[1:]], "line 1 has schema 2"),
    ]:
        (copied / "records.jsonl").write_text("".join(changed))
        for read in (resume, store.load):
            with pytest.raises(InputError, match=message):
                read(copied)


def test_missing_records_are_noticed_and_the_fix_works(straight, copied, resume):
    lines = (copied / "records.jsonl").read_text().splitlines(keepends=True)
    (copied / "records.jsonl").write_text("".join(lines[:10] + lines[11:]))
    with pytest.raises(InputError, match="has 31 records where state.msgpack counts 32: delete"):
        resume(copied)
    (copied / "state.msgpack").unlink()
    assert same(resume(copied), straight)


def test_records_of_other_code_or_other_weights_are_refused(copied, resume):
    (copied / "state.msgpack").unlink()
    lines = [json.loads(line) for line in (copied / "records.jsonl").read_text().splitlines()]
    for change, message in [
        (lambda record: record | {"evaluator_version": "old"}, "made by evaluator version old"),
        (lambda record: record | {"genes": [9] * 6}, "about another network than the one asked now"),
    ]:
        text = "".join(json.dumps(record) + "\n" for record in [change(lines[0]), *lines[1:]])
        (copied / "records.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            resume(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": None}, "key 'step' is null, not a whole number"),
        ({"step": True}, "key 'step' is true"),
        ({"index": -1}, "key 'index' is -1"),
        ({"genes": "0.1"}, "key 'genes' is \"0.1\", not a list"),
        ({"genes": [0.5]}, "key 'genes' is"),
        ({"network": 3}, "key 'network' is 3"),
        ({"objectives": []}, "key 'objectives' is"),
        ({"objectives": {"error": "0.5", "latency_s": 1.0}}, "key 'objectives.error' is \"0.5\""),
        ({"objectives": {"error": 0.5}}, "key 'objectives.latency_s' is missing"),
        ({"objectives": {"error": None, "latency_s": 1.0}, "status": "ok"}, "key 'objectives.error' is null"),
        ({"costs": None}, "key 'costs' is null"),
        ({"costs": {"macs": {}}}, "key 'costs.macs'"),
        ({"status": "fine"}, "key 'status' is \"fine\", not one of ok"),
        ({"names": 1}, "key 'names' is 1"),
        ({"evaluator_version": None}, "key 'evaluator_version' is null"),
        ({"schema": "1"}, "key 'schema' is \"1\""),
    ],
)
@pytest.mark.parametrize("line", [2, 32])
def test_a_record_with_a_wrong_entry_is_named_with_line_and_key(copied, resume, change, said, line):
    lines = (copied / "records.jsonl").read_text().splitlines()
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | change)
    (copied / "records.jsonl").write_text("\n".join(lines) + "\n")
    for read in (resume, store.load):
        with pytest.raises(InputError) as caught:
            read(copied)
        text = str(caught.value)
        assert f"records.jsonl line {line} is damaged" in text and said in text and "\n" not in text


def test_every_entry_that_is_read_must_be_there(copied):
    lines = (copied / "records.jsonl").read_text().splitlines()
    good = json.loads(lines[0])
    for name in set(good) - {"attempts", "worker", "seconds"}:
        text = json.dumps({key: value for key, value in good.items() if key != name})
        (copied / "records.jsonl").write_text("\n".join([text, *lines[1:]]) + "\n")
        with pytest.raises(InputError, match=f"line 1 is damaged .key '{name}' is missing"):
            store.load(copied)
    for text in ("[]", "3"):
        (copied / "records.jsonl").write_text("\n".join([text, *lines[1:]]) + "\n")
        with pytest.raises(InputError, match="line 1 is damaged .it is no object"):
            store.load(copied)


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("space", [], "key 'space' is"),
        ("space", {"tree": {}}, "key 'space.text' is missing"),
        ("space", {"text": "toy", "tree": "oak"}, "key 'space.tree' is \"oak\""),
        ("objective", {"limits": {}}, "key 'objective.minimize' is missing"),
        ("objective", {"minimize": [], "limits": {}}, "key 'objective.minimize' is"),
        ("objective", {"minimize": ["error", 3], "limits": {}}, "key 'objective.minimize' is"),
        ("objective", {"minimize": ["error"], "limits": {"macs": "few"}}, "key 'objective.limits'"),
        ("evaluator", None, "key 'evaluator' is null"),
        ("config", 3, "key 'config' is 3"),
    ],
)
def test_a_description_with_a_wrong_entry_is_named_with_its_key(copied, resume, section, value, said):
    meta = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(meta | {section: value}))
    for read in (resume, store.load):
        with pytest.raises(InputError) as caught:
            read(copied)
        text = str(caught.value)
        assert "run.json is damaged" in text and said in text and "\n" not in text
