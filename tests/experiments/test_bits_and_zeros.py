"""Bits and zeros from the command line: searched, exported in integers, refused where they cannot be."""

import json

import pytest

SMALL = (
    "--set",
    "steps=1",
    "--set",
    "population=4",
    "--set",
    "evaluator.epochs=1",
    "--set",
    "evaluator.calibration=50",
)


def test_a_search_with_bits_and_fewer_channels_ends_in_a_network_of_integers(call, tmp_path):
    run, model = str(tmp_path / "run"), tmp_path / "model"
    words = ("--set", "bits=w2/4a8", "--set", "sparsity=channel", "--set", "densities=0.5/1", *SMALL)
    found = call("search", "tiny", "--out", run, *words)
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "run" / "records.jsonl").read_text().splitlines()[0])
    assert record["network"].startswith("tiny[bits=w2/4a8,densities=0.5/1,sparsity=channel]:")
    assert {name.rpartition("/")[2] for name in record["names"]} >= {"weight_bits", "density"}
    exported = call("export", run, "--pick", "best", "--out", str(model), "--set", "epochs=1")
    assert exported.exit_code == 0, exported.output
    report = json.loads((model / "report.json").read_text())
    assert (model / "model_int8.onnx").is_file() and report["int8"]["agreement"]["same_answers"] >= 0.995
    assert min(report["int8"]["weight_bits"].values()) >= 2 and "onnx_test_accuracy" in report


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("bits=mixed", "device=zcu102"), "16 and 32 bits of weights do not run on zcu102 (int8): give 2/3/4/6/8"),
        (("bits=5x",), "bits=5x is not allowed"),
        (("sparsity=2:4", "densities=0.3"), "densit"),
        (("sparsity=diagonal",), "sparsity"),
        (("densities=0.5",), "densities=0.5 prunes nothing without sparsity"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(call, tmp_path, settings, words):
    out = tmp_path / "run"
    given = [word for setting in settings for word in ("--set", setting)]
    found = call("search", "tiny", "--out", str(out), *given, *SMALL)
    assert found.exit_code == 2 and words in found.output and not out.exists(), found.output


@pytest.mark.slow
def test_structure_parameters_search_channels_with_the_latency_in_the_loss(call, tmp_path):
    run, target = tmp_path / "run", 2.6e-4
    words = ("strategy=psp", "strategy.learning_rate=0.1", "sparsity=channel", "densities=0.25/0.5/1", "steps=40")
    words += ("scalar=absolute", f"targets.latency_s={target}", "evaluator.epochs=1", "evaluator.calibration=50")
    found = call("search", "tiny", "--out", str(run), *(part for word in words for part in ("--set", word)))
    assert found.exit_code == 0, found.output
    records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    soft = [record["costs"]["latency_s"] for record in records if record["status"] == "relaxed"]
    networks = [record for record in records if record["status"] != "relaxed"]
    assert abs(soft[-1] / target - 1) < abs(soft[0] / target - 1)
    assert abs(networks[-1]["costs"]["latency_s"] / target - 1) <= 0.02
    assert any(name.endswith("/density") for name in networks[-1]["names"])
