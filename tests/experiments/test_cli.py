"""The command line: what it prints and how it fails."""

from __future__ import annotations

import importlib.resources
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("data", "list", "cost", "explain", "show", "search", "plot", "export")
COMMANDS += ("calibrate", "validate", "import-table")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(call: Callable[..., Any], command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"flynas {command}" in result.stdout.split("Example", 1)[1]


def test_help_is_quick_and_imports_nothing_slow(call: Callable[..., Any]) -> None:
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
        (["explain", "mobilenet_v2", "--device", "zcu102", "--precision", "float32"], "--fallback"),
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
        (["plot", "front", "--out", "x.png"], "give one run folder or more"),
        (["plot", "progress", "x", "--out", "x.png", "--batch", "1"], "has no --batch"),
        (["plot", "front", "x", "--out", "x.png", "--serial"], "has no --serial"),
        (["plot", "front", "x", "--out", "x.png", "--dataflow", "ws"], "has no --dataflow"),
        (["plot", "utilization", "--out", "x.txt"], "is no picture"),
        (["plot", "utilization", "--out", "x.png", "--x", "latency"], "leave out --x"),
        (["plot", "utilization", "vgg61", "--out", "x.png"], "did you mean 'vgg16'"),
        (["plot", "utilization", "tiny", "--out", "x.png"], "add genes"),
        (["plot", "utilization", "tiny:0.0.0.0.0.0", "--out", "x.png", "--dataflow", "wss"], "did you mean 'ws'"),
        (["plot", "utilization", "--out", "x.png", "--batch", "0"], "--batch 0"),
        (["plot", "utilization", "tiny:0.0.0.0.0.0", "--out", f"{__file__}/x.png"], "cannot be written"),
        (["export", "some/where", "--out", "x"], "no run folder some/where"),
        (["export", "mobilenet_v2", "--out", "x"], "--data"),
        (["export", "mobilenet_v2", "--pick", "best", "--out", "x"], "--pick"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", "x", "--start", "inherited"], "--start inherited"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", "x", "--start", "frsh"], "did you mean 'fresh'"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", "x", "--quantize", "int9"], "did you mean 'int8'"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", __file__], "is a file"),
        (["export", "mobilenet_v2", "--data", "digits", "--out", str(Path(__file__).parent)], "not an exported"),
        (["data", "--download", "digts"], "did you mean 'digits'"),
        (["data", "--folder", "x"], "--download"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(
    call: Callable[..., Any], words: list[str], message: str, tmp_path: Path
) -> None:
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
def test_a_wrong_device_file_is_named(
    call: Callable[..., Any], edit: tuple[str, str], message: str, tmp_path: Path
) -> None:
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


def test_a_place_without_rights_is_one_line(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from nas import data

    def refuse() -> None:
        raise PermissionError(13, "Permission denied", "/locked/data")

    monkeypatch.setattr(data, "listing", refuse)
    result = call("data")
    assert result.exit_code == 2 and result.stderr.startswith("error: /locked/data: Permission denied: change")


def test_mistakes_of_a_real_process_have_no_traceback(flynas: Callable[..., Any], tmp_path: Path) -> None:
    run = flynas("search", "quickstrt", "--out", str(tmp_path / "x"))
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: unknown configuration") and run.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_cost_of_one_device_is_an_object_with_exact_counts(
    call: Callable[..., Any], strict: Callable[..., Any]
) -> None:
    row = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--json").stdout)
    assert (row["name"], row["device"], row["fits"]) == ("mobilenet_v2", "raspberry_pi_4", True)
    assert (row["params"], row["macs"]) == (3504872, 300774272)
    assert row["precision"] == "float32" and "default" in row["precision_note"]
    assert 0 < row["mac_utilization"] < 1 and row["weight_bytes"] == pytest.approx(4 * row["params"], rel=0.05)
    narrow = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--precision", "int8", "--json").stdout)
    assert narrow["latency_s"] < row["latency_s"] and narrow["weight_bytes"] < row["weight_bytes"] / 3
    batch = strict(call("cost", "mobilenet_v2", "--device", "raspberry_pi_4", "--batch", "8", "--json").stdout)
    assert batch["latency_s"] > 4 * row["latency_s"] and batch["macs"] == row["macs"]


def test_cost_of_several_devices_is_an_array_and_agrees_with_the_table(
    call: Callable[..., Any], strict: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("cost", "mobilenet_v3_small", "--device", "zcu102", "--device", "a100")
    rows = strict(call(*words, "--json").stdout)
    assert [row["device"] for row in rows] == ["zcu102", "a100"] and all(row["name"] for row in rows)
    text = call(*words).stdout
    assert "zcu102" in text and "2,542,856" in text and f"{rows[0]['latency_s'] * 1e3:.3g} ms" in text


def test_what_does_not_fit_has_nulls(call: Callable[..., Any], strict: Callable[..., Any], tmp_path: Path) -> None:
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


def test_explain_adds_up_to_the_cost(call: Callable[..., Any], strict: Callable[..., Any]) -> None:
    rows = strict(call("explain", "mobilenet_v3_small", "--device", "raspberry_pi_4", "--json").stdout)
    whole = strict(call("cost", "mobilenet_v3_small", "--device", "raspberry_pi_4", "--json").stdout)
    assert sum(row["macs"] for row in rows) == whole["macs"] and all(row["name"] for row in rows)
    assert sum(row["latency_s"] for row in rows) == pytest.approx(whole["latency_s"], rel=1e-4)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-5)
    text = call("explain", "mobilenet_v3_small", "--device", "raspberry_pi_4").stdout
    assert rows[0]["name"] in text and "bound by" in text
    assert {row["precision"] for row in rows} == {"float32"} and not any(row["note"] for row in rows)


def test_lists_name_everything_and_are_json(call: Callable[..., Any], strict: Callable[..., Any]) -> None:
    everything = strict(call("list", "--json").stdout)
    assert set(everything) >= {
        "spaces", "blocks", "strategies", "evaluators", "devices", "datasets", "references", "kernels",
    }  # fmt: skip
    for kind, rows in everything.items():
        assert rows and all(row["name"] and row["description"] for row in rows), kind
    spaces = {row["name"]: row for row in everything["spaces"]}
    from search_spaces.spaces import quickstart

    assert spaces["quickstart"]["size"] == quickstart.space().size and isinstance(spaces["quickstart"]["size"], int)
    assert spaces["fbnet"]["size"] == 9**22 and f"{9**22:,}" in call("list", "spaces").stdout
    assert (spaces["macro"]["size"], spaces["macro"]["distinct"]) == (6_561, 3_969)
    references = {row["name"]: row for row in everything["references"]}
    assert references["resnet50"]["params"] == 25_557_032 and references["micronet_m1"]["params"] is None
    assert set(references["fbnet_c"]) >= {"name", "params", "macs", "paper_params", "paper_macs", "source"}
    devices = {row["name"]: row for row in strict(call("list", "devices", "--json").stdout)}
    assert (
        devices["zcu102"]["kind"] == "fpga"
        and devices["zcu102"]["default_precision"] in devices["zcu102"]["precisions"]
    )
    assert sum(row["selected"] for row in everything["kernels"]) == 1
    assert "quickstart" in call("list", "spaces").stdout
    data = {row["name"]: row for row in strict(call("data", "--json").stdout)}
    assert data["fashion_mnist_10k"]["found"] is True and "fashion_mnist_10k" in call("data").stdout


def test_an_export_in_integers(call: Callable[..., Any], strict: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = ("export", "tiny:0.0.0.0.0.0", "--data", "digits", "--set", "epochs=1", "--quantize", "int8")
    result = call(*words, "--out", str(out))
    assert result.exit_code == 0, result.output
    report = strict((out / "report.json").read_text())["int8"]
    assert f"{report['test_accuracy']:.2%}"[:-1] in result.stdout and "int8 measured here" in result.stdout
    assert str(out / "model_int8.onnx") in result.stdout and (out / "model_int8.onnx").is_file()
