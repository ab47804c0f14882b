"""The command line: what it prints, how it fails, and one search from the configuration to the folder."""

from __future__ import annotations

import importlib.resources
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app

COMMANDS = ("data", "list", "cost", "explain", "search", "plot", "export")
QUICK = ["--set", "steps=2", "--set", "population=4", "--set", "evaluator=lab_of_cli_tests.stub"]


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def flynas(*words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, **settings)


def strict(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"flynas {command}" in result.stdout.split("Example", 1)[1]


def test_help_is_quick_and_imports_nothing_slow() -> None:
    program = """
import sys
from experiments.cli import app
try:
    app(["--help"])
except SystemExit:
    pass
print(*sorted({"jax", "numpy", "flax", "pandas", "matplotlib", "ray"} & set(sys.modules)), file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.strip() == "" and all(command in run.stdout for command in COMMANDS)
    assert call().exit_code == 0 and call("--version").stdout.startswith("flynas ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serach"], "search"),
        (["cost"], "Missing argument"),
        (["cost", "tiny", "--devise", "zcu102"], "--devise"),
        (["cost", "mobilnet_v2", "--device", "zcu102"], "did you mean 'mobilenet_v2'"),
        (["cost", "mobilenet_v2", "--device", "zcu12"], "did you mean 'zcu102'"),
        (["cost", "mobilenet_v2", "--device", "zcu102", "--precision", "float32"], "--fallback"),
        (["cost", "mobilenet_v2", "--device", "zcu102", "--batch", "0"], "--batch 0"),
        (["cost", "mobilenet_v2", "--device", "zcu102", "--batch", "3000000000"], "--batch 3000000000"),
        (["explain", "mobilenet_v2", "--device", "zcu102", "--batch", "3000000000"], "--batch 3000000000"),
        (["cost", "tiny", "--device", "zcu102"], "add genes"),
        (["cost", ".hidden", "--device", "zcu102"], "unknown network or space '.hidden'"),
        (["cost", "tiny[classes=x]:0.0.0.0.0.0", "--device", "zcu102"], "give a whole number"),
        (["list", "zzz"], "unknown kind 'zzz' (known: blocks"),
        (["list", "dvices"], "did you mean 'devices'"),
        (["search", "tny", "--out", "x"], "did you mean 'tiny'"),
        (["search", "tiny", "--out", "x", "--set", "stpes=1"], "did you mean steps"),
        (["search", "tiny"], "--out"),
        (["search", "./tiny", "--out", "x"], "does not end in .py"),
        (["search", "tiny", "--out", "x", "--set", "steps=0"], "steps=0 is not allowed"),
        (["search", "tiny", "--out", "x", "--set", "evaluator.data=.x"], "unknown data set '.x'"),
        (
            ["search", "tiny", "--out", "x", "--set", "data=fashion_mnist[folder=x]"],
            "'x' has no train-images",
        ),
        (["search", "tiny", "--out", "x", "--set", "evaluator.data=digits[foldr=x]"], "unknown option 'foldr'"),
        (["search", "tiny", "--out", "x", "--set", "evaluator.data=./photos"], "'photos' does not exist"),
        (["search", "tiny", "--out", str(Path(__file__).parent)], "is not a run"),
        (["search", "tiny", "--out", __file__], "cannot be written"),
        (["plot", "frnt", "x", "--out", "x.png"], "did you mean 'front'"),
        (["plot", "front", "no_run_here", "--out", "x.png"], "no run folder no_run_here"),
        (["export", "some/where", "--out", "x"], "no run folder some/where"),
        (["export", "mobilenet_v2", "--out", "x"], "--data"),
        (["export", "mobilenet_v2", "--pick", "best", "--out", "x"], "--pick"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", "x", "--start", "inherited"], "--start inherited"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", "x", "--start", "frsh"], "did you mean 'fresh'"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", __file__], "is a file"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", str(Path(__file__).parent)], "not an exported"),
        (["data", "--download", "digts"], "did you mean 'digits'"),
        (["data", "--folder", "x"], "--download"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(words: list[str], message: str, tmp_path: Path) -> None:
    result = call(*words)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("kind =", "colour = 'red'\nkind ="), "colour"),
        (("default_precision =", "# default_precision ="), "default_precision"),
        (("kind =", "kind"), "not valid TOML"),
    ],
)
def test_a_wrong_device_file_is_named(edit: tuple[str, str], message: str, tmp_path: Path) -> None:
    shipped = importlib.resources.files("hw_models.devices") / "raspberry_pi_4.toml"
    wrong = tmp_path / "mine.toml"
    wrong.write_text(shipped.read_text().replace(*edit, 1))
    for words in (["cost", "mobilenet_v2"], ["search", "tiny", "--out", str(tmp_path / "x"), "--set"]):
        device = f"device={wrong}" if words[-1] == "--set" else f"--device={wrong}"
        result = call(*words, device)
        assert result.exit_code == 2 and result.stdout == "", result.output
        (line,) = result.stderr.splitlines()
        assert str(wrong) in line and message in line
    assert not (tmp_path / "x").exists()


def test_a_place_without_rights_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas import data

    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/locked/data")

    monkeypatch.setattr(data, "listing", refuse)
    result = call("data")
    assert result.exit_code == 2 and result.stderr.startswith("error: /locked/data: Permission denied: change")


def test_mistakes_of_a_real_process_have_no_traceback(tmp_path: Path) -> None:
    run = flynas("search", "quickstrt", "--out", str(tmp_path / "x"))
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: unknown configuration") and run.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_cost_of_one_device_is_an_object_with_exact_counts() -> None:
    row = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--json").stdout)
    assert (row["name"], row["device"], row["fits"]) == ("mobilenet_v2", "raspberry_pi_4", True)
    assert (row["params"], row["macs"]) == (3504872, 300774272)
    assert row["precision"] == "float32" and "default" in row["precision_note"]
    assert 0 < row["mac_utilization"] < 1 and row["weight_bytes"] == pytest.approx(4 * row["params"], rel=0.05)
    narrow = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--precision", "int8", "--json").stdout)
    assert narrow["latency_s"] < row["latency_s"] and narrow["weight_bytes"] < row["weight_bytes"] / 3
    batch = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--batch", "8", "--json").stdout)
    assert batch["latency_s"] > 4 * row["latency_s"] and batch["macs"] == row["macs"]


def test_cost_of_several_devices_is_an_array_and_agrees_with_the_table(tmp_path: Path) -> None:
    words = ("cost", "mobilenet_v3_small", "--device", "zcu102", "--device", "a100")
    rows = strict(call(*words, "--json").stdout)
    assert [row["device"] for row in rows] == ["zcu102", "a100"] and all(row["name"] for row in rows)
    text = call(*words).stdout
    assert "zcu102" in text and "2,542,856" in text and f"{rows[0]['latency_s'] * 1e3:.3g} ms" in text


def test_what_does_not_fit_has_nulls(tmp_path: Path) -> None:
    from hw_models import load_device

    small = load_device("raspberry_pi_4").to_json()
    small["memory"]["dram_bytes"] = 1e5
    lines = [f'kind = "{small["kind"]}"', f'default_precision = "{small["default_precision"]}"']
    for section in ("compute", "memory", "energy", "provenance"):
        lines.append(f"[{section}]")
        for name, value in small[section].items():
            table = "{" + ", ".join(f"{k} = {v}" for k, v in value.items()) + "}" if isinstance(value, dict) else None
            lines.append(f"{name} = {table or json.dumps(value)}")
    (tmp_path / "small.toml").write_text("\n".join(lines))
    row = strict(call("cost", "mobilenet_v2", "--device", str(tmp_path / "small.toml"), "--json").stdout)
    assert row["fits"] is False and row["latency_s"] is None and row["energy_j"] is None
    assert row["mac_utilization"] is None and row["resource_fraction"] > 1 and row["params"] == 3504872
    assert "no: " in call("cost", "mobilenet_v2", "--device", str(tmp_path / "small.toml")).stdout


def test_explain_adds_up_to_the_cost() -> None:
    rows = strict(call("explain", "mobilenet_v3_small", "--device", "raspberry_pi_4", "--json").stdout)
    whole = strict(call("cost", "mobilenet_v3_small", "--device", "raspberry_pi_4", "--json").stdout)
    assert sum(row["macs"] for row in rows) == whole["macs"] and all(row["name"] for row in rows)
    assert sum(row["latency_s"] for row in rows) == pytest.approx(whole["latency_s"], rel=1e-4)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-5)
    text = call("explain", "mobilenet_v3_small", "--device", "raspberry_pi_4").stdout
    assert rows[0]["name"] in text and "bound by" in text


def test_lists_name_everything_and_are_json() -> None:
    everything = strict(call("list", "--json").stdout)
    assert set(everything) >= {
        "spaces", "blocks", "strategies", "evaluators", "devices", "datasets", "references", "kernels",
    }  # fmt: skip
    for kind, rows in everything.items():
        assert rows and all(row["name"] and row["description"] for row in rows), kind
    spaces = {row["name"]: row for row in everything["spaces"]}
    from search_spaces.spaces import quickstart

    assert spaces["quickstart"]["size"] == quickstart.space().size and isinstance(spaces["quickstart"]["size"], int)
    devices = {row["name"]: row for row in strict(call("list", "devices", "--json").stdout)}
    assert (
        devices["zcu102"]["kind"] == "fpga"
        and devices["zcu102"]["default_precision"] in devices["zcu102"]["precisions"]
    )
    assert sum(row["selected"] for row in everything["kernels"]) == 1
    assert "quickstart" in call("list", "spaces").stdout
    data = {row["name"]: row for row in strict(call("data", "--json").stdout)}
    assert data["fashion_mnist_10k"]["found"] is True and "fashion_mnist_10k" in call("data").stdout


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
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
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
    assert run.meta["config"]["strategy"]["crossover_rate"] == 0.9


def test_the_same_search_again_returns_the_same_run(searched: tuple[Path, Any]) -> None:
    out, first = searched
    before = (out / "records.jsonl").read_bytes()
    again = call("search", "tiny", "--out", str(out), *QUICK)
    assert again.exit_code == 0 and "is finished" in again.stdout
    assert (out / "records.jsonl").read_bytes() == before
    other = call("search", "tiny", "--out", str(out), *QUICK, "--seed", "1")
    assert other.exit_code == 2 and "holds another run" in other.stderr and other.stderr.count("\n") == 1


def test_a_limit_that_nothing_meets_and_what_was_found(searched: tuple[Path, Any], tmp_path: Path) -> None:
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
def test_a_damaged_run_is_named_and_left_alone(searched: tuple[Path, Any], tmp_path: Path, damaged: str) -> None:
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


def test_a_folder_of_images_with_options_from_search_to_export(searched: tuple[Path, Any], tmp_path: Path) -> None:
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
    searched: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    ):
        wrong = call("export", str(out), "--out", str(model), *words)
        assert wrong.exit_code == 2 and message in wrong.stderr, (words, wrong.stderr)


@pytest.mark.slow
def test_the_quickstart_configuration_shortened(tmp_path: Path) -> None:
    """On real clothes, in processes of their own: every file that the quickstart promises, and sound numbers in it."""
    out = tmp_path / "run"
    short = ["--set", "evaluator.epochs=2", "--set", "steps=2", "--set", "population=6"]
    for words in (
        ["search", "quickstart", "--out", str(out), *short],
        ["export", str(out), "--pick", "best", "--set", "epochs=2", "--out", str(out / "model")],
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
    assert report["test_accuracy"] > 0.6 and report["agreement"]["max_relative_difference"] < 1e-4
    assert report["predicted"]["raspberry_pi_4"]["latency_s"] <= 3e-3 and len(report["predicted"]) >= 6
    assert report["measured"]["onnxruntime"]["latency_s"] > 0


@pytest.mark.slow
def test_the_tiny_configuration_as_shipped(tmp_path: Path) -> None:
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
    # the console script, unlike `python -m`, has no working directory on its path
    start = "import sys; sys.path = [p for p in sys.path if p]; from experiments.cli import main; main()"
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
