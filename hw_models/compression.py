"""What bits and zeros save: bytes wherever the network is stored, time only where the device opted in.

A layer carries a density and the pattern of its zeros. What a device gains from each pattern stands in the
`[sparsity.<pattern>]` sections of its file, and what a kind of device may gain at all in
`hw_models.compression_matrix`. Never a straight line:

    channel   the layer with the kept channels alone, rounded up to whole channels; the kind rounds up to its own tile
    others    at or below the threshold: factor, or min(factor, efficiency / density) where the file has an efficiency
    ternary   reduce and scale: additions of the non-zeros alone, min(factor, adds_per_mac / density)

Sources: XNNPACK's sparse path runs only 1x1 convolutions, only in floating point and only when two thirds of their
weights are zero (tensorflow `lite/delegates/xnnpack/README.md`). 2:4 doubles the peak of NVIDIA's tensor cores from
Ampere on (vendor tables); their sparse instructions take 16 output channels and 32 input channels of 16 bits or 64 of
8 bits (CUTLASS: 16x8x32 and 16x8x64), and float32 has another pattern, 1:2 (cuSPARSELt, data types). Reduce and scale:
Schindler, dissertation (Heidelberg 2021), chapter 5.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from hw_models.device import Device
from hw_models.formats import parse_format
from hw_models.precision import Run
from hw_models.roofline import ceil_div, on_vector_unit
from hw_models.workload import Dtype, Op, Pattern, Workload

BIAS_BITS = 32
BLOCK_WEIGHTS = 16  # weights of one block of the block pattern: 4 x 4
N_M_INDEX_BITS = 2  # position of a kept weight among four
N_M_INPUT_BITS = 512  # input channels of one sparse tensor instruction, times their bits
N_M_OUTPUTS = 16  # output channels of one
N_M_WIDEST = 16  # bits
TERNARY_BITS = 2
INDEX_LIST_BITS = 16  # position of a non-zero while reduce and scale runs (dissertation L888)
LEAST_DENSITY = 1e-6


def is_ternary(layers: Workload) -> Array:
    """Layers whose weights are -1, 0 or 1 times a scale: integers of at most 2 bits, zeros anywhere. bool `[..., L]`"""
    integer = (layers.weight_dtype == int(Dtype.INT)) & (layers.weight_bits <= TERNARY_BITS)
    return integer & (layers.pattern == int(Pattern.UNSTRUCTURED))


def ternary_bits(weights: Any, density: Any) -> Array:
    """Bits of ternary weights with Huffman-coded distances between non-zeros: `weights * (d + H2(d))`.

    A sign for every non-zero, and the entropy H2 of where they are. Within about 10 % of the memory that Schindler
    (dissertation, tables 5.3 to 5.6) reports.

    Example:
        >>> round(float(ternary_bits(655_500, 0.37)) / 8 / 1e3)  # kB; the dissertation has 108
        108
    """
    d = jnp.clip(jnp.asarray(density, jnp.float32), LEAST_DENSITY, 1 - LEAST_DENSITY)
    entropy = -d * jnp.log2(d) - (1 - d) * jnp.log2(1 - d)
    return weights * (d + entropy)


def _index_bits(layers: Workload) -> Array:
    """Bits that say where the kept weights are, one layer, `[..., L]`."""
    weights = layers.weights
    taps = layers.kernel_h * layers.kernel_w
    per_pattern = {
        Pattern.UNSTRUCTURED: weights,
        Pattern.COLUMN: taps * layers.in_channels / layers.groups,
        Pattern.CHANNEL: layers.out_channels,
        Pattern.KERNEL: weights / taps,
        Pattern.BLOCK: weights / BLOCK_WEIGHTS,
        Pattern.N_M: weights * layers.density * N_M_INDEX_BITS,
    }
    conditions = [layers.pattern == int(pattern) for pattern in per_pattern]
    return jnp.select(conditions, list(per_pattern.values()), 0.0)


def weight_bytes(layers: Workload) -> Array:
    """Bytes that store the weights and biases: kept weights and their positions, or all of them if that is less.

    Weights at the layer's `weight_bits`, ternary ones Huffman-coded (`ternary_bits`), biases (batch normalisation
    folded) at 32 bits. Padding rows store nothing. `[..., L]`

    Example:
        >>> from hw_models.workload import Layer
        >>> half = Layer(Op.CONV, 8, 8, 8, 8, 16, 16, weight_bits=16, density=0.5, pattern=Pattern.N_M)
        >>> float(weight_bytes(Workload.of([half])).sum() / weight_bytes(Workload.of([half._replace(pattern=0)])).sum())
        0.5625
    """
    dense = layers.weights * layers.weight_bits
    whole = jnp.where(layers.op == int(Op.DEPTHWISE), layers.in_channels, layers.out_channels / layers.groups)
    share = jnp.where(layers.pattern == int(Pattern.CHANNEL), _kept(layers) / whole, layers.density)
    sparse = dense * share + _index_bits(layers)
    sparse = jnp.where(is_ternary(layers), ternary_bits(layers.weights, layers.density), sparse)
    kept = jnp.where(layers.pattern == int(Pattern.NONE), dense, jnp.minimum(sparse, dense))
    return (layers.count * kept + layers.bias_elements * BIAS_BITS) / 8


def dense_weight_bytes(layers: Workload) -> Array:
    """Bytes of weights and biases with every zero stored, `[..., L]`."""
    return (layers.count * layers.weights * layers.weight_bits + layers.bias_elements * BIAS_BITS) / 8


def moved_weight_bytes(layers: Workload, gain: Array) -> Array:
    """Bytes of weights and biases that a run reads: zeros too, unless the device skips them (`gain` above 1).

    Reduce and scale reads lists of positions instead of weights. `[..., L]`
    """
    lists = layers.weights * layers.density * INDEX_LIST_BITS
    lists = (layers.count * lists + layers.bias_elements * BIAS_BITS) / 8
    sparse = jnp.where(is_ternary(layers), lists, weight_bytes(layers))
    return jnp.where(gain > 1, sparse, dense_weight_bytes(layers))


def _kept(layers: Workload) -> Array:
    """Channels that channel zeros leave, in each group or of a depthwise layer's input: whole ones. `[..., L]`"""
    depthwise = layers.op == int(Op.DEPTHWISE)
    channels = jnp.where(depthwise, layers.in_channels, layers.out_channels / layers.groups)
    # A share that was rounded up, such as 0.1 of 30 channels, must not keep one channel more.
    return ceil_div(channels * jnp.maximum(layers.density, LEAST_DENSITY) * (1 - LEAST_DENSITY), 1.0)


def kept_channels(device: Device, layers: Workload) -> Workload:
    """The layers that `device` runs: those with channel zeros, if it opted in, are the smaller dense layer. `[..., L]`

    A convolution and a linear layer lose output channels, the same number in each group; a depthwise one loses whole
    channels. What the following layer reads stands in its own row.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer
        >>> pruned = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 16, 30, density=0.5, pattern=Pattern.CHANNEL)])
        >>> kept_channels(load_device("a100"), pruned).out_channels.tolist()
        [15.0]
    """
    entry = device.sparsity.get("channel")
    if entry is None:
        return layers
    shrinks = (layers.pattern == int(Pattern.CHANNEL)) & (layers.density <= entry["threshold"])
    shrinks &= jnp.isin(layers.op, jnp.asarray([Op.CONV, Op.LINEAR, Op.DEPTHWISE]))
    kept, depthwise = _kept(layers), layers.op == int(Op.DEPTHWISE)
    multiplier = jnp.where(depthwise, layers.out_channels / layers.in_channels, layers.groups)
    return layers._replace(
        out_channels=jnp.where(shrinks, kept * multiplier, layers.out_channels),
        in_channels=jnp.where(shrinks & depthwise, kept, layers.in_channels),
        groups=jnp.where(shrinks & depthwise, kept, layers.groups),
        pattern=jnp.where(shrinks, float(Pattern.NONE), layers.pattern),
        density=jnp.where(shrinks, 1.0, layers.density),
    )


def _suited(device: Device, layers: Workload, run: Run, pattern: Pattern) -> Array:
    """Layers with that pattern for which there are kernels that skip its zeros, bool `[..., L]`."""
    there = (layers.pattern == int(pattern)) & (layers.multiplies > 0) & ~on_vector_unit(layers)
    if pattern is Pattern.UNSTRUCTURED:
        integers = [parse_format(name).act_dtype == Dtype.INT for name in device.precisions]
        pointwise = (layers.op == int(Op.CONV)) & (layers.kernel_h * layers.kernel_w == 1) & (layers.groups == 1)
        return there & pointwise & ~jnp.asarray(integers)[run.format_index]
    if pattern is Pattern.N_M:
        inputs = layers.in_channels / layers.groups % (N_M_INPUT_BITS / run.act_bits) == 0
        outputs = layers.out_channels / layers.groups % N_M_OUTPUTS == 0
        return there & inputs & outputs & (run.act_bits <= N_M_WIDEST)
    return there


def reduces(device: Device, layers: Workload, run: Run) -> Array:
    """Layers that run by reduce and scale: ternary ones, on a device that opted in and runs them in int8 otherwise.

    bool `[..., L]`
    """
    entry = device.sparsity.get("ternary")
    if entry is None:
        return jnp.zeros_like(layers.op, bool)
    names = [name == "int8" for name in device.precisions]
    there = (
        is_ternary(layers) & (layers.multiplies > 0) & ~on_vector_unit(layers) & jnp.asarray(names)[run.format_index]
    )
    return there & (layers.density <= jnp.minimum(entry["threshold"], entry["adds_per_mac"]))


def speedup(device: Device, layers: Workload, run: Run) -> Array:
    """How many times faster `device` multiplies because of zeros in a layer's `run`; channels are `kept_channels`.

    Layers that do not mix channels never gain; unstructured zeros only in 1x1 convolutions and floating point; 2:4 only
    where the channels fill a sparse tensor instruction of 16 or 8 bits. `[..., L]`
    """
    gain = jnp.ones_like(layers.density)
    density = jnp.maximum(layers.density, LEAST_DENSITY)
    for name, entry in device.sparsity.items():
        if name == "channel":
            continue
        if name == "ternary":
            uses = reduces(device, layers, run)
            factor = jnp.clip(entry["adds_per_mac"] / density, 1.0, entry["factor"])
        else:
            uses = _suited(device, layers, run, Pattern[name.upper()]) & (layers.density <= entry["threshold"])
            factor = entry["factor"]
            if "efficiency" in entry:
                factor = jnp.clip(entry["efficiency"] / density, 1.0, factor)
        gain = jnp.where(uses, factor, gain)
    return gain
