"""Measures the hardware models against published measurements and writes docs/results/hardware_models.md.

    python scripts/validate_models.py FOLDER [--out docs/results] [--only NAME ...]

FOLDER holds accel_nasbench.csv, help_fbnet_latency_ms.npz and timm_throughput.csv.gz in the forms that
`scripts/convert_measured.py` reads. Each case is kept in hardware_models.json as soon as it is done, so that an
interrupted run goes on where it was (delete that file to start over). Takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from convert_measured import SOURCES, write
from scipy import stats

from experiments import validation
from experiments.agreement import ablation_labels
from hw_models.accuracy import accuracy, figures

FEW, DRAWS, MANY, FOLDS = 30, 20, 900, 3
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
VITIS_AI = ("zcu102", "zcu104")


class Case(NamedTuple):
    """One column of a published file and the device that should predict it."""

    name: str
    source: str
    file: str
    column: str
    device: str


CASES = (
    *(
        Case(f"accel_nasbench {column}", "accel_nasbench", "accel_nasbench.csv", column, device)
        for column, device in {
            "throughput_a100": "a100",
            "throughput_3090": "rtx_3090",
            "throughput_tpuv2": "tpu_v2",
            "latency_zcu102": "zcu102",
            "throughput_zcu102": "zcu102",
        }.items()
    ),
    *(
        Case(f"help_fbnet {column}", "help_fbnet", "help_fbnet_latency_ms.npz", column, device)
        for column, device in {
            "gold_6226": "xeon_vnni",
            "gold_6240": "xeon_vnni",
            "silver_4114": "xeon_silver_4114",
            "silver_4210r": "xeon_vnni",
            "1080ti_1": "gtx_1080_ti",
            "2080ti_1": "rtx_2080_ti",
            "titan_rtx_1": "titan_rtx",
            "titanx_1": "gtx_1080_ti",
            "titanxp_1": "gtx_1080_ti",
            "raspi4": "raspberry_pi_4",
            "pixel3": "pixel_3",
        }.items()
    ),
    *(
        Case(f"timm {column}", "timm", "timm_throughput.csv.gz", column, device)
        for column, device in {
            "amp-nchw-pt240-cu124-rtx3090": "rtx_3090",
            "amp-nchw-pt113-cu117-rtx3090": "rtx_3090",
            "fp32-nchw-pt240-cpu-i9_10940x-dynamo": "i9_10940x",
        }.items()
    ),
    *(Case(f"vitis_ai {board}", "vitis_ai", str(GOLDEN / f"vitis_ai_{board}.csv"), board, board) for board in VITIS_AI),
)


def prepared(case: Case, folder: Path) -> validation.Case:
    """The networks of a case, converted as `scripts/convert_measured.py` does."""
    if case.source not in SOURCES:
        return validation.prepare(case.device, Path(case.file))  # kept in the form that is read
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "measured.csv"
        write(list(SOURCES[case.source](folder / case.file, case.column)), path)
        return validation.prepare(case.device, path)


def block_table(path: Path, seen: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Seconds by the sum of one cost for each (shape of the layer, block), fitted to the networks `seen`, `[N]`."""
    from search_spaces.spaces import fbnet

    ops = np.load(path, allow_pickle=False)["ops"]
    shapes, before = [], 16
    for width, layers, stride in fbnet.ROWS:
        for layer in range(layers):
            shapes.append((before, width, stride if layer == 0 else 1))
            before = width
    keys = {key: i for i, key in enumerate(dict.fromkeys((s, op) for s in shapes for op in range(9)))}
    counts = np.zeros((len(ops), len(keys) + 1))
    counts[:, -1] = 1
    for layer, shape in enumerate(shapes):
        np.add.at(counts, (np.arange(len(ops)), [keys[shape, int(op)] for op in ops[:, layer]]), 1)
    relative = counts[seen] / seconds[seen, None]
    ridge = 1e-3 * np.mean(np.sum(relative**2, 0)) * np.eye(counts.shape[1])
    return counts @ np.linalg.solve(relative.T @ relative + ridge, relative.sum(0))


def measure(case: Case, folder: Path, out: Path) -> dict[str, Any]:
    """Every figure of one case."""
    ready = prepared(case, folder)
    seconds = ready.measured.seconds
    found: dict[str, Any] = {"device": case.device, "networks": len(seconds), "precision": ready.precision}
    found["unfitted"] = figures(validation.predicted(ready.device, ready), seconds)
    found["macs_spearman"] = float(stats.spearmanr(validation.by_macs(ready), seconds).statistic)
    if case.source in ("accel_nasbench", "vitis_ai"):
        found["ablation"] = validation.ablation(ready)
    if case.source == "accel_nasbench":
        found["fit_30"] = _mean(validation.draws(ready, FEW, DRAWS))
        _picture(ready, case.device, out / "hardware_models" / f"{case.column}.png")
    if case.source == "help_fbnet":
        found["fit_900"], found["block_table_900"] = _beside_block_table(ready, folder / case.file)
    if case.source == "timm":
        found["names"] = sorted(ready.measured.networks)
    return found


def _picture(ready: validation.Case, device: str, path: Path) -> None:
    """Predicted against measured times of the networks that a fit to `FEW` has not seen."""
    seconds = ready.measured.seconds
    order = np.random.default_rng(0).permutation(len(seconds))
    seen, unseen = np.sort(order[:FEW]), order[FEW:]
    guess = validation.predicted(validation.fitted(ready, seen).device, ready)[unseen]
    title, agreement = f"{device}, {FEW} networks", accuracy(guess, seconds[unseen])
    path.parent.mkdir(parents=True, exist_ok=True)
    validation.draw(guess, seconds[unseen], title, agreement).savefig(path, dpi=160)


def _beside_block_table(ready: validation.Case, path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of our model and of a block table, both fitted to the same `MANY` networks and judged on the others."""
    seconds, ours, table = ready.measured.seconds, [], []
    for fold in range(FOLDS):
        order = np.random.default_rng(fold).permutation(len(seconds))
        seen, unseen = np.sort(order[:MANY]), order[MANY:]
        fit = validation.fitted(ready, seen)
        ours.append(figures(validation.predicted(fit.device, ready)[unseen], seconds[unseen]))
        table.append(figures(block_table(path, seen, seconds)[unseen], seconds[unseen]))
    return _mean(ours), _mean(table)


def _mean(drawn: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([each[name] for each in drawn])) for name in validation.FIGURES}


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Hardware models against measurements",
        "",
        "Written by `python scripts/validate_models.py FOLDER`. Cells are Spearman's rank correlation / share of",
        "networks within 10 % / mean error. *Unfitted*: the device file as shipped, no measurement of these networks",
        f"used. *{FEW} networks*: calibrated on {FEW} random ones and judged on all others, mean of {DRAWS} draws.",
        f"*{MANY} networks*: the same, mean of {FOLDS} draws, beside a block table (one cost per shape and block)",
        "fitted to the same networks. *vitis_ai* is AMD's table of six networks at one image and at one for each core,",
        "from end to end, in `tests/golden`: `flynas validate zcu102 tests/golden/vitis_ai_zcu102.csv`.",
        "",
        "| data | device | networks | MACs alone | unfitted "
        f"| {FEW} networks | {MANY} networks | block table, {MANY} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        cells = [_cell(found.get(key)) for key in ("unfitted", "fit_30", "fit_900", "block_table_900")]
        head = (name, found["device"], f"{found['networks']:,}", f"{found['macs_spearman']:.4f}")
        lines.append(f"| {' | '.join((*head, *cells))} |")
    lines += ["", "## What each term buys", ""]
    lines += [
        "No measurement used. Errors after one common factor, because a model without a term is too fast throughout."
    ]
    for name, found in results.items():
        if "ablation" in found:
            lines += ["", f"### {name}", "", *_ablation_lines(found["ablation"])]
    pictures = [f"![{name}](hardware_models/{name.split()[1]}.png)" for name, r in results.items() if "fit_30" in r]
    lines += ["", "## Pictures", "", f"Calibrated on {FEW} networks, judged on the others.", "", *pictures]
    named = {name: found["names"] for name, found in results.items() if "names" in found}
    lines += ["", "## Networks of timm that FlyNAS builds", ""]
    lines += [f"- {name}: {', '.join(networks)}" for name, networks in named.items()]
    return "\n".join(lines) + "\n"


def _cell(figures: dict[str, float] | None) -> str:
    if figures is None:
        return "-"
    return f"{figures['spearman']:.4f} / {100 * figures['within_10']:.0f} % / {100 * figures['mape']:.1f} %"


def _ablation_lines(terms: list[dict[str, Any]]) -> list[str]:
    lines = ["| | Spearman | within 10 % | mean error |", "|---|---|---|---|"]
    for label, row in zip(ablation_labels(terms), terms, strict=True):
        shares = f"{100 * row['within_10']:.0f} % | {100 * row['mape']:.1f} %"
        lines.append(f"| {label} | {row['spearman']:.4f} | {shares} |")
    return lines


def main() -> None:
    """Measure what is not there yet, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], metavar="NAME")
    arguments = parser.parse_args()
    store = arguments.out / "hardware_models.json"
    results = json.loads(store.read_text()) if store.is_file() else {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if case.name not in results and (not arguments.only or case.name in arguments.only):
            print(case.name, flush=True)
            results[case.name] = measure(case, arguments.folder, arguments.out)
            store.write_text(json.dumps(results, indent=1) + "\n")
    ordered = {case.name: results[case.name] for case in CASES if case.name in results}
    (arguments.out / "hardware_models.md").write_text(page(ordered))
    print(f"wrote {arguments.out / 'hardware_models.md'}")


if __name__ == "__main__":
    main()
