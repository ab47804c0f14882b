"""The experiment on joint search: both ways choose among the networks of one space, and a stopped run goes on."""

import doctest

import jax
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.objectives import Objective


@pytest.fixture(scope="module")
def judge(scripts_by_name):
    import joint_page
    import judge_joint

    assert doctest.testmod(joint_page).failed == 0
    return judge_joint


def test_its_examples_hold(judge):
    assert doctest.testmod(judge).failed == 0


def test_an_architecture_costs_as_much_in_both_spaces(judge):
    plain, joint = judge.spaces()
    genes = np.asarray(jax.vmap(plain.sample)(jax.random.split(jax.random.key(0), 8)))
    for device in judge.DEVICES:
        alone = Objective(plain, device, precision=judge.UNIFORM).price(genes).costs["latency_s"]
        within = Objective(joint, device).price(judge.uncompressed(plain, joint, genes)).costs["latency_s"]
        assert np.asarray(within) == pytest.approx(np.asarray(alone), rel=1e-5)


def test_networks_are_taken_evenly_from_the_front(judge):
    latency, error = np.asarray([1.0, 2.0, 3.0, 4.0, 5.0, 2.5]), np.asarray([0.5, 0.4, 0.3, 0.2, 0.1, 0.9])
    found = judge.Candidates(np.arange(6)[:, None], error, latency, 6)
    assert found.evenly(3) == [0, 2, 4], "the dominated one is not on it"
    assert found.evenly(2, 0.5) == [2, 4]
    assert found.evenly(9) == [0, 1, 2, 3, 4]


def test_processes_share_a_folder_and_other_settings_are_refused(judge, tmp_path):
    file, settings = tmp_path / "joint.json", judge.Settings()
    started = judge.Kept(file, settings, [1, 2])
    started.rows |= {f"{seed}/pixel_1/joint": {"networks": [{}]} for seed in (1, 2)}
    started.save()
    first, second = (judge.Kept(file, settings, [seed]) for seed in (1, 2))  # both know of both
    for kept, seed in ((first, 1), (second, 2)):
        kept.rows[f"{seed}/pixel_1/joint"] = {"networks": [{"error_percent": float(seed)}]}
        kept.save()
    found = judge.Kept(file, settings, [1])
    assert [found.rows[f"{seed}/pixel_1/joint"]["networks"][0]["error_percent"] for seed in (1, 2)] == [1.0, 2.0]
    assert not found.complete(1), "one of four"
    with pytest.raises(InputError, match="give the same, or another --out"):
        judge.Kept(file, settings._replace(epochs=1), [1])


def test_the_page_compares_seed_by_seed(judge):
    def row(error):
        network = {"latency_s": 1e-3, "error_percent": error, "weight_bits": 8.0, "act_bits": 8.0, "density": 1.0}
        return {"networks": [network, {**network, "latency_s": 1e-2, "error_percent": error - 1}]}

    errors = {"joint": (20.0, 22.0), "after": (21.0, 21.0)}
    rows = {
        f"{seed}/{device}/{way}": row(errors[way][seed])
        for seed in (0, 1) for device in judge.DEVICES for way in judge.WAYS
    }  # fmt: skip
    lines = judge.table(rows, [0, 1], dict.fromkeys(judge.DEVICES, 1e-2)).splitlines()
    assert lines[2].startswith("| pixel_1 | 19.00") and lines[2].endswith("| 1 of 2 |")
    assert judge.picture(rows, [0, 1]).axes[0].get_title() == "pixel_1"
