"""The benchmark's rows, their table and file, and how other packages are asked; none of them is installed here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.texts import resolve

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    """A file of `scripts`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark_peers, benchmark_rows = script("benchmark_peers"), script("benchmark_rows")
KEYS = ["name", "ours", "peer", "ratio", "goal", "met"]


def test_goals_bound_seconds_and_counts_from_above_and_rates_from_below():
    assert benchmark_rows.row("step_s", 2.0, 4.0, 1.0) == dict(
        zip(KEYS, ["step_s", 2.0, 4.0, 0.5, 1.0, False], strict=True)
    )
    assert benchmark_rows.row("steps_per_second", 2.0, goal=1.0)["met"] is True
    assert benchmark_rows.row("steps_per_second", 0.5, goal=1.0)["met"] is False
    for count, met in ((0.0, True), (1.0, False)):
        assert benchmark_rows.row("recompilations", count, goal=0.0, at_most=True)["met"] is met
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


def test_networks_for_nni_are_networks_of_ours_and_speeds_are_of_the_same_ones(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    nni = script("benchmark_nni")
    space = resolve(nni.SPACE).space
    networks = nni.drawn()
    for network in networks:
        blocks = [network["chosen"][each.name] for each in space.decisions]
        assert all(block in each.values for block, each in zip(blocks, space.decisions, strict=True))
        used = sum(network["nni"].get(f"s{stage}_depth", 1) for stage in range(2, 8))
        assert len(blocks) - blocks.count("skip") == used

    side = {"networks": [{"params": 1, "seconds": [1.0, 2.0]}] * len(networks), "recompilations": 0}
    ours = {"single": side, **dict.fromkeys(nni.OURS, {"seconds": 2.0, "compile_s": 9.0, "recompilations": 0})}
    theirs = {"networks": [{"params": 1, "seconds": [3.0, 1.0]}] * len(networks)}
    theirs["steps"] = {"darts": 9.0, "proxyless": 3.0}
    found = {each["name"]: each for each in nni.compared([{**ours, "theirs": theirs}], "1_thread")}
    assert found["train_speed_of_nni_1_thread"]["ours"] == 3 and not found["evaluate_speed_of_nni_1_thread"]["met"]
    assert found["shared_paths_speed_of_nni_darts_1_thread"]["met"]
    assert not found["shared_paths_speed_of_nni_proxyless_1_thread"]["met"]
    assert found["all_paths_speed_of_nni_darts_1_thread"]["goal"] is None
    assert found["recompilations_1_thread"]["met"]
    assert resolve(nni.asked_of("shared", {"space": nni.SPACE})["space"]).space.classes == space.classes
    theirs["networks"][0] = {"params": 2, "seconds": [3.0, 1.0]}
    with pytest.raises(RuntimeError, match="not the same network: 1 parameters against 2"):
        nni.compared([{**ours, "theirs": theirs}], "1_thread")


def test_a_start_that_compiles_again_misses_its_goal(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    start = script("benchmark_start")
    side = dict.fromkeys((*start.LISTED, *start.TRACED, "until_first_step", "until_first_evaluation"), 1.0)
    counts = iter([0, 0, 0, 2, 0, 0])  # cold and warm by turns
    monkeypatch.setattr(
        start.benchmark_peers, "ask_ours", lambda file, question: {**side, "recompilations": next(counts)}
    )
    found = {each["name"]: each for each in start.rows()}
    assert found["recompilations_cold"]["met"] is True and found["recompilations_warm"]["met"] is False
    assert found["first_training_step_warm_s"]["met"] is True


def test_a_profile_knows_products_also_inside_fusions_and_compiled_kernels(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    program = """
%fused_computation.1 (p0: f32[2,2], p1: f32[2,2]) -> f32[2,2] {
  %p0 = f32[2,2]{1,0} parameter(0)
  ROOT %dot.7 = f32[2,2]{1,0} dot(%p0, %p0), lhs_contracting_dims={1}
}
ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %ynn_fusion = f32[2,2]{1,0} fusion(%x, %x), kind=kCustom, calls=%fused_computation.1
  %custom-call.2 = (f32[2], f32[2]) custom-call(%x), custom_call_target="flynas_normalise_moments"
  %add.3 = f32[2,2]{1,0} add(%x, %x)
  ROOT %conditional.4 = f32[2,2]{1,0} conditional(%i, %a, %b), branch_computations={%c, %d}
}
"""
    kinds = script("benchmark_profile").kinds_of(program)
    assert kinds["ynn_fusion"] == kinds["dot.7"] == "products"
    assert kinds["custom-call.2"] == "normalisation_with_activation" and kinds["add.3"] == "other_loops_of_xla"
    assert "conditional.4" not in kinds


def test_the_command_names_every_benchmark():
    shown = subprocess.run(
        [sys.executable, SCRIPTS / "benchmark.py", "--help"], capture_output=True, text=True, check=True
    ).stdout
    names = "{engine,freed_memory,kernels,pricing,profile,quickstart,search,spaces,start,step,tables}"
    assert names in shown and "--peers FOLDER" in shown
