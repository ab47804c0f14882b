"""`flynas cost`: what a network costs on devices."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    network: Annotated[
        str,
        typer.Argument(metavar="NETWORK", help="Network text, a published network, or an exported folder."),
    ],
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Device, or path of a .toml file; may be repeated. All if none."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, float16, bfloat16, int8, w4a8, ...; the device's default unless given.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per run.")] = 1,
    fallback: Annotated[bool, typer.Option("--fallback", help="Where a precision is missing, use the next.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object for one device.")] = False,
) -> None:
    """Price a network: latency, energy, memory. Nothing is trained or run.

    Examples:

    \b
    flynas cost mobilenet_v3_small --device raspberry_pi_4
    flynas cost mobilenet_v2 --device zcu102 --precision int8 --json
    """
    from experiments.output import print_json, print_table
    from experiments.pricing import default_devices, prepare, price
    from experiments.quantities import shown

    devices = default_devices(device)
    rows = [price(prepare(network, each, precision, fallback), batch) for each in devices]
    if as_json:
        print_json(rows[0] if device and len(rows) == 1 else rows)
        return
    print(f"{rows[0]['name']}: {rows[0]['params']:,} parameters, {rows[0]['macs']:,} multiply-accumulates per image")
    header = ("device", "precision", "latency", "energy", "peak memory", "weights", "multipliers busy", "fits")
    cells = [
        (
            row["device"],
            row["precision"],
            *(shown(name, row[name]) for name in ("latency_s", "energy_j", "peak_memory_bytes", "weight_bytes")),
            "-" if row["mac_utilization"] is None else f"{row['mac_utilization']:.1%}",
            "yes" if row["fits"] else f"no: {row['scarcest']}, {row['resource_fraction']:.3g} times what there is",
        )
        for row in rows
    ]
    print_table(header, cells)
    for row in rows:
        print(f"{row['device']}: {row['precision_note']}")
