"""Turns published measurements into the CSV that `flynas calibrate` and `flynas validate` read.

    python scripts/convert_measured.py accel_nasbench FILE --device throughput_a100 --out measured.csv
    python scripts/convert_measured.py help_fbnet FILE --device gold_6226 --out measured.csv
    python scripts/convert_measured.py timm FILE --device amp-nchw-pt240-cu124-rtx3090 --out measured.csv

`accel_nasbench`: the CSV of afzalxo/Accel-NASBench (Apache-2.0); a column `throughput_*` (images per second, of GPUs
and TPUs at batch 64, of a ZCU102 at one image for each of its three cores) or `latency_*` (milliseconds of one image).
`help_fbnet`: an archive with `ops [N, 22]`, `op_names`, `devices` and `latency_ms [N, devices]` from HayeonLee/HELP
(MIT); the batch is the number at the end of the device's name, 1 if there is none; PyTorch and TFLite in float32.
`timm`: results of huggingface/pytorch-image-models (Apache-2.0); only networks that FlyNAS builds with the same layers.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from search_spaces.spaces import fbnet, mnasnet
from search_spaces.texts import resolve

Row = dict[str, object]
COLUMNS = ("network", "latency_s", "throughput_per_s", "batch", "precision")
GPU_BATCH = 64
LARGEST_BATCH = 256  # a larger number at the end of a device's name is that of its model, such as gold_6226
FPGA_BATCH = {"throughput_zcu102": 3, "throughput_vck190": 6}
# timm's names of networks that our references build with the same layers
TIMM = {
    "densenet121": "densenet121",
    "densenet264": "densenet264",
    "efficientnet_b1": "efficientnet_b1",
    "fbnetc_100": "fbnet_c",
    "mnasnet_100": "mnasnet_b1",
    "mnasnet_a1": "mnasnet_a1",
    "mnasnet_b1": "mnasnet_b1",
    "mobilenetv1_100": "mobilenet_v1",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "resnet152": "resnet152",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "semnasnet_100": "mnasnet_a1",
    "vgg16": "vgg16",
}
SAME_PARAMS = 0.01  # relative difference of parameter counts above which it is another network


def accel_nasbench(path: Path, column: str) -> Iterator[Row]:
    """Networks of the MnasNet space of Accel-NASBench."""
    on_fpga = column.endswith(("zcu102", "vck190"))
    space = mnasnet.space(activation="relu" if on_fpga else "silu")
    for row in _lines(path.read_text().splitlines()):
        if not row[column]:
            continue
        found: Row = {"network": space.text(mnasnet.read(space, row))}
        if column.startswith("latency"):
            found |= {"latency_s": f"{float(row[column]) / 1e3:.9g}", "batch": 1}
        else:
            found |= {"throughput_per_s": row[column], "batch": FPGA_BATCH[column] if on_fpga else GPU_BATCH}
        yield found


def help_fbnet(path: Path, device: str) -> Iterator[Row]:
    """Networks of the FBNet space for CIFAR-100 of HELP."""
    data = np.load(path, allow_pickle=False)
    space = fbnet.space(input_hw=32, classes=100, features=1504)
    order = [list(fbnet.BLOCKS).index(str(name)) for name in data["op_names"]]
    place = [str(name) for name in data["devices"]].index(device)
    last = device.rpartition("_")[2]
    batch = int(last) if last.isdecimal() and int(last) <= LARGEST_BATCH else 1
    for ops, milliseconds in zip(data["ops"], data["latency_ms"][:, place], strict=True):
        genes = np.asarray([order[int(op)] for op in ops])
        seconds = f"{milliseconds / 1e3:.9g}"
        yield {"network": space.text(genes), "latency_s": seconds, "batch": batch, "precision": "float32"}


def timm(path: Path, config: str) -> Iterator[Row]:
    """Published networks among timm's results, at the image sizes they were measured at."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    precision = "float16" if config.startswith("amp") else "float32"
    seen = set()
    for row in _lines(text.splitlines()):
        name = row["model"].partition(".")[0]
        if row["config"] != config or name not in TIMM:
            continue
        network = f"{TIMM[name]}[input_hw={row['infer_img_size']}]"
        counted = resolve(network).network().params
        if abs(counted / 1e6 / float(row["param_count"]) - 1) > SAME_PARAMS:
            print(f"left out {row['model']}: {row['param_count']} M parameters, {network} has {counted / 1e6:.2f} M")
        elif network not in seen:
            seen.add(network)
            yield {
                "network": network,
                "throughput_per_s": row["infer_samples_per_sec"],
                "batch": int(float(row["infer_batch_size"])),
                "precision": precision,
            }


def _lines(lines: list[str]) -> Iterator[dict[str, str]]:
    return csv.DictReader(line for line in lines if not line.startswith("#"))


SOURCES: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    "accel_nasbench": accel_nasbench,
    "help_fbnet": help_fbnet,
    "timm": timm,
}


def write(rows: list[Row], path: Path) -> None:
    """Write networks as CSV, with the columns that any of them has."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in COLUMNS if any(name in row for row in rows)])
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=sorted(SOURCES))
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", required=True, help="column, device or configuration of the source")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = list(SOURCES[arguments.source](arguments.file, arguments.device))
    write(rows, arguments.out)
    print(f"wrote {len(rows):,} networks to {arguments.out}")


if __name__ == "__main__":
    main()
