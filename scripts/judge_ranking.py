"""How well a supernet ranks networks, against the same networks trained alone on Fashion-MNIST.

    python scripts/judge_ranking.py mobilenet_v3|flynet [--out FOLDER] [--workers N]

Adds to `FOLDER/ranking_<space>.json` (docs/results) what is not in it yet, task by task, so that a run that was stopped
goes on. Every task is a process of its own with one thread, which makes results independent of the number of workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ranking_tasks import SPACES, Settings, run

from experiments.process import cores, prepare
from experiments.progress_view import clock
from hw_models.errors import InputError
from nas import disk

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
RANGES = {"networks": (4, 1000), "epochs": (1, 1000), "validation": (10, 50_000), "workers": (1, 256)}


class Store:
    """Results by task, on the disk after each, and the settings that they belong to.

    Raises:
        InputError: the file cannot be read, or holds results of other settings.
    """

    def __init__(self, path: Path, settings: Settings):
        self.path, self.rows = path, {"settings": dataclasses.asdict(settings)}
        if not path.is_file():
            return
        try:
            with disk.explained(path, "read"):
                found = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}): restore it, or remove it to start again") from error
        if found.get("settings") != self.rows["settings"]:
            raise InputError(
                f"{path} holds results of {found.get('settings')}, asked for are {self.rows['settings']}: "
                "give the same settings, or another folder with --out"
            )
        self.rows = found

    def add(self, task: str, result: dict[str, Any]) -> None:
        """Keep the result of a task; the file is the old or the new one at any time."""
        self.rows[task] = result
        lines = [f"{json.dumps(key)}: {json.dumps(self.rows[key])}" for key in sorted(self.rows)]
        disk.replace(self.path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def tasks(settings: Settings) -> list[str]:
    """All there is to do, in order: what is fixed and slow comes first."""
    return [f"alone/{number}" for number in range(settings.networks)]


def in_own_process(command: list[str], task: str) -> dict[str, Any]:
    """The result of one task, computed by this script in another process.

    Raises:
        InputError: the process failed; what it said is on standard error already.
    """
    # glibc gives a block above 64 MB back to the kernel after every step, except in its first arena: with one arena a
    # step of 64 images has no page faults, in place of 20,000 (a third of its time)
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([*command, "--task", task], stdout=subprocess.PIPE, env=environment, text=True)
    if done.returncode:
        raise InputError(
            f"task {task} ended with code {done.returncode}: see the lines above (-9: out of memory, give fewer "
            "--workers); the same command goes on"
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def work_off(missing: list[str], store: Store, command: list[str], workers: int) -> None:
    """Do what is missing, so many tasks at a time."""
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(in_own_process, command, task): task for task in missing}
        try:
            for number, future in enumerate(as_completed(running), 1):
                store.add(running[future], future.result())
                left = (time.monotonic() - began) / number * (len(missing) - number)
                print(f"{running[future]}: {number} of {len(missing)} done, about {clock(left)} left", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def arguments_of(given: list[str] | None) -> argparse.Namespace:
    """The command line, its numbers checked."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("space", choices=tuple(SPACES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=cores(), help="processes at a time, one thread each")
    for field in dataclasses.fields(Settings):
        kind = type(getattr(defaults, field.name))
        parser.add_argument(f"--{field.name}", type=kind, default=getattr(defaults, field.name))
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    for name, (low, high) in RANGES.items():
        if not low <= getattr(arguments, name) <= high:
            raise InputError(f"--{name} {getattr(arguments, name)} is out of range: give {low} to {high}")
    return arguments


def main(given: list[str] | None = None) -> None:
    """Do what is missing, write the page."""
    arguments = arguments_of(given)
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    if arguments.task:
        prepare(1)
        print(json.dumps(run(arguments.space, arguments.task, settings)))
        return
    with disk.explained(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.out / f"ranking_{arguments.space}.json", settings)
    options = [part for name, value in dataclasses.asdict(settings).items() for part in (f"--{name}", str(value))]
    command = [sys.executable, str(Path(__file__).resolve()), arguments.space, *options]
    missing = [task for task in tasks(settings) if task not in store.rows]
    work_off(missing, store, command, arguments.workers)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
