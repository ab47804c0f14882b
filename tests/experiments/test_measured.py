"""Files of measured networks, and the commands that calibrate and validate devices with them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import validation
from experiments.measured import read_measured
from hw_models import InputError, load_device

GOLDEN = Path(__file__).parents[1] / "golden"
HEAD = "network,latency_s\n"
GOOD = HEAD + "mobilenet_v2,0.1\nmobilenet_v3_small,0.02\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "measured.csv"
    path.write_text(text)
    return path


def test_reads_latency_and_throughput_per_run(tmp_path: Path) -> None:
    latency = read_measured(written(tmp_path, "# a comment\n" + GOOD))
    assert latency.networks == ("mobilenet_v2", "mobilenet_v3_small")
    assert latency.seconds.tolist() == [0.1, 0.02]
    assert latency.common_batch == 1
    assert int(latency.workload.macs[1].sum()) == 56510400
    text = "network,throughput_per_s,batch,precision\nmobilenet_v2,100,8,int8\nmobilenet_v2,120,16,int8\n"
    throughput = read_measured(written(tmp_path, text))
    assert throughput.seconds == pytest.approx([0.08, 16 / 120])
    assert throughput.common_batch is None
    assert throughput.settings == {"precision": "int8"} and throughput.busy


def test_repeated_measurements_count_once(tmp_path: Path) -> None:
    found = read_measured(written(tmp_path, GOOD + "mobilenet_v2,0.121\n"))
    assert found.seconds == pytest.approx([0.11, 0.02])


@pytest.mark.parametrize("form", [b"\xef\xbb\xbf%s", b"%s"], ids=["byte order mark", "none"])
def test_reads_what_spreadsheets_write(tmp_path: Path, form: bytes) -> None:
    path = tmp_path / "measured.csv"
    lines = ["network, latency_s ,batch", '"mobilenet_v3_small[input_hw=192,classes=10]", 0.02 ,', "mobilenet_v2,0.1,1"]
    path.write_bytes(form % "\r\n".join(lines).encode())
    found = read_measured(path)
    assert found.networks == ("mobilenet_v3_small[input_hw=192,classes=10]", "mobilenet_v2")
    assert found.seconds.tolist() == [0.02, 0.1]


@pytest.mark.parametrize("board", ["zcu102", "zcu104"])
def test_fpga_overlays_predict_the_times_that_their_vendor_measured(board: str) -> None:
    """The boards' files use no measured network; the vendor's times include the preparation of the image."""
    case = validation.prepare(board, GOLDEN / f"vitis_ai_{board}.csv")
    guess, seconds = validation.predicted(case.device, case), case.measured.seconds
    assert len(seconds) == 12 and np.abs(seconds / guess - 1).max() < 0.4
    assert np.abs(guess / seconds - 1).mean() < 0.2
    per_mac = seconds / validation.by_macs(case)
    assert (
        np.abs(np.exp(np.log(per_mac).mean()) / per_mac - 1).mean() > 0.4
    )  # what multiply-accumulates alone would say


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "network"),
        (HEAD, "holds no measured network"),
        ("latency_s\n0.1\n", "column 'network' is missing"),
        ("network\nmobilenet_v2\n", "neither of latency_s and throughput_per_s"),
        ("network,latency_s,throughput_per_s\nmobilenet_v2,1,1\n", "both of latency_s and throughput_per_s"),
        ("network,latency_ms\nmobilenet_v2,1\n", "must name its unit"),
        ("network,latency_s,bach\nmobilenet_v2,1,1\n", "did you mean 'batch'"),
        (GOOD + "mobilenet_v2,0.1\n", "line 4: mobilenet_v2 at batch 1 has the same time in line 2"),
        (GOOD + "mobilenet_v2,0.4\n", "line 4: mobilenet_v2 at batch 1 takes 0.4 s per run, and 0.1 s in line 2"),
        ("network,latency_s,latency_s\nresnet18,1,2\n", "column 'latency_s' is there twice"),
        (GOOD + '"resnet18\n",0.1\n', "line 4: not CSV"),
        (GOOD + '"resnet18,0.1\n', "line 4: not CSV"),
        ("network,latency_s,batch\nresnet18,1,1e12\n", "line 2: batch is 1e+12: give a whole number"),
        (GOOD + "resnet18,0\n", "line 4: latency_s is 0"),
        (GOOD + "resnet18,-1\n", "line 4: latency_s is -1"),
        (GOOD + "resnet18,nan\n", "line 4: latency_s is nan"),
        (GOOD + "resnet18,fast\n", "line 4: latency_s is 'fast': give a number"),
        (GOOD + "resnet18,1_000\n", "line 4: latency_s is '1_000': give a number"),
        (GOOD + "resnet18\n", "line 4: too few values"),
        (GOOD + "resnet18,1,2\n", "line 4: too many values"),
        (GOOD + ",1\n", "line 4: no network"),
        (GOOD + "resnet81,1\n", "line 4: unknown network or space 'resnet81': did you mean 'resnet18'"),
        (GOOD + "tiny,1\n", "line 4: 'tiny' is a space"),
        ("network,latency_s,batch\nresnet18,1,1.5\n", "line 2: batch is 1.5: give a whole number"),
        ("network,latency_s,precision\nresnet18,1,int8\nvgg16,1,float32\n", "'precision' has several values"),
        ("network,latency_s,count\nresnet18,1,-3\n", "line 2: count is -3"),
    ],
)
def test_bad_files_are_refused_with_line_and_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_measured(written(tmp_path, text))
    assert message in str(caught.value)
    assert "measured.csv" in str(caught.value)


@pytest.fixture(scope="module")
def zcu102_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty measured networks."""
    text = (GOLDEN / "accel_nasbench_times.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in text if not line.startswith("#")))[:30]
    path = tmp_path_factory.mktemp("measured") / "zcu102.csv"
    path.write_text(HEAD + "".join(f"{row['network']},{float(row['zcu102_ms']) / 1e3}\n" for row in rows))
    return path


def test_calibrate_writes_a_device_that_knows_its_error(
    call: Callable[..., Any], zcu102_rows: Path, tmp_path: Path
) -> None:
    out, figure = tmp_path / "mine.toml", tmp_path / "agreement.png"
    result = call("calibrate", "zcu102", str(zcu102_rows), "--out", str(out), "--figure", str(figure), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["networks"] == 30
    assert report["held_out"]["mape"]["value"] < 0.6 * report["before"]["mape"]["value"]
    assert report["held_out"]["spearman"]["low"] <= report["held_out"]["spearman"]["value"]
    assert set(report["constants"]) >= {"compute.op_overhead_s", "memory.efficiency"}
    assert figure.stat().st_size > 5000
    device = load_device(out)
    assert device.calibration is not None
    assert device.calibration.networks == 30
    priced = call("cost", "mobilenet_v2", "--device", str(out)).stdout
    assert f"+- {100 * device.calibration.typical_error:.2g} %" in priced
    assert "+-" not in call("cost", "mobilenet_v2", "--device", str(out), "--batch", "3").stdout
    assert "+-" in call("explain", "mobilenet_v2", "--device", str(out)).stdout


def test_validate_reports_and_draws(call: Callable[..., Any], zcu102_rows: Path, tmp_path: Path) -> None:
    figure = tmp_path / "agreement.svg"
    words = ("validate", "zcu102", str(zcu102_rows), "--out", str(figure), "--ablate")
    report = json.loads(call(*words, "--json").stdout)
    assert report["name"] == "zcu102"
    assert report["networks"] == 30
    assert 0.9 < report["spearman"]["value"] <= 1
    names = [row["name"] for row in report["ablation"]]
    assert names[0] == "all terms"
    assert names[-1] == "multiply-accumulates alone"
    assert report["ablation"][0]["spearman"] > report["ablation"][-1]["spearman"]
    assert "measured (ms)" in figure.read_text()
    shown = call(*words)
    assert shown.exit_code == 0
    assert (
        "30 networks" in shown.stdout and "95 % interval" in shown.stdout and "without depthwise unit" in shown.stdout
    )


def test_validate_draws_few_networks_to_fit(call: Callable[..., Any], zcu102_rows: Path) -> None:
    result = call("validate", "zcu102", str(zcu102_rows), "--fit", "20", "--draws", "2", "--json")
    drawn = json.loads(result.stdout)["fit"]["draws"]
    assert len(drawn) == 2
    assert np.mean([each["mape"] for each in drawn]) < 0.15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("validate", "zcu12", "{file}"), "did you mean 'zcu102'"),
        (("validate", "zcu102", "nowhere.csv"), "nowhere.csv cannot be read"),
        (("validate", "zcu102", "{file}", "--precision", "float32"), "not supported by zcu102"),
        (("validate", "zcu102", "{file}", "--fit", "29"), "--fit 29 leaves 1 of 30"),
        (("validate", "zcu102", "{file}", "--fit", "5"), "5 measured networks cannot fit"),
        (("validate", "zcu102", "{file}", "--fit", "-3"), "'--fit': Input should be greater than or equal to 1"),
        (("validate", "zcu102", "{file}", "--draws", "0"), "'--draws': Input should be greater"),
        (("validate", "zcu102", "{file}", "--seed", "-1"), "'--seed': Input should be greater"),
        (("validate", "zcu102", "{file}", "--precision", ""), "precision '' is not known"),
        (("validate", "zcu102", "{file}", "--out", "x.txt"), "is no picture"),
        (("calibrate", "zcu102", "{file}", "--out", "x.toml", "--seed", "-1"), "'--seed': Input should be greater"),
        (("calibrate", "zcu102", "{file}", "--out", "x.csv"), "end it in .toml"),
        (("calibrate", "zcu102", "{file}"), "--out"),
    ],
)
def test_bad_commands_are_one_line(
    call: Callable[..., Any], zcu102_rows: Path, words: tuple[str, ...], message: str
) -> None:
    result = call(*(word.format(file=zcu102_rows) for word in words))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_networks_that_ran_although_they_cannot_are_named(call: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path, "network,latency_s\nmobilenet_v2,0.01\nresnet18,0.02\nvgg16,0.1\n")
    words = ("validate", "edge_tpu", str(path))
    assert set(json.loads(call(*words, "--json").stdout)["too_large"]) == {"vgg16", "resnet18"}
    said = "warning: 2 of 3 networks cannot run on edge_tpu by its model, yet were measured (vgg16 needs 17 times"
    assert said in call(*words).stdout
    assert "warning" not in call("validate", "raspberry_pi_4", str(path)).stdout


def test_the_calibrated_file_has_the_threads_of_the_measurement(call: Callable[..., Any], tmp_path: Path) -> None:
    names = [f"mobilenet_v2[input_hw={side}]" for side in range(96, 96 + 32 * 14, 32)]
    path = written(tmp_path, "network,latency_s,threads\n" + "".join(f'"{name}",1,4\n' for name in names))
    case = validation.prepare("raspberry_pi_4", path)
    seconds = validation.predicted(case.device, case) * 1.1
    lines = (f'"{name}",{each},4\n' for name, each in zip(names, seconds, strict=True))
    written(tmp_path, "network,latency_s,threads\n" + "".join(lines))
    out = tmp_path / "mine.toml"
    assert call("calibrate", "raspberry_pi_4", str(path), "--out", str(out)).exit_code == 0
    priced = json.loads(call("cost", names[3], "--device", str(out), "--json").stdout)
    assert abs(priced["latency_s"] / seconds[3] - 1) < 0.05


def test_draws_judge_on_networks_that_the_fit_has_not_seen(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "".join(f"mobilenet_v2[classes={10 + i}],0.{i + 1:03}\n" for i in range(14)))
    case = validation.prepare("raspberry_pi_4", path)
    one = case._replace(workload=validation.rows(case.workload, np.zeros(14, int)))
    with pytest.raises(InputError, match="leaves 0 networks unlike those"):
        validation.draws(one, 10, 1)


def test_too_few_networks_to_hold_some_out_say_how_many_it_takes(call: Callable[..., Any], tmp_path: Path) -> None:
    names = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "vgg16")
    path = written(tmp_path, HEAD + "".join(f"{name},0.{i + 1}\n" for i, name in enumerate(names)))
    result = call("calibrate", "raspberry_pi_4", str(path), "--out", str(tmp_path / "mine.toml"))
    assert result.exit_code == 2
    assert "5 measured networks cannot fit the 9 constants" in result.stderr
    assert "measure at least 12" in result.stderr
    assert not (tmp_path / "mine.toml").exists()


def test_a_precision_that_the_file_names_wrongly_is_that_of_its_column(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    path = written(tmp_path, "network,latency_s,precision\nmobilenet_v2,0.1,fp8\n")
    error = call("validate", "zcu102", str(path)).stderr
    assert "measured.csv, column 'precision': precision 'fp8' is not known" in error


def test_threads_belong_to_processors(call: Callable[..., Any], tmp_path: Path) -> None:
    path = written(tmp_path, "network,latency_s,threads\nmobilenet_v2,0.1,4\nresnet18,0.5,4\nvgg16,3,4\n")
    assert "is of kind fpga" in call("validate", "zcu102", str(path)).stderr
    four = json.loads(call("validate", "raspberry_pi_4", str(path), "--json").stdout)
    path.write_text(path.read_text().replace(",4\n", ",1\n"))
    one = json.loads(call("validate", "raspberry_pi_4", str(path), "--json").stdout)
    assert four["mape"]["value"] != one["mape"]["value"]
