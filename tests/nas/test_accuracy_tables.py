"""Published accuracies: the shipped tables hold what was published, and wrong files are named."""

import gzip

import numpy as np
import pytest

from hw_models.errors import InputError
from nas.accuracy_tables import load_accuracy_table, parse_accuracy_table, table_names, table_of
from search_spaces.spaces import macro, mnasnet, tiny

HEAD = """\
# spaces = ["macro"]
# task = "CIFAR-10"
# training = "one run"
# source = "mine"
# licence = "MIT"
"""


def test_shipped_tables_hold_the_published_numbers():
    # rows of the published files: the first, the best, and one in the middle
    table = load_accuracy_table("nas_bench_macro")
    rows = table.rows([[0] * 8, [2, 2, 1, 2, 0, 2, 1, 2]])
    np.testing.assert_allclose(100 * (1 - table.errors[rows[0]]), [45.32, 45.33, 45.44], atol=1e-4)
    assert table.genes.shape == (6561, 8) and table.runs == 3
    space, table = mnasnet.space(), load_accuracy_table("accel_nasbench")
    published = {"b0_e": 6, "b0_k": 3, "b0_l": 1, "b1_e": 4, "b1_k": 5, "b1_l": 2, "b2_e": 6, "b2_k": 3, "b2_l": 3,
                 "b3_e": 6, "b3_k": 5, "b3_l": 3, "b4_e": 6, "b4_k": 5, "b4_l": 2, "b5_e": 1, "b5_k": 3, "b5_l": 2,
                 "b6_e": 1, "b6_k": 3, "b6_l": 2} | {f"b{i}_se": 0 for i in range(7)}  # fmt: skip
    row = table.rows([mnasnet.read(space, published)])[0]
    assert 100 * (1 - table.errors[row, 0]) == pytest.approx(59.368, abs=1e-4)
    assert table.genes.shape == (2567, 28) and table.runs == 1


@pytest.mark.parametrize("name", table_names())
def test_every_shipped_row_is_a_network_of_its_space(name):
    from search_spaces.texts import resolve

    table = load_accuracy_table(name)
    for text in table.spaces:
        space = resolve(text, prefer_space=True).space
        assert table_of(space).name == name and table_of(space, name) is table
        assert (table.genes < space.cardinality).all()
    assert table.licence == "Apache-2.0" and "https://" in table.source
    assert np.array_equal(table.rows(table.genes), np.arange(len(table.genes)))


def test_a_value_that_no_row_has_is_no_other_network():
    table = parse_accuracy_table(HEAD + "genes,accuracy_percent_0\n0.1,50\n1.0,60\n", "mine")
    assert table.rows([[0, 1], [1, 0], [0, 0], [0, 2], [2, 0], [0, 3]]).tolist() == [0, 1, -1, -1, -1, -1]


def test_own_files_are_read(tmp_path):
    file = tmp_path / "mine.csv.gz"
    genes = ".".join("0" * 8)
    file.write_bytes(gzip.compress((HEAD + f"genes,accuracy_percent_0\n{genes},50\n").encode()))
    assert table_of(macro.space(), str(file)).errors.tolist() == [[0.5]]
    file.with_name("plain.csv.gz").write_text("genes")
    with pytest.raises(InputError, match="not a gzip file"):
        load_accuracy_table(str(file.with_name("plain.csv.gz")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genes,accuracy_percent_0\n0.1,5\n", "key 'spaces' is missing"),
        ("# spaces = [\ngenes,accuracy_percent_0\n", "not TOML"),
        (HEAD.replace('["macro"]', '"macro"') + "genes,accuracy_percent_0\n0,5\n", "give a list"),
        (HEAD, "name them genes,accuracy_percent_0"),
        (HEAD + "genes,acc\n0,5\n", "columns genes,acc: name them"),
        (HEAD + "genes,accuracy_percent_0\n", "no rows"),
        (HEAD + "genes,accuracy_percent_0\n0.1,5\n0.1,6\n", "0.1 is there twice"),
        (HEAD + "genes,accuracy_percent_0\n0.1,5\n0.2,105\n", "line 8: '0.2,105' is not allowed"),
        (HEAD + "genes,accuracy_percent_0\n0.1,5\n0.2.1,5\n", "line 8: '0.2.1,5'"),
        (HEAD + "genes,accuracy_percent_0\n0.x,5\n", "line 7: '0.x,5'"),
        (HEAD + "genes,accuracy_percent_0\n0.1,nan\n", "line 7: '0.1,nan'"),
        (HEAD + "genes,accuracy_percent_0\n" + ".".join("9" * 30) + ",5\n", "30 decisions are too many"),
    ],
)
def test_wrong_files_are_named(text, said):
    with pytest.raises(InputError, match=said):
        parse_accuracy_table(text, "mine")


def test_wrong_spaces_and_names():
    with pytest.raises(InputError, match="unknown table of accuracies 'nas_bench': did you mean"):
        load_accuracy_table("nas_bench")
    with pytest.raises(InputError, match=r"no networks of tiny: search macro"):
        table_of(tiny.space(), "nas_bench_macro")
    with pytest.raises(InputError, match=r"networks of macro\[input_hw=28\].*accel_nasbench has mnasnet"):
        table_of(macro.space(input_hw=28))
