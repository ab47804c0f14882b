"""`flynas list`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

# columns of the tables beside name and description; --json has everything
COLUMNS = {
    "spaces": ("size", "distinct", "decisions", "fingerprint"),
    "blocks": ("branches", "elastic"),
    "strategies": (),
    "evaluators": (),
    "devices": ("kind", "precisions"),
    "tables": ("level", "rows", "source", "licence"),
    "datasets": ("found", "images"),
    "references": ("params", "paper_params", "params_difference", "macs", "paper_macs", "macs_difference"),
    "kernels": ("available", "selected"),
    "quantizers": ("bits", "serves", "learns"),
    "configs": ("space", "device", "minimize"),
}


def command(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help=f"One of {', '.join(COLUMNS)}; all if none.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: an array, or without KIND an object of arrays.")
    ] = False,
) -> None:
    """List spaces, blocks, strategies, evaluators, devices, tables, data sets, networks, kernels, quantizers, configs.

    Examples:

    \b
    flynas list devices
    flynas list spaces --json
    """
    from experiments.listing import KINDS
    from experiments.output import print_json, print_table
    from hw_models.discover import unknown

    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    found = {name: make() for name, make in KINDS.items() if kind in (None, name)}
    if as_json:
        print_json(found if kind is None else found[kind])
        return
    for name, rows in found.items():
        columns = COLUMNS.get(name, ())
        cells = [
            (row["name"], row["description"], *(_cell(column, row.get(column)) for column in columns)) for row in rows
        ]
        header = ("name", "description", *(column.replace("_", " ") for column in columns))
        print_table(header, cells, name)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column.endswith("_difference"):
        return f"{value:+.1%}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, int):
        return f"{value:,}"  # exact, however large
    return f"{value:,.0f}" if isinstance(value, float) else str(value)
