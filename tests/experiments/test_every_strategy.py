"""`flynas search` with each strategy on one space and device: it leaves a run, or says what would work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw_models import discover

TARGET_S = 0.02
GRADIENT = ("darts", "gumbel_gates", "proxyless_gates", "psp")
# the whole list with -m slow: each compiles for some seconds
QUICK = ("local_search", "reinforce", "gumbel_gates")
NAMES = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in discover.names("nas.strategies")
    if name != "successive_halving"
]


@pytest.mark.parametrize("name", NAMES)
def test_it_searches_a_table_from_the_command_line(call: Callable[..., Any], tmp_path: Path, name: str) -> None:
    from experiments.results import load_run

    options = ["--set", f"strategy={name}", "--set", "steps=30"]
    if name not in GRADIENT:
        options += ["--set", "population=8"]
    one = name in (*GRADIENT, "reinforce")
    if one:
        options += ["--set", "scalar=absolute", "--set", f"targets.latency_s={TARGET_S}", "--set", "steps=60"]
    result = call("search", "macro_table", "--out", str(tmp_path / "run"), *options)
    assert result.exit_code == 0, result.output
    run = load_run(tmp_path / "run")
    assert run.front() and run.meta["strategy"]["name"] == name
    if one:
        assert "scalar absolute, target latency_s = 20 ms" in " ".join(result.stdout.split())
        assert "target" in result.stdout and abs(run.pick("scalar")["costs"]["latency_s"] / TARGET_S - 1) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["strategy=successive_halving"], "evaluator tabular cannot: take standalone"),
        (["strategy=darts"], "darts descends one number and minimize names error, latency_s: give scalar="),
        (["strategy=nsga2", "minimize=error"], "nsga2 searches a front and minimize names error only"),
        (["strategy=nsga2", "population=4000", "space=tiny"], "population 4000 is more than the 144 networks"),
        (["strategy=reinforce", "scalar=absolute", "targets.latency_s=100"], "target latency_s=100 cannot be reached"),
        (["scalar=product"], "nsga2 searches a front and scalar=product asks for one number: drop the scalar"),
        (["scalar=absolut"], "unknown scalar 'absolut': did you mean 'absolute'"),
        (["targets.latency_s=1"], "targets (latency_s) without a scalar aim at nothing"),
        (["strategy=exhaustive", "space=fbnet"], "too many for exhaustive search"),
        (["strategy=surrogate_bo", "minimize=latency_s,params"], "predicts the error and minimize names"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(
    call: Callable[..., Any], tmp_path: Path, options: list[str], message: str
) -> None:
    given = [word for option in options for word in ("--set", option)]
    result = call("search", "macro_table", "--out", str(tmp_path / "run"), *given)
    assert result.exit_code != 0 and message in " ".join(result.stderr.split()), result.output
    assert "Traceback" not in result.output
