"""Our search strategies beside those of other packages, on four problems, in one run.

Every package minimises the same objectives over the same whole numbers and knows nothing but what is evaluated: two of
them, on `accel_both` three. On `genes45` each side evaluates in a process of its own, on one thread of the processor,
and is timed; networks of the others are judged here (`search_judges.py`), for packages in a conversation, and only
evaluations are counted.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_peers
import numpy as np
import search_problems
from benchmark_peers import NotMeasured
from benchmark_rows import Row
from search_kept import Kept

from hw_models.errors import InputError
from hw_models.programs import for_hundreds_of_runs

PROBLEMS = ("genes45", "macro", "accel", "accel_both")
# our strategies, and their options on genes45 and on the others: small populations, because a few hundred evaluations
# have to make many generations
OURS: dict[str, tuple[str, str]] = {
    "nsga2": ("population=20", "population=16"),
    "nsga3": ("population=20", "population=16"),
    "regularized_evolution": ("population=48,batch=12", "population=32,batch=8"),
    "tournament_evolution": ("population=40", "population=32"),
    "local_search": ("population=16", "population=10"),
    "netadapt": ("", ""),
    "reinforce": ("population=64", "population=16"),
    "recurrent_controller": ("population=64", "population=16"),
    "ppo": ("population=64", "population=16"),
    "surrogate_bo": ("population=16", "population=8"),
    "predictor_evolution": ("population=16", "population=8"),
    "random_search": ("population=100", "population=32"),
}
STRATEGIES = tuple(OURS)
# what reports call it -> the environment, and what its script is asked besides
PACKAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "pymoo": ("pymoo", {}),
    "pymoo_50": ("pymoo", {"population": 50}),
    "pymoo_nsga3": ("pymoo", {"algorithm": "nsga3"}),
    "optuna_nsga2": ("optuna", {"sampler": "nsga2"}),
    "syne_tune": ("syne_tune", {}),
    "qdax": ("qdax", {}),
    "optuna_tpe": ("optuna", {"sampler": "tpe"}),  # the slowest, last
}
# pymoo_50 has the population of others there, compiled searches evaluate by themselves, and NSGA-III is for more than
# two objectives
ONLY_ON = {"pymoo_50": "genes45", "qdax": "genes45", "pymoo_nsga3": "accel_both"}
# where a strategy given by name does not say its own
OURS_POPULATION = {"genes45": 50, "macro": 32, "accel": 32, "accel_both": 32}
POPULATION = OURS_POPULATION | {"genes45": 100}  # of packages; 100 is what most of them have by default
EVALUATIONS = 10_000  # on genes45
# what takes minutes is asked for less
FEWER = {
    ("genes45", "optuna_nsga2"): 2000,
    ("genes45", "optuna_tpe"): 500,
    ("genes45", "syne_tune"): 2000,
    ("genes45", "surrogate_bo"): 1000,
    ("genes45", "predictor_evolution"): 1000,
    ("macro", "optuna_tpe"): 500,
    ("accel", "optuna_tpe"): 500,
    ("accel_both", "optuna_tpe"): 500,
}
COUNTS = tuple(sorted({*np.unique(np.geomspace(10, EVALUATIONS, 40).astype(int)).tolist(), 200, 1000, 2000, 5000}))
ONE_THREAD = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ROOT = benchmark_peers.SCRIPTS.parent


def add_options(parser: Any) -> None:
    """What the command line asks of this benchmark."""
    group = parser.add_argument_group("search")
    group.add_argument("--problems", default=",".join(PROBLEMS), help="any of %(default)s")
    group.add_argument("--seeds", type=int, default=5, help="searches of everybody on every problem (%(default)s)")
    group.add_argument("--strategies", default=",".join(STRATEGIES), help="ours, by ';' where they have options")
    group.add_argument("--packages", default=",".join(PACKAGES), help="others, or none (%(default)s)")
    group.add_argument("--keep", type=Path, metavar="DIR", help="results are kept there, and not searched again")


def rows(folder: Path, options: Namespace) -> tuple[list[Row], list[dict[str, Any]]]:
    """Run what is missing, then compare. `peers` as in `benchmark_pricing`.

    Raises:
        InputError: an unknown problem or package.
    """
    import search_summary

    problems = _listed("problem", options.problems, PROBLEMS)
    packages = [] if options.packages == "none" else _listed("package", options.packages, tuple(PACKAGES))
    for who in [who for who in packages if ONLY_ON.get(who) not in (None, *problems)]:
        _tell(f"{who} is asked on {ONLY_ON[who]} only, and left out")
        packages.remove(who)
    strategies = options.strategies.split(";" if "[" in options.strategies else ",")
    seeds = list(range(options.seeds))
    kept = Kept((options.keep or folder / "search").resolve())
    reasons: dict[str, str] = {}
    for problem in problems:
        for who in strategies:
            _attempt(f"{who} on {problem}", reasons, lambda p=problem, w=who: ours(kept, p, w, seeds))
        for who in packages:
            if ONLY_ON.get(who) in (None, problem):
                _attempt(f"{who} on {problem}", reasons, lambda p=problem, w=who: theirs(kept, folder, p, w, seeds))
    versions = {who: list(benchmark_peers.PEERS[PACKAGES[who][0]]) for who in packages}
    peers = [{"name": who, "versions": versions[who], "reason": None} for who in packages]
    for what, reason in reasons.items():
        peers.append({"name": what, "versions": versions.get(what.split()[0], ["ours"]), "reason": reason})
    return search_summary.rows(kept, problems, strategies, packages), peers


def _listed(kind: str, text: str, allowed: tuple[str, ...]) -> list[str]:
    found = text.split(",")
    for name in found:
        if name not in allowed:
            raise InputError(f"{kind} {name!r} is unknown: give any of {', '.join(allowed)}")
    return found


def _attempt(what: str, reasons: dict[str, str], run: Callable[[], None]) -> None:
    """Run it; what cannot be measured is told and remembered, and the others are."""
    try:
        run()
    except (NotMeasured, InputError) as error:
        reasons[what] = str(error)
        _tell(f"{what}: NOT MEASURED: {error}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parts_of(problem: str) -> tuple[str, ...]:
    """The problems that stand behind one of `PROBLEMS`."""
    import search_judges

    if problem == "accel":
        return search_judges.ACCEL
    return ("macro", *search_judges.BUDGETS) if problem == "macro" else (problem,)


def ours(kept: Kept, problem: str, who: str, seeds: list[int]) -> None:
    """Searches of one of our strategies that are missing.

    Raises:
        InputError: no such strategy, or not for such a problem.
        NotMeasured: its process ended with an error.
    """
    if problem == "genes45":
        if missing := kept.missing(problem, who, seeds):
            _tell(f"{problem}: {who}, seeds {missing}")
            count = FEWER.get((problem, who), EVALUATIONS)
            question = {"strategy": _with_options(problem, who), "population": OURS_POPULATION[problem]}
            question |= {"evaluations": count}
            question |= {"seeds": missing, "loop": True}
            _keep_genes45(kept, who, benchmark_peers.ask_ours(ROOT / "search_ours.py", question, ONE_THREAD))
        return
    refused = None
    for name in parts_of(problem):
        try:
            _ours_here(kept, name, who, OURS_POPULATION[problem], seeds)
        except InputError as error:  # one that knows a single objective may still search within budgets
            refused = refused or InputError(f"{name}: {error}")
    if refused:
        raise refused


def _with_options(problem: str, who: str) -> str:
    """The strategy as text, with its options of `OURS` where it is given by its name alone."""
    if who not in OURS:
        return who
    options = OURS[who][0 if problem == "genes45" else 1]
    return f"{who}[{options}]" if options else who


def _ours_here(kept: Kept, name: str, who: str, population: int, seeds: list[int]) -> None:
    import jax
    import search_judges
    from search_rollout import plan_of, rollout

    missing = kept.missing(name, who, seeds)
    if not missing:
        return
    problem = search_judges.load(name)
    plan = plan_of(_with_options(name, who), problem.objective, population)
    programs = for_hundreds_of_runs(plan.ask), for_hundreds_of_runs(plan.tell)
    _tell(f"{name}: {who}, seeds {missing}")
    for seed in missing:
        seen = search_judges.Seen(problem)
        rollout(
            plan,
            problem.objective,
            problem.error_of,
            problem.evaluations,
            jax.random.key(seed),
            programs=programs,
            enough=lambda step, seen=seen: seen.add(step.genes, step.objectives),
        )
        _keep_seen(kept, who, seed, seen)


def theirs(kept: Kept, folder: Path, problem: str, who: str, seeds: list[int]) -> None:
    """Searches of another package that are missing.

    Raises:
        NotMeasured: it could not be installed, or ended with an error.
    """
    name, settings = PACKAGES[who]
    missing = {part: left for part in parts_of(problem) if (left := kept.missing(part, who, seeds))}
    python = benchmark_peers.python_of(name, folder) if missing else Path()
    script, environment = benchmark_peers.SCRIPTS / f"ask_{name}.py", {"PYTHONPATH": str(ROOT)} | ONE_THREAD
    for part, left in missing.items():
        _tell(f"{part}: {who}, seeds {left}")
        question = {"population": POPULATION[problem], "searches": [{"seed": seed} for seed in left]} | settings
        if problem == "genes45":
            question |= {"problem": problem, "cardinality": [search_problems.OPTIONS] * search_problems.DECISIONS}
            question |= {"objectives": 2, "limited": False, "evaluations": FEWER.get((problem, who), EVALUATIONS)}
            _keep_genes45(kept, who, benchmark_peers.ask(python, script, question, environment))
        else:
            _converse(kept, part, who, left, question, FEWER.get((problem, who)), python, script, environment)


def _converse(
    kept: Kept,
    name: str,
    who: str,
    seeds: list[int],
    question: dict[str, Any],
    fewer: int | None,
    python: Path,
    script: Path,
    environment: dict[str, str],
) -> None:
    import search_judges

    problem = search_judges.load(name)
    space, objective = problem.objective.space, problem.objective
    question |= {"problem": None, "cardinality": space.cardinality.tolist(), "objectives": len(objective.minimize)}
    question |= {"limited": bool(objective.limits), "evaluations": fewer or problem.evaluations}
    searches = [search_judges.Seen(problem) for _ in seeds]
    full: set[int] = set()

    def reply(said: dict[str, Any]) -> dict[str, Any]:
        place = said["search"]
        for done in range(place):
            if done not in full:
                full.add(done)
                _keep_seen(kept, who, seeds[done], searches[done])
        genes, objectives, violation = problem.judge(said["ask"])
        if searches[place].add(genes, objectives):
            return {"enough": True}
        told = [[None if not np.isfinite(v) else v for v in row] for row in (objectives / problem.largest).tolist()]
        return {"objectives": told, "violation": violation.tolist()}

    benchmark_peers.converse(python, script, question, reply, environment)
    for place, seed in enumerate(seeds):
        if place not in full:
            _keep_seen(kept, who, seed, searches[place])


def _keep_genes45(kept: Kept, who: str, answer: dict[str, Any]) -> None:
    for one in answer["searches"]:
        points = np.asarray(one["points"])
        counts = [count for count in COUNTS if count <= len(points)]
        volumes = search_problems.curve(points, search_problems.REFERENCE, counts)
        result = {key: one[key] for key in ("cpu_s", "loop_s") if key in one}
        result |= {"compile_s": answer.get("compile_s"), "evaluations": len(points), "counts": counts}
        result |= {"hypervolume": (np.asarray(volumes) / np.prod(search_problems.REFERENCE)).tolist()}
        kept.save("genes45", who, one["seed"], result | {"front": search_problems.front(points).tolist()})


def _keep_seen(kept: Kept, who: str, seed: int, seen: Any) -> None:
    proposals = min(seen.proposals, seen.problem.evaluations)
    kept.save(seen.problem.name, who, seed, {"proposals": proposals, "rows": seen.rows})
