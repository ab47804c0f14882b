"""Searches of the toy space, for what is kept of them and how they continue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nas.loop import search
from nas.model import Meta, Model
from nas.objectives import Objective
from nas.run import Run
from nas.strategies import nsga2
from nas.toy import ToySpace, toy_evaluator, toy_objective
from nas.types import Evaluator, Strategy
from search_spaces.network import fresh
from search_spaces.space import SearchSpace

CONFIG = {"seed": 7, "steps": 4}


class ToySearch(NamedTuple):
    """The parts of one search, shared because they are compiled once per object; calling it searches."""

    space: ToySpace
    strategy: Strategy
    objective: Objective
    steps: int = 4
    rounds: int = 5

    def evaluator(self) -> Evaluator:
        return toy_evaluator(self.space, self.rounds, chunk=3)

    def __call__(self, out: Path | None = None, steps: int | None = None, **changes: Any) -> Run:
        parts = {name: changes.pop(name, getattr(self, name)) for name in ("space", "strategy", "objective")}
        judge = changes.pop("evaluator", None) or self.evaluator()
        options = {"key": jax.random.key(7), "snapshot_s": 0.0, "out": out} | changes
        return search(**parts, evaluator=judge, steps=steps or self.steps, **options)


@pytest.fixture(scope="session")
def toy_search() -> ToySearch:
    space = ToySpace()
    return ToySearch(space, nsga2.strategy(space, population=8), toy_objective(space))


@pytest.fixture(scope="session")
def straight(toy_search: ToySearch) -> Run:
    """The search that nobody interrupted."""
    return toy_search()


@pytest.fixture(scope="session")
def finished(toy_search: ToySearch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    toy_search(out, config=CONFIG)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    out = tmp_path / "copy"
    out.mkdir()
    for name in ("run.json", "records.jsonl", "state.msgpack"):
        (out / name).write_bytes((finished / name).read_bytes())
    return out


@pytest.fixture
def resume(toy_search: ToySearch) -> Callable[[Path], Run]:
    return lambda out: toy_search(out, config=CONFIG)


@pytest.fixture(scope="session")
def untrained() -> Callable[..., Model]:
    """Networks of frozen spaces whose statistics and scales (negative ones too) are far from those of fresh ones."""

    def made(space: SearchSpace, seed: int = 0) -> Model:
        rng = np.random.default_rng(seed)
        drawn = {
            "var": lambda shape: rng.uniform(0.3, 2.0, shape),
            "scale": lambda shape: rng.uniform(0.5, 1.5, shape) * rng.choice((-1, 1, 1), shape),
            "bias": lambda shape: rng.normal(0, 0.4, shape),
            "mean": lambda shape: rng.normal(0, 0.4, shape),
        }

        def leaf(path: Any, value: Any) -> Any:
            draw = drawn.get(path[-1].key)
            return value if draw is None else jnp.asarray(draw(value.shape), jnp.float32)

        variables = jax.tree_util.tree_map_with_path(leaf, fresh(space, jax.random.key(seed)))
        names = tuple(str(label) for label in range(space.classes))
        channels = space.input_channels
        return Model(space, variables, Meta(space.name, names, (0.4,) * channels, (0.3,) * channels))

    return made
