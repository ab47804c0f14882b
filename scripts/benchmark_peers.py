"""Other people's packages, each in a virtual environment of its own, asked questions by a script in `scripts/peers`.

A script reads its question as JSON from standard input and prints its answer as one line of JSON, the last one. It runs
in an empty folder that is removed afterwards, and what it keeps in a home folder stays in its environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "peers"
# What is pinned is what was measured. The rest of a package's requirements is what its index offers on that day.
PEERS: dict[str, tuple[str, ...]] = {
    "scalesim": ("scalesim==3.0.0", "numpy==1.26.4", "pandas==2.2.3"),  # dies with numpy 2
    "nni": ("nni==3.0", "torch==2.13.0", "pytorch-lightning==2.1.4", "setuptools==80.9.0"),  # needs pkg_resources
    "nn_meter": ("nn-meter==2.0", "onnx==1.23.2"),
    "torch": ("torch==2.13.0", "numpy==2.4.6"),
    "ofa": ("ofa==0.1.0.post202307202001", "torch==2.13.0", "torchvision==0.28.0", "pyyaml==6.0.4", "pillow==13.0.0"),
    "zigzag": ("zigzag-dse==3.9.1", "six==1.17.0"),  # six: used, but not among what it requires
}
DONE = "installed.txt"


class NotMeasured(Exception):
    """A peer could not be installed, or did not answer; the text says why."""


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of the peer's environment below `folder`; made when it is missing or was for other versions.

    Raises:
        NotMeasured: it cannot be made.
    """
    home, wanted = folder / name, "\n".join(PEERS[name]) + "\n"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (home / DONE).exists() or (home / DONE).read_text() != wanted:
        print(f"{name}: installing {', '.join(PEERS[name])} into {home} ...", file=sys.stderr, flush=True)
        home.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home)], "venv", cwd=home.parent)
        _run([str(python), "-m", "pip", "install", "--quiet", *PEERS[name]], "pip", cwd=home)
        (home / DONE).write_text(wanted)
    return python


def ask(python: Path, script: Path, question: Any, environment: dict[str, str] | None = None) -> Any:
    """The answer of `script`, run by `python`, to `question`; `environment` are further variables.

    Raises:
        NotMeasured: it ended with an error; the text is the last line of it.
    """
    # The environment's own folder stands in for the home folder: a peer that keeps files there keeps them out of ours.
    home = {"HOME": str(python.parent.parent), "USERPROFILE": str(python.parent.parent), "PYTHONWARNINGS": "ignore"}
    home |= environment or {}
    with tempfile.TemporaryDirectory() as empty:
        return json.loads(
            _run([str(python), str(script)], script.stem, empty, json.dumps(question), home).strip().splitlines()[-1]
        )


def ask_ours(script: Path, question: Any, environment: dict[str, str] | None = None) -> Any:
    """The answer of one of our own scripts, run by this interpreter with the packages of the checkout it lies in.

    Raises:
        NotMeasured: as `ask`.
    """
    return ask(Path(sys.executable), script, question, {"PYTHONPATH": str(script.parents[1])} | (environment or {}))


def answer(name: str, folder: Path, question: Any) -> Any:
    """What the peer `name` answers, from `scripts/peers/ask_<name>.py`.

    Raises:
        NotMeasured: it could not be installed or asked.
    """
    python = python_of(name, folder)
    print(f"{name}: measuring ...", file=sys.stderr, flush=True)
    return ask(python, SCRIPTS / f"ask_{name}.py", question)


def _run(words: list[str], what: str, cwd: Any, text: str = "", also: dict[str, str] | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | (also or {})
    done = subprocess.run(words, cwd=cwd, input=text, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise NotMeasured(f"{what}: {lines[-1].strip() if lines else f'ended with {done.returncode}'}")
    return done.stdout
