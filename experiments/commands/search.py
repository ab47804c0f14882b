"""`flynas search`: run a configuration into a folder, or continue it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A shipped configuration, a path ending in .py, or a dotted module.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run; an interrupted run in it is continued.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a setting; may be repeated. A last part will do."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random; the configuration's unless given.")
    ] = None,
) -> None:
    """Search for the best networks, and keep everything in a folder.

    Examples:

    \b
    flynas search quickstart --out runs/quickstart
    flynas search quickstart --out runs/short --set evaluator.epochs=2
    flynas search mine.py --out runs/mine --set limits.latency_s=0.005 --seed 1
    """
    from experiments.config import load_config
    from experiments.overrides import override

    experiment = load_config(config)
    changes = [*(set_ or ()), *([] if seed is None else [f"seed={seed}"])]
    experiment = override(experiment, changes)

    from experiments.build import banner, build
    from experiments.output import pairs
    from experiments.progress_view import watcher
    from experiments.results import landed, print_front
    from hw_models.errors import InputError
    from nas.loop import search
    from nas.run import gap
    from nas.store import check_out

    check_out(out, experiment.steps)
    built = build(experiment)
    pairs(banner(built))
    settings = built.strategy.describe
    view = watcher(built.objective.minimize, settings.get("batch", settings.get("population")))
    try:
        run = search(
            built.space,
            built.strategy,
            built.evaluator,
            built.objective,
            steps=experiment.steps,
            key=built.key,
            out=out,
            config=built.config(),
            warm_start=built.warm_start,
            progress=view,
        )
    finally:
        view.close()
    if not run.front():
        raise InputError(run.nothing_usable())
    print()
    print_front(run)
    number = landed(run)
    pick = " --pick scalar" if number else ""
    difference, soft = gap(run), sum(record["status"] == "relaxed" for record in run.records)
    pairs(
        [
            *([] if difference is None else [("relaxed", f"{soft} candidates; at the end {difference}")]),
            ("knee", run.pick("knee").network),
            *number,
            ("run", f"{out}/run.json"),
            ("records", f"{out}/records.jsonl"),
            ("next", f"flynas plot front {out} --out front.png; flynas export {out}{pick} --out model"),
        ]
    )
