"""Data-flow FPGA: an engine per layer, all at work at once, everything on the chip, any integer width (FINN's style).

`hw_models.folding` chooses foldings in whole numbers. This is its continuous relaxation, for candidates of a search:
divisors are ignored, the budget is shared so that every engine takes equally long, and what a network needs is a sum
over its layers. Every layer l asks for

    luts(l)      = fixed(l) + (tree(l) + multipliers(l)) / work            (work in cycles per image)
    dsps(l)      = slices(l) / work               in place of as large a share of its multipliers
    memory(l)    = weights * W + (window + held * fill + scaled map) * A bits
    tree         = macs * (1.1 * 2 (W + A) + W) + outputs * lane
    multipliers  = macs * 1.1 (2 ceil((W + A) / 6) - 1) (W + A)
    slices       = macs / products per slice

Fixed is an engine with one product. The W LUTs per product feed it with weights; a lane turns sums into activations,
one per cycle and row. The last three and `reads` are divided by `efficiency`, the share of balance that whole divisors
leave. Work is as short as fits, with the share of multipliers in DSP slices that makes it so:

    1 / work     = min( luts / tree, (luts + dsps * multipliers / slices) / (tree + multipliers), ports / reads ),
                   luts = lut_share * lut - fixed,  dsps = dsp_share * dsp,
                   ports = ram_share * (36 bram18 + 72 uram) bits a cycle,  reads = macs * W
    interval     = max(work, pixels of the largest map of any layer), because maps stream one pixel a cycle
    latency      = interval * (batch + sum over layers of fill + 1 / pixels) + overheads
    resources    = fixed / luts,  memory / (ram_share * (bram18 * 18 Kb + uram * 288 Kb) * memory.efficiency)

`fill` is the share of a layer's input that must arrive before its first output; 0 where it has a single output, which
waits for the end that the interval counts already, and 1 where a map waits to be scaled. The last pixel of a layer
takes 1 / pixels of the interval, a linear layer all of it, because no engine is faster than it has to be. Layers do
not run one after another: `explain` lists what each would take with the chip to itself, and `network` says what they
take together.

`resource_fraction` counts what the network needs at least; what is left over goes into speed. Nothing but the image
crosses the main memory: `dram_bytes` is 0. Where `refuse_residuals` is 1, networks with additions do not fit, as in
versions of FINN without them (dissertation L1783). Zeros in weights gain nothing.

Sources: see `hw_models.streaming` for the logic and memory of engines; the dissertation for what the kind is about:
throughput falls as bits grow, FPGAs gain down to few bits, and the whole network has to stay on the chip (L704-714,
L1793-1795). The relaxation and the latency are derived here and compared with whole-number designs in the tests.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from hw_models.ablation import NOTHING, UNLIMITED
from hw_models.costs import Costs, LayerCosts
from hw_models.device import Device
from hw_models.formats import parse_format
from hw_models.keys import Free, Keys
from hw_models.precision import Run, choose
from hw_models.roofline import Times, ceil_div
from hw_models.streaming import (
    BLOCK_BITS,
    BLOCK_PORT_BITS,
    FIXED_LUTS,
    LUT_ROWS,
    SCALE_BITS,
    ULTRA_BITS,
    ULTRA_PORT_BITS,
)
from hw_models.workload import Op, Workload

FACTOR = 1.1  # of LUTs, see `hw_models.streaming`
LEAST_LEFT = 0.02  # of the logic, where fixed parts leave less: what does not fit must still have a price
REFUSED = 2.0  # times what there is: any number above 1 says that the layer does not fit
LEAST = 1e-6  # instead of a division by 0 where nothing multiplies

KEYS = Keys(
    required=(
        "compute.lut",
        "compute.dsp",
        "compute.bram18",
        "compute.lut_share",
        "compute.dsp_share",
        "compute.ram_share",
    ),
    per_precision=("compute.macs_per_dsp_cycle",),
    or_zero=("compute.uram", "compute.refuse_residuals"),
    free=(
        Free("compute.efficiency"),
        Free("compute.op_overhead_s"),
        Free("compute.run_overhead_s", start=1e-5),
        Free("compute.lut_share"),
    ),
    any_width=True,
)
TERMS = {
    "limited logic": {"compute.lut": UNLIMITED},
    "limited DSP slices": {"compute.dsp": UNLIMITED},
    "start of a layer": {"compute.op_overhead_s": NOTHING},
}


def multiplier_luts(bits: Array) -> Array:
    """LUTs of one multiplier of operands with `bits` together, `FACTOR` included; see `hw_models.streaming`."""
    return FACTOR * (2 * ceil_div(bits, 6) - 1) * bits


def accumulator_bits(depth: Array, bits: Array) -> Array:
    """Bits that a sum of `depth` products of operands with `bits` together can need."""
    # floor(x) + 2 of the exact form, as a ceiling just above x: only `ceil_div` has a gradient
    return ceil_div(jnp.log2(jnp.maximum(depth, 1.0)) + bits - 1 + 1e-4, 1) + 1


class Logic(NamedTuple):
    """What layers, or all of a network, ask of logic, DSP slices and the ports of memories; every leaf `[...]`.

    Fixed LUTs are there once; the other LUTs, slices and bits read are those of all cycles of an image together.
    """

    fixed_luts: Array
    tree_luts: Array
    multiplier_luts: Array
    slices: Array
    reads: Array


def rate(device: Device, need: Logic) -> Array:
    """Images per cycle that logic, DSP slices and the ports of memories allow, `[...]`: the inverse of the work.

    Example:
        >>> from hw_models.device_file import load_device
        >>> board = load_device("zcu104_dataflow")
        >>> once, twice = (Logic(*(jnp.float32(need) for need in (0, n * 1e6, n * 8e6, 0, 0))) for n in (1, 2))
        >>> round(float(rate(board, once) / rate(board, twice)), 3)
        2.0
    """
    compute = device.compute
    planned = compute["lut_share"] * compute["lut"] * compute["units"]
    luts = jnp.maximum(planned - need.fixed_luts, LEAST_LEFT * planned)
    dsps = compute["dsp_share"] * compute["dsp"] * compute["units"]
    bits = BLOCK_PORT_BITS * compute["bram18"] + ULTRA_PORT_BITS * compute.get("uram", 0.0)
    ports = compute["ram_share"] * bits * compute["units"]
    per_slice = need.multiplier_luts / jnp.maximum(need.slices, LEAST)
    by_logic = jnp.minimum(
        luts / jnp.maximum(need.tree_luts, LEAST),
        (luts + dsps * per_slice) / jnp.maximum(need.tree_luts + need.multiplier_luts, LEAST),
    )
    return jnp.minimum(by_logic, ports / jnp.maximum(need.reads, LEAST))


def run(device: Device, layers: Workload) -> Run:
    """Every layer in its own width, `[..., L]`: the peak is that of the whole chip at this width."""
    carrier = choose(device, layers)
    bits = layers.weight_bits + layers.act_bits
    lanes = _lanes(device, carrier)
    tree = FACTOR * 2 * bits + layers.weight_bits
    products = rate(device, Logic(jnp.float32(0.0), tree, multiplier_luts(bits), 1 / lanes, layers.weight_bits))
    peak = products * device.compute["clock_hz"]
    refused = (layers.op == int(Op.ADD)) & (device.compute.get("refuse_residuals", 0.0) > 0)
    scale = layers.weight_bits * layers.act_bits / (carrier.weight_bits * carrier.act_bits)
    return carrier._replace(
        macs_per_s=peak * carrier.macs_per_s / carrier.peak_macs_per_s,
        peak_macs_per_s=peak,
        mac_j=carrier.mac_j * scale,
        weight_bits=layers.weight_bits,
        act_bits=layers.act_bits,
        converted=jnp.zeros_like(carrier.converted),
        excess=jnp.maximum(carrier.excess, jnp.where(refused, REFUSED, 0.0)),
    )


def _lanes(device: Device, carrier: Run) -> Array:
    """Products per DSP slice and cycle in the precision that holds each layer, `[..., L]`."""
    lanes = jnp.ones_like(carrier.weight_bits)
    for name in device.precisions:
        form = parse_format(name)
        held = (carrier.weight_bits == form.weight_bits) & (carrier.act_bits == form.act_bits)
        lanes = jnp.where(held, device.compute["macs_per_dsp_cycle"][name], lanes)
    return lanes


def fill_share(layers: Workload) -> Array:
    """Share of each layer's input that must have arrived before its first output is complete, `[..., L]`."""
    there = layers.in_h * layers.in_w
    reach = []
    for size, out, kernel in (
        (layers.in_h, layers.out_h, layers.kernel_h),
        (layers.in_w, layers.out_w, layers.kernel_w),
    ):
        # Padding follows from sizes that change together: on its own it has no slope.
        padding = lax.stop_gradient(jnp.maximum(0.0, (out - 1) * layers.stride + kernel - size))
        reach.append(jnp.clip(kernel - jnp.floor(padding / 2), 1.0, size))
    share = jnp.minimum(((reach[0] - 1) * layers.in_w + reach[1]) / there, 1.0)
    return jnp.where(layers.out_h * layers.out_w == 1, 1.0, share)


class Asked(NamedTuple):
    """What layers ask of the chip; every leaf `[..., L]`. `fill` counts intervals of the network, `pixels` cycles."""

    logic: Logic
    buffer_bits: Array
    fill: Array
    pixels: Array


def asked(device: Device, layers: Workload, efficiency: Array) -> Asked:
    """What each layer asks of the chip, `[..., L]`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 16, 32, 3, 3)])
        >>> asked(load_device("zcu104_dataflow"), work, jnp.float32(1.0)).pixels.tolist()
        [64.0]
    """
    pixels, in_pixels = layers.out_h * layers.out_w, layers.in_h * layers.in_w
    multiplies = layers.multiplies > 0
    first, tree = _matrix_luts(layers)
    product = jnp.isin(layers.op, jnp.asarray((Op.SCALE, Op.MULTIPLY)))
    lane = jnp.where(product, multiplier_luts(2 * layers.act_bits), FACTOR * layers.act_bits)
    moved = jnp.maximum(in_pixels * layers.in_channels, layers.output_elements)
    logic = Logic(
        fixed_luts=FIXED_LUTS * (1 + _has_window(layers)) + jnp.where(multiplies, first, lane),
        tree_luts=jnp.where(multiplies, tree, moved * lane) / efficiency,
        multiplier_luts=layers.macs * multiplier_luts(layers.weight_bits + layers.act_bits) / efficiency,
        slices=layers.macs / _lanes(device, choose(device, layers)) / efficiency,
        reads=layers.macs * layers.weight_bits / efficiency,
    )
    share = fill_share(layers)
    starts = jnp.where(layers.op == int(Op.SCALE), 1.0, jnp.where(pixels == 1, 0.0, share))
    return Asked(
        logic,
        buffer_bits=_buffered(layers, share) * layers.act_bits,
        fill=starts + layers.multiplies / pixels,
        pixels=jnp.maximum(pixels, in_pixels),
    )


def _matrix_luts(layers: Workload) -> tuple[Array, Array]:
    """LUTs of layers that multiply: of an engine with one product, and of the trees and lanes of all cycles."""
    bits = layers.weight_bits + layers.act_bits
    macs, outputs = layers.macs, layers.output_elements
    depthwise = layers.op == int(Op.DEPTHWISE)
    depth = layers.kernel_h * layers.kernel_w * jnp.where(depthwise, 1.0, layers.in_channels / layers.groups)
    accumulator = accumulator_bits(depth, bits)
    stored = ceil_div(layers.out_channels, LUT_ROWS)
    thresholds = (jnp.exp2(layers.act_bits) - 1) * accumulator
    scaled = multiplier_luts(SCALE_BITS + accumulator)
    lane = jnp.minimum(FACTOR * thresholds, scaled)
    first_lane = jnp.minimum(FACTOR * thresholds * (1 + stored), scaled + FACTOR * (SCALE_BITS + accumulator) * stored)
    first = multiplier_luts(bits) + FACTOR * (bits + accumulator) + first_lane
    # A depthwise engine has an accumulator per product, a dense one that is wide enough one per row.
    sums = jnp.where(depthwise, macs, outputs)
    tree = macs * (FACTOR * 2 * bits + layers.weight_bits) + sums * FACTOR * (accumulator - bits) + outputs * lane
    return first, tree


def _has_window(layers: Workload) -> Array:
    return (layers.kernel_h * layers.kernel_w > 1) & (layers.op != int(Op.GLOBAL_POOL))


def _buffered(layers: Workload, share: Array) -> Array:
    """Elements in buffers: a window, what is held while the first `share` of the input arrives, and what passes."""
    in_pixels = layers.in_h * layers.in_w
    reached = ((layers.kernel_h - 1) * layers.in_w + layers.kernel_w) * layers.in_channels
    window = jnp.where(_has_window(layers), reached, 0.0)
    held = jnp.where(in_pixels == 1, 0.0, share * layers.held_elements)
    scaled = jnp.where(layers.op == int(Op.SCALE), in_pixels * layers.in_channels, 0.0)
    return window + (held + scaled) + (layers.in_channels + layers.out_channels)


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds that each layer would take with the chip to itself, and what it asks of a chip it shares, `[..., L]`."""
    del gain
    share = asked(device, layers, run.macs_per_s / run.peak_macs_per_s)
    cycle_s = 1 / device.compute["clock_hz"]
    work = 1 / rate(device, share.logic)
    interval = jnp.maximum(work, share.pixels)
    overhead_s = jnp.ones_like(work) * device.compute["op_overhead_s"]
    return Times(
        compute_s=batch * work * cycle_s,
        memory_s=batch * share.pixels * cycle_s,
        overhead_s=interval * share.fill * cycle_s + overhead_s,
        latency_s=interval * (batch + share.fill) * cycle_s + overhead_s,
        dram_bytes=jnp.zeros_like(work),
        sums={
            **share.logic._asdict(),
            "weight_bits": layers.weights * layers.weight_bits,
            "buffer_bits": share.buffer_bits,
            "fill": share.fill,
            "overhead_s": overhead_s,
        },
        maxima={"pixels": share.pixels},
        peak_memory_bytes=share.buffer_bits / 8,
    )


def network(device: Device, parts: LayerCosts, batch: ArrayLike = 1) -> tuple[Costs, dict[str, Array]]:
    """Costs of all layers at work at once, and the shares of logic and memory they need, `[...]`.

    Images follow one another at the pace of the slowest layer, while the latency also fills and empties the chip.
    """
    compute, sums = device.compute, parts.sums
    work = 1 / rate(device, Logic(*(sums[name] for name in Logic._fields)))
    interval = jnp.maximum(work, parts.maxima["pixels"])
    units = compute["units"]
    bits = (compute["bram18"] * BLOCK_BITS + compute.get("uram", 0.0) * ULTRA_BITS) * units
    shares = {
        "logic": sums["fixed_luts"] / (compute["lut_share"] * compute["lut"] * units),
        "on-chip memory": (sums["weight_bits"] + sums["buffer_bits"])
        / (compute["ram_share"] * bits * device.memory["efficiency"]),
    }
    costs = parts.costs(batch)._replace(
        latency_s=interval * (batch + sums["fill"]) / compute["clock_hz"] + sums["overhead_s"],
        interval_s=interval / compute["clock_hz"],
        peak_memory_bytes=sums["buffer_bits"] / 8,
    )
    return costs, shares
