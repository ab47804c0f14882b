"""Energy: the published tables, what device files took from them, and on-chip accesses."""

from __future__ import annotations

import tomllib
from importlib import resources

import pytest

from hw_models import Layer, Op, Workload, device_names, estimate, load_device
from hw_models.device_file import parse_device
from hw_models.energy import (
    DRAM_READ_J,
    eyeriss_access_j,
    float_mac_j,
    int_add_j,
    int_mac_j,
    int_multiply_j,
    sram_j_per_byte,
)
from hw_models.estimate import apply_precision
from hw_models.formats import parse_format

PJ = 1e-12  # compare in this unit: approx() takes all numbers within 1e-12 of each other for equal

# Horowitz, ISSCC 2014, as quoted by Guerra (thesis, table 1.1) and Dally 2017: picojoules.
ADDITIONS = {8: 0.03, 16: 0.05, 32: 0.1}
MULTIPLICATIONS = {8: 0.2, 32: 3.1}


def test_tables_are_met_exactly_and_grow_linearly_and_quadratically() -> None:
    for bits, energy in ADDITIONS.items():
        assert int_add_j(bits) / PJ == pytest.approx(energy)
    for bits, energy in MULTIPLICATIONS.items():
        assert int_multiply_j(bits) / PJ == pytest.approx(energy)
    for bits in (2, 4, 8, 16, 32):
        assert int_multiply_j(2 * bits) / int_multiply_j(bits) == pytest.approx(4, rel=0.02)
        assert 1.6 < int_add_j(2 * bits) / int_add_j(bits) < 2.1
    assert int_multiply_j(4, 16) / int_multiply_j(8) == pytest.approx(1)
    assert int_mac_j(8, accumulator_bits=8) / PJ == pytest.approx(0.23)
    assert (float_mac_j(32) / PJ, float_mac_j(16) / PJ) == pytest.approx((4.6, 1.5))


def test_a_dram_read_is_128_reads_of_the_smallest_sram_and_139_float32_products() -> None:
    assert DRAM_READ_J / (sram_j_per_byte(8 * 1024) * 4) == pytest.approx(128)
    assert DRAM_READ_J / float_mac_j(32) == pytest.approx(139, abs=0.5)
    sizes = [sram_j_per_byte(2**power) for power in range(10, 24)]
    assert sizes == sorted(sizes)
    assert sram_j_per_byte(2**20) / PJ == pytest.approx(12.5)


def test_eyeriss_levels_keep_their_order() -> None:
    levels = [eyeriss_access_j(level, 2.0) for level in ("register", "neighbour", "buffer", "dram")]
    assert levels == [2, 4, 12, 400]


@pytest.mark.parametrize(
    "name",
    ["raspberry_pi_4", "raspberry_pi_5", "cortex_a57", "cortex_a15", "cortex_a15_instructions", "systolic_32x32"],
)
def test_files_that_quote_the_table_agree_with_it(name: str) -> None:
    for precision, joules in load_device(name).energy["mac_j"].items():
        if precision.startswith("float"):
            expected = float_mac_j(int(precision.removeprefix("float")))
        else:
            form = parse_format(precision)
            expected = int_mac_j(form.weight_bits, form.act_bits)
        assert joules / expected == pytest.approx(1, rel=0.1), precision


@pytest.mark.parametrize("name", device_names())
def test_every_file_says_where_its_energies_come_from(name: str) -> None:
    text = resources.files("hw_models.devices").joinpath(f"{name}.toml").read_text()
    lines = text[text.index("[energy]") :].split("\n[", 2)[0].splitlines()[1:]
    assert all("#" in line and len(line.split("#", 1)[1]) > 4 for line in lines if "=" in line)


def test_on_chip_accesses_count_where_the_file_prices_them() -> None:
    data = tomllib.loads(resources.files("hw_models.devices").joinpath("zcu102.toml").read_text())
    plain = parse_device(data, "plain")
    data["energy"]["sram_j_per_byte"] = 2e-12
    priced = parse_device(data, "priced")
    work, _, _ = apply_precision(plain, Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 16, 32, 3, 3)]))
    before, after = (float(estimate(device, work, 3).energy_j) for device in (plain, priced))
    bytes_read = 3 * (64 * 16 + 64 * 32) + 9 * 16 * 32
    assert after - before == pytest.approx(2e-12 * bytes_read, rel=0.02)
    free = {**data, "energy": {**data["energy"], "sram_j_per_byte": 0}}
    assert float(estimate(parse_device(free, "free"), work, 3).energy_j) == before
