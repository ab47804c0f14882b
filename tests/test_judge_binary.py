"""The experiment on weights of 1 bit: its ways, what is frozen, and that what is done is not done again."""

import doctest
import json
import sys

import jax
import pytest

from hw_models.errors import InputError


@pytest.fixture(scope="module")
def judge(scripts_by_name):
    import judge_binary

    return judge_binary


def run(judge, monkeypatch, folder, *more):
    small = ("--data", "fashion_mnist_10k", "--train", "64", "--held", "100", "--epochs", "1", "--seeds", "1")
    places = ("--out", str(folder / "out"), "--work", str(folder / "work"), "--granularities", "kernel")
    monkeypatch.setattr(sys, "argv", ["judge_binary.py", *small, *places, *more])
    judge.main()


def test_its_examples_hold(judge):
    assert doctest.testmod(judge).failed == 0


def test_only_normalisations_have_gradients(judge):
    params = {
        "conv": {"kernel": jax.numpy.ones((2, 2))},
        "norm": {"scale": jax.numpy.ones(2), "bias": jax.numpy.ones(2)},
    }
    found = jax.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(judge.frozen_weights(p))))(params)
    assert not found["conv"]["kernel"].any() and found["norm"]["scale"].all() and found["norm"]["bias"].all()


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_weights_are_binary_at_the_end(judge, monkeypatch, tmp_path, capsys):
    way = "APSQ, not lazy, then norms"
    run(judge, monkeypatch, tmp_path, "--ways", way)
    file = tmp_path / "out" / "binary_fashion_mnist_10k.json"
    first = json.loads(file.read_text())["seeds"]["0"]
    assert set(first) == {"float32", f"{way}, by kernel"}
    monkeypatch.setattr(judge, "train", None)
    run(judge, monkeypatch, tmp_path, "--ways", way)
    assert json.loads(file.read_text())["seeds"]["0"] == first
    assert f"{first[f'{way}, by kernel']['test']:.2f}" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("given", [("--ways", "binary/apsq"), ("--granularities", "pixel")])
def test_unknown_names_are_refused(judge, monkeypatch, tmp_path, given):
    with pytest.raises(InputError, match="unknown way or granularity"):
        run(judge, monkeypatch, tmp_path, *given)
