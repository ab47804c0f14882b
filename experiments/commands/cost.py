"""`flynas cost`: what a network costs on devices."""

from __future__ import annotations

from typing import Annotated, Any

import typer

HEADER = (
    "device", "precision", "latency", "images/s", "energy", "peak memory", "weights", "multipliers busy", "fits",
)  # fmt: skip


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
    batch: Annotated[int | None, typer.Option(help="Images per run; 1, or what a table was measured with.")] = None,
    fallback: Annotated[bool, typer.Option("--fallback", help="Where a precision is missing, use the next.")] = False,
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measured table, or path of a .csv file, in place of a device's model."),
    ] = None,
    missing: Annotated[
        str, typer.Option(help="What a table lacks: error, interpolate, or analytic (with --device).")
    ] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object for one device or table.")] = False,
) -> None:
    """Price a network: latency, energy, memory. Nothing is trained or run.

    Examples:

    \b
    flynas cost mobilenet_v3_small --device raspberry_pi_4
    flynas cost mobilenet_v2 --device zcu102 --precision int8 --json
    flynas cost proxylessnas_mobile --table pixel1_proxylessnas
    """
    from experiments.output import print_json, print_table
    from experiments.pricing import default_devices, prepare, price
    from hw_models.errors import InputError

    if table is not None:
        _by_table(network, table, missing, device or [], precision, batch, fallback, as_json)
        return
    if missing != "error":
        raise InputError(f"--missing {missing} is about a table: give --table NAME as well")
    batch = 1 if batch is None else batch
    devices = default_devices(device)
    rows = [price(prepare(network, each, precision, fallback), batch) for each in devices]
    if as_json:
        print_json(rows[0] if device and len(rows) == 1 else rows)
        return
    first = rows[0]
    print(
        f"{first['name']}: {first['params']:,} parameters, {first['macs']:,} multiply-accumulates per image\n"
        f"{first['flops']:,} FLOPs, {first['memory_access_elements']:,} elements read and written, "
        f"{first['activations']:,} activations"
    )
    print_table(HEADER, [_cells(row) for row in rows])
    usual = [row for row in rows if row["precision_note"].endswith(f": the default of {row['device']}")]
    if len(usual) > 1:
        print(f"precision: each device's default{'' if len(usual) == len(rows) else ', but for'}")
    for row in rows:
        if len(usual) < 2 or row not in usual:
            print(f"{row['device']}: {row['precision_note']}")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from experiments.quantities import shown, with_error

    return (
        row["device"],
        row["precision"],
        with_error(row["latency_s"], row["latency_error"]),
        "-" if row["throughput_per_s"] is None else f"{row['throughput_per_s']:,.4g}",
        *(shown(name, row[name]) for name in ("energy_j", "peak_memory_bytes", "weight_bytes")),
        "-" if row["mac_utilization"] is None else f"{row['mac_utilization']:.1%}",
        "yes" if row["fits"] else f"no: {row['scarcest']}, {row['resource_fraction']:.3g} times what there is",
    )


def _by_table(
    network: str,
    table: str,
    missing: str,
    devices: list[str],
    precision: str | None,
    batch: int | None,
    fallback: bool,
    as_json: bool,
) -> None:
    from experiments.output import pairs, print_json
    from experiments.pricing import price_by_table
    from experiments.quantities import shown
    from hw_models.errors import InputError

    if len(devices) > 1 or fallback:
        raise InputError("--table goes with one --device at most, and without --fallback: drop the others")
    if missing == "analytic" and not devices:
        raise InputError("--missing analytic needs a model for what was not measured: give --device NAME")
    row = price_by_table(network, table, missing, devices[0] if devices else None, precision, batch)
    if as_json:
        print_json(row)
        return
    threads = "" if row["threads"] is None else f", {row['threads']} threads"
    print(f"{row['name']} on {row['device']} ({row['precision']}, {row['runtime']}{threads}, batch {row['batch']})\n")
    lines = [
        ("latency", shown("latency_s", row["latency_s"])),
        ("measured", f"{row['covered']:.1%} of the latency"),
        *[(f"by {missing}", key) for key in row["missing"]],
        ("table", f"{row['table']}, {row['date']}, {row['licence']}"),
        ("source", row["source"]),
    ]
    if row["interpolation_error"] is not None:
        typical = f"{row['interpolation_error']:.0%} (median over the table's rows, each from the others)"
        lines.insert(2, ("interpolation", f"typical error {typical}"))
    if "model" in row:
        lines.insert(1, (f"model of {row['model']}", shown("latency_s", row["model_latency_s"])))
    pairs(lines)
