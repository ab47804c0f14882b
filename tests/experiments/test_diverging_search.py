"""A search whose shared weights diverge: one line says where, what was kept, and how to go on."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# no depthwise convolution and two branches: it compiles quickly
SPACE = """
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.residual import Residual
from search_spaces.choice import Choice
from search_spaces.recorded import recorded
from search_spaces.space import SearchSpace, Stage

@recorded
def space(input_hw: int = 8, input_channels: int = 1, classes: int = 10):
    stem, stages = Stage(ConvNorm(), 8, stride=2), (Stage(Residual(Choice(1, 3)), Choice(4, 6)),)
    return SearchSpace("small", input_hw, input_channels, classes, stem, stages, Classifier())
"""
FOUR = ("space=lab_that_diverges.small", "population=4", "steps=1", "evaluator.epochs=4", "evaluator.train=384")
# with this decay each step multiplies the weights by about minus the learning rate: float32 ends after about ten steps
DIVERGING = ("evaluator.learning_rate=100", "evaluator.weight_decay=1")
LOWER = ("evaluator.learning_rate=0.1", "evaluator.weight_decay=1")


def words(out: Path, *changes: str) -> list[str]:
    return ["search", "tiny", "--out", str(out), *(word for change in (*FOUR, *changes) for word in ("--set", change))]


@pytest.fixture(scope="module")
def diverged(call: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("diverged")
    (root / "lab_that_diverges").mkdir()
    (root / "lab_that_diverges" / "small.py").write_text(SPACE)
    sys.path.append(str(root))
    yield root / "run", call(*words(root / "run", *DIVERGING))
    sys.path.remove(str(root))


def test_the_step_is_named_and_the_round_before_is_kept(call: Callable[..., Any], diverged: tuple[Path, Any]) -> None:
    from experiments.results import load_run
    from nas.run_files import read_snapshot

    out, result = diverged
    assert result.exit_code == 2 and result.stderr.count("\n") == 1, result.output
    said = (
        r"error: the supernet's loss of epoch 1 is (nan|inf) at step \d, learning rate [\d.]+: lower the learning rate "
    )
    held = (
        f"{re.escape(str(out))} holds this search up to round 1, and other settings are another search: give another "
    )
    assert re.match(rf"{said}\(now 100.0\); {held}folder \(--out\), or remove this one\n", result.stderr), result.stderr
    assert "training 1/4" in result.stdout and "training 2/4" not in result.stdout
    snapshot = read_snapshot(out)
    assert snapshot is not None and (snapshot.round, snapshot.step) == (1, 0)
    weights = [array for name, array in snapshot.evaluator.items() if name.startswith(".params")]
    assert weights and all(np.isfinite(array).all() for array in weights)
    assert load_run(out).records == []
    before = (out / "state.msgpack").read_bytes()
    again = call(*words(out, *DIVERGING))
    assert (again.exit_code, again.stderr) == (2, result.stderr), "it goes on with the second round"
    assert "training 1/4" not in again.stdout
    assert (out / "state.msgpack").read_bytes() == before
    lower = call(*words(out, *LOWER))
    assert lower.exit_code == 2 and "learning_rate is 100.0 there and 0.1 here" in lower.stderr, "not in this folder"


@pytest.mark.slow
def test_what_the_line_advises_ends_well(call: Callable[..., Any], diverged: tuple[Path, Any], tmp_path: Path) -> None:
    found = call(*words(tmp_path / "run", *LOWER))
    assert found.exit_code == 0 and "knee" in found.stdout, found.output
