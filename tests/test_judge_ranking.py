"""The ranking experiment: its store, its page and what it refuses. The trainings themselves are those of `nas`."""

import doctest
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.ranking import Ceiling


@pytest.fixture(scope="module")
def scripts(scripts_by_name):
    """`judge_ranking`, `ranking_page`, `ranking_tasks`, `ranking_effects`."""
    import judge_ranking
    import ranking_effects
    import ranking_page
    import ranking_tasks

    return SimpleNamespace(judge=judge_ranking, page=ranking_page, tasks=ranking_tasks, effects=ranking_effects)


def results(scripts, name, settings, done, rules=("uniform",), noise=0.01):
    """Made-up results of `done` networks whose size, and a supernet, say how good they are."""
    draw = np.random.default_rng(0)
    genes = scripts.tasks.genes_of(scripts.tasks.SPACES[name](), done).tolist()
    of, quality = {"test": 10_000, "validation": 5000}, draw.normal(size=settings["networks"])

    def mistakes(part):
        return (of[part] * (0.1 + 0.01 * quality + noise * draw.normal(size=len(quality)))).astype(int).tolist()

    first, second = mistakes("test"), mistakes("test")
    rows = {"settings": settings}
    for n in range(done):
        counts = {"params": 1000 * n + 7, "macs": int(1e6 - 1e5 * quality[n])}
        rows[f"alone/{n}"] = {"genes": genes[n], "test": [first[n], second[n]], "of": of, "cpu_s": 60, **counts}
    for rule in rules:
        found = {part: mistakes(part) for part in of}
        rows[f"shared/{rule}/24"] = {"rule": rule, "epochs": 24, "learning_rate": 0.4, "of": of, "cpu_s": 600, **found}
    return rows


def settings_of(scripts, name="flynet", **changed):
    from dataclasses import asdict

    return {**asdict(scripts.tasks.Settings(**changed)), "space": scripts.tasks.SPACES[name]().fingerprint}


def test_the_page_shows_both_spaces_and_what_is_missing(scripts, tmp_path):
    page, tasks = scripts.page, scripts.tasks
    settings = settings_of(scripts, networks=12)
    assert page.write(tmp_path) == ""
    (tmp_path / "ranking_flynet.json").write_text(json.dumps(results(scripts, "flynet", settings, 9, ("fair",))))
    text = page.write(tmp_path)
    others = settings_of(scripts, "mobilenet_v3", networks=12)
    made = results(scripts, "mobilenet_v3", others, 12, ("fair", tasks.HEADLINE))
    assert "9 of 12 networks" in text and "is not trained yet" in text and "mobilenet_v3\n\n|" not in text
    (tmp_path / "ranking_mobilenet_v3.json").write_text(json.dumps(made))
    text = page.write(tmp_path)
    assert text.index("## mobilenet_v3") < text.index("`uniform`, 24 epochs") < text.index("## flynet")
    assert text.count("the goal is m") == 1 and "| error | mean | depth | kernel | expand | input_hw |" in text
    assert "judge_ranking.py mobilenet_v3 --rules uniform fair\n" in text
    assert "12 of 12" not in text and "nan" not in text
    assert (tmp_path / "ranking.md").read_text() == text
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_needs_networks_to_rank(scripts):
    settings = settings_of(scripts)
    assert scripts.page.judged("flynet", results(scripts, "flynet", settings, 2)) is None
    found = scripts.page.judged("flynet", results(scripts, "flynet", settings, 5))
    assert found.truth.shape == (5,) and found.by(24).shape == (5,) and found.by(48) is None


def test_the_goal_is_the_lower_of_two(scripts):
    verdict, top = scripts.page.verdict, Ceiling(0.4, 0.6)
    assert "is met: 0.70 is at least 0.6" in verdict(0.7, top)
    assert "is met: 0.52 is at least 85 % of the ceiling, 0.51" in verdict(0.52, top)
    assert "is missed: 0.50 is below 0.51" in verdict(0.5, top)
    assert "is missed: 0.59 is below 0.60" in verdict(0.59, Ceiling(0.7, 0.8))


def test_a_store_keeps_what_others_added_and_refuses_other_settings(scripts, tmp_path):
    judge, tasks = scripts.judge, scripts.tasks
    path = tmp_path / "ranking_flynet.json"
    mine, other = judge.Store(path, tasks.Settings(), "a"), judge.Store(path, tasks.Settings(), "a")
    mine.add("alone/0", {"test": [1, 2]})
    other.add("alone/1", {"test": [3, 4]})
    assert set(judge.Store(path, tasks.Settings(), "a").rows) == {"settings", "alone/0", "alone/1"}
    with pytest.raises(InputError, match=r"'epochs': 4.*'epochs': 5.*--out"):
        judge.Store(path, tasks.Settings(epochs=5), "a")
    with pytest.raises(InputError, match="'space': 'a'.*'space': 'b'"):
        judge.Store(path, tasks.Settings(), "b")
    path.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        judge.Store(path, tasks.Settings(), "a")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--networks", "2"], r"--networks 2 is out of range: give 4 to 1000"),
        (["--learning-rate", "nan"], r"--learning-rate nan is out of range"),
        (["--workers", "0"], r"--workers 0 is out of range"),
        (["--rules", "unifrm"], r"did you mean 'uniform'"),
    ],
)
def test_arguments_out_of_range(scripts, given, said):
    with pytest.raises(InputError, match=said):
        scripts.judge.arguments_of(["flynet", *given])


def test_a_task_that_fails_is_named(scripts):
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(InputError, match=r"task alone/7 ended with code 3.*goes on"):
        scripts.judge.in_own_process(fails, "alone/7")


def test_others_go_on_where_a_task_fails_until_too_many_do(scripts, tmp_path):
    judge, tasks = scripts.judge, scripts.tasks
    said = "import sys; print('{}') if sys.argv[-1].startswith('a') else sys.exit(3)"
    command = [sys.executable, "-c", said]
    store = judge.Store(tmp_path / "store.json", tasks.Settings(), "a")
    with pytest.raises(InputError, match="task x ended"):
        judge.work_off(["a0", "x", "a1"], store, command, 1)
    assert set(store.rows) == {"settings", "a0", "a1"}
    with pytest.raises(InputError, match="task x ended"):
        judge.work_off(["x", "y", "z", *(f"a{number}" for number in range(2, 60))], store, command, 1)
    assert len(store.rows) < 60


def test_more_networks_begin_with_the_same_ones_and_the_middle_one_is_of_the_quickstarts_size(scripts):
    tasks = scripts.tasks
    for make in tasks.SPACES.values():
        space = make()
        genes = tasks.genes_of(space, 4)
        assert (genes[:2] == tasks.genes_of(space, 2)).all() and len(np.unique(genes, axis=0)) == 4
        networks = [space.freeze(row) for row in tasks.genes_of(space, 15)]
        assert 1e6 < np.median([each.macs for each in networks]) < 4e6
        assert 6e4 < np.median([each.params for each in networks]) < 2e5
        assert max(each.macs for each in networks) < 6e6


def test_the_goal_is_asked_of_what_was_named_before_and_longer_trainings_stand_beside_it(scripts):
    rows = results(scripts, "flynet", settings_of(scripts), 12, ("fair", "uniform"))
    asked = rows.pop("shared/uniform/24")
    for task, epochs, rate in (("24/0.1", 24, 0.1), ("96/0.1", 96, 0.1), ("96", 96, 0.4)):
        rows[f"shared/uniform/{task}"] = {**asked, "epochs": epochs, "learning_rate": rate}
    rows["shared/uniform/96"]["test"] = list(range(1, 31))
    rows["shared/uniform/24"] = asked
    found = scripts.page.judged("flynet", rows)
    shown = [(row["epochs"], row["learning_rate"]) for row in found.ordered if row["rule"] == "uniform"]
    assert shown == [(24, asked["learning_rate"]), (24, 0.1), (96, 0.4), (96, 0.1)]
    assert (np.diff(found.by(96)) > 0).all() and not (np.diff(found.by(24)) > 0).all()
    text = scripts.page.section(found)
    assert text.count("the goal is") == 4 and "pairs) tau is" in text
    shown = scripts.page.commands(found).splitlines()
    assert shown[0].endswith("flynet --rules uniform fair")
    assert shown[-1].endswith("flynet --passes 96 --learning-rate 0.1 --rules uniform")
    del rows["shared/uniform/24"]
    assert scripts.page.judged("flynet", rows).by(24) is None


def test_a_page_shows_results_of_one_experiment(scripts, tmp_path):
    page = scripts.page
    (tmp_path / "ranking_flynet.json").write_text(json.dumps(results(scripts, "flynet", settings_of(scripts), 5)))
    others = settings_of(scripts, "mobilenet_v3", epochs=30)
    other = tmp_path / "ranking_mobilenet_v3.json"
    other.write_text(json.dumps(results(scripts, "mobilenet_v3", others, 5)))
    with pytest.raises(InputError, match=r"'epochs': 4.*'epochs': 30.*--out"):
        page.write(tmp_path)
    others = {**settings_of(scripts, "mobilenet_v3"), "space": "older"}
    other.write_text(json.dumps(results(scripts, "mobilenet_v3", others, 5)))
    with pytest.raises(InputError, match="mobilenet_v3 are of another space of that name"):
        page.write(tmp_path)
    other.write_text("[]")
    with pytest.raises(InputError, match="damaged"):
        page.write(tmp_path)


def test_effects_of_decisions_are_found_again(scripts):
    effects = scripts.effects
    space = scripts.tasks.SPACES["mobilenet_v3"]()
    means = effects.steps(space, scripts.tasks.genes_of(space, 40))
    assert set(means) == {"depth", "kernel", "expand", "input_hw"}
    errors = 0.2 - 0.01 * means["input_hw"] + 0.003 * means["depth"]
    found = {kind: share * errors.mean() for kind, (share, _) in effects.fitted(means, errors).items()}
    assert found == pytest.approx({"depth": 0.003, "kernel": 0, "expand": 0, "input_hw": -0.01}, abs=1e-9)
    # a block that is not there has no kernel: its gene does not count
    shallow = np.zeros((1, space.num_decisions), np.int32)
    deep_kernel = shallow.copy()
    deep_kernel[0, list(space.names).index("stages/5/2/kernel")] = 2
    assert effects.steps(space, deep_kernel)["kernel"] == effects.steps(space, shallow)["kernel"]


def test_standard_errors_are_those_of_a_line(scripts):
    from scipy.stats import linregress

    draw = np.random.default_rng(0)
    x = draw.random(30)
    errors = 0.1 - 0.02 * x + 0.01 * draw.random(30)
    (share, spread), line = scripts.effects.fitted({"width": x}, errors)["width"], linregress(x, errors / errors.mean())
    assert (share, spread) == pytest.approx((line.slope, line.stderr))
    assert scripts.effects.fitted({"width": x, "kernel": 2 * x}, errors) == {}


@pytest.mark.parametrize("file", ["judge", "page", "tasks", "effects"])
def test_examples_run(scripts, file):
    found = doctest.testmod(getattr(scripts, file))
    assert found.failed == 0 and found.attempted


def test_no_training_is_asked_for_twice(scripts):
    judge = scripts.judge
    assert judge.tasks(scripts.tasks.Settings(networks=1), ["uniform", "fair", "uniform"], 24)[1:] == [
        "shared/uniform/24",
        "shared/fair/24",
    ]
    assert judge.arguments_of(["flynet", "--data", "fashion_mnist_10k", "--learning-rate", "0.4"]).learning_rate is None


def test_tasks_are_named_by_what_their_results_depend_on(scripts):
    tasks = scripts.tasks
    asked = []
    settings = tasks.Settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "shared", lambda *given: asked.append(given) or {})
        for rate in (None, 0.1):
            tasks.run("flynet", tasks.shared_task("sandwich[random=2]", 24, rate), settings, Path("x"))
    common = ("flynet", "sandwich[random=2]", 24, settings, Path("x"))
    assert asked == [common, (*common, 0.1)]
    for wrong in ("alone/30", "alone/x", "shared/uniform", "shared/uniform/24/x", "shared/uniform/24/0.1/2", "other/1"):
        with pytest.raises(InputError, match="is not known"):
            tasks.run("flynet", wrong, settings, Path("x"))


@pytest.mark.slow
def test_a_network_of_a_small_resolution_is_trained_and_judged_at_it(scripts, monkeypatch):
    from nas.evaluators import standalone as judging
    from nas.training import standalone as training

    tasks, seen = scripts.tasks, []
    train, count = training.train, judging.count_mistakes
    monkeypatch.setattr(training, "train", lambda *a, **k: seen.append(a[1].images.shape) or train(*a, **k))
    monkeypatch.setattr(judging, "count_mistakes", lambda *a: seen.append(a[2].shape) or count(*a))
    settings = tasks.Settings(data="fashion_mnist_10k", networks=4, epochs=1, validation=7800)
    space = tasks.SPACES["mobilenet_v3"]()
    number = int(tasks.genes_of(space, 4)[:, -1].argmin())
    row = tasks.run("mobilenet_v3", f"alone/{number}", settings, Path("unused"))
    assert space.freeze(row["genes"]).image_hw == 16 and row["of"] == {"validation": 7800, "test": 2000}
    assert [shape[1:3] for shape in seen] == [(16, 16)] * 3 * len(tasks.SEEDS)
    for part, images in row["of"].items():
        assert len(row[part]) == len(tasks.SEEDS) and all(0 < mistakes <= images for mistakes in row[part])
