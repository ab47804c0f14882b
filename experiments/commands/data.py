"""`flynas data`: which data sets are there, and how to get the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    download: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fetch a data set from its official address.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to put it (default: your cache).")] = None,
) -> None:
    """List the data sets, where they were found and how to get the others.

    Examples:

    \b
    flynas data
    flynas data --download fashion_mnist
    flynas search quickstart --set "data=fashion_mnist[folder=/data/fashion]" --out runs/full
    """
    from experiments.output import first_line, print_json, print_table
    from hw_models.errors import InputError
    from nas import data

    if folder is not None and download is None:
        raise InputError("--folder says where to put a download: give --download NAME as well")
    if download is not None:
        path = data.download(download, folder)
        if as_json:
            print_json({"name": download, "where": str(path)})
        else:
            print(f"{download} is in {path}")
            if folder is not None:
                print(f'use it: --set "data={download}[folder={path}]"')
        return
    entries = data.listing()
    if as_json:
        print_json(entries)
        return
    rows = [
        (entry["name"], "yes" if entry["found"] else "no", str(entry["images"]), first_line(entry["description"]))
        for entry in entries
    ]
    print_table(("name", "found", "images", "description"), rows)
    for entry in entries:
        print(f"{entry['name']}: {'in ' + str(entry['where']) if entry['found'] else entry['how_to_get']}")
