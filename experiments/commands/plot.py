"""`flynas plot`: figures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    figure: Annotated[
        str, typer.Argument(metavar="FIGURE", help="front: networks and their trade-off; progress: how the front grew.")
    ],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or more run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: .png, .pdf or .svg.")],
    x: Annotated[str | None, typer.Option(help="Objective or cost along x, such as latency.")] = None,
    y: Annotated[str | None, typer.Option(help="Objective or cost along y, such as error.")] = None,
) -> None:
    """Draw a figure of one or several runs; a front is printed as a table as well.

    Examples:

    \b
    flynas plot front runs/quickstart --x latency --y error --out front.png
    flynas plot progress runs/a runs/b --out progress.pdf
    """
    from experiments import plots
    from experiments.results import load_run, print_front
    from hw_models.discover import unknown
    from hw_models.errors import InputError

    if figure not in plots.FIGURES:
        raise unknown("figure", figure, plots.FIGURES)
    suffix = out.suffix.lower()
    if suffix not in plots.SUFFIXES:
        raise InputError(f"--out {out} is no picture: end it in {', '.join(plots.SUFFIXES)}")
    loaded = [load_run(path) for path in runs]
    drawn = plots.FIGURES[figure](loaded, x=x, y=y)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): give another --out") from error
    if figure == "front":
        for run in loaded:
            print_front(run)
    print(f"wrote {out}")
