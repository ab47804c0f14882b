"""Tables of other projects: their keys against our blocks, their numbers against what their authors publish."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hw_models import InputError, load_table
from hw_models.table_keys import block_key
from nas.foreign_tables import FORMATS, convert, fbnet, once_for_all, read_lines, tunas
from search_spaces.block import BlockIO
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.positions import space_text
from search_spaces.spaces import fbnet as fbnet_space
from search_spaces.spaces import mobilenet_v2, mobilenet_v3, proxylessnas
from search_spaces.texts import resolve

HEADER = {
    "device": "Board", "kind": "cpu", "precision": "float32", "runtime": "r", "batch": 1, "source": "s",
    "licence": "MIT", "date": "2026-11-25",
}  # fmt: skip


def line(key: str, mean: str = "1.5") -> dict[str, str]:
    return {"key": key, "mean_ms": mean, "std_ms": "0.25", "count": "157"}


def key_of(text: str) -> str:
    return once_for_all([line(text)], "mean_ms", None, "file").entries[0].key


# Keys as han-cai/files writes them, and the block that our spaces put there.
ONCE_FOR_ALL = {
    "Conv-input:224x224x3-output:112x112x32": (ConvNorm(3), BlockIO(224, 224, 3, 32, 2)),
    "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:5-stride:1-idskip:0": (
        InvertedResidual(5, 1),
        BlockIO(112, 112, 32, 16),
    ),
    "expanded_conv-input:56x56x24-output:28x28x40-expand:6-kernel:5-stride:2-idskip:0": (
        InvertedResidual(5, 6),
        BlockIO(56, 56, 24, 40, 2),
    ),
    "expanded_conv-input:14x14x80-output:14x14x80-expand:3-kernel:7-stride:1-idskip:1": (
        InvertedResidual(7, 3),
        BlockIO(14, 14, 80, 80),
    ),
    "expanded_conv-input:14x14x136-output:14x14x136-expand:408-kernel:3-stride:1-idskip:1-se:1-hs:1": (
        InvertedResidual(3, 3, "se"),
        BlockIO(14, 14, 136, 136),
    ),
    "expanded_conv-input:112x112x24-output:56x56x32-expand:96-kernel:7-stride:2-idskip:0-se:0-hs:0": (
        InvertedResidual(7, 4),
        BlockIO(112, 112, 24, 32, 2),
    ),
    "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0": (
        InvertedResidual(3, 1),
        BlockIO(112, 112, 24, 24),
    ),
}


@pytest.mark.parametrize("text", ONCE_FOR_ALL)
def test_once_for_all_keys_are_those_of_our_blocks(text: str) -> None:
    block, io = ONCE_FOR_ALL[text]
    assert key_of(text) == block_key(block.lower(io))


def test_once_for_all_parts_make_up_our_classifier() -> None:
    parts = (
        "Conv_1-input:7x7x192-output:7x7x1152", "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536", "Logits-input:1x1x1536-output:1000",
    )  # fmt: skip
    space = mobilenet_v3.space(width=1.2, resolutions=1)
    head = space.slots[-1]
    assert " + ".join(map(key_of, parts)) == block_key(head.cases[0].block.lower(head.only_io()))
    pooled = "Logits-input:7x7x1280-output:1000"
    assert key_of(pooled) == "global_pool 7x7x1280>1x1x1280 + linear 1x1x1280>1x1x1000"


def test_once_for_all_lines_become_a_table() -> None:
    table = convert([line(text) for text in ONCE_FOR_ALL], "once_for_all", "mine", "file", HEADER)
    assert (table.level, table.values, len(table.rows)) == ("block", "time", 7)
    assert all(row == pytest.approx((1.5e-3, 0.25e-3, 157, False)) for row in table.rows.values())


SMALL = "expanded_conv-input:8x8x8-output:8x8x8-expand:3-kernel:3-stride:1-idskip:1"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line(SMALL), line(SMALL)], "file, row 2: repeats the key"),
        ([line(SMALL, "0")], "file, row 1: mean_ms is 0"),
        ([line(SMALL, "-1")], "file, row 1: mean_ms is -1"),
        ([line(SMALL, "nan")], "file, row 1: mean_ms is nan"),
        (
            [line(SMALL.replace("idskip:1", "idskip:0"))],
            "file, row 1: 'expanded_conv-input:8x8x8-output:8x8x8-expand:3",
        ),
        ([line(SMALL.replace("stride:1", "stride:2"))], "contradicts itself"),
        ([line(SMALL.replace("kernel:3", "kernel:x"))], "says kernel:x"),
        ([line(SMALL.replace("-kernel:3", ""))], "says kernel:?"),
        ([line(SMALL.replace("input", "inpt"))], "no once-for-all key"),
        ([line(SMALL.replace("expanded", "expandd"))], "did you mean 'expanded_conv'"),
        ([line("3x3")], "no once-for-all key"),
        ([line("Conv-input:8x8x3-output:0x0x8")], "no once-for-all key"),
        ([line("Conv-input:8x8x3-output:8x4x8")], "contradicts itself: Conv of this input has another output"),
        ([line("Conv_1-input:8x8x3-output:4x4x8")], "contradicts itself"),
        ([line(SMALL.replace("expand:3", "expand:0"))], "says expand:0"),
        ([{"key": SMALL, "latency": "1"}], "unknown column 'mean_ms' in file"),
    ],
)
def test_wrong_once_for_all_lines_are_named(lines: list[dict[str, str]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(lines, "once_for_all", "mine", "file", HEADER)
    assert message in str(caught.value)


def fbnet_line(op: str, mean: str = "0.5", layout: tuple[int, int, int, int] = (32, 16, 24, 1)) -> dict[str, str]:
    sizes = dict(zip(("in_hw", "c_in", "c_out", "stride"), map(str, layout), strict=True))
    return sizes | {"op": op, "mean_ms": mean}


def cifar() -> object:
    return fbnet_space.space(input_hw=32, classes=100, features=1504)


def test_fbnet_blocks_are_those_of_our_space_and_grouped_ones_are_grouped() -> None:
    space = fbnet_space.space(input_hw=32, classes=100, features=1504)
    found = fbnet([fbnet_line(op) for op in fbnet_space.BLOCKS if op != "skip"], "mean_ms", space, "file").entries
    baseline = [entry.key for entry in found if entry.mean == "baseline"]
    assert len(baseline) == 8 and baseline[0] == "conv 32x32x3>32x32x16 k3" and "linear 1x1x1504" in baseline[-1]
    assert "conv 32x32x24>16x16x32 s2" in baseline  # the skip where the shape changes
    ours = {block_key(case.block.lower(space.slots[2].only_io())) for case in space.slots[2].cases[:-1]}
    assert {entry.key for entry in found} - set(baseline) == ours
    assert all(("g2" in entry.key) == ("concat" in entry.key) for entry in found)


def test_multiply_accumulates_of_shipped_fbnet_keys_are_those_of_the_source() -> None:
    """Times of some rows of the source, by which they can be found, and what its authors count for the block."""
    table = load_table("raspi4_fbnet_cifar100")
    macs = {f"{row.mean_s * 1e3:.5f}": sum(layer.macs for layer in table.layers[k]) for k, row in table.rows.items()}
    source = {"0.59504": 671744, "0.91743": 409600, "3.88755": 5603328, "1.00962": 1400832, "0.11251": 815488}
    assert {ms: macs[ms] for ms in source} == source


@pytest.mark.parametrize(
    ("lines", "space", "message"),
    [
        ([fbnet_line("k3_e2")], cifar, "did you mean 'k3_e"),
        (
            [fbnet_line("k3_e1", layout=(64, 16, 24, 1))],
            cifar,
            "is no layer of fbnet[classes=100,features=1504,input_hw=32]",
        ),
        ([fbnet_line("skip", "0.1")], cifar, "a skip is 0.1"),
        ([fbnet_line("k3_e1", "0")], cifar, "row 1: mean_ms is 0"),
        ([fbnet_line("k3_e1", layout=(32, 16, 24, -1))], cifar, "stride is '-1'"),
        ([fbnet_line("k3_e1")], lambda: None, "needs the space"),
        ([fbnet_line("k3_e1")], mobilenet_v2.space, "is of the space fbnet, not mobilenet_v2"),
    ],
)
def test_wrong_fbnet_lines_are_named(lines: list[dict[str, str]], space: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(lines, "fbnet", "mine", "file", HEADER, space=space(), constant=0.0)  # type: ignore[operator]
    assert message in str(caught.value)


TUNAS = "proxylessnas[first_kernels=(3,5,7),widths=(32,16,32,40,80,96,192,320,1280)]"


def tunas_line(
    layer: int, op: str, kernel: int = 0, expansion: int = 0, coef: str = "-1.5", **more: object
) -> dict[str, str]:
    fields = {"layer": layer, "stride": 1, "residual": int(layer in (2, 3, 4)), "op": op, "kernel": kernel}
    return {name: str(value) for name, value in (fields | {"expansion": expansion, "coef_ms": coef} | more).items()}


def test_tunas_layers_become_positions() -> None:
    space = resolve(TUNAS, prefer_space=True).space
    lines = [
        tunas_line(-1, "bias(whole-net constant)", coef="92.1"),
        tunas_line(0, "sepconv", 5, 1),
        tunas_line(1, "mbconv", 7, 6, stride=2),
        tunas_line(4, "skip"),
    ]
    table = convert(lines, "tunas", "mine", "file", HEADER | {"constant_meaning": "bias"}, space=space)
    assert table.constant_s == pytest.approx(92.1e-3) and table.space == space_text(space)
    assert list(table.rows) == [
        "stages/0/0:inverted_residual[kernel=5,expand=1]",
        "stages/1/0:inverted_residual[kernel=7,expand=6]",
        "stages/1/3:skip",
    ]
    assert resolve(table.space, prefer_space=True).space.fingerprint == space.fingerprint


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([tunas_line(22, "skip")], "layer 22 of 22 (0 to 21)"),
        ([tunas_line(1, "mbconv", 3, 3)], "stride or residual of layer 1 are not those of stages/1/0"),
        ([tunas_line(2, "mbconv", 3, 3, residual=0)], "stride or residual"),
        ([tunas_line(2, "mbconv", 3, 4)], "is none of the choices there"),
        ([tunas_line(1, "skip", stride=2)], "skip at stages/1/0 is none of the choices"),
        ([tunas_line(2, "mbcnv", 3, 3)], "did you mean 'mbconv'"),
        ([tunas_line(2, "mbconv", 3, 3, "nan")], "row 1: coef_ms is nan"),
        ([tunas_line(2, "skip"), tunas_line(2, "skip")], "row 2: repeats"),
        ([tunas_line(-1, "bias"), tunas_line(-1, "bias")], "repeats the constant"),
        ([tunas_line(2, "skip")], "needs the time of the baseline"),
    ],
)
def test_wrong_tunas_lines_are_named(lines: list[dict[str, str]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(lines, "tunas", "mine", "file", HEADER, space=resolve(TUNAS, prefer_space=True).space)
    assert message in str(caught.value)


def test_a_position_without_a_choice_is_no_part_of_a_linear_model() -> None:
    with pytest.raises(InputError, match="has one choice only"):
        tunas([tunas_line(0, "sepconv", 3, 1)], "coef_ms", proxylessnas.space(), "file")


def test_only_the_lines_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "luts.csv"
    rows = [{"device": "a", **line(SMALL)}, {"device": "b", **line(SMALL, "3")}]
    with path.open("w") as file:
        file.write("# a comment\n")
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert [each["mean_ms"] for each in read_lines(path, ["device=b"])] == ["3"]
    for words, message in (
        (["device"], "is no condition"), (["devise=a"], "did you mean 'device'"), (["device=c"], "no lines for which"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_lines(path, words)
    with pytest.raises(InputError, match="does not exist"):
        read_lines(tmp_path / "nowhere.csv")
    path.write_text("key,mean_ms\na,1\nb\n")
    with pytest.raises(InputError, match="row 2: it has more or fewer cells"):
        read_lines(path)


def test_a_column_must_name_its_unit() -> None:
    with pytest.raises(InputError, match="column 'latency' does not name its unit"):
        convert([{"key": SMALL, "latency": "1"}], "once_for_all", "mine", "file", HEADER, column="latency")
    with pytest.raises(InputError, match="did you mean 'tunas'"):
        convert([line(SMALL)], "tuna", "mine", "file", HEADER)
    assert set(FORMATS) == {"once_for_all", "fbnet", "tunas"}
