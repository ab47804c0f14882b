"""Checkpoints: a killed training ends with the weights of an undisturbed one; those of something else are refused."""

import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.data import split
from nas.data_source import load
from nas.training.checkpoints import Checkpoints
from nas.training.epoch import Diverged
from nas.training.recipe import Recipe
from nas.training.standalone import Images, train
from search_spaces.network import fresh
from search_spaces.spaces import tiny

GENES = [0, 0, 0, 0, 0, 0]
RECIPE = {"epochs": 4, "batch": 64, "ema": 0.9, "cutout": 2, "mixup": 0.2}
KILLED = f"""
import os, sys, jax
sys.path.append({str(Path(__file__).parent)!r})
from test_checkpoints import digits
from nas.training.recipe import Recipe
from nas.training.standalone import train
from search_spaces.spaces import tiny
def report(epoch, loss):
    if epoch == 1:
        os._exit(9)
train(tiny.space().freeze({GENES}), digits(), Recipe(**{RECIPE}), jax.random.key(3), None, report,
      checkpoint=sys.argv[1])
"""


def digits(count=256):
    splits = split(load("digits"), 200, 0, count)
    return Images.of(splits)


@pytest.fixture(scope="module")
def network():
    return tiny.space().freeze(GENES)


def same(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def straight(network):
    return train(network, digits(), Recipe(**RECIPE), jax.random.key(3))


def test_a_killed_training_goes_on_to_the_same_weights(network, straight, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr[-2000:]
    epochs = []
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "continued under")
        resumed = train(
            network,
            digits(),
            Recipe(**RECIPE),
            jax.random.key(3),
            report=lambda epoch, loss: epochs.append(epoch),
            checkpoint=folder,
        )
    assert epochs == [2, 3] and same(resumed, straight)
    monkeypatch.setenv("NPROC", "77")  # what XLA read long ago, and reads no more
    with pytest.warns(RuntimeWarning, match='continued under other versions, .* threads.NPROC is .* there and "77"'):
        again = train(network, digits(), Recipe(**RECIPE), jax.random.key(3), report=pytest.fail, checkpoint=folder)
    assert same(again, straight), "a finished training is not trained again"


def test_a_checkpoint_remembers_every_machine_it_was_made_on(tmp_path, monkeypatch):
    def go_on(epoch, threads):
        monkeypatch.setenv("NPROC", threads)
        kept = Checkpoints(tmp_path, {"space": "tiny"})
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert kept.restored({"w": np.zeros(1)})[0] == epoch - 1
        kept.save(epoch, {"w": np.ones(1)})
        return [str(each.message) for each in said]

    other = f'{tmp_path}: continued under other versions, results may differ in the last bits: threads.NPROC is "{{}}"'
    assert go_on(1, "1") == go_on(2, "1") == []
    (here,) = go_on(3, "2")
    assert here == other.format("1") + ' there and "2" here'
    (still,) = go_on(4, "2")
    assert still == here, "the first epochs are from there"
    (back,) = go_on(5, "1")
    assert back == other.format("2") + ' there and "1" here'


def test_a_checkpoint_of_something_else_is_refused_by_name(network, tmp_path):
    def go(space=network, data=None, key=0, variables=None, teacher=None, folder=tmp_path / "plain", **changes):
        recipe = Recipe(**{"epochs": 1, "batch": 64, **changes})
        return train(
            space, data or digits(), recipe, jax.random.key(key), variables, teacher=teacher, checkpoint=folder
        )

    def says(number):
        return lambda x: jnp.full((len(x), 10), number)

    go()
    go(teacher=says(1.0), folder=tmp_path / "taught")
    go(teacher=says(1.00001), folder=tmp_path / "taught")  # as another machine rounds
    data, sizes = digits(), r"256 of 8x8x1 \(hash \w+\)"
    other = tiny.space().freeze([1, 0, 0, 0, 0, 0])
    for said, call in {
        rf"space is tiny#{network.fingerprint} there and tiny#{other.fingerprint} here": lambda: go(other),
        rf"the images differ, {sizes} there and 192 of 8x8x1 \(hash \w+\) here": lambda: go(data=digits(192)),
        rf"the images differ, {sizes} there and {sizes} here": lambda: go(data=data._replace(images=data.images // 2)),
        r"the labels differ, 256 \(.*\) there and 256 \(.*\) here": lambda: go(
            data=data._replace(labels=data.labels[::-1])
        ),
        r"mean and deviation of the images differ, \[.*\] there and \[0.0\] and \[.*\] here": lambda: go(
            data=data._replace(mean=np.zeros(1, np.float32))
        ),
        r"the weights to start from differ, fresh ones there and given ones \(hash \w+\) here": lambda: go(
            variables=fresh(network, jax.random.key(9))
        ),
        r"recipe.learning_rate is 0.1 there and 0.2 here": lambda: go(learning_rate=0.2),
        r"the teachers differ, one that answers 0.42\d*, ... there and one that answers 0.84\d*, ... here": lambda: go(
            teacher=says(2.0), folder=tmp_path / "taught"
        ),
        r"the teachers differ, none there and one that answers 0.42\d*, ... here": lambda: go(teacher=says(1.0)),
        r"key is \[0, 0\] there and \[0, 1\] here": lambda: go(key=1),
    }.items():
        with pytest.raises(InputError, match=said + ": give another folder, or remove this one"):
            call()


def test_damaged_and_strange_folders_are_refused(tmp_path):
    whose = {"space": "tiny"}
    Checkpoints(tmp_path / "a", whose).save(3, {"w": np.ones(5)})
    with pytest.raises(InputError, match="of another version"):
        Checkpoints(tmp_path / "a", whose).restored({"w": np.ones(6)})
    for file in (tmp_path / "a" / "3" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoint 3 cannot be read \(.*\): give another folder"):
        Checkpoints(tmp_path / "a", whose).restored({"w": np.ones(5)})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file: give a folder"):
        Checkpoints(tmp_path / "file", whose)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other things than checkpoints"):
        Checkpoints(tmp_path / "mine", whose)
    assert Checkpoints(tmp_path / "new", whose).restored({"w": np.ones(5)})[0] == 0


@pytest.mark.parametrize("every_s", [0.0, 60.0])
def test_a_loss_that_is_not_finite_names_its_step_and_leaves_the_last_good_state(network, tmp_path, every_s):
    data = digits()
    losses = []
    recipe = Recipe(epochs=3, batch=64, shift=0, flip=False)

    def poisoned(x):
        """A teacher that fails from a step of the second epoch on."""
        poisoned.calls += 1
        return np.full((len(x), 10), np.nan if poisoned.calls > 7 else 0.0, np.float32)

    poisoned.calls = 0  # the first call is the checkpoint's, which knows its teacher by what it says

    def teacher(x):
        return jax.pure_callback(poisoned, jax.ShapeDtypeStruct((len(x), 10), np.float32), x)

    with pytest.raises(
        Diverged, match=r"loss of epoch 1 is nan at step 2, learning rate 0\.0\d+: lower .*now 0.1"
    ) as told:
        train(
            network,
            data,
            recipe,
            jax.random.key(0),
            report=lambda epoch, loss: losses.append(loss),
            teacher=teacher,
            checkpoint=tmp_path,
            checkpoint_every_s=every_s,
        )
    assert (told.value.epoch, told.value.step, len(losses)) == (1, 2, 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(told.value.state.params))
    assert [folder.name for folder in tmp_path.iterdir()] == ["1"], "the checkpoint is that of the last good epoch"
