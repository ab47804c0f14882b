"""The benchmark's rows, their table and file, and how other packages are asked; none of them is installed here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    """A file of `scripts`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark_peers, benchmark_rows = script("benchmark_peers"), script("benchmark_rows")
KEYS = ["name", "ours", "peer", "ratio", "goal", "met"]


def test_goals_bound_seconds_from_above_and_rates_from_below():
    assert benchmark_rows.row("step_s", 2.0, 4.0, 1.0) == dict(
        zip(KEYS, ["step_s", 2.0, 4.0, 0.5, 1.0, False], strict=True)
    )
    assert benchmark_rows.row("steps_per_second", 2.0, goal=1.0)["met"] is True
    assert benchmark_rows.row("steps_per_second", 0.5, goal=1.0)["met"] is False
    alone = benchmark_rows.row("step_s", 2.0)
    assert list(alone) == KEYS and alone["peer"] is alone["ratio"] is alone["goal"] is alone["met"] is None


def test_table_and_file_hold_every_row():
    rows = [benchmark_rows.row("a_s", 0.123456, 2.0, 1.0), benchmark_rows.row("b_per_second", 3e6)]
    head, first, second = benchmark_rows.table_text(rows).splitlines()
    assert head.split() == ["measurement", "ours", "peer", "ours", "/", "peer", "goal", "met"]
    assert first.split() == ["a_s", "0.1235", "2", "0.06173", "1", "yes"]
    assert second.split() == ["b_per_second", "3e+06", "-", "-", "-", "-"]
    assert json.loads(benchmark_rows.json_text(rows, peers=[])) == {"rows": rows, "peers": []}


def test_a_peer_is_asked_in_json_and_says_why_it_cannot_answer(tmp_path):
    file = tmp_path / "ask.py"
    file.write_text("import json, sys\nprint('chatter')\nprint(json.dumps(json.load(sys.stdin)['a'] + 1))\n")
    python = Path(sys.executable)
    assert benchmark_peers.ask(python, file, {"a": 1}) == 2
    with pytest.raises(benchmark_peers.NotMeasured, match="ask: KeyError: 'a'"):
        benchmark_peers.ask(python, file, {})


def test_every_peer_is_pinned_and_has_its_script():
    for name, requirements in benchmark_peers.PEERS.items():
        assert (benchmark_peers.SCRIPTS / f"ask_{name}.py").is_file()
        assert all(requirement.count("==") == 1 for requirement in requirements)


def test_the_command_names_every_benchmark():
    shown = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "{freed_memory,kernels,pricing,quickstart,spaces,start,step,tables}" in shown and "--peers FOLDER" in shown
