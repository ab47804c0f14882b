"""FlyNAS' own format: nothing is lost, and damage is noticed and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.exporters import native
from nas.model import Meta, Model
from search_spaces.network import fresh
from search_spaces.spaces import tiny
from search_spaces.texts import resolve

META = Meta("tiny:1.1.1.1.2.1", tuple("0123456789"), (0.3,), (0.4,), "made for a test")


def small_model() -> Model:
    space = tiny.space().freeze([1, 1, 1, 1, 2, 1])
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: leaf + rng.random(leaf.shape, np.float32), fresh(space, jax.random.key(0)))
    return Model(space, variables, META)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert native.export(small_model(), tmp_path) == (native.ARCHITECTURE, native.WEIGHTS)
    return tmp_path


def test_round_trip_is_exact(folder: Path) -> None:
    model, loaded = small_model(), native.load(folder)
    space, variables, meta = loaded
    assert space == model.space and meta == META and space.fingerprint == model.space.fingerprint
    jax.tree.map(np.testing.assert_array_equal, variables, model.variables)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(loaded.logits(images), model.logits(images))


def test_the_architecture_stands_for_the_network_wherever_one_is_asked(folder: Path) -> None:
    space, meta = native.load_architecture(folder / native.ARCHITECTURE)
    assert meta == META and native.load_architecture(folder)[0] == space
    assert resolve(str(folder / native.ARCHITECTURE)).network() == space


def test_it_can_be_told_from_other_folders(folder: Path) -> None:
    assert native.is_export(folder) and not native.is_export(folder.parent)


def test_the_weights_are_named_by_path(folder: Path) -> None:
    from safetensors.numpy import load_file

    arrays = load_file(folder / native.WEIGHTS)
    assert {"params/stages_0_0/expand/kernel", "batch_stats/stem_0/norm/var"} <= set(arrays)


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / native.WEIGHTS).read_bytes())
    data[-10] ^= 1
    (folder / native.WEIGHTS).write_bytes(data)


def cut_the_weights(folder: Path) -> None:
    (folder / native.WEIGHTS).write_bytes((folder / native.WEIGHTS).read_bytes()[:-4])


def lose_the_weights(folder: Path) -> None:
    (folder / native.WEIGHTS).unlink()


def edit(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tree = json.loads((folder / native.ARCHITECTURE).read_text())
        change(tree)
        (folder / native.ARCHITECTURE).write_text(json.dumps(tree))

    return damage


def drop_an_array(folder: Path) -> None:
    """The checksum is right, but the weights are those of another network."""
    from safetensors.numpy import load_file, save

    arrays = load_file(folder / native.WEIGHTS)
    del arrays["params/stages_0_0/expand/kernel"]
    data = save(arrays)
    (folder / native.WEIGHTS).write_bytes(data)
    edit(lambda tree: tree["weights"].update(sha256=hashlib.sha256(data).hexdigest()))(folder)


def reshape_an_array(folder: Path) -> None:
    from safetensors.numpy import load_file, save

    arrays = load_file(folder / native.WEIGHTS)
    arrays["params/head/logits/bias"] = np.zeros(3, np.float32)
    data = save(arrays)
    (folder / native.WEIGHTS).write_bytes(data)
    edit(lambda tree: tree["weights"].update(sha256=hashlib.sha256(data).hexdigest()))(folder)


def truncate_the_architecture(folder: Path) -> None:
    (folder / native.ARCHITECTURE).write_text((folder / native.ARCHITECTURE).read_text()[:100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "checksum"),
        (cut_the_weights, "checksum"),
        (lose_the_weights, "needs the weights"),
        (drop_an_array, "lacks 'params/stages_0_0/expand/kernel'"),
        (reshape_an_array, "params/head/logits/bias"),
        (truncate_the_architecture, "no exported network"),
        (edit(lambda tree: tree.pop("class_names")), "lacks 'class_names'"),
        (edit(lambda tree: tree.pop("format")), "lacks 'format'"),
        (edit(lambda tree: tree["space"].pop("stem")), "damaged"),
        (edit(lambda tree: tree["weights"].pop("sha256")), "lacks 'sha256'"),
        (edit(lambda tree: tree["weights"].update(file="../weights.safetensors")), "needs the weights"),
        (edit(lambda tree: tree.update(schema=99)), "schema 99"),
    ],
)
def test_damage_is_named_in_one_line(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        native.load(folder)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        native.load(tmp_path / "nothing")


def test_weights_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    model = small_model()
    other = tiny.space().freeze([0, 0, 0, 0, 0, 0])
    with pytest.raises(InputError, match="the model"):
        native.export(Model(other, model.variables, META), tmp_path)
    assert not list(tmp_path.iterdir())
