"""`flynas export`: train the picked network and write it in formats that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    network: Annotated[
        str, typer.Argument(metavar="RUN_OR_NETWORK", help="A run folder, or anything that flynas cost takes.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; an earlier export in it is replaced.")],
    pick: Annotated[
        str | None,
        typer.Option(metavar="PICK", help="Of a run: knee (the default), best, scalar, or a number of its front."),
    ] = None,
    under: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only networks within a limit, such as latency=5ms.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change how it is trained; may be repeated.")
    ] = None,
    start: Annotated[str, typer.Option(help="Train from fresh weights, or from inherited ones.")] = "fresh",
    teacher: Annotated[
        str, typer.Option(help="Learn from labels alone (none), or from the search's largest network too (supernet).")
    ] = "none",
    distillation: Annotated[
        float | None, typer.Option(help="Share of the loss that follows the teacher, 0 to 1; 0.5 unless given.")
    ] = None,
    quantize: Annotated[str, typer.Option(help="Write integers of 8 bits as well (int8), or not (none).")] = "none",
    data: Annotated[str | None, typer.Option(help="Data set; the run's own unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
) -> None:
    """Train one network of a run and write it, with a report, as FlyNAS and ONNX files.

    Examples:

    \b
    flynas export runs/quickstart --out model
    flynas export runs/quickstart --pick best --under latency=2ms --out model
    flynas export runs/quickstart --pick 3 --set epochs=40 --out model
    flynas export runs/quickstart --teacher supernet --out model
    flynas export runs/quickstart --quantize int8 --out model
    """
    from experiments.final import chosen_network, chosen_recipe, report_rows
    from experiments.output import print_table
    from experiments.process import prepare
    from experiments.progress_view import export_watcher
    from nas.export import check_out, export
    from nas.exporters._int8 import check_choice

    check_out(out)
    check_choice(quantize)
    source, final, threads = chosen_network(network, pick, under or (), data, start)
    recipe = chosen_recipe(final, set_ or ())
    name: Any = getattr(source, "network", network)
    print(f"network  {name}\nthreads  {prepare(threads)}", flush=True)

    view = export_watcher()
    try:
        report = export(
            source,
            out,
            recipe=recipe,
            data=data,
            seed=seed,
            start=start,
            teacher=teacher,
            distillation=distillation,
            quantize=quantize,
            progress=view,
        )
    finally:
        view.close()
    print_table(("", ""), report_rows(report))
    for file in report["files"]:
        print(f"{out / file}")
    print(f"{out / 'report.json'}")
