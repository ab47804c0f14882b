"""Other people's packages, each in a virtual environment of its own, asked questions by a script in `scripts/peers`.

A script reads its question as JSON from standard input and prints its answer as one line of JSON, the last one; in a
conversation it prints questions of its own before. It runs in an empty folder that is removed afterwards, and what it
keeps in a home folder stays in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
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
    "pymoo": ("pymoo==0.6.2", "numpy==2.4.6"),
    "optuna": ("optuna==5.0.0", "numpy==2.4.6"),
    "syne_tune": ("syne-tune==0.16.0", "numpy==2.4.6"),
    "qdax": ("qdax==0.5.0", "jax==0.10.2", "numpy==2.4.6"),
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
    with tempfile.TemporaryDirectory() as empty:
        words, home = [str(python), str(script)], _home(python, environment)
        return json.loads(_run(words, script.stem, empty, json.dumps(question), home).strip().splitlines()[-1])


def converse(
    python: Path,
    script: Path,
    question: Any,
    reply: Callable[[dict[str, Any]], Any],
    environment: dict[str, str] | None = None,
    silence_s: float = 600.0,
) -> Any:
    """As `ask`, of a script that asks back: every line that is an object with `ask` is answered by what `reply` says.

    The answer is the first object without `ask`; lines that are no objects are chatter.

    Raises:
        NotMeasured: it ended with an error or without an answer, or said nothing for `silence_s` seconds.
    """
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile("w+") as errors:
        # A file takes all that is written to standard error: a pipe that nobody reads would fill up and hold the peer.
        peer = subprocess.Popen(
            [str(python), str(script)],
            cwd=empty,
            env=_environment(_home(python, environment)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        silent = False

        def heard() -> str:
            def kill() -> None:
                nonlocal silent
                silent = True
                peer.kill()

            watch = threading.Timer(silence_s, kill)
            watch.start()
            try:
                return peer.stdout.readline()
            finally:
                watch.cancel()

        try:
            _say(peer, question)
            while line := heard():
                said = _object(line)
                if said is not None and "ask" not in said:
                    return said
                if said is not None:
                    _say(peer, reply(said))
        finally:
            # also where `reply` raised: nobody waits for the other
            for pipe in (peer.stdin, peer.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                peer.wait(10)
            peer.kill()
            peer.wait()
        if silent:
            raise NotMeasured(f"{script.stem}: said nothing for {silence_s:g} s")
        errors.seek(0)
        raise NotMeasured(f"{script.stem}: {_reason(errors.read(), peer.returncode)}")


def _say(peer: subprocess.Popen[str], value: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has ended: reading finds out, and says why
        peer.stdin.write(json.dumps(value) + "\n")
        peer.stdin.flush()


def _object(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return None
    return said if isinstance(said, dict) else None


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


def _home(python: Path, also: dict[str, str] | None) -> dict[str, str]:
    # The environment's own folder stands in for the home folder: a peer that keeps files there keeps them out of ours.
    home = {"HOME": str(python.parent.parent), "USERPROFILE": str(python.parent.parent), "PYTHONWARNINGS": "ignore"}
    return home | (also or {})


def _environment(also: dict[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | (also or {})


def _run(words: list[str], what: str, cwd: Any, text: str = "", also: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, input=text, env=_environment(also), capture_output=True, text=True)
    if done.returncode:
        raise NotMeasured(f"{what}: {_reason(done.stderr, done.returncode)}")
    return done.stdout


def _reason(errors: str, code: int) -> str:
    """The last line of what was written to standard error, or else how the process ended."""
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("WARNING")]
    return lines[-1].strip() if lines else f"ended with {code}"
