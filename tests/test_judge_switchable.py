"""The experiment on switched networks: what it keeps, prints and refuses. The trainings are those of `nas.training`."""

import doctest

import pytest

from hw_models.errors import InputError
from search_spaces.precision import FIELDS


@pytest.fixture(scope="module")
def judge(scripts_by_name):
    import judge_switchable

    return judge_switchable


def test_its_examples_hold(judge):
    assert doctest.testmod(judge).failed == 0


@pytest.mark.parametrize(("network", "blocks"), [("resnet8", 3), ("resnet14", 6), ("mobilenet", 5)])
def test_bits_of_every_block_are_searched_and_stem_and_head_keep_theirs(judge, network, blocks):
    space = judge.space_of(network, "symmetric,affine")
    assert space.num_decisions == len(FIELDS) * blocks and not any(name.startswith("stem") for name in space.names)
    with pytest.raises(InputError, match="unknown network 'vgg'"):
        judge.space_of("vgg", "symmetric,affine")
    with pytest.raises(InputError, match="quantizers=affine is not allowed: give one of weights"):
        judge.space_of(network, "affine")


def test_the_table_compares_seed_by_seed_and_leaves_out_what_is_not_done(judge, tmp_path):
    kept = judge.Kept(tmp_path, judge.Settings())
    for seed, harder in enumerate((0.0, 0.1)):
        for switch, error in enumerate((0.1, 0.3, 0.2, 0.2)):
            kept.add(judge.name_of("alone", switch, seed), {"errors": [error + harder]})
        kept.add(judge.name_of("labels", 0, seed), {"errors": [e + harder for e in (0.12, 0.33, 0.2, 0.22)]})
    kept.add("labels/2", {"errors": [0.9] * 4})
    rows = judge.Kept(tmp_path, judge.Settings()).rows
    lines = judge.table(rows, ["alone", "labels", "distilled"]).splitlines()
    assert lines[2].startswith("| 32 / 32 | 15.00 ± 63.53 |") and lines[2].endswith("| +2.00 ± 0.00 |  |")
    assert lines[-1].startswith("| mean of few bits | 28.33") and lines[-1].endswith("| +1.67 ± 0.00 |  |")


def test_results_of_other_settings_are_refused(judge, tmp_path):
    judge.Kept(tmp_path, judge.Settings()).add("labels/0", {"errors": [0.1] * 4})
    with pytest.raises(InputError, match="holds results of .*give the same settings, or another --out"):
        judge.Kept(tmp_path, judge.Settings(epochs=3))
    (tmp_path / "switchable_resnet8.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        judge.Kept(tmp_path, judge.Settings())
