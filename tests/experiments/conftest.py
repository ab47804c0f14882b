"""The command line as tests call it, and runs made up without a search for what only reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app

IDENTITY = ("space", "devices", "objective", "strategy", "evaluator", "seed", "config")


def made_up_records(count: int, seed: int, limit: float) -> list[dict[str, Any]]:
    """Records whose error falls with size: an invented trade-off with noise, some beyond a limit on latency."""
    random = np.random.default_rng(seed)
    records = []
    for index in range(count):
        latency = float(random.uniform(0.6e-3, 2.4e-3))
        size = latency * 2.2e8 * float(random.uniform(0.7, 1.3))
        error = float(0.08 + 0.06 * (6e-4 / latency) + 0.02 * (1e5 / size) + random.exponential(0.006))
        inside = latency <= limit
        values = {"error": error if inside else None, "latency_s": latency, "weight_bytes": size}
        records.append(
            {
                "schema": 1,
                "step": index // 24,
                "index": index % 24,
                "network": f"tiny:0.0.0.0.0.{index}",
                "genes": [0, 0, 0, 0, 0, index],
                "names": {"stages/0/0/kernel": 3 + 2 * (index % 2)},
                "objectives": values,
                "costs": {"latency_s": latency, "weight_bytes": size, "macs": latency * 1e10},
                "status": "ok" if inside else "infeasible",
                "attempts": 1,
                "error": None,
                "worker": "local",
                "seconds": 0.1,
                "evaluator_version": "v",
            }
        )
    return records


def write_run(folder: Path, minimize: tuple[str, ...], count: int = 240, seed: int = 0) -> Path:
    """A run folder as a finished search leaves it, but for the snapshot."""
    folder.mkdir(parents=True)
    limit = 2e-3
    records = made_up_records(count, seed, limit)
    for record in records:
        record["objectives"] = {name: record["objectives"][name] for name in {"error", *minimize}}
    meta: dict[str, Any] = {name: {} for name in IDENTITY}
    meta["space"] = {"name": "tiny", "text": "tiny", "tree": {}}
    meta |= {"schema": 1, "steps": 10, "objective": {"minimize": list(minimize), "limits": {"latency_s": limit}}}
    (folder / "run.json").write_text(json.dumps(meta))
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def two_objectives(tmp_path: Path) -> Path:
    return write_run(tmp_path / "two", ("error", "latency_s"))


@pytest.fixture
def three_objectives(tmp_path: Path) -> Path:
    return write_run(tmp_path / "three", ("error", "latency_s", "weight_bytes"), seed=1)


@pytest.fixture(scope="session")
def call() -> Callable[..., Any]:
    """`flynas WORDS...` in this process: its exit code and what it printed."""

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), catch_exceptions=False)

    return run


@pytest.fixture(scope="session")
def flynas() -> Callable[..., Any]:
    """`flynas WORDS...` in a process of its own."""

    def run(*words: str) -> Any:
        return subprocess.run([sys.executable, "-m", "experiments.cli", *words], capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def strict() -> Callable[[str], Any]:
    """Reads JSON, and refuses the NaN and Infinity that Python alone allows."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    return lambda text: json.loads(text, parse_constant=refuse)
