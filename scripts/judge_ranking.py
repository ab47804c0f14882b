"""How well a supernet ranks networks, against the same networks trained alone on Fashion-MNIST.

    python scripts/judge_ranking.py mobilenet_v3|flynet|mobilenet_v3_wide|mobilenet_v3_fixed [--workers N]

Adds to `FOLDER/ranking_<space>.json` (docs/results) what is not in it yet, task by task, so that a run that was stopped
goes on, and writes `FOLDER/ranking.md` and its figure from what the spaces have. Networks trained alone come first,
then supernets. Every task is a process of its own with one thread: results do not depend on the number of workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import ranking_page
from kept_results import run_main
from ranking_tasks import HEADLINE, PASSES, SPACES, Settings, run, shared_task, splits_of

from experiments.process import cores, prepare
from experiments.progress_view import clock
from hw_models.errors import InputError
from nas import disk

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
SCRATCH = Path(__file__).resolve().parent.parent / "runs" / "ranking"
RULES = (HEADLINE, "sandwich[random=2]", "fair")
FAILURES = 3  # tasks that may fail before no other is started: one may run out of memory beside other work
RANGES = {
    "networks": (4, 1000),
    "epochs": (1, 1000),
    "validation": (10, 50_000),
    "workers": (1, 256),
    "passes": (1, 1000),
    "learning_rate": (1e-5, 10.0),
}


class Store:
    """Results by task, on the disk after each, and the settings and the space that they belong to.

    Raises:
        InputError: the file cannot be read, or holds results of other settings or another space.
    """

    def __init__(self, path: Path, settings: Settings, space: str):
        self.path, self.rows = path, {"settings": {**dataclasses.asdict(settings), "space": space}}
        self._read()

    def _read(self) -> None:
        if not self.path.is_file():
            return
        found = ranking_page.read_store(self.path)
        if found["settings"] != self.rows["settings"]:
            raise InputError(
                f"{self.path} holds results of {found['settings']}, asked for are {self.rows['settings']}: "
                "give the same settings, or another folder with --out"
            )
        self.rows = found

    def add(self, task: str, result: dict[str, Any]) -> None:
        """Keep the result of a task; the file is the old one or the new one at any time."""
        self._read()  # another process may have added something
        self.rows[task] = result
        lines = [f"{json.dumps(key)}: {json.dumps(self.rows[key])}" for key in sorted(self.rows)]
        disk.replace(self.path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def tasks(settings: Settings, rules: list[str], passes: int, learning_rate: float | None = None) -> list[str]:
    """All there is to do, in order: what does not depend on the supernet comes first.

    Example:
        >>> tasks(Settings(networks=2), ["uniform"], 24)
        ['alone/0', 'alone/1', 'shared/uniform/24']
    """
    alone = [f"alone/{number}" for number in range(settings.networks)]
    return [*alone, *dict.fromkeys(shared_task(rule, passes, learning_rate) for rule in rules)]


def in_own_process(command: list[str], task: str) -> dict[str, Any]:
    """The result of one task, computed by this script in another process.

    Raises:
        InputError: the process failed; what it said is on standard error already.
    """
    done = subprocess.run([*command, "--task", task], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(
            f"task {task} ended with code {done.returncode}: see the lines above (-9: out of memory, give fewer "
            "--workers); the same command goes on"
        )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def work_off(missing: list[str], store: Store, command: list[str], workers: int) -> None:
    """Do what is missing, so many tasks at a time; what is running when too many fail is still kept.

    Raises:
        InputError: a task failed, the first one's line.
    """
    began, failures = time.monotonic(), []
    with ThreadPoolExecutor(workers) as pool:
        tasks_of = {pool.submit(in_own_process, command, task): task for task in missing}
        waiting = set(tasks_of)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        store.add(tasks_of[future], future.result())
                    except InputError as error:
                        failures.append(error)
                        continue
                    number = len(missing) - len(waiting)
                    left = clock((time.monotonic() - began) / number * len(waiting))
                    print(f"{tasks_of[future]}: {number} of {len(missing)} done, about {left} left", flush=True)
                if len(failures) >= FAILURES:
                    waiting = {future for future in waiting if not future.cancel()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failures:
        raise failures[0]


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
    parser.add_argument("--rules", nargs="*", default=list(RULES), help="which networks a step of the supernet trains")
    parser.add_argument("--passes", type=int, default=PASSES, help="of every image through networks of the supernet")
    parser.add_argument("--learning-rate", type=float, help="of the supernet; the evaluator's own unless given")
    parser.add_argument("--scratch", type=Path, default=SCRATCH, help="for the supernet that is being trained")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    for name, (low, high) in RANGES.items():
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} {value} is out of range: give {low} to {high}")
    from nas.evaluators import supernet  # seconds: after what is quickly checked
    from nas.training.paths import paths

    for rule in arguments.rules:
        paths(SPACES[arguments.space](), rule)
    if arguments.learning_rate == inspect.signature(supernet.evaluator).parameters["learning_rate"].default:
        arguments.learning_rate = None  # not another training than without the option
    return arguments


def main(given: list[str] | None = None) -> None:
    """Do what is missing, write the page."""
    arguments = arguments_of(given)
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Settings)})
    if arguments.task:
        prepare(1)
        print(json.dumps(run(arguments.space, arguments.task, settings, arguments.scratch)))
        return
    splits_of(settings)  # images that are not there are said here, and not by each task
    with disk.explained(arguments.out):
        arguments.out.mkdir(parents=True, exist_ok=True)
    fingerprint = SPACES[arguments.space]().fingerprint
    store = Store(arguments.out / f"ranking_{arguments.space}.json", settings, fingerprint)
    options = [part for name, value in dataclasses.asdict(settings).items() for part in (f"--{name}", str(value))]
    command = [sys.executable, str(Path(__file__).resolve()), arguments.space, *options]
    command += ["--scratch", str(arguments.scratch.resolve()), "--rules"]  # none: a task names its own
    wanted = tasks(settings, arguments.rules, arguments.passes, arguments.learning_rate)
    missing = [task for task in wanted if task not in store.rows]
    try:
        work_off(missing, store, command, arguments.workers)
    finally:
        print(ranking_page.write(arguments.out))


if __name__ == "__main__":
    run_main(main)
