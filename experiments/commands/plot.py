"""`flynas plot`: figures of runs, and of networks on arrays of many sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ARRAYS = "utilization"


def command(
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="front: networks and their trade-off; progress: how the front grew; utilization: how busy networks "
            "keep systolic arrays of many sizes.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: .png, .pdf or .svg.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|NETWORK",
            help="Run folders; for utilization networks, by default VGG-16, Inception, ResNet-152 and DenseNet-264.",
        ),
    ] = None,
    x: Annotated[str | None, typer.Option(help="Objective or cost along x, such as latency.")] = None,
    y: Annotated[str | None, typer.Option(help="Objective or cost along y, such as error.")] = None,
    dataflow: Annotated[
        str | None, typer.Option(help="What stays in the array: ws (weights, the default), os (outputs), is (inputs).")
    ] = None,
    serial: Annotated[
        bool, typer.Option("--serial", help="Fill the array only when the last result has left it.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Images per run on the array; 1 unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an array of what the figure shows.")] = False,
) -> None:
    """Draw a figure of runs or networks; a front and utilization are printed as a table as well.

    Examples:

    \b
    flynas plot front runs/quickstart --x latency --y error --out front.png
    flynas plot progress runs/a runs/b --out progress.pdf
    flynas plot utilization --out utilization.png
    flynas plot utilization mobilenet_v2 resnet50 --dataflow os --out arrays.pdf
    """
    from experiments import plots
    from hw_models.discover import unknown
    from hw_models.errors import InputError

    if figure not in (*plots.FIGURES, ARRAYS):
        raise unknown("figure", figure, (*plots.FIGURES, ARRAYS))
    plots.check_picture(out)
    if figure == ARRAYS:
        if x is not None or y is not None:
            raise InputError(f"figure {ARRAYS} has its own axes: leave out --x and --y")
        _networks(what, out, dataflow or "ws", not serial, 1 if batch is None else batch, as_json)
        return
    options = {"--dataflow": dataflow is not None, "--serial": serial, "--batch": batch is not None}
    for option in (name for name, given in options.items() if given):
        raise InputError(f"figure {figure} has no {option}: leave it out, or draw figure {ARRAYS}")
    if not what:
        raise InputError(f"figure {figure} draws runs: give one run folder or more")
    _runs(figure, what, out, x, y, as_json)


def _runs(figure: str, folders: list[str], out: Path, x: str | None, y: str | None, as_json: bool) -> None:
    from experiments import plots
    from experiments.output import print_json
    from experiments.results import load_run, print_front

    loaded = [load_run(path) for path in folders]
    plots.write(plots.FIGURES[figure](loaded, x=x, y=y), out)
    if as_json:
        print_json(plots.NUMBERS[figure](loaded))
        return
    if figure == "front":
        for run in loaded:
            print_front(run)
    print(f"wrote {out}")


def _networks(networks: list[str] | None, out: Path, dataflow: str, overlap: bool, batch: int, as_json: bool) -> None:
    from experiments import arrays, plots
    from experiments.output import print_json, print_table

    rows = arrays.utilizations(networks or arrays.NETWORKS, dataflow, overlap, batch)
    plots.write(arrays.draw(rows, dataflow, overlap, batch), out)
    if as_json:
        print_json(arrays.as_json(rows))
        return
    print_table(*arrays.as_table(rows), arrays.caption(dataflow, overlap, batch))
    print(f"wrote {out}")
