"""The search benchmark: its problem in NumPy and JAX, searches of ours, conversations with packages, kept results."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.toy import ToySpace, toy_error, toy_objective
from nas.types import bound

SCRIPTS = Path(__file__).parents[1] / "scripts"


pytestmark = pytest.mark.usefixtures("scripts_by_name")


def script(name):
    return importlib.import_module(name)


def genes_of(count, seed=0):
    return np.random.RandomState(seed).randint(0, 3, (count, 45))


def test_the_problem_has_the_published_values():
    problem = script("search_problems")
    points = problem.evaluate(genes_of(5000))
    volume = problem.hypervolume(points, problem.REFERENCE) / np.prod(problem.REFERENCE)
    assert round(volume, 6) == 0.639507  # of these very networks, by the definition that peers were measured with
    assert points[:, 0].min() > 5 and points[:, 0].max() < 40 and 0 < points[:, 1].min() < points[:, 1].max() < 100


def test_the_problem_in_jax_is_the_one_in_numpy_and_dead_genes_change_nothing():
    problem, ours = script("search_problems"), script("search_genes45")
    space, genes = ours.Genes45(), genes_of(300)
    known = problem.evaluate(genes)
    np.testing.assert_allclose(ours.evaluate(genes), known, rtol=2e-6)
    canonical = np.asarray(jax.vmap(space.canonical)(genes))
    assert (canonical != genes).any()
    np.testing.assert_array_equal(problem.evaluate(canonical), known)
    live = np.asarray(jax.vmap(space.active)(genes))
    for place in range(20):  # a live gene matters
        gene = np.flatnonzero(live[place])[place]
        changed = genes[place].copy()
        changed[gene] = (changed[gene] + 1) % 3
        assert (problem.evaluate(changed[None]) != known[place]).any()
    assert space.text(genes[0]) == "genes45:" + ".".join(map(str, canonical[0]))


def test_mutation_changes_a_live_gene_and_keeps_networks_canonical():
    space = script("search_genes45").Genes45()
    genes = np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200)))
    changed = np.asarray(jax.vmap(space.mutate, (0, 0, None))(jax.random.split(jax.random.key(1), 200), genes, 0.02))
    assert (changed != genes).any(1).all()
    for rows in (genes, changed):
        assert rows.min() == 0 and rows.max() == 2
        np.testing.assert_array_equal(rows, np.asarray(jax.vmap(space.canonical)(rows)))


def test_hypervolume_and_front_agree_with_those_of_the_project():
    from nas import pareto

    problem, rng = script("search_problems"), np.random.default_rng(0)
    points = rng.integers(0, 20, (200, 2)).astype(float)
    for count in (0, 1, 2, 200):
        assert problem.hypervolume(points[:count].reshape(-1, 2), (15, 18)) == pytest.approx(
            pareto.hypervolume(points[:count].reshape(-1, 2), (15, 18))
        )
    expected = np.unique(points[pareto.non_dominated(points)], axis=0)
    np.testing.assert_array_equal(problem.front(points), expected)


def test_hypervolume_and_front_of_three_objectives_are_those_counted_by_hand():
    judges = script("search_judges")
    first, second = (
        [1.0, 2.0, 3.0],
        [2.0, 1.0, 3.0],
    )  # below (4, 4, 4): 3 * 2 * 1 = 6 each, of which 2 * 2 * 1 in common
    assert judges.hypervolume(np.asarray([first, second]), (4, 4, 4)) == 8
    third = [3.0, 3.0, 1.0]  # 1 * 1 * 3, of which 1 * 1 * 1 in common with both
    dominated, beyond = [2.0, 2.0, 3.0], [0.0, 0.0, 4.5]
    points = np.asarray([third, dominated, second, beyond, first, second])
    assert judges.hypervolume(points, (4, 4, 4)) == 10
    assert judges.hypervolume(points[:0], (4, 4, 4)) == 0
    assert judges.front(points).tolist() == [beyond, first, second, third]  # second stands there once


@pytest.fixture(scope="module")
def toy():
    return SimpleNamespace(objective=toy_objective(ToySpace()), error_of=jax.jit(jax.vmap(toy_error)))


def test_a_rollout_makes_as_many_proposals_as_asked_and_stops_when_it_has_enough(toy):
    searches = script("search_rollout")
    plan = searches.plan_of("nsga2[crossover_rate=0.5]", toy.objective, 8)
    assert plan.describe["population"] == 8 and plan.describe["crossover_rate"] == 0.5
    assert searches.plan_of("nsga2[population=4]", toy.objective, 8).describe["population"] == 4
    sizes = []
    found = searches.rollout(
        plan, toy.objective, toy.error_of, 20, jax.random.key(0), enough=lambda step: sizes.append(len(step.genes))
    )
    assert sizes == [8, 8, 8] and found.genes.shape == (20, 6) and found.objectives.shape == (20, 2)
    again = searches.rollout(plan, toy.objective, toy.error_of, 20, jax.random.key(0), enough=lambda step: True)
    np.testing.assert_array_equal(again.genes, found.genes[:8])
    with pytest.raises(InputError, match="option of strategy nsga2"):
        searches.plan_of("nsga2[size=4]", toy.objective, 8)


def test_a_rollout_does_not_evaluate_what_exceeds_a_limit():
    searches = script("search_rollout")
    goal, asked = toy_objective(ToySpace(), limits={"params": 9.0}), []

    def error_of(genes):
        asked.extend(np.asarray(genes).sum(1))
        return jax.vmap(toy_error)(genes)

    found = searches.rollout(searches.plan_of("nsga2", goal, 16), goal, error_of, 64, jax.random.key(0))
    assert max(asked) <= 8 and len(asked) == np.isfinite(found.objectives).all(1).sum() < 64
    assert ((found.violation > 0) == np.isinf(found.objectives).any(1)).all()


def test_a_compiled_search_returns_every_proposal(toy):
    searches = script("search_rollout")
    plan = bound(searches.strategy_of("random_search", ToySpace(), 8), toy.objective)
    program = searches.scanned(plan, toy.objective, jax.vmap(toy_error), 20)
    points = np.asarray(jax.jit(program)(jax.random.key(0)))
    assert points.shape == (20, 2) and np.isfinite(points).all() and len(np.unique(points, axis=0)) > 15


PEER = """
import contextlib, sys
sys.path.insert(0, {folder!r})
from conversation import serve
print("chatter on standard output")
sys.stderr.write("x" * 300_000)  # more than a pipe holds
def search(question, seed, judge):
    while True:
        points, violation = judge([[seed, 0], [seed, 1]])
        assert points.shape == (2, 2) and (points[violation > 0] > 9).all(), points
        if seed == 9: raise ValueError("nine is not for me")
serve(search)
"""


def test_a_conversation_answers_until_it_is_enough_and_says_why_it_broke_off(tmp_path):
    peers = script("benchmark_peers")
    file = tmp_path / "ask.py"
    file.write_text(PEER.format(folder=str(SCRIPTS / "peers")))
    python, heard = Path(sys.executable), []

    def reply(said):
        heard.append((said["search"], said["ask"]))
        if len(heard) == 3:
            return {"enough": True}
        return {"objectives": [[0.5, 0.5], [None, None]], "violation": [0.0, 0.25]}

    question = {"problem": None, "evaluations": 4, "searches": [{"seed": 5}, {"seed": 6}]}
    answer = peers.converse(python, file, question, reply)
    assert [one["seed"] for one in answer["searches"]] == [5, 6]
    assert heard == [(0, [[5, 0], [5, 1]])] * 2 + [(1, [[6, 0], [6, 1]])]

    question["searches"] = [{"seed": 9}]
    with pytest.raises(peers.NotMeasured, match="ask: ValueError: nine is not for me"):
        peers.converse(python, file, question, reply)
    with pytest.raises(ZeroDivisionError):  # ours: the other side is not left waiting
        peers.converse(python, file, question, lambda said: 1 / 0)
    file.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(peers.NotMeasured, match=r"ask: said nothing for 0\.5 s"):
        peers.converse(python, file, question, reply, silence_s=0.5)


def test_seen_counts_networks_once_and_results_are_kept(tmp_path):
    judges, summary, results = script("search_judges"), script("search_summary"), script("search_kept")
    problem = judges.load("macro")
    genes, objectives, violation = problem.judge([[0] * 8, [0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0], [2] * 8])
    assert (violation == 0).all() and (genes[1] == genes[2]).all()  # an identity changes nothing wherever it stands
    seen = judges.Seen(problem)
    assert not seen.add(genes, objectives) and not seen.add(genes[:1], objectives[:1])
    assert [line[0] for line in seen.rows] == [1, 2, 4] and seen.proposals == 5

    kept = results.Kept(tmp_path)
    kept.save("macro", "nsga2", 0, {"proposals": seen.proposals, "rows": seen.rows})
    assert kept.missing("macro", "nsga2", [0, 1]) == [1]
    assert summary.until_share(kept.of("macro", "nsga2"), 0.99) == [(3, 5, False)]
    enough = search_share(problem, objectives)
    assert summary.until_share(kept.of("macro", "nsga2"), enough) == [(3, 4, True)]
    named = {row["name"]: row for row in summary.rows(kept, ["macro"], ["nsga2"], [])}
    assert named["macro_reached_99_percent_of_nsga2"]["ours"] == 0
    assert "macro_networks_until_99_percent_of_nsga2" not in named
    assert "| nsga2 | never | never |" in summary.tables(kept)


def search_share(problem, objectives):
    """The share of the true front's hypervolume that these networks have."""
    return script("search_problems").hypervolume(objectives, problem.reference) / problem.whole


def test_a_budget_is_told_as_a_limit_and_its_best_network_arrives():
    judges = script("search_judges")
    problem = judges.load("macro_budget_3")
    every, errors, macs = judges.every_macro()
    within = macs <= problem.objective.limits["macs"]
    assert abs(within.mean() - 0.3) < 0.002
    best, large = every[within][errors[within].argmin()], every[macs.argmax()]
    genes, objectives, violation = problem.judge([large, best])
    assert violation[0] > 0 and np.isinf(objectives[0]).all() and violation[1] == 0
    assert judges.Seen(problem).add(genes, objectives) and not judges.Seen(problem).add(genes[:1], objectives[:1])


def test_what_cannot_be_measured_is_told_and_the_rest_is(tmp_path, monkeypatch):
    benchmark, peers = script("benchmark_search"), script("benchmark_peers")

    def fail(name, folder):
        raise peers.NotMeasured("pip: no such version")

    monkeypatch.setattr(peers, "python_of", fail)
    points = [[10.0, 50.0]] * 1000
    found = {"compile_s": 1.0, "searches": [{"seed": 0, "cpu_s": 0.01, "loop_s": 0.1, "points": points}]}
    monkeypatch.setattr(peers, "ask_ours", lambda *asked: found)
    options = SimpleNamespace(problems="genes45", packages="qdax", strategies="nsga2", seeds=1, keep=tmp_path / "kept")
    rows, told = benchmark.rows(tmp_path, options)
    assert [one["reason"] for one in told] == [None, "pip: no such version"] and told[1]["name"] == "qdax on genes45"
    named = {row["name"]: row for row in rows}
    assert named["genes45_evaluations_per_cpu_second_of_nsga2"]["met"] is True
    assert named["genes45_compile_s_of_nsga2"]["met"] is True
    at = named["genes45_hypervolume_at_1000_of_nsga2"]
    assert at["ours"] == pytest.approx(0.75 * 0.5) and at["met"] is False
    assert json.loads((tmp_path / "kept/genes45/nsga2/0.json").read_text())["front"] == [[10.0, 50.0]]
    options.problems = "genes46"
    with pytest.raises(InputError, match="problem 'genes46' is unknown: give any of genes45, macro, accel"):
        benchmark.rows(tmp_path, options)


@pytest.fixture(scope="module")
def judges():
    """Problems of `accel` with errors that take no fitting: the share of genes that are 0."""
    module = script("search_judges")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_surrogate", lambda: lambda genes: (np.asarray(genes) == 0).mean(1).astype(np.float32))
        module.load.cache_clear()
        yield module
    module.load.cache_clear()


def test_three_objectives_are_judged_as_an_objective_over_both_devices_does(judges):
    from nas.objectives import Objective

    problem = judges.load("accel_both")
    space = problem.objective.space
    goal = Objective(space, ("zcu102", "a100"), minimize=("error", "latency_s@zcu102", "latency_s@a100"))
    assert problem.objective.minimize == goal.minimize and problem.evaluations == 1000
    genes = np.random.RandomState(0).randint(0, space.cardinality, (70, space.num_decisions))  # more than one batch
    canonical, objectives, violation = problem.judge(genes)
    feedback = goal.feedback(problem.error_of(canonical), goal.price(canonical), np.ones(70, bool))
    np.testing.assert_allclose(objectives, feedback.objectives, rtol=1e-6)
    np.testing.assert_array_equal(violation, feedback.violation)
    for column, name in enumerate(judges.ACCEL, 1):  # what the problem of each device by itself says
        np.testing.assert_allclose(objectives[:, [0, column]], judges.load(name).judge(genes)[1], rtol=1e-6)
    measured = problem.measured(objectives)
    np.testing.assert_allclose(measured[:, 1:], np.log10(1e3 * objectives[:, 1:]))
    np.testing.assert_array_equal(measured[:, 0], objectives[:, 0])
    np.testing.assert_allclose(problem.measured(problem.largest[None])[0], problem.reference)


def search_of(problem, *better):
    """A kept search of 100 proposals: where it says so, so much `better` than the reference, else hardly."""
    gains = np.linspace(0.01, 0.001, 100)[:, None] * np.ones(3)
    for proposal, gain in better:
        gains[proposal - 1] = gain
    measured = np.asarray(problem.reference) - gains
    points = np.concatenate([measured[:, :1], 10 ** measured[:, 1:] / 1e3], axis=1)
    return {"proposals": 100, "rows": [[place, *row] for place, row in enumerate(points.tolist(), 1)]}


@pytest.fixture
def kept_of_three(tmp_path, judges):
    problem, kept = judges.load("accel_both"), script("search_kept").Kept(tmp_path / "kept")
    # 0.2 * 0.4 * 0.4 = 0.032, and 0.1 * 0.1 * 0.4 = 0.004 more each: 0.036 after 30 and 0.04 after 60
    best = (1, (0.2, 0.4, 0.4)), (30, (0.1, 0.5, 0.4)), (60, (0.1, 0.4, 0.5))
    kept.save("accel_both", "nsga3", 0, search_of(problem, *best))
    for who in ("pymoo_nsga3", "random_search", "ppo"):
        kept.save("accel_both", who, 0, search_of(problem, (2, (0.1, 0.4, 0.4))))
    return kept


def test_searches_of_three_objectives_are_compared_by_volume(kept_of_three):
    summary = script("search_summary")
    front = summary.best_known(kept_of_three, "accel_both")
    assert front.shape == (3, 3)
    rows = summary.rows(kept_of_three, ["accel_both"], ["nsga3", "random_search"], ["pymoo_nsga3"])
    found = {row["name"]: row["ours"] or row["peer"] for row in rows}
    assert len(found) == 6 and not any(name.endswith("at_200_of_nsga3") for name in found)  # it was shorter
    assert found["accel_both_hypervolume_at_50_of_nsga3"] == pytest.approx(0.9)
    assert found["accel_both_hypervolume_at_100_of_nsga3"] == pytest.approx(1)
    assert found["accel_both_hypervolume_at_100_of_pymoo_nsga3"] == pytest.approx(0.4)
    assert "| nsga3 | 0.900 | 1.000 |  |  |  |" in summary.tables(kept_of_three)
    assert not summary.rows(kept_of_three, ["accel"], ["nsga3"], ["pymoo_nsga3"])  # another problem


def test_the_figure_of_three_objectives_has_curves_of_all_and_fronts_of_few(kept_of_three, tmp_path, monkeypatch):
    figures = script("search_figures")
    left, right = figures.figure(kept_of_three, "accel_both").axes
    curves = {line.get_label(): line.get_ydata() for line in left.lines}
    assert set(curves) == {"nsga3", "pymoo_nsga3", "random_search", "ppo"}
    np.testing.assert_allclose((curves["nsga3"][0], curves["nsga3"][-1]), (0.8, 1))
    fronts = {dots.get_label(): dots.get_offsets() for dots in right.collections}
    assert set(fronts) == {"nsga3: front", "pymoo_nsga3: front", "random_search: front"}
    points = np.asarray(kept_of_three.of("accel_both", "nsga3")[0]["rows"])[[29, 0, 59]]
    expected = np.stack([1e3 * points[:, 2], 100 * points[:, 1]], axis=1)  # of equal latencies the least error first
    np.testing.assert_allclose(fronts["nsga3: front"], expected)
    assert "ZCU102" in right.get_xlabel() and right.get_xscale() == "log"
    only = figures.figure(kept_of_three, "accel_both", ["ppo"]).axes[1]
    assert [dots.get_label() for dots in only.collections] == ["ppo: front"]  # and not an empty panel

    monkeypatch.setattr(sys, "argv", ["search_figures.py", str(kept_of_three.folder), "--out", str(tmp_path)])
    figures.main()
    assert (tmp_path / "search_accel_both.png").stat().st_size > 10_000


def test_packages_take_part_where_they_are_meant_to(judges, tmp_path, monkeypatch):
    benchmark, peers = script("benchmark_search"), script("benchmark_peers")
    conversations = []

    def converse(python, file, question, reply, environment):
        genes = [[0] * len(question["cardinality"]), [count - 1 for count in question["cardinality"]]]
        conversations.append((file.name, question, genes, reply({"search": 0, "ask": genes})))

    monkeypatch.setattr(peers, "python_of", lambda name, folder: Path(sys.executable))
    monkeypatch.setattr(peers, "converse", converse)
    monkeypatch.setattr(benchmark, "ours", lambda *asked: None)
    options = SimpleNamespace(packages="pymoo_nsga3,qdax", strategies="nsga2", seeds=1, keep=tmp_path / "kept")
    options.problems = "accel_both"
    rows, told = benchmark.rows(tmp_path, options)
    assert [one["name"] for one in told] == ["pymoo_nsga3"] and not rows  # two proposals are no search of 50
    [(file, question, genes, told)] = conversations
    assert file == "ask_pymoo.py" and question["algorithm"] == "nsga3"
    assert question["objectives"] == 3 and question["population"] == 32 and not question["limited"]
    problem = judges.load("accel_both")
    np.testing.assert_allclose(told["objectives"] * problem.largest, problem.judge(genes)[1])
    assert np.shape(told["objectives"]) == (2, 3) and told["violation"] == [0, 0]
