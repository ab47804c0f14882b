"""`flynas calibrate`: fit a device to a handful of measured networks."""

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
    out: Annotated[Path, typer.Option(metavar="FILE", help="Device file to write, ending in .toml.")],
    precision: Annotated[str | None, typer.Option(help="If the file does not say; else the device's default.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Picture of held-out predictions: .png, .pdf or .svg.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object.")] = False,
) -> None:
    """Fit the rates and overheads that no data sheet tells, and write a device file that knows its error.

    The error is that of networks the fit had not seen (five folds). Latencies of the new device print with it.

    Example:

    \b
    flynas calibrate raspberry_pi_4 measured.csv --out my_board.toml
    flynas cost mobilenet_v2 --device my_board.toml
    """
    from experiments import plots, validation
    from experiments.agreement import print_agreement, print_constants, print_too_large, shares, watching
    from experiments.output import print_json
    from hw_models.calibrated_file import calibrated_text
    from hw_models.device_file import load_device
    from hw_models.errors import InputError
    from nas import disk

    if out.suffix != ".toml":
        raise InputError(f"--out {out} is no device file: end it in .toml")
    if figure is not None:
        plots.check_picture(figure, "--figure")
    case = validation.prepare(device, measured, precision, watching())
    before = validation.judge(case)
    guess, found = validation.judged_blind(case, seed)
    fit = validation.fitted(case)
    text = calibrated_text(device, fit, found, case.precision, case.measured.common_batch, measured.name)
    with disk.explained(out, again="give another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        disk.replace(out, text.encode())
    load_device(out)  # what was written can be read
    if figure is not None:
        drawn = validation.draw(guess, case.measured.seconds, f"{case.device.name}, held out", found)
        plots.write(drawn, figure, "--figure")
    if as_json:
        constants = {
            constant.name: {"before": constant.start, "after": float(value)}
            for constant, value in zip(fit.constants, fit.values, strict=True)
        }
        print_json(
            {
                "name": case.device.name,
                "out": str(out),
                "precision": case.precision,
                "networks": found.networks,
                "too_large": validation.too_large(case),
                "before": shares(before),
                "held_out": shares(found),
                "constants": constants,
            }
        )
        return
    print_constants(fit)
    print_agreement(f"{case.device.name} as it was ({case.note})", before)
    print_agreement("calibrated, on networks the fit had not seen", found)
    print_too_large(case.device.name, validation.too_large(case), found.networks)
    if figure is not None:
        print(f"wrote {figure}")
    print(f"wrote {out}: its latencies print with an error of {found.typical_error.value:.1%}")
