"""From the configuration to the folder, through the command line: search, plot and export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_models.errors import InputError

QUICK = ["--set", "steps=2", "--set", "population=4", "--set", "evaluator=lab_of_cli_tests.stub"]

STUB = """
import numpy as np
from nas.types import Evaluator, Quality

def evaluator(space, *, data="digits", validation: int = 200, seed: int = 0, rounds: int = 1):
    def train(key, state):
        return state + 1, {"loss": 0.5, "images_per_s": 1234.5}
    def evaluate(key, state, genes, index):
        return Quality(0.5 - np.asarray(genes).sum(1) / 20)
    describe = {"data": data, "validation": validation, "seed": seed}
    return Evaluator(lambda key: np.zeros(1), train, rounds, evaluate, lambda state: "v", 2, "stub", describe=describe)
"""


@pytest.fixture(scope="module")
def searched(call: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """A search of the tiny space with an evaluator that trains nothing."""
    root = tmp_path_factory.mktemp("search")
    (root / "lab_of_cli_tests").mkdir()
    (root / "lab_of_cli_tests" / "stub.py").write_text(STUB)
    sys.path.append(str(root))
    yield root / "run", call("search", "tiny", "--out", str(root / "run"), *QUICK)
    sys.path.remove(str(root))


def test_a_search_says_what_it_chose_and_leaves_a_run(searched: tuple[Path, Any]) -> None:
    from experiments.results import load_run

    out, result = searched
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "\r" not in result.output
    said_always = ("space", "digits", "raspberry_pi_4", "float32", "thread", "depthwise kernel", "training 1/1", "2/2")
    for said in (*said_always, "1,234 images/s", "candidates/s"):
        assert said in result.stdout, said
    assert "knee" in result.stdout and str(out) in result.stdout
    run = load_run(out)
    assert len(run.records) == 8 and run.meta["config"]["evaluator"]["rounds"] == 1
    assert run.meta["config"]["strategy"]["crossover_rate"] == 0.5


def test_a_search_without_the_compiled_kernels_says_so_in_one_line(
    call: Callable[..., Any], searched: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_spaces.kernels import depthwise, native

    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(depthwise, "_told", [])
    result = call("search", "tiny", "--out", str(tmp_path / "run"), *QUICK)
    assert result.exit_code == 0 and "depthwise kernel  scan" in result.stdout, result.output
    assert result.stderr.startswith("warning: training is slower without") and result.stderr.count("\n") == 1


def test_the_same_search_again_returns_the_same_run(call: Callable[..., Any], searched: tuple[Path, Any]) -> None:
    out, first = searched
    before = (out / "records.jsonl").read_bytes()
    again = call("search", "tiny", "--out", str(out), *QUICK)
    assert again.exit_code == 0 and "is finished" in again.stdout
    assert (out / "records.jsonl").read_bytes() == before
    other = call("search", "tiny", "--out", str(out), *QUICK, "--seed", "1")
    assert other.exit_code == 2 and "holds another run" in other.stderr and other.stderr.count("\n") == 1


def test_a_search_by_a_measured_table_holds_on_to_that_table(
    call: Callable[..., Any], searched: tuple[Path, Any], tmp_path: Path
) -> None:
    """Every block takes a second for each thousand of its multiply-accumulates: what no model says."""
    from experiments.results import load_run
    from hw_models import LookupTable
    from hw_models.lookup_table import Row
    from hw_models.table_files import table_text
    from hw_models.table_keys import block_key
    from nas.variants import Variants
    from search_spaces.spaces import tiny

    def write(seconds_per_mac: float) -> None:
        space = tiny.space(input_hw=8, input_channels=1, classes=10)
        layers = [row.layers for row in Variants(space).rows if row.layers]
        rows = {block_key(each, "float32"): Row(seconds_per_mac * sum(layer.macs for layer in each)) for each in layers}
        header = ("cpu", "block", "time", "float32", "r", 1, "s", "MIT", "2026-11-25")
        (tmp_path / "mine.csv").write_text(table_text(LookupTable("mine", "Board", *header, rows), "s"))

    write(1e-3)
    words = ("search", "tiny", "--out", str(tmp_path / "run"), *QUICK, "--set", f"table={tmp_path}/mine.csv")
    result = call(*words)
    assert result.exit_code == 0 and "latency measured" in result.stdout, result.output
    run = load_run(tmp_path / "run")
    for record in run.records:
        assert record["costs"]["latency_s"] == pytest.approx(record["costs"]["macs"] * 1e-3, rel=1e-5)
    assert "is finished" in call(*words).stdout
    write(2e-3)
    other = call(*words)
    assert other.exit_code == 2 and "holds another run" in other.stderr and "measured" in other.stderr


def test_a_limit_that_nothing_meets_and_what_was_found(
    call: Callable[..., Any], searched: tuple[Path, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    costs = call("search", "tiny", "--out", str(out), *QUICK, "--set", "limits.latency_s=1e-9")
    assert costs.exit_code == 2 and "latency_s" in costs.stderr and costs.stderr.count("\n") == 1
    error = call("search", "tiny", "--out", str(out), *QUICK, "--set", "limits.error=0.001")
    assert error.exit_code == 2 and error.stderr.count("\n") == 1
    lowest = min(json.loads(line)["objectives"]["error"] for line in (out / "records.jsonl").read_text().splitlines())
    assert f"error of at most 0.001: the lowest is {lowest:.6g}" in error.stderr
    exported = call("export", str(out), "--out", str(tmp_path / "model"))
    assert exported.exit_code == 2 and exported.stderr == error.stderr.replace("error: ", "error: nothing to pick: ")


@pytest.mark.parametrize("damaged", ["run.json", "records.jsonl"])
def test_a_damaged_run_is_named_and_left_alone(
    call: Callable[..., Any], searched: tuple[Path, Any], tmp_path: Path, damaged: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(searched[0], out)
    (out / damaged).write_text("}" + (out / damaged).read_text())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for words in (
        ["search", "tiny", "--out", str(out), *QUICK],
        ["plot", "front", str(out), "--out", str(tmp_path / "front.png")],
        ["export", str(out), "--out", str(tmp_path / "model")],
    ):
        result = call(*words)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1 and damaged in result.stderr, result.output
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_an_unknown_kernel_is_refused_before_anything_is_trained(call: Callable[..., Any], tmp_path: Path) -> None:
    for config in ("tiny", "resnet"):  # the latter has no depthwise layer that would meet it
        result = call("search", config, "--out", str(tmp_path / "run"), "--set", "evaluator.depthwise=sacn")
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
        assert "did you mean 'scan'" in result.stderr and not (tmp_path / "run").exists()


def test_what_is_wrong_inside_a_compiled_program_is_one_line(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX adds notes of its own to what is raised while it traces."""

    def refuse(*_: Any) -> Any:
        raise InputError("shift=9 is not allowed: give 8")

    monkeypatch.setattr("nas.training.shared.augment", refuse)
    result = call("search", "tiny", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    assert "shift=9 is not allowed" in result.stderr and "JAX" not in result.stderr


@pytest.mark.slow
def test_a_folder_of_images_with_options_from_search_to_export(
    call: Callable[..., Any], strict: Callable[..., Any], searched: tuple[Path, Any], tmp_path: Path
) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "photos" / ("dark", "light")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 100, (20, 24, 3)) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    out, data = tmp_path / "a:b", f"{tmp_path}/photos[size=12,grey=true]"  # a colon may not make it a network's text
    words = ["--set", f"data={data}", "--set", "validation=8"]
    uneven = call("search", "tiny", "--out", str(out), *QUICK, "--set", f"data={tmp_path}/photos")
    assert uneven.exit_code == 2 and "20x24" in uneven.stderr and "[size=N]" in uneven.stderr
    search = call("search", "tiny", "--out", str(out), *QUICK, *words)
    assert search.exit_code == 0 and "input_hw=12" in search.stdout and "classes=2" in search.stdout, search.output
    model = tmp_path / "model"
    settings = ["--set", "epochs=1", "--set", "batch=8"]
    result = call("export", str(out), "--pick", "best", *settings, "--out", str(model))
    assert result.exit_code == 0, result.output
    found = strict((model / "report.json").read_text())["data"]
    assert (found["name"], found["validation"], found["test"]) == ("photos", 8, 8)


def test_plot_and_export_take_the_run(
    call: Callable[..., Any],
    strict: Callable[..., Any],
    searched: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, _ = searched
    picture = tmp_path / "deep" / "front.png"
    assert call("plot", "front", str(out), "--out", str(picture)).exit_code == 0
    assert picture.stat().st_size > 5000
    assert call("plot", "front", str(out), "--out", "front.txt").exit_code == 2
    model = tmp_path / "model"
    words = ("export", str(out), "--pick", "best", "--under", "latency=5ms", "--set", "epochs=1", "--out", str(model))
    result = call(*words)
    assert result.exit_code == 0, result.output
    report = strict((model / "report.json").read_text())
    assert "test accuracy" in result.stdout and f"{report['test_accuracy']:.2%}"[:-1] in result.stdout
    assert report["training"]["recipe"]["epochs"] == 1 and report["training"]["recipe"]["batch"] == 64
    assert "epoch 1/1" in result.stdout
    monkeypatch.chdir(tmp_path)
    for name in (str(model / "architecture.json"), "model/", "model"):
        priced = strict(call("cost", name, "--device", "raspberry_pi_4", "--json").stdout)
        assert priced["params"] == report["params"]
    for words, message in (
        (["--under", "latency=1us"], "no network has latency_s"),
        (["--pick", "99"], "not on the front"),
        (["--pick", "kne"], "did you mean 'knee'"),
        (["--set", "epoch=1"], "did you mean 'epochs'"),
        (["--set", "epochs=x"], "give a whole number"),
        (["--teacher", "me"], "teacher 'me'"),
        (["--distillation", "0.3"], "has no teacher"),
        (["--teacher", "supernet"], "keeps no shared weights to teach"),
    ):
        wrong = call("export", str(out), "--out", str(model), *words)
        assert wrong.exit_code == 2 and message in wrong.stderr, (words, wrong.stderr)


@pytest.mark.slow
def test_the_quickstart_configuration_shortened(
    flynas: Callable[..., Any], strict: Callable[..., Any], tmp_path: Path
) -> None:
    """On real clothes, in processes of their own: every file that the quickstart promises, and sound numbers in it."""
    out = tmp_path / "run"
    short = ["--set", "evaluator.epochs=2", "--set", "steps=2", "--set", "population=6"]
    taught = ["--teacher", "supernet", "--distillation", "0.3"]
    for words in (
        ["search", "quickstart", "--out", str(out), *short],
        ["export", str(out), "--pick", "best", "--set", "epochs=2", *taught, "--out", str(out / "model")],
        ["plot", "front", str(out), "--out", str(out / "front.png")],
    ):
        run = flynas(*words)
        assert run.returncode == 0, run.stderr
    assert {path.name for path in out.iterdir()} >= {
        "run.json", "records.jsonl", "state.msgpack", "front.png", "model"
    }  # fmt: skip
    assert {path.name for path in (out / "model").iterdir()} >= {
        "architecture.json", "weights.safetensors", "model.onnx", "report.json"
    }  # fmt: skip
    meta, report = (strict((out / name).read_text()) for name in ("run.json", "model/report.json"))
    assert (meta["evaluator"]["train"], meta["evaluator"]["validation"], meta["evaluator"]["test"]) == (
        7000,
        1000,
        2000,
    )
    assert (report["training"]["teacher"], report["training"]["distillation"]) == ("supernet", 0.3)
    assert 0.2 < report["training"]["teacher_error"] < 0.9
    assert report["test_accuracy"] > 0.6 and report["agreement"]["max_relative_difference"] < 1e-4
    assert report["predicted"]["raspberry_pi_4"]["latency_s"] <= 3e-3 and len(report["predicted"]) >= 6
    assert report["measured"]["onnxruntime"]["latency_s"] > 0


@pytest.mark.slow
def test_the_tiny_configuration_as_shipped(flynas: Callable[..., Any], tmp_path: Path) -> None:
    """In a process of its own: with real training the best network is far better than chance (90 % error)."""
    run = flynas("search", "tiny", "--out", str(tmp_path / "run"))
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert min(row["objectives"]["error"] for row in rows if row["objectives"]["error"] is not None) < 0.5


HANGING = """
import pathlib
import time
import numpy as np
from nas.types import Evaluator, Quality

def evaluator(space):
    def evaluate(key, state, genes, index):
        if index[0] == 2 and not pathlib.Path("go").exists():
            print("stop me now", flush=True)
            time.sleep(600)
        return Quality(np.asarray(genes).sum(1) / 100 + 0.1)
    return Evaluator(lambda key: np.zeros(1), None, 0, evaluate, lambda state: "v", 1, "hanging")
"""


def test_an_interrupted_search_says_so_and_continues(tmp_path: Path) -> None:
    """A search over code of one's own, in the working directory, stopped as Ctrl-C stops it."""
    lab = tmp_path / "lab_of_mine"
    lab.mkdir()
    (lab / "hanging.py").write_text(HANGING)
    words = ["search", "tiny", "--out", "run", "--set", "evaluator=lab_of_mine.hanging", "--set", "population=4"]
    words += ["--set", "steps=3", "--set", "strategy=random_search"]
    # the console script, unlike `python -m`, has no working directory on its path; background jobs ignore SIGINT
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start += "sys.path = [p for p in sys.path if p]; from experiments.cli import main; main()"
    command = [sys.executable, "-c", start, *words]
    root = str(Path(__file__).parents[2])
    settings: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": root}, "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)
    assert process.stdout is not None
    while "stop me now" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines() == ["stopped; the same command continues it"]
    kept = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert len(kept) == 2
    (tmp_path / "go").touch()
    again = subprocess.run(command, capture_output=True, **settings)
    assert again.returncode == 0, again.stderr
    records = (tmp_path / "run" / "records.jsonl").read_text().splitlines()
    assert len(records) == 12 and records[: len(kept)] == kept
