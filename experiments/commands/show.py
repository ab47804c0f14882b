"""`flynas show`: a picture of a search space or of one network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    network: Annotated[
        str,
        typer.Argument(metavar="SPACE|NETWORK", help="Space, network text, published network, or exported folder."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it: .png, .pdf or .svg.")],
    space: Annotated[
        bool, typer.Option("--space", help="Where a space and a published network share the name: the space.")
    ] = False,
) -> None:
    """Draw a search space, or a network with what is chosen in it.

    Examples:

    \b
    flynas show quickstart --out space.png
    flynas show mobilenet_v3_small --out network.pdf
    flynas show mobilenet_v2 --space --out space.svg
    """
    from experiments.drawing import draw
    from experiments.plots import check_picture, write
    from search_spaces.texts import resolve

    found = resolve(network, prefer_space=space)
    check_picture(out)
    write(draw(found), out)
    print(f"wrote {out}")
