"""Make the shipped tables of published accuracies from the files of their authors.

    python scripts/make_accuracy_tables.py --macro nas_bench_macro_cifar10.csv --accel accel_nasbench.csv

The first has the columns `arch` (eight digits), `acc0`, `acc1`, `acc2` (percent); the second `b0_e` ... `b6_se` and
`val_top1`. The same input gives the same bytes (no time stamp in the .gz files).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from search_spaces.spaces import mnasnet

MACRO = """\
# spaces = ["macro"]
# task = "CIFAR-10, test images"
# training = "from scratch, three runs"
# source = "NAS-Bench-Macro (Su et al., CVPR 2021), https://github.com/xiusu/NAS-Bench-Macro"
# licence = "Apache-2.0"
"""
ACCEL = """\
# spaces = ["mnasnet", "mnasnet[activation=relu]"]
# task = "ImageNet, validation images, top-1"
# training = "from scratch by a short recipe, one run"
# source = "Accel-NASBench (Ahmad et al. 2024, https://arxiv.org/abs/2404.08005), https://github.com/afzalxo/Accel-NASBench"
# licence = "Apache-2.0"
"""


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, header: str, rows: Iterable[tuple[Sequence[int], Sequence[str]]], runs: int) -> None:
    """Genes and accuracies in percent, packed without name or time stamp."""
    columns = ",".join(["genes", *(f"accuracy_percent_{run}" for run in range(runs))])
    lines = [",".join([".".join(map(str, genes)), *accuracies]) for genes, accuracies in rows]
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write("\n".join([header + columns, *lines, ""]).encode())
    path.write_bytes(buffer.getvalue())
    print(f"{path}: {len(lines):,} networks, {path.stat().st_size:,} bytes")


def main() -> None:
    """Read what is given, write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--macro", type=Path, help="CSV of NAS-Bench-Macro")
    parser.add_argument("--accel", type=Path, help="CSV of Accel-NASBench")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "nas" / "tables")
    arguments = parser.parse_args()
    if arguments.macro:
        rows = [(tuple(map(int, row["arch"])), [row[f"acc{run}"] for run in range(3)]) for row in read(arguments.macro)]
        write(arguments.out / "nas_bench_macro.csv.gz", MACRO, sorted(rows), 3)
    if arguments.accel:
        space = mnasnet.space()
        found: dict[tuple[int, ...], list[float]] = defaultdict(list)
        for row in read(arguments.accel):
            found[tuple(mnasnet.read(space, row).tolist())].append(float(row["val_top1"]))
        # two networks are there twice: their mean
        rows = [(genes, [f"{sum(values) / len(values):g}"]) for genes, values in sorted(found.items())]
        write(arguments.out / "accel_nasbench.csv.gz", ACCEL, rows, 1)


if __name__ == "__main__":
    main()
