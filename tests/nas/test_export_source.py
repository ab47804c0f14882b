"""What is exported: a pick of a run with its own data and settings, or a pair of one's own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import load_device
from hw_models.device_file import parse_device
from hw_models.errors import InputError
from nas import Objective, export
from nas.data import Data, content_hash, split
from nas.data_source import load
from nas.evaluators import supernet
from nas.evaluators.supernet import State
from nas.export import Silent
from nas.exporters import native
from nas.exporters._source import source
from nas.model import Meta, Model
from nas.preparation import identity
from nas.run import Pick, Run
from nas.store import load as load_run
from nas.store import open_run
from nas.strategies import random_search
from nas.training.extremes import extremes
from nas.training.recipe import Recipe
from nas.training.teacher import supernet_teacher
from nas.types import Evaluator, Quality
from search_spaces.network import fresh, inherit
from search_spaces.space import SearchSpace
from search_spaces.spaces import tiny
from search_spaces.supernet import Supernet

QUICK: dict[str, Any] = {"measure_seconds": 0.02, "devices": ["zcu102"]}


def small() -> SearchSpace:
    return tiny.space().freeze([0, 0, 0, 0, 1, 0])


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
    describe = {"data": "digits", "data_from": "digits", "seed": 3, "validation": 300, "train": 500}
    return written_run(folder, space, shared_evaluator(space, describe))


def written_run(folder: Path, space: SearchSpace, judge: Evaluator) -> Run:
    config = {"final": {"epochs": 0, "batch": 50}}
    goal = Objective(space, load_device("raspberry_pi_4"))
    strategy, key = random_search.strategy(space, population=4), jax.random.key(0)
    genes = space.check([1, 1, 1, 0, 2, 0])
    record = {"schema": 1, "step": 0, "index": 0, "network": space.text(genes), "genes": genes.tolist(), "status": "ok"}
    record |= {"objectives": {"error": 0.5, "latency_s": 1.0}, "costs": {}, "names": {}, "error": None}
    record |= {"evaluator_version": "1"}
    # what `search` writes, without pricing a space and compiling a strategy for it
    with open_run(folder, identity(space, strategy, judge, goal, key, config), 1) as writer:
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


def test_the_largest_network_of_the_shared_weights_teaches(searched: Run) -> None:
    pick, space = searched.pick("best"), tiny.space()
    few = Recipe(epochs=1)
    found = source(pick, None, few, None, "fresh", teacher="supernet")
    assert (found.teacher, found.distillation, found.variables) == ("supernet", 0.5, None) and found.guide is not None
    shared, x = shared_evaluator(space, {}).init(jax.random.key(0)).params, jnp.ones((4, 8, 8, 1)) * 0.3
    expected = supernet_teacher(Supernet(space), shared, extremes(space).largest)(x)
    np.testing.assert_array_equal(found.guide(x), expected)
    assert source(pick, None, few, None, "fresh", teacher="supernet", distillation=0.2).distillation == 0.2
    assert source(pick, None, None, None, "fresh").guide is None
    for given, message in (
        ({"teacher": "supernet"}, "teaches nothing in 0 epochs: give epochs, or leave it out"),
        ({"teacher": "supernt"}, "did you mean 'supernet'"),
        ({"distillation": 0.3}, "distillation=0.3 has no teacher to follow: give teacher='supernet'"),
        ({"teacher": "supernet", "distillation": 1.5}, "distillation=1.5 is out of range: give 0 to 1"),
    ):
        with pytest.raises(InputError, match=message):
            source(pick, None, None, None, "fresh", **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="keeps no shared weights to teach: use teacher='none'"):
        source(changed(searched), None, None, None, "fresh", teacher="supernet")
    with pytest.raises(InputError, match="is for picks of a run"):
        source((small(), None), "digits", None, None, "fresh", teacher="supernet")


def changed(run: Run, **evaluator: Any) -> Pick:
    meta = {**run.meta, "evaluator": {**run.meta["evaluator"], **evaluator}, "config": None}
    return Run(None, meta, run.records).pick("best")


def test_what_a_run_lacks_is_named(searched: Run) -> None:
    with pytest.raises(InputError, match="contents differ"):
        source(changed(searched, data_hash="0" * 64), None, None, None, "fresh")
    with pytest.raises(InputError, match="names no data set"):
        source(changed(searched, data_from=3), None, None, None, "fresh")
    with pytest.raises(InputError, match="'my_photos' cannot be loaded"):
        source(changed(searched, data_from="my_photos"), None, None, None, "fresh")
    with pytest.raises(InputError, match=r"\(digits\) were given in memory.*--data"):
        source(changed(searched, data_from=None), None, None, None, "fresh")
    with pytest.raises(InputError, match="train='all', not a whole number"):
        source(changed(searched, train="all"), None, None, None, "fresh")
    torn = searched.meta | {"space": searched.meta["space"] | {"tree": {"name": "tiny"}}}
    with pytest.raises(InputError, match=r"key 'space.tree' of run.json cannot be used"):
        source(Run(None, torn, searched.records).pick("best"), None, None, None, "fresh")
    with pytest.raises(InputError, match="start='fresh'"):
        source(changed(searched), None, None, None, "inherited")


def pictures(folder: Path, seed: int = 0) -> Path:
    """Two classes of 20 colour images of 8x8."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_a_run_on_a_folder_of_images_finds_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, recipe = tiny.space(classes=2, input_channels=3), Recipe(epochs=1, batch=4)
    pictures(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    judge = supernet.evaluator(space, data="./pets", validation=8, train=20, epochs=1, batch=4, calibration=4, seed=5)
    run = written_run(tmp_path / "run", space, judge)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = source(run.pick("best"), None, None, None, "fresh")
    assert content_hash(found.splits) == judge.describe["data_hash"] and found.notes == ()
    report = export(run.pick("best"), tmp_path / "out", recipe=recipe, **QUICK)
    assert (report["data"]["name"], report["data"]["train"], report["notes"]) == ("pets", 20, [])

    # other images are taken where they are given, cut alike, and named as such
    said: list[str] = []
    watcher = Silent()
    monkeypatch.setattr(watcher, "message", said.append)
    other = pictures(tmp_path / "strays", seed=1)
    report = export(run.pick("best"), tmp_path / "out", data=str(other), recipe=recipe, progress=watcher, **QUICK)
    assert (report["data"]["train"], report["data"]["validation"]) == (20, 8)
    assert "not those the run was made with" in said[0] and report["notes"] == [said[0]]
    (tmp_path / "pets").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="pets' cannot be loaded, give it with data=... .--data"):
        source(run.pick("best"), None, None, None, "fresh")
    assert source(run.pick("best"), str(tmp_path / "moved"), None, None, "fresh").notes == ()


def test_a_run_on_a_function_finds_its_images_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_lab.py").write_text("from nas.data_source import load\ndef numbers(): return load('digits')\n")
    monkeypatch.syspath_prepend(tmp_path)
    given = (importlib.import_module("mine_lab").numbers, "mine_lab.numbers")
    few: dict[str, Any] = {"validation": 200, "train": 300, "epochs": 1, "calibration": 50}
    for position, data in enumerate(given):
        judge = supernet.evaluator(tiny.space(), data=data, **few)
        run = written_run(tmp_path / f"run{position}", tiny.space(), judge)
        assert run.meta["evaluator"]["data_from"] == "mine_lab.numbers"
        found = source(run.pick("best"), None, None, None, "fresh").splits
        assert content_hash(found) == judge.describe["data_hash"]


def test_other_data_that_are_too_few_say_what_the_run_had(searched: Run) -> None:
    few = load("digits")
    few = Data("few", few.images[:700], few.labels[:700], few.images, few.labels, few.class_names, "")
    with pytest.raises(InputError, match="made with 500 training and 300 validation images: .*more than the 700"):
        source(searched.pick("best"), few, None, None, "fresh")


def test_the_devices_of_a_run_are_kept_in_the_form_of_their_files(searched: Run) -> None:
    stored = searched.meta["devices"]["raspberry_pi_4"]
    assert parse_device(stored, "raspberry_pi_4") == load_device("raspberry_pi_4")


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
