"""`flynas validate`: how well a device predicts what was measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Name of a device, or path of a .toml file.")],
    measured: Annotated[
        Path,
        typer.Argument(metavar="MEASURED", help="CSV: network, latency_s or throughput_per_s, batch, precision, ..."),
    ],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Picture to draw: .png, .pdf or .svg.")] = None,
    precision: Annotated[str | None, typer.Option(help="If the file does not say; else the device's default.")] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also without each term of the model.")] = False,
    fit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Calibrate on N random networks, judge the rest.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="How often to draw N networks.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object.")] = False,
) -> None:
    """Compare predicted with measured times; nothing is changed.

    Examples:

    \b
    flynas validate raspberry_pi_4 measured.csv --out agreement.png
    flynas validate a100 measured.csv --fit 30 --ablate
    """
    from experiments import plots, validation
    from experiments.agreement import print_ablation, print_agreement, print_draws, print_too_large, shares, watching
    from experiments.output import print_json

    if out is not None:
        plots.check_picture(out)
    case = validation.prepare(device, measured, precision, watching())
    guess = validation.predicted(case.device, case)
    found = validation.accuracy(guess, case.measured.seconds)
    too_large = validation.too_large(case)
    report = {
        "name": case.device.name,
        "measured": str(measured),
        "precision": case.precision,
        "networks": found.networks,
        "too_large": too_large,
        **shares(found),
    }
    drawn = validation.draws(case, fit, draws, seed) if fit is not None else []
    terms = validation.ablation(case) if ablate else []
    if drawn:
        report["fit"] = {"networks": fit, "draws": drawn}
    if terms:
        report["ablation"] = terms
    if out is not None:
        plots.write(validation.draw(guess, case.measured.seconds, case.device.name, found), out)
    if as_json:
        print_json(report)
        return
    print_agreement(f"{case.device.name} against {measured} ({case.note})", found)
    print_too_large(case.device.name, too_large, found.networks)
    if drawn:
        print_draws(f"calibrated on {fit} random networks and judged on the others, {draws} times", drawn)
    if terms:
        print_ablation("without one term at a time; errors after one common factor", terms)
    if out is not None:
        print(f"wrote {out}")
