"""Reading measured tables: shipped ones are complete, every mistake is one sentence with the row and the reason."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

import pytest

from hw_models import InputError, load_table, table_names
from hw_models.table_files import parse_table, table_text

TIMES = """\
# device = "Board"
# kind = "cpu"
# level = "block"
# values = "time"
# precision = "int8"
# runtime = "a runtime"
# batch = 4
# threads = 2
# source = "a bench"
# licence = "MIT"
# date = 2026-11-25
key,mean_us,spread_us,count
conv 8x8x3>8x8x16 k3,120,2.5,50
conv 8x8x16>8x8x16 k3 + add 8x8x16>8x8x16,90,,

linear 1x1x16>1x1x10 w4a8,7.5,0,9
"""
DIFFERENCES = (
    TIMES.replace('"time"', '"difference"').replace("key,", '# constant_ms = 3\n# constant_meaning = "stem"\nkey,', 1)
    .replace(",120,2.5,50", ",baseline,,")
)  # fmt: skip
LINEAR = DIFFERENCES[: DIFFERENCES.index("conv")].replace('"block"', '"position"') + "stages/0/0:skip,-3,,\na:b,0,,\n"
LINEAR = LINEAR.replace("# batch", '# space = "tiny"\n# batch')


def test_a_table_of_times_is_read_in_seconds() -> None:
    table = parse_table(TIMES, "mine")
    assert (table.name, table.batch, table.threads, table.constant_s) == ("mine", 4, 2, 0.0)
    first, second, third = table.rows.values()
    assert first == pytest.approx((120e-6, 2.5e-6, 50, False))
    assert second[1:3] == (None, None)
    assert table.layers["linear 1x1x16>1x1x10 w4a8"][0].weight_bits == 4
    assert third.mean_s == pytest.approx(7.5e-6)


def test_differences_may_be_in_the_baseline_and_a_linear_model_may_be_negative() -> None:
    table = parse_table(DIFFERENCES, "mine")
    assert table.constant_s == pytest.approx(3e-3)
    assert [row.baseline for row in table.rows.values()] == [True, False, False]
    assert [row.mean_s for row in parse_table(LINEAR, "mine").rows.values()] == pytest.approx([-3e-6, 0])


@pytest.mark.parametrize("text", [TIMES, DIFFERENCES, LINEAR], ids=["times", "differences", "linear"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_what_is_written_is_read_again(text: str, unit: str) -> None:
    table = parse_table(text, "mine")
    again = parse_table(table_text(table, unit), "mine")
    assert again.constant_s == pytest.approx(table.constant_s)
    assert list(again.rows) == list(table.rows)
    for a, b in zip(again.rows.values(), table.rows.values(), strict=True):
        assert a.mean_s == pytest.approx(b.mean_s) and a[2:] == b[2:]
        assert (a.spread_s is None) == (b.spread_s is None)


@pytest.mark.parametrize("name", table_names())
def test_shipped_tables_say_where_they_are_from_and_may_be_shipped(name: str) -> None:
    table = load_table(name)
    assert table.licence in ("MIT", "Apache-2.0") and len(table.source) > 40 and table.batch == 1
    text = importlib.resources.files("hw_models.tables").joinpath(f"{name}.csv").read_text()
    assert table_text(table) == text, "shipped tables are as the importer writes them"


# What is done to a valid file, and what the error must say besides its name.
MISTAKES: dict[str, tuple[str, str, str, str]] = {
    # rows
    "repeated": (TIMES, "linear 1x1x16>1x1x10 w4a8,7.5,0,9", "conv 8x8x3>8x8x16 k3,7,,", "row 3 (line 16): repeats"),
    "zero": (TIMES, ",120,", ",0,", "row 1 (line 13): mean_us is 0: give a number above 0"),
    "negative": (TIMES, ",90,", ",-90,", "row 2 (line 14): mean_us is -90"),
    "not a number": (TIMES, ",120,", ",nan,", "row 1 (line 13): mean_us is nan: give a finite number"),
    "infinite": (TIMES, ",120,", ",inf,", "finite"),
    "text": (TIMES, ",120,", ",fast,", "mean_us is 'fast': give a number"),
    "empty": (TIMES, ",120,", ",,", "mean_us is '': give a number"),
    "underscore": (TIMES, ",120,", ",1_20,", "give a number"),
    "negative spread": (TIMES, "2.5", "-2.5", "spread_us is -2.5"),
    "count of nothing": (TIMES, ",50", ",0", "count is 0"),
    "count that is none": (TIMES, ",50", ",1.5", "count is 1.5"),
    "no key": (TIMES, "conv 8x8x3>8x8x16 k3,", ",", "row 1 (line 13): the key is empty"),
    "wrong key": (TIMES, "k3,120", "q3,120", "row 1 (line 13): 'q3' in key"),
    "key in another way": (TIMES, "linear 1x1x16>1x1x10 w4a8", "linear 1x1x16>1x1x10 int8", "write 'linear"),
    "baseline of times": (TIMES, ",120,", ",baseline,", "only tables of differences"),
    "block among operators": (TIMES, '"block"', '"operator"', "row 2 (line 14): 'conv"),
    "missing cell": (TIMES, ",120,2.5,50", ",120,2.5", "3 cells for 4 columns"),
    "no rows": (TIMES, TIMES[TIMES.index("conv") :], "", "has no rows"),
    "open quote": (TIMES, "conv 8x8x3", '"conv 8x8x3', "not CSV"),
    "zero difference": (DIFFERENCES, ",90,", ",0,", "written 'baseline'"),
    "negative difference": (DIFFERENCES, ",90,", ",-1,", "give a number above 0"),
    "baseline twice": (DIFFERENCES, "k3 + add 8x8x16>8x8x16,90,", "k3,1,,\nconv 8x8x3>8x8x16,baseline,", "place"),
    "baseline that keeps": (DIFFERENCES, "+ add 8x8x16>8x8x16,90", "+ add 8x8x16>8x8x16,baseline", "change the shape"),
    "baseline of a linear model": (LINEAR, ",-3,", ",baseline,", "only tables of differences to blocks"),
    "linear model that is no number": (LINEAR, ",-3,", ",nan,", "finite"),
    # columns
    "mean without unit": (TIMES, "mean_us", "mean", "column 'mean' has no unit: name it mean_s, mean_ms, mean_us"),
    "unknown unit": (TIMES, "mean_us", "mean_min", "give 'key' and one of mean_s"),
    "two means": (TIMES, "spread_us", "mean_ms", "give 'key' and one of mean_s"),
    "spread without unit": (TIMES, "spread_us", "spread", "name it spread_us"),
    "spread in another unit": (TIMES, "spread_us", "spread_ms", "did you mean 'spread_us'"),
    "unknown column": (TIMES, "count\n", "cuont\n", "did you mean 'count'"),
    "column twice": (TIMES, "spread_us", "count", "'count' is there twice"),
    "no key column": (TIMES, "key,", "block,", "give 'key'"),
    # header
    "no device": (TIMES, '# device = "Board"\n', "", "key 'device' is missing"),
    "empty source": (TIMES, '"a bench"', '" "', "'source' is ' '"),
    "unknown key": (TIMES, "# runtime", "# runtme", "did you mean 'runtime'"),
    "no TOML": (TIMES, '= "Board"', "is a board", "not TOML"),
    "unknown kind": (TIMES, '"cpu"', '"cpus"', "did you mean 'cpu'"),
    "unknown level": (TIMES, '"block"', '"blocks"', "did you mean 'block'"),
    "unknown values": (TIMES, '"time"', '"times"', "did you mean 'time'"),
    "unknown precision": (TIMES, '"int8"', '"int"', "precision 'int' is not known"),
    "batch of none": (TIMES, "batch = 4", "batch = 0", "'batch' is 0"),
    "threads of half": (TIMES, "threads = 2", "threads = 0.5", "'threads' is 0.5"),
    "quoted date": (TIMES, "2026-11-25", '"2026-11-25"', "without quotes"),
    "constant without unit": (DIFFERENCES, "constant_ms", "constant", "'constant' has no unit"),
    "constant twice": (DIFFERENCES, "# batch", "# constant_s = 1\n# batch", "keep one"),
    "negative constant": (DIFFERENCES, "constant_ms = 3", "constant_ms = -3", "'constant_ms' is -3"),
    "no constant": (DIFFERENCES, "# constant_ms = 3\n", "", "needs the time of the baseline"),
    "constant of what": (TIMES, "# batch", "# constant_ms = 3\n# batch", "constant_meaning"),
    "differences of operators": (DIFFERENCES, '"block"', '"operator"', "no baseline"),
    "positions of what": (LINEAR, '# space = "tiny"\n', "", "needs 'space'"),
    "space of blocks": (TIMES, "# batch", '# space = "tiny"\n# batch', "has no 'space'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_names_file_row_and_reason(mistake: str, tmp_path: Path) -> None:
    text, old, new, message = MISTAKES[mistake]
    assert text.count(old) >= 1
    path = tmp_path / "mine.csv"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_table(path)
    said = str(caught.value)
    assert message in said and str(path) in said and "\n" not in said, said


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'raspi4_fbnet_cifar100'"):
        load_table("raspi4_fbnet")
    with pytest.raises(InputError, match=re.escape("nowhere.csv' does not exist")):
        load_table(tmp_path / "nowhere.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        load_table(tmp_path / "bytes.csv")
