"""Measured tables over whole spaces: against networks one by one, and against what others publish."""

from __future__ import annotations

import csv
import functools
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import InputError, LookupTable, device_names, load_device, load_table
from hw_models.lookup_table import Row
from hw_models.table_keys import block_key, blocks, layer_key
from nas.cost_table import cost_table
from nas.measured_costs import measured_cost_table, measured_latency, price_network
from nas.objectives import Objective
from nas.variants import Variants
from search_spaces.encoding import one_hot, uniform_gates
from search_spaces.spaces import fbnet, flynet, mobilenet_v3, proxylessnas, tiny
from search_spaces.texts import resolve

GOLDEN = Path(__file__).parents[1] / "golden" / "help_fbnet_latency.csv"
CIFAR = fbnet.space(input_hw=32, classes=100, features=1504)
FBNET = ("raspi4", "pixel3", "eyeriss", "fpga")
TUNAS = resolve("proxylessnas[first_kernels=(3,5,7),widths=(32,16,32,40,80,96,192,320,1280)]", prefer_space=True).space


def published() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    lines = list(csv.DictReader(line for line in GOLDEN.read_text().splitlines() if line[0] != "#"))
    genes = np.asarray([[int(gene) for gene in line["genes"].split(".")] for line in lines], np.int32)
    return genes, {name: np.asarray([float(line[f"{name}_ms"]) for line in lines]) for name in FBNET}


@pytest.mark.parametrize("name", FBNET)
def test_fbnet_tables_give_the_latencies_of_help(name: str) -> None:
    genes, wanted = published()
    table = load_table(f"{name}_fbnet_cifar100")
    latency = measured_latency(CIFAR, table)
    assert latency.missing == ()
    # the digits of the source: 22 blocks and a constant, each to 5e-6 ms
    ours = 1e3 * np.asarray(jax.jit(jax.vmap(latency.exact))(genes))
    np.testing.assert_allclose(ours, wanted[name], atol=1e-4, rtol=0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(latency.covered))(genes), 1)
    one = price_network(table, CIFAR.freeze(genes[0]))
    assert one.latency_s == pytest.approx(wanted[name][0] * 1e-3, abs=1e-7) and one.covered == 1


def test_the_linear_model_gives_what_tunas_gives() -> None:
    """ProxylessNAS-Mobile by hand from the coefficients of its 22 choices, and a network of the authors' own test."""
    table = load_table("pixel1_proxylessnas")
    coefficients = [row.mean_s * 1e3 for row in table.rows.values()]
    assert len(coefficients) == 144 and min(coefficients) < -9 and table.constant_s == pytest.approx(92.135994e-3)
    mobile = price_network(table, resolve("proxylessnas_mobile").network())
    assert mobile.latency_s == pytest.approx(84.41624e-3, abs=1e-9) and mobile.covered == 1
    # mobile_cost_model_test.py: 84.0, to 1 ms; its choices are kernels 3, 5, 7 at expansion 3, then 6, then nothing
    choices = [1, 6, 6, 6, 4, 1, 1, 0, 5, 4, 5, 5, 4, 0, 1, 1, 4, 2, 0, 1, 5]
    assert price_network(table, TUNAS.freeze([0, *choices])).latency_s == pytest.approx(84.0e-3, abs=1e-3)
    # the baseline plus three coefficients by hand: nothing but the first layers of two stages differs
    small = [0, 0, 6, 6, 6, *[0, 6, 6, 6] * 4, 0]
    large = [2, *small[1:5], 5, *small[6:]]
    latency = measured_latency(TUNAS, table)
    difference = 1e3 * float(latency.exact(jnp.asarray(large)) - latency.exact(jnp.asarray(small)))
    assert difference == pytest.approx((8.227332 + 1.752522) + (5.655828 + 1.444107), abs=1e-3)


def test_a_space_of_fixed_first_kernel_is_part_of_the_linear_model() -> None:
    table = load_table("pixel1_proxylessnas")
    part = proxylessnas.space(widths=(32, 16, 32, 40, 80, 96, 192, 320, 1280))
    genes = part.sample(jax.random.key(0))
    ours, whole = measured_latency(part, table), measured_latency(TUNAS, table)
    assert float(ours.exact(genes)) == pytest.approx(float(whole.exact(jnp.concatenate([jnp.zeros(1, int), genes]))))
    with pytest.raises(InputError, match="but from 112x112x16 to 56x56x32"):
        measured_latency(proxylessnas.space(), table)
    for missing in ("interpolate", "analytic"):
        with pytest.raises(InputError, match="it is by position"):
            measured_latency(part, table, missing, load_device("pixel_3"))


def invented(space: object, level: str, drop: int = 0, seed: int = 0) -> LookupTable:
    """A table of random times for all layers or blocks of a space, without every `drop`th."""
    random, rows = np.random.default_rng(seed), {}
    for variant in (v for each in getattr(space, "resolutions", ()) or (space,) for v in Variants(each).rows):  # type: ignore[arg-type]
        for unit in blocks(variant.layers) if level == "block" else [(layer,) for layer in variant.layers]:
            rows.setdefault(block_key(unit, "float32"), Row(float(random.uniform(1e-4, 1e-3))))
    kept = {key: row for number, (key, row) in enumerate(rows.items()) if not drop or number % drop}
    return LookupTable("mine", "Board", "cpu", level, "time", "float32", "r", 1, "s", "MIT", "2026-11-25", kept)


@pytest.mark.parametrize(
    ("space", "level"),
    [
        pytest.param(tiny.space(), "operator", id="depth-operator"),
        pytest.param(tiny.space(), "block", id="depth-block"),
        pytest.param(mobilenet_v3.space(64, resolutions=2), "operator", id="resolution-operator"),
        pytest.param(mobilenet_v3.space(64, resolutions=2), "block", id="resolution-block", marks=pytest.mark.slow),
    ],
)
def test_whole_spaces_are_priced_as_networks_one_by_one(space: object, level: str) -> None:
    table = invented(space, level, drop=5)
    device = load_device("raspberry_pi_4")
    latency = measured_latency(space, table, "analytic", device)  # type: ignore[arg-type]
    exact, expected, covered = (jax.jit(each) for each in (latency.exact, latency.expected, latency.covered))
    for seed in range(4):
        genes = space.sample(jax.random.key(seed))  # type: ignore[attr-defined]
        one = price_network(table, space.freeze(genes), "analytic", device)  # type: ignore[attr-defined]
        assert float(exact(genes)) == pytest.approx(one.latency_s, rel=1e-5)
        assert float(expected(one_hot(space, genes))) == pytest.approx(one.latency_s, rel=1e-5)  # type: ignore[arg-type]
        assert float(covered(genes)) == pytest.approx(one.covered, rel=1e-5) and one.covered < 1
        assert set(one.missing) <= set(latency.missing)


def test_expected_latency_is_the_mean_over_all_networks() -> None:
    space = tiny.space()
    latency = measured_latency(space, invented(space, "block"))
    every = np.stack(np.unravel_index(np.arange(space.size), space.cardinality), axis=1).astype(np.int32)
    mean = float(jax.vmap(latency.exact)(jax.vmap(space.canonical)(every)).mean())
    assert float(latency.expected(uniform_gates(space))) == pytest.approx(mean, rel=1e-5)
    gradient = jax.grad(latency.expected)(uniform_gates(space))
    assert jnp.isfinite(gradient).all() and jnp.abs(gradient).max() > 0


def test_a_missing_row_of_a_space_is_an_error_that_names_it() -> None:
    space = tiny.space()
    whole = invented(space, "block")
    gone = list(whole.rows)[3]
    table = LookupTable(**{**vars(whole), "rows": {k: r for k, r in whole.rows.items() if k != gone}})
    with pytest.raises(InputError) as caught:
        measured_latency(space, table)
    assert f"no row for 1 of {len(whole.rows)} different blocks: '{gone}'" in str(caught.value)
    assert layer_key(space.freeze([0] * space.num_decisions).lower()[0]) in whole.rows


def test_latency_and_throughput_of_a_cost_table_are_measured_and_nothing_else() -> None:
    table, device = load_table("raspi4_fbnet_cifar100"), load_device("raspberry_pi_4")
    measured, analytic = measured_cost_table(CIFAR, device, table=table), cost_table(CIFAR, device)
    genes = jnp.asarray(published()[0][0])
    ours, theirs = jax.jit(measured.exact)(genes), jax.jit(analytic.exact)(genes)
    assert float(ours.latency_s) == pytest.approx(30.25286e-3, abs=1e-7)
    assert float(ours.throughput_per_s) == pytest.approx(1 / 30.25286e-3, rel=1e-5)
    for field in set(ours._fields) - {"latency_s", "interval_s"}:
        assert float(getattr(ours, field)) == pytest.approx(float(getattr(theirs, field)), rel=1e-6)
    assert float(measured.expected(one_hot(CIFAR, genes)).latency_s) == pytest.approx(30.25286e-3, rel=1e-5)
    assert measured.note == "float32: that of table raspi4_fbnet_cifar100; latency measured"


def test_a_table_of_another_batch_prices_everything_at_that_batch() -> None:
    one, device = load_table("raspi4_fbnet_cifar100"), load_device("raspberry_pi_4")
    four = LookupTable(**{**vars(one), "batch": 4})
    genes = jnp.asarray(published()[0][0])
    found, alone = (measured_cost_table(CIFAR, device, table=table).exact(genes) for table in (four, one))
    assert float(found.interval_s) == pytest.approx(float(found.latency_s) / 4, rel=1e-6)
    assert float(found.peak_memory_bytes) == pytest.approx(4 * float(alone.peak_memory_bytes), rel=1e-6)
    assert measured_cost_table(CIFAR, device, None, 4, table=four).exact(genes) == found
    with pytest.raises(InputError, match="batch=2 is not that of table raspi4_fbnet_cifar100, 4: leave it out"):
        measured_cost_table(CIFAR, device, None, 2, table=four)


def test_a_search_can_go_by_a_table() -> None:
    make = functools.partial(measured_cost_table, table=load_table("raspi4_fbnet_cifar100"))
    goal = Objective(CIFAR, load_device("raspberry_pi_4"), ("error", "latency_s"), {"latency_s": 0.03}, table=make)
    genes, wanted = published()
    priced = goal.price(genes)
    np.testing.assert_allclose(1e3 * np.asarray(priced.costs["latency_s"]), wanted["raspi4"], atol=1e-4)
    np.testing.assert_array_equal(np.asarray(priced.violation) > 0, wanted["raspi4"] > 30)


def test_devices_and_precisions_must_be_those_of_the_table() -> None:
    table = load_table("raspi4_fbnet_cifar100")
    with pytest.raises(InputError, match="of kind cpu"):
        measured_cost_table(CIFAR, load_device("a100"), table=table)
    with pytest.raises(InputError, match="was measured in float32"):
        measured_cost_table(CIFAR, load_device("raspberry_pi_4"), "int8", table=table)
    with pytest.raises(InputError, match="does not say its own"):
        measured_cost_table(CIFAR, load_device("zcu102"), "int8", table=load_table("fpga_fbnet_cifar100"))
    for name in device_names():
        with pytest.raises(InputError, match="of kind asic"):
            measured_cost_table(CIFAR, load_device(name), table=load_table("eyeriss_fbnet_cifar100"))


def test_a_table_of_differences_needs_fixed_shapes() -> None:
    with pytest.raises(InputError, match="the shape itself is searched"):
        measured_latency(flynet.space(), load_table("raspi4_fbnet_cifar100"))
    with pytest.raises(InputError, match="no block 224x224x3>112x112x16"):
        measured_latency(fbnet.space(), load_table("raspi4_fbnet_cifar100"))


def test_a_population_is_priced_in_one_program() -> None:
    latency = jax.jit(jax.vmap(measured_latency(CIFAR, load_table("raspi4_fbnet_cifar100")).exact))
    many = jax.jit(jax.vmap(CIFAR.sample))(jax.random.split(jax.random.key(0), 20_000))
    latency(many).block_until_ready()
    began = time.perf_counter()
    latency(many + 0).block_until_ready()
    assert time.perf_counter() - began < 1.0 and latency._cache_size() == 1
