"""Measured tables on the command line: listing, pricing, importing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw_models import load_table, table_names
from hw_models.table_files import table_text

# the first network of tests/golden/help_fbnet_latency.csv
NETWORK = "fbnet[input_hw=32,classes=100,features=1504]:7.8.1.8.4.8.8.8.7.4.1.4.7.3.2.7.3.2.4.2.4.5"
WIDER = NETWORK.replace("1504", "1984")
PI = "raspi4_fbnet_cifar100"


def test_tables_are_listed_with_source_and_licence(call: Callable[..., Any], strict: Callable[[str], Any]) -> None:
    rows = strict(call("list", "tables", "--json").stdout)
    assert [row["name"] for row in rows] == list(table_names())
    assert all(row["source"] and row["licence"] and row["date"] and row["constant_meaning"] for row in rows)
    shown = call("list", "tables").stdout
    assert all(name in shown for name in table_names()) and "Apache-2.0" in shown


def test_a_network_is_priced_by_a_table(call: Callable[..., Any], strict: Callable[[str], Any]) -> None:
    row = strict(call("cost", NETWORK, "--table", PI, "--json").stdout)
    assert row["latency_s"] == pytest.approx(30.25286e-3, abs=1e-7)
    assert (row["covered"], row["missing"], row["device"], row["precision"]) == (1.0, [], "Raspberry Pi 4", "float32")
    assert "HW-NAS-Bench" in row["source"] and row["licence"] == "MIT" and "model" not in row
    shown = call("cost", NETWORK, "--table", PI).stdout
    assert "30.3 ms" in shown and "100.0% of the latency" in shown and "HW-NAS-Bench" in shown and "MIT" in shown


def test_a_device_gives_its_model_beside(call: Callable[..., Any], strict: Callable[[str], Any]) -> None:
    row = strict(call("cost", NETWORK, "--table", PI, "--device", "raspberry_pi_4", "--json").stdout)
    alone = strict(call("cost", NETWORK, "--device", "raspberry_pi_4", "--json").stdout)
    assert (row["model"], row["model_latency_s"]) == ("raspberry_pi_4", alone["latency_s"])
    assert "model of raspberry_pi_4" in call("cost", NETWORK, "--table", PI, "--device", "raspberry_pi_4").stdout


def test_what_was_not_measured_is_told(call: Callable[..., Any], strict: Callable[[str], Any]) -> None:
    words = ("cost", WIDER, "--table", PI, "--missing", "analytic", "--device", "raspberry_pi_4")
    row = strict(call(*words, "--json").stdout)
    assert 0.9 < row["covered"] < 1 and len(row["missing"]) == 1 and "4x4x1984" in row["missing"][0]
    assert row["missing_by"] == "analytic" and row["interpolation_error"] is None
    shown = call(*words).stdout
    assert f"{row['covered']:.1%} of the latency" in shown and "by analytic" in shown and row["missing"][0] in shown


def test_interpolated_rows_come_with_the_error_to_expect(
    call: Callable[..., Any], strict: Callable[[str], Any], tmp_path: Path
) -> None:
    whole = load_table(PI)
    (gone,) = [key for key, row in whole.rows.items() if row.mean_s == pytest.approx(2.36189e-3)]
    kept = {key: row for key, row in whole.rows.items() if key != gone}
    path = tmp_path / "mine.csv"
    path.write_text(table_text(dataclasses.replace(whole, rows=kept)))
    network = NETWORK.replace(":7.", ":3.")  # the first block is the one that is gone
    words = ("cost", network, "--table", str(path), "--missing", "interpolate")
    row = strict(call(*words, "--json").stdout)
    full = strict(call("cost", network, "--table", PI, "--json").stdout)
    guess = row["latency_s"] - (full["latency_s"] - 2.36189e-3)
    assert row["missing"] == [gone] and 0.5 < guess / 2.36189e-3 < 2
    assert row["covered"] == pytest.approx(1 - guess / row["latency_s"]) and 0.1 < row["interpolation_error"] < 0.25
    assert f"typical error {row['interpolation_error']:.0%}" in call(*words).stdout


def lut(path: Path, kernels: tuple[int, ...]) -> Path:
    """A once-for-all table, of invented times, for the blocks of a small network."""
    lines = ["device,key,mean_ms,std_ms,count"]
    for kernel in kernels:
        for hw in (8, 16):
            key = f"expanded_conv-input:{hw}x{hw}x16-output:{hw}x{hw}x16-expand:3-kernel:{kernel}-stride:1-idskip:1"
            lines.append(f"board,{key},{0.01 * hw * hw * kernel},0.1,20")
    lines.append("other,Conv-input:8x8x3-output:8x8x16,0,,")
    path.write_text("\n".join(lines))
    return path


OPTIONS = (
    "--format", "once_for_all", "--device", "Board", "--kind", "cpu", "--precision", "float32", "--runtime", "r",
    "--source", "a bench", "--licence", "none stated", "--date", "2026-11-25",
)  # fmt: skip


def test_a_foreign_table_is_imported(call: Callable[..., Any], tmp_path: Path) -> None:
    file, out = lut(tmp_path / "lut.csv", (3, 5)), tmp_path / "mine.csv"
    result = call("import-table", str(file), *OPTIONS, "--out", str(out), "--where", "device=board", "--threads", "2")
    assert result.exit_code == 0 and "4 rows of blocks" in result.stdout, result.output
    table = load_table(out)
    assert (table.name, table.device, table.threads, table.licence) == ("mine", "Board", 2, "none stated")
    (row, *_) = table.rows.values()
    assert row == pytest.approx((1.92e-3, 0.1e-3, 20, False))


def test_an_import_can_be_read_by_programs(
    call: Callable[..., Any], strict: Callable[[str], Any], tmp_path: Path
) -> None:
    file, out = lut(tmp_path / "lut.csv", (3,)), tmp_path / "mine.csv"
    row = strict(
        call("import-table", str(file), *OPTIONS, "--out", str(out), "--where", "device=board", "--json").stdout
    )
    assert (row["name"], row["file"], row["rows"], row["level"]) == ("mine", str(out), 2, "block")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{}/mine.txt"], "does not end in .csv"),
        (["--out", "{}/lut.csv"], "exists: give a new .csv file"),
        (["--out", "{}/no/mine.csv"], "there is no folder"),
        (["--out", "{}/mine.csv"], "row 5: mean_ms is 0: give a number above 0"),
        (["--out", "{}/mine.csv", "--where", "devise=board"], "did you mean 'device'"),
        (["--out", "{}/mine.csv", "--where", "device=board", "--column", "mean"], "does not name its unit"),
        (["--out", "{}/mine.csv", "--where", "device=board", "--date", "today"], "--date today is not a date"),
        (["--out", "{}/mine.csv", "--where", "device=board", "--kind", "cpus"], "did you mean 'cpu'"),
        (["--out", "{}/mine.csv", "--where", "device=board", "--precision", "int"], "precision 'int' is not known"),
        (["--out", "{}/mine.csv", "--where", "device=board", "--batch", "0"], "'batch' is 0"),
        (["--out", "{}/mine.csv", "--format", "tuna"], "did you mean 'tunas'"),
    ],
)
def test_wrong_imports_are_one_line(call: Callable[..., Any], words: list[str], message: str, tmp_path: Path) -> None:
    file = lut(tmp_path / "lut.csv", (3, 5))
    result = call("import-table", str(file), *OPTIONS, *(word.format(tmp_path) for word in words))
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "mine.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([NETWORK, "--table", "raspi4"], "unknown table 'raspi4'"),
        ([NETWORK, "--table", "nowhere.csv"], "does not exist"),
        ([WIDER, "--table", PI], "no row for 1 of 20 different blocks: 'conv 4x4x352>4x4x1984"),
        ([WIDER, "--table", PI, "--missing", "interpolate"], "no rows near enough to interpolate 1 of 20"),
        ([WIDER, "--table", PI, "--missing", "analytic"], "give --device NAME"),
        ([NETWORK, "--table", PI, "--missing", "guess"], "unknown way to treat missing rows 'guess'"),
        ([NETWORK, "--missing", "analytic"], "give --table NAME as well"),
        ([NETWORK, "--table", PI, "--device", "zcu102"], "of kind fpga: give a device of kind cpu"),
        ([NETWORK, "--table", PI, "--device", "zcu102", "--device", "a100"], "one --device at most"),
        ([NETWORK, "--table", PI, "--precision", "int8"], "was measured in float32"),
        ([NETWORK, "--table", PI, "--batch", "2"], "--batch 2 is not that of table"),
        (["mobilenet_v2", "--table", PI], "no block 224x224x3>112x112x32"),
        (["mobilenet_v2", "--table", "pixel1_proxylessnas"], "price networks of that space"),
        (["fbnet", "--table", PI], "add genes"),
    ],
)
def test_wrong_prices_are_one_line(call: Callable[..., Any], words: list[str], message: str) -> None:
    result = call("cost", *words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and message in line
