"""Devices against measured networks: as they are, and calibrated on a handful of them."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hw_models import Device, InputError, Layer, Op, Workload, load_device
from hw_models.ablation import terms, without
from hw_models.accuracy import accuracy
from hw_models.calibrate import Fit, _slopes, calibrate, constants, held_out, predict, rows, with_constants
from hw_models.calibrated_file import calibrated_text
from hw_models.device_file import read_device_text
from hw_models.discover import names
from hw_models.estimate import apply_precision
from hw_models.keys import keys_of
from hw_models.testing import chains
from search_spaces.texts import resolve

GOLDEN = Path(__file__).parents[1] / "golden"
FEW = 30
FBNET = "fbnet[input_hw=32,classes=100,features=1504]:"


class Case(NamedTuple):
    device: Device
    precision: str
    networks: Workload
    batch: int
    seconds: np.ndarray

    def predicted(self, device: Device) -> np.ndarray:
        return np.asarray(predict(device, self.networks, jnp.full(len(self.seconds), float(self.batch))), float)


@functools.cache
def layers(text: str) -> list[Layer]:
    return resolve(text).network().lower()


@functools.cache
def case(name: str) -> Case:
    file, column, batch, precision = {
        "a100": ("accel_nasbench_times.csv", "a100_per_s", 64, None),
        "rtx_3090": ("accel_nasbench_times.csv", "rtx_3090_per_s", 64, None),
        "tpu_v2": ("accel_nasbench_times.csv", "tpu_v2_per_s", 64, None),
        "zcu102": ("accel_nasbench_times.csv", "zcu102_ms", 1, None),
        "xeon_vnni": ("help_fbnet_times.csv", "silver_4210r_ms", 1, "float32"),
        "titan_rtx": ("help_fbnet_times.csv", "titan_rtx_ms", 1, "float32"),
    }[name]
    text = (GOLDEN / file).read_text().splitlines()
    found = list(csv.DictReader(line for line in text if not line.startswith("#")))
    texts = [row["network"] if "network" in row else FBNET + row["genes"] for row in found]
    values = np.asarray([float(row[column]) for row in found])
    seconds = batch / values if column.endswith("_per_s") else values * 1e-3
    device = load_device(name)
    networks, chosen, _ = apply_precision(device, Workload.stack([layers(each) for each in texts]), precision)
    return Case(device, chosen, networks, batch, seconds)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(stats.spearmanr(a, b).statistic)


# What no measurement gives, and what 30 networks give on the other 60: rank correlation, share within 10 %. The whole
# data are measured by `flynas validate` (docs/results/hardware_models.md); a sample of 60 is looser than they are.
@pytest.mark.parametrize(
    ("name", "unfitted", "ranks", "within_10"),
    [
        ("a100", 0.99, 0.998, 0.98),
        pytest.param("tpu_v2", 0.93, 0.98, 0.80, marks=pytest.mark.slow),
        pytest.param("zcu102", 0.93, 0.985, 0.85, marks=pytest.mark.slow),
        pytest.param("xeon_vnni", 0.5, 0.88, 0.95, marks=pytest.mark.slow),
    ],
)
def test_ranks_measured_networks(name: str, unfitted: float, ranks: float, within_10: float) -> None:
    known = case(name)
    assert spearman(known.predicted(known.device), known.seconds) > unfitted
    seen, unseen = np.arange(FEW), np.arange(FEW, len(known.seconds))
    fit = calibrate(known.device, rows(known.networks, seen), known.batch, known.seconds[seen], known.precision)
    guess = known.predicted(fit.device)[unseen]
    found = accuracy(guess, known.seconds[unseen])
    assert found.spearman.value > ranks
    assert found.within_10.value >= within_10
    assert 0.3 < fit.error / found.typical_error.value < 3  # the error it reports is that of networks it has not seen


@pytest.mark.parametrize(("name", "ranks"), [("rtx_3090", 0.99), ("titan_rtx", 0.85)])
def test_ranks_networks_of_other_gpus_without_a_fit(name: str, ranks: float) -> None:
    known = case(name)
    assert spearman(known.predicted(known.device), known.seconds) > ranks


def roofline(known: Case) -> np.ndarray:
    """Seconds by peak arithmetic and peak bandwidth alone, layer by layer."""
    device, work, batch = known.device, known.networks, known.batch
    peak = device.compute["macs_per_cycle"][known.precision] * device.compute["clock_hz"] * device.compute["units"]
    moved = work.weights * work.weight_bits + batch * (work.input_elements + work.output_elements) * work.act_bits
    slower = jnp.maximum(work.macs * batch / peak, moved / 8 / device.memory["dram_bytes_per_s"])
    return np.asarray((work.count * slower).sum(-1), float)


# The first network was measured faster than the second; a roofline says the opposite, and why the kind knows better.
PAIRS = {
    # depthwise maps through eager kernels: normalisation and activation of wide maps cost more than what is multiplied
    "a100": (
        "mnasnet:1.0.2.1.1.0.1.1.1.1.1.0.0.0.1.1.1.0.0.0.0.1.2.0.1.1.0.1",
        "mnasnet:2.1.2.0.1.1.1.0.0.0.2.0.0.0.0.1.0.1.1.1.3.0.2.1.2.0.2.1",
    ),
    # expanded maps of the first stage leave the vector memory
    "tpu_v2": (
        "mnasnet:1.0.1.1.2.1.2.1.1.0.0.1.1.1.1.0.2.0.1.0.3.1.2.1.0.1.1.0",
        "mnasnet:2.1.2.0.0.0.1.0.2.1.1.0.0.0.1.0.0.1.2.0.0.0.0.0.2.0.0.0",
    ),
    # 5x5 depthwise layers on 4 pixels x 16 channels, and squeeze-and-excitation that waits for whole maps
    "zcu102": (
        "mnasnet:1.0.2.0.2.0.2.0.1.0.2.0.1.1.2.0.2.1.0.0.2.0.1.0.1.0.1.0",
        "mnasnet:1.1.2.0.2.1.1.0.0.0.0.0.0.0.0.0.0.1.1.0.1.1.1.0.2.1.0.0",
    ),
    # more layers, each with its call
    "xeon_vnni": ("5.6.1.2.0.3.8.8.4.3.6.8.6.8.4.3.4.0.8.5.8.7", "2.4.5.4.7.0.1.4.0.6.5.4.5.6.5.6.5.1.4.6.2.1"),
    # more kernels to launch
    "titan_rtx": ("8.8.7.2.7.8.4.7.6.5.4.6.2.0.8.1.3.1.7.7.8.7", "2.4.5.4.7.0.1.4.0.6.5.4.5.6.5.6.5.1.4.6.2.1"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_ranks_a_pair_that_a_roofline_gets_wrong(name: str) -> None:
    whole = case(name)
    text = (GOLDEN / ("accel_nasbench_times.csv" if ":" in PAIRS[name][0] else "help_fbnet_times.csv")).read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")][1:]
    fast, slow = (next(i for i, line in enumerate(lines) if line.startswith(each + ",")) for each in PAIRS[name])
    assert whole.seconds[fast] < whole.seconds[slow] / 1.1
    assert roofline(whole)[fast] > roofline(whole)[slow] * 1.1
    ours = whole.predicted(whole.device)
    assert ours[fast] < ours[slow] / 1.05


def test_a_known_device_is_found_again() -> None:
    known = case("zcu102")
    truth = known.device.with_numbers(
        compute__op_overhead_s=2e-5, compute__elementwise_per_cycle=8, compute__depthwise_pixel_parallel=2
    )
    seconds = known.predicted(truth)
    seen = np.arange(FEW)
    fit = calibrate(known.device, rows(known.networks, seen), 1, seconds[seen], known.precision)
    assert np.max(np.abs(known.predicted(fit.device) / seconds - 1)) < 0.01
    assert fit.device.compute["depthwise_pixel_parallel"] == pytest.approx(2, rel=0.1)
    assert fit.device.compute["elementwise_per_cycle"] == pytest.approx(8, rel=0.1)


def test_few_networks_move_only_what_they_can_tell() -> None:
    """At batch 1 a GPU shows its launches: rates of the arithmetic stay near what the file says."""
    known = case("titan_rtx")
    seen = np.arange(12)
    fit = calibrate(known.device, rows(known.networks, seen), 1, known.seconds[seen], known.precision)
    moved = {c.name: v / c.start for c, v in zip(fit.constants, fit.values, strict=True)}
    assert moved["compute.op_overhead_s"] > 3
    assert 0.4 < moved["compute.efficiency.float32"] < 2.5


def test_calibration_repeats_itself() -> None:
    known = case("a100")
    seen = np.arange(FEW)
    part = (known.device, rows(known.networks, seen), 64, known.seconds[seen], known.precision)
    np.testing.assert_array_equal(calibrate(*part).values, calibrate(*part).values)


def test_fits_do_not_see_what_they_predict_and_equal_networks_are_held_out_together() -> None:
    known = case("a100")
    seen = np.concatenate([np.arange(22), np.arange(6)])
    seconds = known.seconds[seen].copy()
    before = held_out(known.device, rows(known.networks, seen), 64, seconds, known.precision)
    seconds[4] *= 1.5
    after = held_out(known.device, rows(known.networks, seen), 64, seconds, known.precision)
    assert after[4] == before[4] and after[26] == before[26]
    assert np.max(np.abs(after / before - 1)) > 0.01


def folded() -> tuple[Case, Any]:
    """28 networks, in folds of 5 and 6."""
    known = case("a100")
    few = known._replace(networks=rows(known.networks, slice(28)), seconds=known.seconds[:28])
    return few, (few.device, few.networks, 64, few.seconds, few.precision)


@functools.cache
def held_out_once() -> np.ndarray:
    return held_out(*folded()[1])


def test_folds_and_the_final_fit_share_one_program() -> None:
    before = _slopes._cache_size()
    held_out_once()
    calibrate(*folded()[1])
    assert _slopes._cache_size() <= before + 1


def test_calibrated_files_keep_their_comments_and_know_their_error(tmp_path: Path) -> None:
    known, part = folded()
    fit, found = calibrate(*part), accuracy(held_out_once(), known.seconds)
    path = tmp_path / "mine.toml"
    path.write_text(calibrated_text("a100", fit, found, "float16", 64, "golden"))
    mine = load_device(path)
    np.testing.assert_allclose(known.predicted(mine), known.predicted(fit.device), rtol=1e-3)
    assert mine.error_at("float16", 64) == pytest.approx(found.typical_error.value, rel=1e-3)
    assert mine.error_at("float16", 1) is None
    assert mine.error_at("int8", 64) is None
    text = path.read_text()
    assert "streaming multiprocessors" in text
    assert "calibrated on 28 networks" in text
    again = tmp_path / "again.toml"
    again.write_text(calibrated_text(path, fit, found, "float16", None, "golden"))
    assert load_device(again).error_at("float16", 1) is not None


SPREAD = {
    "inline": lambda text: text,
    "dotted": lambda text: text.replace(
        "efficiency = { float32 = 0.3, int8 = 0.19 }", "efficiency.float32 = 0.3\nefficiency.int8 = 0.19\n#"
    ),
    "at the end": lambda text: (
        text.replace("efficiency = { float32 = 0.3, int8 = 0.19 }", "#")
        + "\n[compute.efficiency]\nfloat32 = 0.3\nint8 = 0.19\n"
    ),
}


@pytest.mark.parametrize("layout", SPREAD)
@pytest.mark.parametrize("threads", [1, 4])
def test_the_written_file_prices_as_the_fit_does(tmp_path: Path, layout: str, threads: int) -> None:
    """Also where its tables are spread over the file, the threads are not its own, and the clamp of rates binds."""
    text = SPREAD[layout](read_device_text("raspberry_pi_4")[2])
    path = tmp_path / "board.toml"
    path.write_text(text)
    device = load_device(path).with_numbers(compute__units=threads)
    names = [constant.name for constant in constants(device, "float32")]
    values = [1.0371771 * device.number(name) if device.number(name) else 1.234567e-5 for name in names]
    values[names.index("memory.sram_bytes_per_s")] = 1.0  # raised to what the main memory reaches
    changed = jax.tree.map(float, with_constants(device, names, np.asarray(values)))
    fitted = np.asarray([changed.number(name) for name in names])
    fit = Fit(changed, constants(device, "float32"), fitted, 0.1)
    found = accuracy([1.0, 2.0, 3.3], [1.0, 2.1, 3.0])
    path.write_text(calibrated_text(path, fit, found, "float32", 1, "golden"))
    again = load_device(path)
    assert again.compute["units"] == threads
    networks, batch = chains(8), np.ones(8, np.float32)
    np.testing.assert_allclose(predict(again, networks, batch), predict(changed, networks, batch), rtol=1e-3)
    if layout != "at the end":  # a table in two places keeps no comments
        assert ("threads of the measured networks (was 1)" in path.read_text()) == (threads > 1)


def test_a_width_of_its_own_is_calibrated_by_the_precision_that_holds_it(tmp_path: Path) -> None:
    device = load_device("zcu104_dataflow")
    fitted = constants(device, "w1a3")
    assert fitted == constants(device, "int4")
    fit = Fit(device, fitted, np.asarray([device.number(constant.name) for constant in fitted]), 0.1)
    path = tmp_path / "mine.toml"
    found = accuracy([1.0, 2.0, 3.3], [1.0, 2.1, 3.0])
    path.write_text(calibrated_text("zcu104_dataflow", fit, found, "w1a3", 1, "golden"))
    again = load_device(path)
    assert again.error_at("w1a3", 1) == pytest.approx(found.typical_error.value, rel=1e-4)
    assert again.error_at("int4", 1) is None


def test_too_few_networks_and_bad_times_are_refused() -> None:
    known = case("a100")
    needed = len(constants(known.device, "float16"))
    few = rows(known.networks, np.arange(needed - 1))
    with pytest.raises(InputError, match=f"{needed - 1} measured networks cannot fit the {needed} constants"):
        calibrate(known.device, few, 64, known.seconds[: needed - 1], "float16")
    for wrong in (0.0, -1.0, np.nan, np.inf):
        seconds = known.seconds[:FEW].copy()
        seconds[3] = wrong
        with pytest.raises(InputError, match="positive and finite"):
            calibrate(known.device, rows(known.networks, np.arange(FEW)), 64, seconds, "float16")


@pytest.mark.parametrize("kind", names("hw_models.analytic"))
def test_free_constants_and_terms_are_keys_of_their_kind(kind: str) -> None:
    keys = keys_of(kind)
    assert {free.key for free in keys.free} <= {*keys.single, *keys.per_precision}
    for free in keys.free:
        assert free.start is not None or free.key in {*keys.required, *keys.per_precision}
    for term in terms(kind).values():
        assert set(term) <= set(keys.single)


@pytest.mark.parametrize("name", ["a100", "tpu_v2", "zcu102", "raspberry_pi_4"])
def test_a_term_that_is_off_costs_nothing(name: str) -> None:
    device = load_device(name)
    shapes = [Layer(Op.CONV, 56, 56, 56, 56, 24, 40, 3, 3, norm=1), Layer(Op.DEPTHWISE, 56, 56, 56, 56, 40, 40, 3, 3)]
    work, _, _ = apply_precision(device, Workload.stack([shapes]))
    whole = float(predict(device, work, jnp.ones(1))[0])
    parts = [float(predict(without(device, term), work, jnp.ones(1))[0]) for term in terms(device.kind).values()]
    assert all(0 < part <= whole * 1.001 for part in parts)
    assert min(parts) < 0.99 * whole


def test_accuracy_figures() -> None:
    measured = np.asarray([1.0, 2.0, 3.0, 4.0, 5.0])
    found = accuracy(measured * [1.02, 0.93, 1.0, 1.2, 1.0], measured)
    assert found.within_5.value == pytest.approx(0.6)
    assert found.within_10.value == pytest.approx(0.8)
    assert found.mape.value == pytest.approx((0.02 + 0.07 + 0.2) / 5)
    assert found.spearman.value == pytest.approx(spearman(measured * [1.02, 0.93, 1.0, 1.2, 1.0], measured))
    assert found.within_5.low <= found.within_5.value <= found.within_5.high
    assert accuracy(measured * 2, measured).spearman.value == pytest.approx(1.0)
    assert accuracy(measured * 2, measured).mape.value == pytest.approx(1.0)
    for predicted in (measured[:4], measured * 0, measured * np.nan):
        with pytest.raises(InputError):
            accuracy(predicted, measured)
    with pytest.raises(InputError, match="at least 3"):
        accuracy([1.0, 2.0], [1.0, 2.0])
    for one, other, what in ((measured, np.ones(5), "measured"), (np.ones(5), measured, "predicted")):
        with pytest.raises(InputError, match=f"all {what} times are 1 s and have no ranks"):
            accuracy(one, other)
