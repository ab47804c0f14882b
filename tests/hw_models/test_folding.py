"""Streaming designs in whole numbers: FINN's own estimates, published designs, and every folding of small networks."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models import Device, InputError, Layer, Op, load_device
from hw_models.folding import budget_of, choose_folding, latency_cycles
from hw_models.formats import parse_format
from hw_models.streaming import (
    Budget,
    Memory,
    accumulator_bits,
    bram18,
    cycles,
    demand,
    divisors,
    dsp_lanes,
    engines,
    fill_share,
    foldings,
    matrix_luts,
)

BOARD = "zc706_dataflow"


def stored(layers: list[Layer], precision: str) -> list[Layer]:
    return [layer._replace(**parse_format(precision)._asdict()) for layer in layers]


def test_logic_equals_the_estimates_of_finns_own_test() -> None:
    # Xilinx/finn tests/fpgadataflow/test_fpgadataflow_res_estimate.py: MW = MH = 4, PE = SIMD = 1, signed INT2 both,
    # weights in LUTs, no thresholds counted: 317 LUTs, or 313 and a DSP slice.
    sums = accumulator_bits(4, 2, 2, signed=True)
    weights_in_luts = 2  # two bits, sixteen rows
    assert matrix_luts(1, 1, 2, 2, sums) + weights_in_luts == 317
    assert matrix_luts(1, 1, 2, 2, sums, dsp=True) + weights_in_luts == 313


@pytest.mark.parametrize(
    ("width", "depth"), list(itertools.product((1, 2, 3, 4, 8, 9, 12, 18, 36, 40, 72), (1, 512, 5000)))
)
def test_memory_blocks_hold_what_they_are_asked_to(width: int, depth: int) -> None:
    blocks = bram18(width, depth)
    assert blocks * 18_432 >= width * depth
    # Not twice what the best shape of a block needs.
    shapes = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
    assert blocks <= 2 * min(-(-width // w) * -(-depth // d) for w, d in shapes)


def test_a_memory_can_be_built_in_three_ways() -> None:
    assert Memory(8, 2048).options() == [(8 * 32, 0, 0), (0, 1, 0)]
    assert Memory(72, 4097, ultra=True).options() == [(72 * 65, 0, 0), (0, 5 * 4, 0), (0, 0, 2)]


@given(number=st.integers(1, 5000))
def test_divisors(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


def test_fill_counts_the_pixels_of_the_first_window() -> None:
    def conv(hw: int, out: int, kernel: int, stride: int = 1) -> Layer:
        return Layer(Op.CONV, hw, hw, out, out, 1, 1, kernel, kernel, stride)

    assert fill_share(conv(8, 8, 1)) * 64 == 1
    assert fill_share(conv(8, 8, 3)) * 64 == 8 + 2  # one row and two pixels: the rest of the window is padding
    assert fill_share(conv(8, 6, 3)) * 64 == 2 * 8 + 3
    assert fill_share(conv(8, 1, 8)) == 1
    assert fill_share(Layer(Op.GLOBAL_POOL, 8, 8, 1, 1, 4, 4)) == 1


def test_residual_buffers_are_of_the_size_of_a_published_design(tiny_networks: dict[str, list[Layer]]) -> None:
    # fpgaConvNet's ResNet-8 (mlcommons/tiny_results_v1.1 closed/fpgaconvnet/code/zc706/ic/zc706-resnet.json): the
    # buffer of the first addition is 1276 words deep.
    made = engines(stored(tiny_networks["ic"], "int8"))
    words = sum(engine.fifo_bits for engine in made[1:3]) / 8
    assert 0.8 < words / 1276 < 1.0


def test_published_foldings_take_the_time_that_was_measured(tiny_networks: dict[str, list[Layer]]) -> None:
    # CNV-W1A1 as in Xilinx/finn-examples build/bnn-pynq/folding_config; on a Pynq-Z2 at 100 MHz an image takes 1.512 ms
    # (MLPerf Tiny v0.7), host included.
    folding = [(16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (5, 1)]
    made = engines(stored(tiny_networks["cnv"], "int1"))
    pairs = iter(folding)
    each = [cycles(engine, *(next(pairs) if engine.multiplies else (engine.rows, 1))) for engine in made]
    assert max(each) == 32_768
    assert each[:2] == [32_400, 28_224]
    assert latency_cycles(made, each) == pytest.approx(151_200, rel=0.15)

    # ResNet-8 as in zc706-resnet.json (coarse_out; coarse_in * fine): 6,790 images a second, one by one, at 187 MHz.
    folding = [(4, 9), (16, 9), (16, 9), (8, 9), (32, 9), (8, 1), (8, 9), (32, 9), (8, 1), (1, 1)]
    made = engines(stored(tiny_networks["ic"], "int8"))
    pairs = iter(folding)
    each = [cycles(engine, *(next(pairs) if engine.multiplies else (1, 1))) for engine in made]
    assert max(each) == 16_384
    assert latency_cycles(made, each) == pytest.approx(187e6 / 6789.576, rel=0.15)


@st.composite
def small_layers(draw: Any) -> Layer:
    op = draw(st.sampled_from([Op.CONV, Op.DEPTHWISE, Op.LINEAR, Op.ADD]))
    c_in, c_out = draw(st.sampled_from([2, 3, 4, 6])), draw(st.sampled_from([1, 2, 4, 6, 9]))
    if op is Op.LINEAR:
        return Layer(op, 1, 1, 1, 1, c_in * 8, c_out)
    hw = draw(st.integers(2, 8))
    kernel = 1 if op is Op.ADD else draw(st.sampled_from([1, 3]))
    out = c_out if op is Op.CONV else c_in
    return Layer(op, hw, hw, hw, hw, c_in, out, kernel, kernel, groups=c_in if op is Op.DEPTHWISE else 1)


def board_with(luts: int, dsps: int, blocks: int) -> Device:
    return load_device(BOARD).with_numbers(
        compute__lut=luts, compute__dsp=dsps, compute__bram18=blocks, compute__lut_share=1.0,
        compute__dsp_share=1.0 if dsps > 1 else 0.5, compute__ram_share=1.0 if blocks > 1 else 0.5,
    )  # fmt: skip


def fastest(device: Device, layers: list[Layer]) -> int | None:
    """Cycles of the slowest engine in the best of all designs: every folding, every choice of DSP slices."""
    made, budget = engines([*layers]), budget_of(device)
    lanes = [(4, 4), (8, 1), (16, 1)]
    choices = []
    for engine in made:
        choices.append([])
        for pe, simd in foldings(engine):
            needs = demand(engine, pe, simd, dsp_lanes(engine, lanes))
            multipliers = [(needs.mult_luts, 0), *[(0, needs.mult_dsps)] * (needs.mult_dsps > 0)]
            for (more, dsps), *built in itertools.product(multipliers, *(m.options() for m in needs.memories)):
                luts, blocks, large = (sum(column) for column in zip(*built, (needs.luts + more, 0, 0), strict=True))
                if not large:  # this chip has no blocks of 288 Kb
                    choices[-1].append((cycles(engine, pe, simd), luts, dsps, blocks))
    best = None
    for picked in itertools.product(*choices):
        used = [sum(column) for column in list(zip(*picked, strict=True))[1:]]
        if used[0] <= budget.luts and used[1] <= budget.dsps and used[2] <= budget.bram18:
            slowest = max(row[0] for row in picked)
            best = slowest if best is None else min(best, slowest)
    return best


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(small_layers(), min_size=1, max_size=2), luts=st.integers(700, 6000), bits=st.sampled_from([2, 8])
)
def test_no_folding_is_faster_where_logic_decides(layers: list[Layer], luts: int, bits: int) -> None:
    device, rows = board_with(luts, 1, 1), stored(layers, f"int{bits}")
    best, design = fastest(device, rows), choose_folding(device, rows)
    assert design.fits == (best is not None)
    if best is not None:
        assert design.interval_cycles == best


@settings(max_examples=60, deadline=None)
@given(
    layers=st.lists(small_layers(), min_size=1, max_size=2),
    luts=st.integers(700, 6000),
    dsps=st.integers(2, 60),
    blocks=st.integers(2, 12),
    bits=st.sampled_from([2, 8]),
)
def test_close_to_the_best_folding_where_several_resources_decide(
    layers: list[Layer], luts: int, dsps: int, blocks: int, bits: int
) -> None:
    device, rows = board_with(luts, dsps, blocks), stored(layers, f"int{bits}")
    best, design = fastest(device, rows), choose_folding(device, rows)
    assert design.fits == (best is not None)
    if best is not None:
        assert best <= design.interval_cycles <= 2 * best


@pytest.mark.parametrize("name", ["ic", "kws", "vww", "ad", "cnv"])
def test_a_design_is_legal_and_adds_up(name: str, tiny_networks: dict[str, list[Layer]]) -> None:
    device, rows = load_device(BOARD), stored(tiny_networks[name], "w4a4")
    budget, made = budget_of(device), engines(rows)
    design = choose_folding(device, rows)
    assert design.fits
    assert [row.name for row in design.engines] == [engine.name for engine in made]
    assert len({row.name for row in design.engines}) == len(rows)
    for row, engine in zip(design.engines, made, strict=True):
        assert (row.pe, row.simd) in foldings(engine)
        assert row.cycles == cycles(engine, row.pe, row.simd)
    for name in Budget._fields:
        used = getattr(design, name)
        assert used == sum(getattr(row, name) for row in design.engines) <= getattr(budget, name)
    assert design.interval_cycles == max(row.cycles for row in design.engines)
    assert design.interval_cycles <= design.latency_cycles
    assert design.throughput_per_s == pytest.approx(1.87e8 / design.interval_cycles)
    # Not one engine more could keep up with a shorter interval: the slowest one is as fast as it gets, or too large.
    assert design.resource_fraction > 0.8 or any(row.cycles == engine.in_pixels
                                                 for row, engine in zip(design.engines, made, strict=True))  # fmt: skip


def test_a_target_is_met_with_less(tiny_networks: dict[str, list[Layer]]) -> None:
    device, rows = load_device(BOARD), stored(tiny_networks["ic"], "int8")
    most = choose_folding(device, rows)
    small = choose_folding(device, rows, target_fps=1000)
    assert small.throughput_per_s >= 1000 > 0.3 * small.throughput_per_s
    assert small.luts < most.luts / 2
    beyond = choose_folding(device, rows, target_fps=1e9)
    assert beyond.fits and beyond.interval_cycles == most.interval_cycles


def test_throughput_falls_as_bits_grow(tiny_networks: dict[str, list[Layer]]) -> None:
    # The dissertation's finding for FINN on an Ultra96 with a VGG variant (L714): throughput decreases with bits.
    device = load_device("ultra96_dataflow").with_numbers(compute__bram18=2000)  # wide formats fit as well
    rates = [choose_folding(device, stored(tiny_networks["cnv"], f"int{b}")).throughput_per_s for b in (1, 2, 3, 4, 8)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 5 * rates[-1]


def test_what_is_too_large_does_not_fit_and_says_by_how_much(tiny_networks: dict[str, list[Layer]]) -> None:
    design = choose_folding(load_device("pynq_z1_dataflow"), stored(tiny_networks["cnv"], "int8"))
    assert not design.fits
    assert design.resource_fraction > 2
    assert choose_folding(load_device("pynq_z1_dataflow"), stored(tiny_networks["cnv"], "int1")).fits


def test_strict_devices_refuse_residual_additions(tiny_networks: dict[str, list[Layer]]) -> None:
    strict = load_device(BOARD).with_numbers(compute__refuse_residuals=1)
    with pytest.raises(InputError, match=r"layer 3 adds two maps, which zc706_dataflow refuses"):
        choose_folding(strict, tiny_networks["ic"])
    assert choose_folding(strict, tiny_networks["kws"]).fits


@pytest.mark.parametrize(
    ("layers", "target", "precision", "match"),
    [
        ([], None, None, "no layers"),
        ([Layer(Op.LINEAR, 1, 1, 1, 1, 4, 4)], 0, None, "target_fps 0"),
        ([Layer(Op.LINEAR, 1, 1, 1, 1, 4, 4)], None, "float16", "layer 0 .linear. is not in an integer format"),
        ([Layer(Op.LINEAR, 1, 1, 1, 1, 4, 4)], None, "int99", "precision 'int99' is not known"),
    ],
)
def test_mistakes_are_one_sentence(layers: list[Layer], target: float, precision: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        choose_folding(load_device(BOARD), layers, target, precision)


def test_other_kinds_have_no_folding() -> None:
    with pytest.raises(InputError, match="zcu102 is of kind fpga"):
        choose_folding(load_device("zcu102"), [Layer(Op.LINEAR, 1, 1, 1, 1, 4, 4)])
