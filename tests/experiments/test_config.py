"""Configurations: shipped ones load and check, wrong names are named, overrides land where they should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.build import banner, build, resolve
from experiments.config import Experiment, Use, check, config_names, load_config, settings_of, to_json
from experiments.overrides import override, settable
from hw_models.errors import InputError


@pytest.mark.parametrize("name", config_names())
def test_shipped_configurations_are_complete(name: str) -> None:
    experiment = load_config(name)
    check(experiment)
    settings = to_json(experiment)
    assert json.loads(json.dumps(settings)) == settings
    assert settings["strategy"]["mutation_rate"] is None  # a default that no configuration sets
    module = sys.modules[f"experiments.configs.{name}"]
    assert f"flynas search {name} --out" in (module.__doc__ or "")


def test_configurations_do_not_import_jax() -> None:
    """The number of threads must be set before jax computes, and a configuration is read before that."""
    program = "import sys, experiments.configs.quickstart, experiments.config; print('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "False", run.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstrt", "did you mean 'quickstart'"),
        ("nowhere/mine.py", "does not exist"),
        ("no_such_lab.search", "no module of that dotted name"),
        ("./tiny", "does not end in .py"),
        (".x", "does not end in .py"),
        ("a..b", "unknown configuration 'a..b'"),
    ],
)
def test_unknown_configurations(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(name)


HEAD = "from experiments.config import Experiment, Use\n"
GOOD = "Experiment(Use('tiny'), 'raspberry_pi_4', Use('nsga2'), Use('supernet', data='digits'){})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = 3", "defines no `config"),
        ("config = (", "not valid Python"),
        ("import surely_not_there", "imports 'surely_not_there'"),
        ("from experiments.config import Experimnt", "does not load: cannot import name 'Experimnt'"),
        ("config = Experimnt()", "name 'Experimnt' is not defined"),
        (f"config = {GOOD.format(', stpes=3')}", "did you mean 'steps'"),
        ("config = Experiment()", "missing 4 required"),
    ],
)
def test_bad_configuration_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + text + "\n")
    with pytest.raises(InputError, match=message):
        load_config(file)


def test_a_path_without_its_ending_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine", str(tmp_path / "mine")):
        with pytest.raises(InputError, match=f"did you mean '{name}.py'"):
            load_config(name)


def test_arguments_that_are_no_plain_values_are_kept_by_name() -> None:
    class Held:
        name = "images in memory"

    for value, kept in ((Held(), "images in memory"), (json.loads, "json.loads"), (Path("a/b"), "a/b")):
        assert to_json(tiny_with(evaluator=Use("supernet", data=value)))["evaluator"]["data"] == kept


def test_own_file_and_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "lab_for_this_test"
    lab.mkdir()
    (lab / "mine.py").write_text(HEAD + f"config = {GOOD.format(', steps=7')}\n")
    assert load_config(lab / "mine.py").steps == 7
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert load_config("lab_for_this_test.mine").steps == 7


def tiny_with(**changes: object) -> Experiment:
    fields = {name: getattr(load_config("tiny"), name) for name in Experiment.__dataclass_fields__}
    return Experiment(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": Use("nsga2", popluation=3)}, "option of strategy nsga2 'popluation': did you mean 'population'"),
        ({"strategy": Use("nsga_2")}, "unknown strategy 'nsga_2': did you mean 'nsga2'"),
        ({"evaluator": Use("supernet", epoch=3)}, "did you mean 'epochs'"),
        ({"space": Use("tiny", input_wh=8)}, "did you mean 'input_hw'"),
        ({"space": "tiny"}, r"give Use\('name'"),
        ({"final": {"epoch": 1}}, "did you mean 'epochs'"),
        ({"threads_per_evaluation": 0}, "threads_per_evaluation=0 is not allowed"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        ({"steps": 0}, "steps=0 is not allowed"),
        ({"steps": 2.5}, "steps=2.5 is not allowed: give a whole number"),
        ({"device": 3}, "device=3 is not allowed: give text or a tuple"),
        ({"device": ("zcu102", 3)}, "device=.* is not allowed: give text or a tuple"),
        ({"minimize": None}, "minimize=None is not allowed: give a tuple"),
        ({"minimize": "error"}, "minimize='error' is not allowed: give a tuple"),
        ({"limits": 3}, "limits=3 is not allowed"),
        ({"limits": {"latency_s": "5ms"}}, "limits.latency_s='5ms' is not allowed: give a number"),
        ({"precision": 8}, "precision=8 is not allowed: give text or None"),
        ({"warm_start": 3}, "warm_start=3 is not allowed: give text or None"),
        ({"inference_batch": 0}, "inference_batch 0 is not allowed: give a whole number from 1"),
        ({"inference_batch": "x"}, "inference_batch 'x' is not allowed: give a whole number from 1"),
        ({"missing": "analytic"}, "missing='analytic' is about a measured table"),
        ({"table": "mine.csv", "device": ("zcu102", "a100")}, "table is of one device"),
        ({"final": None}, "final=None is not allowed"),
        ({"final": {"epochs": "a"}}, "final.epochs='a' is not allowed: give a whole number"),
        ({"final": {"epochs": -1}}, "final.epochs=-1 is out of range"),
        ({"final": {"flip": "no"}}, "final.flip='no' is not allowed: give True or False"),
        ({"threads_per_evaluation": None}, "threads_per_evaluation=None is not allowed"),
        ({"strategy": Use("nsga2", population="x")}, "strategy.population='x' is not allowed: give a whole number"),
        ({"evaluator": Use("supernet", train=1.5)}, "evaluator.train=1.5 is not allowed: give a whole number or None"),
        ({"space": Use("tiny", classes="x")}, "space.classes='x' is not allowed: give a whole number"),
        ({"strategy": Use(3)}, r"give Use\('name'"),
        ({"strategy": Use(".x")}, "unknown strategy '.x'"),
    ],
)
def test_wrong_names_fail_before_anything_runs(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(tiny_with(**changes))


def test_overrides_reach_every_kind_of_setting() -> None:
    changes = [
        "steps=5",
        "population=4",
        "evaluator.epochs=3",
        "data=fashion_mnist_10k",
        "limits.latency_s=0.005",
        "limits.energy_j=1",
        "final.flip=false",
        "minimize=error,macs",
        "precision=int8",
        "threads_per_evaluation=all",
        "mutation_rate=1",
        "inference_batch=16",
    ]
    changed = override(load_config("tiny"), changes)
    assert (changed.steps, changed.precision, changed.threads_per_evaluation) == (5, "int8", "all")
    assert changed.minimize == ("error", "macs") and changed.inference_batch == 16
    assert changed.strategy.arguments == {"population": 4, "mutation_rate": 1}
    assert changed.evaluator.arguments["epochs"] == 3 and changed.evaluator.arguments["data"] == "fashion_mnist_10k"
    assert changed.limits == {"weight_bytes": 3e4, "latency_s": 0.005, "energy_j": 1.0}
    assert isinstance(changed.limits["energy_j"], float) and changed.final["flip"] is False
    assert load_config("tiny").limits == {"weight_bytes": 3e4}, "the configuration itself must not change"


def test_a_replaced_strategy_keeps_what_it_knows_and_opens_its_own_options() -> None:
    start = override(load_config("tiny"), ["crossover_rate=0.5"])
    changed = override(start, ["population=6", "strategy=random_search"])
    assert changed.strategy == Use("random_search", population=6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps", "give path=value"),
        ("stpes=3", "did you mean steps"),
        ("epoch=3", "did you mean evaluator.epochs or final.epochs"),
        ("epochs=3", "stands for several: say which of evaluator.epochs, final.epochs"),
        ("strategy.popluation=3", "did you mean 'strategy.population'"),
        ("steps=many", "steps=many is not allowed: give a whole number"),
        ("steps=2.5", r"give a whole number \(now 5\)"),
        ("steps=True", "give a whole number"),
        ("limits.latency_s=fast", "give a number"),
        ("limits.latncy_s=1", "did you mean 'limits.latency_s'"),
        ("final.epochs=x", "give a whole number"),
        ("strategy=nsga_2", "did you mean 'nsga2'"),
        ("device=3", "give text or names a,b"),
    ],
)
def test_bad_overrides(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(load_config("tiny"), [change])


def test_every_setting_can_be_set_to_what_it_is() -> None:
    experiment = load_config("tiny")
    for path, value in settable(experiment).items():
        if isinstance(value, bool | int | float | str) or value is None:
            after = override(experiment, [f"{path}={value}"])
            assert settable(after)[path] == value, path


def test_the_space_follows_the_data_and_the_evaluator_gets_the_seed() -> None:
    experiment = override(load_config("quickstart"), ["data=digits", "seed=7", "evaluator.train=200"])
    resolved, notes = resolve(experiment)
    assert resolved.space.arguments == {"input_hw": 8, "input_channels": 1, "classes": 10}
    assert resolved.evaluator.arguments["seed"] == 7
    assert "input_hw=8" in notes[0] and "digits" in notes[0]
    explicit = override(experiment, ["space.input_hw=28", "evaluator.seed=3"])
    resolved, _ = resolve(explicit)
    assert resolved.space.arguments["input_hw"] == 28 and resolved.evaluator.arguments["seed"] == 3


def test_build_gives_what_a_search_takes_and_a_config_with_nothing_left_out() -> None:
    built = build(load_config("tiny"))
    assert built.objective.minimize == ("error", "latency_s") and built.evaluator.describe["seed"] == 0
    config = built.config()
    assert config["space"].items() >= {"name": "tiny", "input_hw": 8, "input_channels": 1, "classes": 10}.items()
    assert config["space"]["bits"] == config["space"]["sparsity"] == "none"
    assert set(settings_of("evaluator", Use("supernet"))) <= set(config["evaluator"])
    with pytest.raises(InputError, match="did you mean 'latency_s'"):
        build(override(load_config("tiny"), ["minimize=error,latency"]))


def test_what_prices_and_begins_a_search_reaches_it() -> None:
    built = build(override(load_config("macro_table"), ["inference_batch=64", "warm_start=macs"]))
    assert built.objective.batch == 64 and built.config()["inference_batch"] == 64
    assert built.warm_start.describe["proxy"] == "macs" and built.config()["warm_start"] == "macs"
    lines = dict(banner(built))
    assert lines["images per run"] == "64" and lines["first networks"] == "the best of many by proxy macs"
    plain = build(load_config("macro_table"))
    assert plain.warm_start is None and not {"inference_batch", "warm_start"} & {*plain.config()}
    with pytest.raises(InputError, match="warm_start=synflow looks at images and evaluator tabular has none"):
        build(override(load_config("macro_table"), ["warm_start=synflow"]))
    images = build(override(load_config("tiny"), ["warm_start=synflow", "validation=200"])).warm_start
    assert images.describe["data"] == "digits" and images.describe["validation"] == 200


def test_settings_of_the_final_training_start_from_one_default() -> None:
    """Without `--set`, with it, and with some settings in the configuration, what nobody set is the same."""
    from experiments.final import chosen_recipe
    from nas.exporters._source import source
    from nas.training.recipe import Recipe
    from search_spaces.texts import resolve as network

    untouched = source((network("tiny:0.0.0.0.0.0").network(), None), "digits", None, None, "fresh").recipe
    changed = chosen_recipe({}, ["learning_rate=0.05"])
    assert untouched is not None and changed is not None
    assert changed.epochs == untouched.epochs == Recipe(batch=64).epochs == 30
    assert chosen_recipe({"epochs": 7}, ["learning_rate=0.05"]) == Recipe(epochs=7, learning_rate=0.05)
    assert chosen_recipe({}, []) is None


def test_inherited_weights_need_a_run() -> None:
    from nas.exporters._source import source
    from search_spaces.texts import resolve as network

    with pytest.raises(InputError, match="start='inherited' is for picks of a run"):
        source((network("tiny:0.0.0.0.0.0").network(), None), "digits", None, None, "inherited")
