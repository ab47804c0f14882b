"""`export`: from a network to a folder that is complete or not there, with a report that is true."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import device_names, load_device
from hw_models.errors import InputError
from nas import Objective, export
from nas.data import load, split
from nas.evaluators.supernet import State
from nas.exporters import native
from nas.exporters._source import source
from nas.loop import _meta
from nas.measure import onnxruntime_session
from nas.model import Meta, Model
from nas.run import Pick, Run
from nas.store import load as load_run
from nas.store import open_run
from nas.strategies import random_search
from nas.training.recipe import Recipe
from nas.types import Evaluator, Quality
from search_spaces.network import fresh, inherit
from search_spaces.space import SearchSpace
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet

module = importlib.import_module("nas.export")
QUICK: dict[str, Any] = {"measure_seconds": 0.02, "devices": ["zcu102"]}
FILES = {"architecture.json", "weights.safetensors", "model.onnx", "report.json", "README.md"}


class Watcher:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.losses: list[float] = []

    def start(self, total_epochs: int) -> None:
        self.calls.append(f"start {total_epochs}")

    def epoch(self, i: int, loss: float) -> None:
        self.calls.append(f"epoch {i}")
        self.losses.append(loss)

    def message(self, text: str) -> None:
        assert "\n" not in text

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
        assert set(row) == {"latency_s", "energy_j", "peak_memory_bytes", "weight_bytes", "fits", "precision"}
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
    assert row["fits"] is False and row["latency_s"] is None and row["energy_j"] is None and row["weight_bytes"] > 0


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


def test_a_failure_leaves_what_was_there(trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _, _ = trained
    model, watcher = native.load(folder), Watcher()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(module, "onnxruntime_latency", fail)
        export(model, tmp_path / "new", data="digits", progress=watcher)
    assert not list(tmp_path.iterdir()) and watcher.calls == ["close"]

    export(model, tmp_path / "old", data="digits", **QUICK)
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    moves = iter(("aside", "fail", "back"))

    def break_the_second(source: Any, target: Any, replace: Any = module.os.replace) -> None:
        if next(moves) == "fail":
            raise OSError("unplugged")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="unplugged"):
        patch.setattr(module.os, "replace", break_the_second)
        export(model, tmp_path / "old", data="digits", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before


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
    ]
    for network, out, options, message in cases:
        with pytest.raises(InputError, match=message):
            export(network, out, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine"]


def shared_evaluator(space: SearchSpace, describe: dict[str, Any]) -> Evaluator:
    """Random shared weights in the state of `nas.evaluators.supernet`; only `init` is used."""
    supernet = Supernet(space)

    def init(key: Any) -> Any:
        parts = supernet.init(key)
        only = {
            slot: {kind: {"params": tree["params"]} for kind, tree in kinds.items()} for slot, kinds in parts.items()
        }
        return State(only, only, jnp.int32(0))

    return Evaluator(
        init=init,
        train=lambda key, state: (state, {}),
        rounds=0,
        evaluate=lambda key, state, genes, index: Quality(np.full(len(index), np.nan, np.float32)),
        version=lambda state: "1",
        chunk=8,
        name="supernet",
        describe=describe,
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    space, folder = tiny.space(), tmp_path_factory.mktemp("search") / "run"
    describe = {"data": "digits", "seed": 3, "validation": 300, "train": 500}
    config = {"final": {"epochs": 0, "batch": 50}}
    goal = Objective(space, load_device("raspberry_pi_4"))
    judge, strategy, key = (
        shared_evaluator(space, describe),
        random_search.strategy(space, population=4),
        jax.random.key(0),
    )
    genes = space.check([1, 1, 1, 0, 2, 0])
    record = {"schema": 1, "step": 0, "index": 0, "network": space.text(genes), "genes": genes.tolist(), "status": "ok"}
    record |= {"objectives": {"error": 0.5, "latency_s": 1.0}, "costs": {}}
    # what `search` writes, without pricing a space and compiling a strategy for it
    with open_run(folder, _meta(space, strategy, judge, goal, key, config), 1) as writer:
        writer.append([record])
        writer.save(0, 1, judge.init(key), {})
    return load_run(folder)


def test_a_pick_of_a_run_inherits_its_weights_data_and_settings(searched: Run, tmp_path: Path) -> None:
    assert searched.folder is not None
    pick, space = searched.pick("best"), tiny.space()
    report = export(pick, tmp_path / "out", start="inherited", **QUICK)
    model = native.load(tmp_path / "out")
    assert report["network"] == pick.network == model.meta.network
    assert model.space == space.freeze(pick["genes"])
    assert (report["data"]["train"], report["data"]["validation"], report["data"]["seed"]) == (500, 300, 3)
    assert report["training"]["recipe"]["epochs"] == 0 and report["training"]["start"] == "inherited"
    np.testing.assert_allclose(model.meta.mean, split(load("digits"), 300, 3, 500).mean)
    shared = shared_evaluator(space, {}).init(jax.random.key(0)).params
    expected = inherit(shared, space, pick["genes"])["params"]
    jax.tree.map(np.testing.assert_array_equal, model.variables["params"], expected)
    variance = model.variables["batch_stats"]["stem_0"]["norm"]["var"]
    assert not np.allclose(variance, 1), "the statistics were set from images"


def changed(run: Run, **evaluator: Any) -> Pick:
    meta = {**run.meta, "evaluator": {**run.meta["evaluator"], **evaluator}, "config": None}
    return Run(None, meta, run.records).pick("best")


def test_what_a_run_lacks_is_named(searched: Run) -> None:
    with pytest.raises(InputError, match="contents differ"):
        source(changed(searched, data_hash="0" * 64), None, None, None, "fresh")
    with pytest.raises(InputError, match="names no data set"):
        source(changed(searched, data=None), None, None, None, "fresh")
    with pytest.raises(InputError, match="'my_photos' cannot be loaded"):
        source(changed(searched, data="my_photos"), None, None, None, "fresh")
    with pytest.raises(InputError, match="start='fresh'"):
        source(changed(searched), None, None, None, "inherited")


def test_defaults_of_a_pick(searched: Run) -> None:
    plain = source(changed(searched), None, None, None, "fresh")
    assert plain.recipe == Recipe(epochs=30) and plain.seed == 3 and plain.variables is None
    own = split(load("digits"), 100, 0)
    given = source(searched.pick("best"), own, Recipe(epochs=1), 7, "fresh")
    assert given.splits is own and given.recipe == Recipe(epochs=1) and given.seed == 7
    assert source(searched.pick("best"), None, None, None, "fresh").recipe == Recipe(epochs=0, batch=50)


def test_a_pair_is_trained_only_where_that_is_asked_for() -> None:
    pair = (small(), fresh(small(), jax.random.key(1)))
    as_it_is = source(pair, "digits", None, None, "fresh")
    assert as_it_is.recipe is None and as_it_is.start == "given" and as_it_is.variables is pair[1]
    assert source((small(), None), "digits", None, None, "fresh").recipe == Recipe(epochs=30)
    assert source(pair, "digits", Recipe(epochs=2), None, "fresh").recipe == Recipe(epochs=2)
    assert source(pair, "digits", None, None, "fresh", "mine").name == "mine"


def test_a_model_keeps_the_name_and_the_preprocessing_it_was_trained_with() -> None:
    meta = Meta("tiny:0.0.0.0.1.0", tuple("0123456789"), (0.125,), (0.5,))
    found = source(Model(small(), fresh(small(), jax.random.key(1)), meta), "digits", None, None, "fresh")
    assert found.name == meta.network and (found.splits.mean, found.splits.std) == (0.125, 0.5)
