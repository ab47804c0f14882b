"""`export`: from a network to a folder that is complete or not there, with a report that is true."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hw_models import device_names, load_device
from hw_models.errors import InputError
from nas import export
from nas.data_source import load
from nas.exporters import native
from nas.exporters._working import working_folder
from nas.measure import onnxruntime_session
from nas.training.recipe import Recipe
from search_spaces.space import SearchSpace
from search_spaces.spaces import tiny

module = importlib.import_module("nas.export")
QUICK: dict[str, Any] = {"measure_seconds": 0.02, "devices": ["zcu102"]}
FILES = {"architecture.json", "weights.safetensors", "model.onnx", "report.json", "README.md"}


class Watcher:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.losses: list[float] = []
        self.said: list[str] = []

    def start(self, total_epochs: int) -> None:
        self.calls.append(f"start {total_epochs}")

    def epoch(self, i: int, loss: float) -> None:
        self.calls.append(f"epoch {i}")
        self.losses.append(loss)

    def message(self, text: str) -> None:
        assert "\n" not in text
        self.said.append(text)

    def close(self) -> None:
        self.calls.append("close")


def small() -> SearchSpace:
    return tiny.space().freeze([0, 0, 0, 0, 1, 0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Watcher]:
    folder, watcher = tmp_path_factory.mktemp("export") / "deep" / "model", Watcher()
    recipe = Recipe(epochs=6, batch=64, shift=0, flip=False)
    report = export((small(), None), folder, data="digits", recipe=recipe, progress=watcher, measure_seconds=0.02)
    return folder, report, watcher


def test_the_folder_is_complete_and_nothing_else_remains(trained: Any) -> None:
    folder, report, watcher = trained
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["files"] == {name: (folder / name).stat().st_size for name in FILES - {"report.json"}}
    assert watcher.calls == ["start 6", *(f"epoch {i}" for i in range(6)), "close"]
    assert watcher.losses[-1] < watcher.losses[0]


def test_the_accuracy_is_that_of_the_files_on_all_test_images(trained: Any) -> None:
    folder, report, _ = trained
    digits = load("digits")
    pixels = (digits.test_images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    (by_onnx,) = onnxruntime_session(folder / "model.onnx").run(None, {"images": pixels})
    by_jax = native.load(folder).logits(digits.test_images)
    for logits in (by_onnx, by_jax):
        assert (logits.argmax(1) == digits.test_labels).mean() == pytest.approx(report["test_accuracy"], abs=1e-9)
    assert report["test_accuracy"] > 0.6, "six epochs on digits teach something"
    assert report["agreement"]["images"] == 256 and report["agreement"]["max_abs_difference"] < 1e-4
    assert np.abs(by_onnx - by_jax).max() < 1e-4


def test_the_report_says_what_and_with_what(trained: Any) -> None:
    _, report, _ = trained
    layers = small().lower()
    assert report["name"] == report["network"] and report["space"] == "tiny"
    assert report["params"] == sum(layer.params for layer in layers)
    assert report["macs"] == sum(layer.macs for layer in layers)
    assert set(report["predicted"]) == set(device_names())
    for row in report["predicted"].values():
        assert set(row) == {
            "batch",
            "latency_s",
            "interval_s",
            "latency_error",
            "energy_j",
            "peak_memory_bytes",
            "weight_bytes",
            "fits",
            "precision",
        }
        assert row["latency_error"] is None  # no shipped device was calibrated
        assert row["fits"] and row["latency_s"] > 0
    assert report["measured"]["onnxruntime"]["latency_s"] > 0
    # train and validation images together are all that are not test images
    assert report["data"]["train"] + report["data"]["validation"] == report["training"]["images"] == 1400
    assert report["data"]["test"] == 397 and report["training"]["recipe"]["epochs"] == 6
    assert report["training"]["seconds"] > 0 and {"jax", "onnx", "onnxruntime"} <= set(report["versions"])


def test_the_readme_runs(trained: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    folder, _, _ = trained
    digits = load("digits")
    Image.fromarray(digits.test_images[0, ..., 0]).save(folder.parent / "image.png")
    program = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(program.splitlines()) == 6
    program = program.replace("image.png", str(folder.parent / "image.png"))
    monkeypatch.chdir(folder)
    exec(program, {})
    (folder.parent / "image.png").unlink()
    assert capsys.readouterr().out.strip() == str(native.load(folder).logits(digits.test_images[:1]).argmax())


def test_what_does_not_fit_has_no_latency() -> None:
    nano = load_device("zcu102").with_numbers(memory__dram_bytes=100.0)
    row = module.predict(small(), [nano])["zcu102"]
    assert row["fits"] is False and row["weight_bytes"] > 0
    assert row["latency_s"] is row["latency_error"] is row["energy_j"] is None


def test_a_trained_pair_is_exported_as_it_is_and_replaces_an_earlier_export(trained: Any, tmp_path: Path) -> None:
    folder, _, _ = trained
    model = native.load(folder)
    out = tmp_path / "copy"
    for _ in range(2):
        report = export(model, out, data="digits", **QUICK)
    assert report["training"]["start"] == "given" and report["training"]["recipe"] is None
    jax.tree.map(np.testing.assert_array_equal, native.load(out).variables, model.variables)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes.txt"):
        export(model, out, data="digits", **QUICK)
    assert (out / "notes.txt").read_text() == "mine"


def test_integers_are_written_where_asked_for(trained: Any, tmp_path: Path) -> None:
    folder, plain, _ = trained
    model, digits, out = native.load(folder), load("digits"), tmp_path / "out"
    report = export(model, out, data="digits", quantize="int8", **QUICK)
    assert "int8" not in plain and {path.name for path in out.iterdir()} == {*FILES, "model_int8.onnx"}
    found = report["int8"]
    assert report["files"]["model_int8.onnx"] == found["bytes"] == (out / "model_int8.onnx").stat().st_size
    assert found["agreement"]["same_answers"] >= 0.995 and found["agreement"]["images"] == 256
    assert found["measured"]["onnxruntime"]["precision"] == "int8"
    assert found["measured"]["onnxruntime"]["latency_s"] > 0 and found["calibration_images"] == 256
    pixels = (digits.test_images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    (logits,) = onnxruntime_session(out / "model_int8.onnx").run(None, {"images": pixels})
    assert (logits.argmax(1) == digits.test_labels).mean() == pytest.approx(found["test_accuracy"], abs=1e-9)
    assert found["test_accuracy"] > report["test_accuracy"] - 0.02
    assert f"{found['test_accuracy']:.2%}" in (out / "README.md").read_text()
    export(model, out, data="digits", **QUICK)
    assert {path.name for path in out.iterdir()} == FILES, "an earlier file is not left behind"


def test_a_failure_leaves_what_was_there(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = trained
    model, watcher = native.load(folder), Watcher()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    said = f"{tmp_path}/new cannot be written .disk full.: .*the same command exports it again$"
    with monkeypatch.context() as patch, pytest.raises(InputError, match=said):
        patch.setattr(module, "onnxruntime_latency", fail)
        export(model, tmp_path / "new", data="digits", progress=watcher)
    assert not list(tmp_path.iterdir()) and watcher.calls == ["close"]

    export(model, tmp_path / "old", data="digits", **QUICK)
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    moves = iter(("aside", "fail", "back"))

    def break_the_second(source: Any, target: Any, replace: Any = os.replace) -> None:
        if next(moves) == "fail":
            raise OSError("unplugged")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="old cannot be written .unplugged."):
        patch.setattr(os, "replace", break_the_second)
        export(model, tmp_path / "old", data="digits", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


def test_a_training_that_was_stopped_goes_on(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same file; other settings train for themselves, and neither loses what the other keeps."""
    folder, report, _ = trained
    recipe, out = Recipe(**report["training"]["recipe"]), tmp_path / "model"
    given: dict[str, Any] = {"data": "digits", **QUICK}
    monkeypatch.setattr("nas.exporters._training.KEPT_EVERY_S", 0.0)

    class Stopped(Watcher):
        def epoch(self, i: int, loss: float) -> None:
            if i == 3:
                raise KeyboardInterrupt
            super().epoch(i, loss)

    with pytest.raises(KeyboardInterrupt):
        export((small(), None), out, recipe=recipe, progress=Stopped(), **given)
    (kept,) = tmp_path.iterdir()
    assert kept.name == ".model.export"

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr(module, "onnxruntime_latency", fail)
        export((small(), None), out, recipe=dataclasses.replace(recipe, epochs=1), **given)
    assert sorted(len(path.name) for path in kept.iterdir()) == [4, 12, 12], "a lock, and one of each setting"
    watcher = Watcher()
    monkeypatch.setenv("NPROC", "77")  # what XLA read long ago, and reads no more
    again = export((small(), None), out, recipe=recipe, progress=watcher, **given)
    assert watcher.calls == ["start 6", "epoch 4", "epoch 5", "close"]
    assert "going on after epoch 4 of 6, where this training was stopped" in watcher.said
    assert any("continued under other versions" in text and '"77"' in text for text in watcher.said)
    assert again["test_accuracy"] == report["test_accuracy"]
    name = "weights.safetensors"
    assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert again["training"]["resumed_after_epoch"] == 4 and "continued under other versions" in again["notes"][0]
    assert len(list(kept.iterdir())) == 2, "the other setting's is still there"
    with pytest.warns(RuntimeWarning, match="continued under other versions"):  # nobody listens here
        export((small(), None), out, recipe=dataclasses.replace(recipe, epochs=1), **given)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_one_process_at_a_time_exports_to_a_folder(trained: Any, tmp_path: Path) -> None:
    model, out = native.load(trained[0]), tmp_path / "out"
    with working_folder(out), pytest.raises(InputError, match=rf"{out} is being exported by process \d+: wait for it"):
        export(model, out, data="digits", **QUICK)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_cleared_but_not_what_is_of_others(trained: Any, tmp_path: Path) -> None:
    model, out, place = native.load(trained[0]), tmp_path / "out", tmp_path / ".out.export"
    for name in ("part", "old"):
        (place / name).mkdir(parents=True)
        (place / name / "report.json").write_text("{}")
    with working_folder(out):  # it was killed between moving the earlier export away and the new one there
        assert [path.name for path in out.iterdir()] == ["report.json"] and not list((place / "part").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / ".new.export").mkdir()
    (tmp_path / ".new.export" / "notes.txt").write_text("mine")
    export(model, tmp_path / "new", data="digits", **QUICK)
    assert (tmp_path / ".new.export" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_wrong_onnx_model_is_never_written(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    folder, _, _ = trained
    model = native.load(folder)

    def disturbed(model: Any, target: Path, write: Any = module.onnx.export) -> Any:
        head = dict(model.variables["params"]["head"])
        bias = head["logits"]["bias"]
        head["logits"] = {**head["logits"], "bias": bias + wrong}
        params = {**model.variables["params"], "head": head}
        return write(model._replace(variables={**model.variables, "params": params}), target)

    monkeypatch.setattr(module.onnx, "export", disturbed)
    with pytest.raises(RuntimeError, match="differs from the network"):
        export(model, tmp_path / "out", data="digits", **QUICK)
    assert not list(tmp_path.iterdir())


def test_bad_arguments_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    cases: list[tuple[Any, Path, dict[str, Any], str]] = [
        ((small(), None), tmp_path / "mine", {"data": "digits"}, "thesis.tex"),
        ((small(), None), tmp_path / "file", {"data": "digits"}, "is a file"),
        ((small(), None), tmp_path / "out", {}, "data is missing"),
        ((small(), None), tmp_path / "out", {"data": "fashion_mnist_10k"}, "28x28x1"),
        ((tiny.space(classes=3).freeze([0] * 6), None), tmp_path / "out", {"data": "digits"}, "3"),
        ((tiny.space(), None), tmp_path / "out", {"data": "digits"}, "freeze"),
        ((small(), None), tmp_path / "out", {"data": "digits", "start": "inherit"}, "did you mean 'inherited'"),
        ((small(), None), tmp_path / "out", {"data": "digits", "devices": ["zcu"]}, "zcu102"),
        ("tiny", tmp_path / "out", {"data": "digits"}, "nothing to export"),
        ((small(), None), tmp_path / "out", {"data": "digits", "quantize": "int4"}, "did you mean 'int8'"),
    ]
    for network, out, options, message in cases:
        with pytest.raises(InputError, match=message):
            export(network, out, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]
