"""`flynas explain`: where the time of a network goes, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    network: Annotated[
        str,
        typer.Argument(metavar="NETWORK", help="Network text, a published network, or an exported folder."),
    ],
    device: Annotated[str, typer.Option(metavar="NAME", help="Device, or path of a .toml file.")],
    precision: Annotated[str | None, typer.Option(help="The device's default unless given.")] = None,
    batch: Annotated[int, typer.Option(help="Images per run.")] = 1,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Where the device lacks the precision, use the next.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an array, one entry per layer.")] = False,
) -> None:
    """Show each layer's time, what holds it back (compute, memory, overhead), its share, and the precision it runs in.

    Below the table: layers stored otherwise than computed, and what their zeros gain.

    Example:

    \b
    flynas explain mobilenet_v3_small --device raspberry_pi_4
    """
    from experiments.output import print_json, print_table
    from experiments.pricing import layer_rows, prepare, price
    from experiments.quantities import shown, with_error

    prepared = prepare(network, device, precision, fallback)
    rows = layer_rows(prepared, batch)
    if as_json:
        print_json(rows)
        return
    whole = price(prepared, batch)
    header = ("", "layer", "multiply-acc.", "weights", "latency", "energy", "share", "bound by", "in")
    cells = [
        (
            str(number),
            row["name"],
            f"{row['macs']:,}",
            *(shown(name, row[name]) for name in ("weight_bytes", "latency_s", "energy_j")),
            f"{row['share']:.1%}",
            row["bound"],
            row["precision"],
        )
        for number, row in enumerate(rows)
    ]
    print_table(header, cells, f"{prepared.name} on {prepared.device.name} ({prepared.note})")
    notes: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if row["note"]:
            notes.setdefault(row["note"], []).append(number)
    for note, numbers in notes.items():
        print(f"{'layer' if len(numbers) == 1 else 'layers'} {_ranges(numbers)}: {note}")
    times: dict[str, float] = {}
    for row in rows:
        times[row["bound"]] = times.get(row["bound"], 0.0) + row["share"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in sorted(times.items(), key=lambda item: -item[1]))
    print(
        f"in total {with_error(whole['latency_s'], whole['latency_error'])}, {shown('energy_j', whole['energy_j'])}; "
        f"bound by: {shares}"
    )
    together = sum(row["latency_s"] for row in rows)
    if whole["latency_s"] and abs(together / whole["latency_s"] - 1) > 0.01:
        print("the layers work at the same time: each row is what the layer would take with the device to itself")
    if not whole["fits"]:
        share = f"{whole['resource_fraction']:.3g}"
        print(f"it does not fit: {whole['scarcest']}, {share} times what the device has")


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers as text, neighbours joined.

    Example:
        >>> _ranges([1, 2, 3, 7])
        '1-3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
