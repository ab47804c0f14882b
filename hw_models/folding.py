"""Folding of a streaming design in whole numbers: how parallel each engine is, chosen for a rate or for all that fits.

`choose_folding` starts with the cheapest engines and raises the slowest one to its next step, the cheapest that is
faster, until the target is met or nothing fits any more. What is cheap depends on the prices of logic and memory; three
pairs are tried and the fastest design is kept. Where one resource decides, no folding is faster: at every interval each
engine has the cheapest step that keeps up. Multipliers move from logic to DSP slices, largest saving per slice first,
when logic runs out. Memories are placed largest first, each where it leaves the least used up. Engines that are not the
slowest stay as small as they are.

    interval   = cycles of the slowest engine;  throughput = clock / interval
    start      = start of the one before + fill share * time its output takes + cycles / pixels
    end        = the later of: end of the one before + cycles / pixels; start + the remaining pixels
    latency    = end of the last engine (layers in their order; branches are counted one after another)

Sources: FINN's `SetFolding` for the aim (balanced cycles, divisors only); shares of a device that designs plan with
from its `util/platforms.py` (LUT 70 %, memory and DSP 80 %). The latency is derived here; see the tests for designs it
was compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from hw_models.device import Device
from hw_models.errors import InputError
from hw_models.formats import parse_format
from hw_models.streaming import Budget, Demand, Engine, cycles, demand, dsp_lanes, engines, foldings, up
from hw_models.workload import Dtype, Layer, Op

PRICES = ((1000, 1), (1, 1), (1, 1000))  # of logic and of memory, as shares of the device


class FoldedEngine(NamedTuple):
    """One engine of a design. `name` is FINN's, so that `{name: {"PE": pe, "SIMD": simd}}` is a folding file."""

    name: str
    layer: int
    pe: int
    simd: int
    cycles: int
    luts: int
    dsps: int
    bram18: int
    uram: int


class Design(NamedTuple):
    """A folded network. `resource_fraction` is the largest share of what the device plans with; above 1 it does not
    fit, and the engines are those of the smallest design."""

    engines: tuple[FoldedEngine, ...]
    interval_cycles: int
    latency_cycles: int
    clock_hz: float
    luts: int
    dsps: int
    bram18: int
    uram: int
    resource_fraction: float

    @property
    def fits(self) -> bool:
        """Whether every resource suffices."""
        return self.resource_fraction <= 1

    @property
    def throughput_per_s(self) -> float:
        """Images per second of a long run."""
        return self.clock_hz / self.interval_cycles

    @property
    def latency_s(self) -> float:
        """Seconds from the first pixel of one image to its last result."""
        return self.latency_cycles / self.clock_hz


class _Step(NamedTuple):
    cycles: int
    pe: int
    simd: int
    demand: Demand


def budget_of(device: Device) -> Budget:
    """What a design on `device` may use.

    Raises:
        InputError: the device is no streaming FPGA.

    Example:
        >>> from hw_models.device_file import load_device
        >>> budget_of(load_device("zc706_dataflow")).dsps
        720
    """
    compute = device.compute
    if device.kind != "dataflow":
        raise InputError(
            f"device {device.name} is of kind {device.kind}: give one of kind dataflow, such as zc706_dataflow"
        )

    def planned(key: str, share: str) -> int:
        return int(Fraction(str(compute[share])) * int(compute["units"]) * int(compute.get(key, 0)))

    return Budget(
        planned("lut", "lut_share"),
        planned("dsp", "dsp_share"),
        planned("bram18", "ram_share"),
        planned("uram", "ram_share"),
    )


def choose_folding(
    device: Device, layers: Sequence[Layer], target_fps: float | None = None, precision: str | None = None
) -> Design:
    """The folding of `layers` on `device`: as slow as `target_fps` allows, or as fast as fits.

    Args:
        device: one of kind `dataflow`.
        layers: rows in an integer format; those in float32 take `precision`.
        target_fps: images per second to reach, or None for all that fits. A target out of reach gives the fastest.
        precision: name of an integer format, the device's default unless given.

    Raises:
        InputError: no layers, a format that is not integer, a target that is not positive, a device of another kind,
            an addition of maps on a device that refuses them.

    Example:
        >>> from hw_models.device_file import load_device
        >>> rows = [Layer(Op.CONV, 32, 32, 32, 32, 16, 16, 3, 3)]
        >>> design = choose_folding(load_device("zc706_dataflow"), rows, target_fps=10_000, precision="int8")
        >>> design.throughput_per_s > 10_000, design.fits, design.engines[0].name
        (True, True, 'MVAU_0')
    """
    if target_fps is not None and not target_fps > 0:
        raise InputError(f"target_fps {target_fps!r} is not allowed: give a number above 0, or None for all that fits")
    if not layers:
        raise InputError("there are no layers to fold: give at least one")
    budget = budget_of(device)
    additions = [position for position, layer in enumerate(layers) if layer.op is Op.ADD]
    if additions and device.compute.get("refuse_residuals", 0):
        raise InputError(
            f"layer {additions[0]} adds two maps, which {device.name} refuses (compute.refuse_residuals): give a "
            f"network without residual additions, or set it to 0"
        )
    made = engines([_in_format(layer, precision or device.default_precision) for layer in layers])
    lanes = sorted(
        (parse_format(name).weight_bits, int(many)) for name, many in device.compute["macs_per_dsp_cycle"].items()
    )
    shared = [dsp_lanes(engine, lanes) for engine in made]
    least = max(1, int(device.compute["clock_hz"] // target_fps)) if target_fps else 1
    options = [
        [_Step(cycles(engine, pe, simd), pe, simd, demand(engine, pe, simd, many)) for pe, simd in foldings(engine)]
        for engine, many in zip(made, shared, strict=True)
    ]
    found = [_raised([_steps(each, budget, prices) for each in options], budget, least) for prices in PRICES]
    designs = [_design(device, made, chosen, used, budget) for chosen, used in found]
    fitting = [design for design in designs if design.fits]
    if not fitting:
        return min(designs, key=lambda design: design.resource_fraction)
    return min(fitting, key=lambda design: (max(design.interval_cycles, least), design.resource_fraction))


def _raised(steps: Sequence[Sequence[_Step]], budget: Budget, least: int) -> tuple[list[_Step], list[Budget]]:
    """The steps reached by raising the slowest engine, and what each engine then uses."""
    at = [0] * len(steps)
    best = [options[0] for options in steps]
    used = _place([step.demand for step in best], budget)
    interval = max(step.cycles for step in best)
    while interval > least and _fits(used, budget):
        slowest = max(range(len(steps)), key=lambda i: steps[i][at[i]].cycles)
        if at[slowest] + 1 == len(steps[slowest]):
            break
        at[slowest] += 1
        chosen = [options[i] for options, i in zip(steps, at, strict=True)]
        now = _place([step.demand for step in chosen], budget)
        if not _fits(now, budget):
            break
        if max(step.cycles for step in chosen) < interval:
            interval, best, used = max(step.cycles for step in chosen), chosen, now
    return best, used


def _in_format(layer: Layer, precision: str) -> Layer:
    wanted = parse_format(precision)
    if layer.weight_dtype == Dtype.FLOAT32:
        layer = layer._replace(weight_dtype=wanted.weight_dtype, weight_bits=wanted.weight_bits)
    if layer.act_dtype == Dtype.FLOAT32:
        layer = layer._replace(act_dtype=wanted.act_dtype, act_bits=wanted.act_bits)
    return layer


def _pressure(needed: Demand, budget: Budget, prices: tuple[int, int]) -> float:
    """Shares of the resources, multipliers in logic, at a price for logic and one for memory blocks."""
    logic, blocks = prices
    shares = [_share(needed.luts + needed.mult_luts, budget.luts) * logic]
    for memory in needed.memories:
        shares.append(
            min(
                _share(luts, budget.luts) * logic
                + _share(bram18, budget.bram18) * blocks
                + _share(uram, budget.uram) * blocks
                for luts, bram18, uram in memory.options()
            )
        )
    return sum(shares)


def _share(used: int, there: int) -> float:
    return used / there if there else used * 1e9


def _steps(options: Sequence[_Step], budget: Budget, prices: tuple[int, int]) -> list[_Step]:
    """Foldings from slowest to fastest; each is the cheapest of those that are faster than the one before."""
    cheap = sorted(options, key=lambda step: (_pressure(step.demand, budget, prices), step.cycles))
    kept: list[_Step] = []
    for step in cheap:
        if not kept or step.cycles < kept[-1].cycles:
            kept.append(step)
    return kept


def _place(demands: Sequence[Demand], budget: Budget) -> list[Budget]:
    """What each engine uses, once multipliers and memories have their places."""
    own = [[needed.luts + needed.mult_luts, 0, 0, 0] for needed in demands]
    order = sorted(range(len(demands)), key=lambda i: demands[i].mult_luts / max(demands[i].mult_dsps, 1), reverse=True)
    moved, left = [], budget.dsps
    for i in order:
        if 0 < demands[i].mult_dsps <= left:
            moved.append(i)
            left -= demands[i].mult_dsps
    logic = sum(row[0] for row in own) - sum(demands[i].mult_luts for i in moved)  # if every slice is used
    used = [logic, 0, 0]
    there = (budget.luts, budget.bram18, budget.uram)
    memories = [(memory, i) for i, needed in enumerate(demands) for memory in needed.memories]
    for memory, i in sorted(memories, key=lambda pair: -pair[0].width * pair[0].depth):
        picked = min(
            memory.options(),
            key=lambda option: max(
                _share(before + more, total) for before, more, total in zip(used, option, there, strict=True) if more
            ),
        )
        for place, more in zip((0, 2, 3), picked, strict=True):
            own[i][place] += more
        used = [before + more for before, more in zip(used, picked, strict=True)]
    excess = sum(row[0] for row in own) - budget.luts
    for i in moved:
        if excess <= 0:
            break
        own[i][0] -= demands[i].mult_luts
        own[i][1] = demands[i].mult_dsps
        excess -= demands[i].mult_luts
    return [Budget(*row) for row in own]


def _fits(used: Sequence[Budget], budget: Budget) -> bool:
    return all(sum(column) <= there for column, there in zip(zip(*used, strict=True), budget, strict=True))


def _design(
    device: Device, made: Sequence[Engine], steps: Sequence[_Step], used: Sequence[Budget], budget: Budget
) -> Design:
    rows = [
        FoldedEngine(engine.name, position, step.pe, step.simd, step.cycles, *own)
        for position, (engine, step, own) in enumerate(zip(made, steps, used, strict=True))
    ]
    total = Budget(*(sum(column) for column in zip(*used, strict=True)))
    interval = max(step.cycles for step in steps)
    return Design(
        tuple(rows), interval, latency_cycles(made, [step.cycles for step in steps]), device.compute["clock_hz"],
        *total, max(_share(a, b) for a, b in zip(total, budget, strict=True)),
    )  # fmt: skip


def latency_cycles(made: Sequence[Engine], each: Sequence[int]) -> int:
    """Cycles from the first pixel to the last result of one image, `each` engine taking so many cycles for it.

    Example:
        >>> row = Layer(Op.LINEAR, 1, 1, 1, 1, 8, 8, weight_bits=8, act_bits=8, weight_dtype=Dtype.INT,
        ...             act_dtype=Dtype.INT)
        >>> latency_cycles(engines([row, row]), [64, 32])
        97
    """
    start, end = 0, made[0].in_pixels
    for engine, busy in zip(made, each, strict=True):
        last = up(busy, engine.pixels)  # the last pixel, or the only one
        start = start + int(engine.fill * (end - start)) + last
        end = max(end + last, start + busy - last)
    return end
