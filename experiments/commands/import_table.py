"""`flynas import-table`: measured tables of other projects as tables of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The foreign table, a .csv file.")],
    form: Annotated[str, typer.Option("--format", metavar="NAME", help="once_for_all, fbnet or tunas.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .csv file to write; its stem is the table's name.")],
    device: Annotated[str, typer.Option(help="What was measured, such as 'Raspberry Pi 4'.")],
    kind: Annotated[str, typer.Option(help="Its kind: cpu, gpu, fpga, tpu, ...; asic where there is no such kind.")],
    precision: Annotated[str, typer.Option(help="float32, int8, ...; unknown where the source does not say.")],
    runtime: Annotated[str, typer.Option(help="What ran the networks, such as 'TensorFlow Lite'.")],
    source: Annotated[str, typer.Option(help="Where the numbers come from.")],
    licence: Annotated[str, typer.Option(help="Under what licence.")],
    column: Annotated[
        str | None, typer.Option(help="Column of the times, its unit in its name; mean_ms or coef_ms unless given.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Only such lines; may be repeated.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="The space that was measured, with its options; for fbnet and tunas.")
    ] = None,
    constant: Annotated[float | None, typer.Option(help="Time of the baseline, in the unit of the column.")] = None,
    constant_meaning: Annotated[str | None, typer.Option(help="What the baseline is.")] = None,
    batch: Annotated[int, typer.Option(help="Images per run.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads, where known.")] = None,
    date: Annotated[str | None, typer.Option(help="When the numbers were taken; today unless given.")] = None,
    notes: Annotated[str | None, typer.Option(help="What else a reader should know.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert a measured table of another project, checked row by row.

    Examples:

    \b
    flynas import-table mobile.csv --format once_for_all --out pixel1.csv --device "Pixel 1" --kind cpu \\
        --precision float32 --runtime "TensorFlow Lite" --source "han-cai/files" --licence "none stated"
    flynas cost proxylessnas:0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 --table pixel1.csv
    """
    import datetime

    from experiments.output import print_json
    from hw_models.errors import InputError
    from hw_models.table_files import table_text
    from nas import disk
    from nas.foreign_tables import convert, read_lines, unit_of
    from search_spaces.texts import resolve

    if out.suffix != ".csv" or out.exists():
        raise InputError(f"--out {out} {'exists' if out.exists() else 'does not end in .csv'}: give a new .csv file")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}: create it, or give another place")
    try:
        day = datetime.date.fromisoformat(date) if date else datetime.date.today()
    except ValueError:
        raise InputError(f"--date {date} is not a date: write it as 2026-11-25") from None
    header = {
        "device": device,
        "kind": kind,
        "precision": precision,
        "runtime": runtime,
        "batch": batch,
        "source": source,
        "licence": licence,
        "date": day.isoformat(),
        "threads": threads,
        "notes": notes or "",
        "constant_meaning": constant_meaning or "",
    }
    measured = None if space is None else resolve(space, prefer_space=True).space
    lines = read_lines(file, where or ())
    table = convert(lines, form, out.stem, str(file), header, column, measured, constant)
    disk.replace(out, table_text(table, unit_of(column) if column else "ms").encode())
    if as_json:
        print_json({"name": table.name, "file": str(out), "rows": len(table.rows), **header, "level": table.level})
        return
    print(f"{out}: {len(table.rows)} rows of {table.level}s ({table.values}s), {table.device}, {table.precision}")
