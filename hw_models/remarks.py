"""What compression does to each layer on a device, in words: the precision it computes in, and what its zeros gain."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array

from hw_models.compression import N_M_INPUT_BITS, N_M_OUTPUTS, is_ternary, kept_channels, reduces, speedup
from hw_models.device import Device
from hw_models.formats import Format, format_name, parse_format
from hw_models.precision import Run
from hw_models.programs import for_few_runs
from hw_models.workload import Dtype, Pattern, Workload

REDUCED = (
    "runs by reduce and scale: the int8 activations at non-zero weights are added, then two multiplications an output"
)


def computes_in(device: Device, layers: Workload, run: Run) -> list[str]:
    """The name of the precision that each layer computes in, `[L]`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.precision import choose
        >>> from hw_models.workload import Layer, Op
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8)])
        >>> computes_in(load_device("pixel_3"), work, choose(load_device("pixel_3"), work))
        ['float32']
    """
    run = jax.tree.map(np.asarray, run)
    names = []
    for i in range(layers.op.shape[0]):
        name = device.precisions[int(run.format_index[i])]
        form = parse_format(name)
        bits = int(run.weight_bits[i]), int(run.act_bits[i])
        if bits != (form.weight_bits, form.act_bits):  # a kind that honours any width
            name = format_name(form._replace(weight_bits=bits[0], act_bits=bits[1]))
        names.append(name)
    return names


def remarks(device: Device, layers: Workload, run: Run) -> list[str]:
    """One text per layer, empty where nothing is compressed: stored and computed formats that differ, and zeros. `[L]`

    `layers` are those of the network and `run` how the device executes them.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.precision import choose
        >>> from hw_models.workload import Layer, Op
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, weight_dtype=Dtype.INT, weight_bits=4,
        ...                           act_dtype=Dtype.INT, act_bits=4)])
        >>> remarks(load_device("pixel_3"), work, choose(load_device("pixel_3"), work))
        ['stored as int4, computed as int8']
    """
    gains, reduced, kept, weights = jax.tree.map(np.asarray, _zeros_of(device.unnamed(), layers, run))
    rows: Any = jax.tree.map(np.asarray, layers)
    supported = np.asarray(run.supported)
    texts = []
    for i, computed in enumerate(computes_in(device, layers, run)):
        held = Dtype(int(rows.weight_dtype[i])), int(rows.weight_bits[i])
        form = Format(*held, Dtype(int(rows.act_dtype[i])), int(rows.act_bits[i]))
        stored, parts = format_name(form), []
        if not supported[i]:
            parts.append(f"{device.name} cannot compute in {stored}")
        elif reduced[i]:
            parts.append(f"stored as {stored}, {REDUCED}")
        elif parse_format(computed) != form:
            parts.append(f"stored as {stored}, computed as {computed}")
        if rows.density[i] < 1 and weights[i] > 0:
            layer = jax.tree.map(lambda leaf, i=i: leaf[i], rows)
            parts.append(_zeros(device, layer, float(gains[i]), float(kept[i])))
        texts.append("; ".join(parts))
    return texts


@for_few_runs
def _zeros_of(device: Device, layers: Workload, run: Run) -> tuple[Array, Array, Array, Array]:
    kept = kept_channels(device, layers).out_channels
    return speedup(device, layers, run), reduces(device, layers, run), kept, layers.weights


def _zeros(device: Device, layer: Any, gain: float, kept: float) -> str:
    """What one layer's zeros do, or why they do nothing for its time."""
    pattern, density = Pattern(int(layer.pattern)), float(layer.density)
    name = pattern.name.lower()
    if pattern is Pattern.NONE:
        return "zeros without a pattern save nothing"
    if kept < layer.out_channels:
        return f"{kept:.0f} of {layer.out_channels:.0f} channels kept, the smaller layer"
    if gain > 1:
        return f"{name} zeros: {gain:.3g} times as fast"
    # Ternary weights may have an entry of their own; the pattern's is the one to explain otherwise.
    ternary = bool(is_ternary(layer))
    entry = device.sparsity.get("ternary" if ternary else name)
    entry = entry or device.sparsity.get(name)
    if entry is None:
        lacks = f"[sparsity.{name}]" + (" and no [sparsity.ternary]" if ternary else "")
        return f"{name} zeros only shrink storage, {device.name} has no {lacks}"
    if density > entry["threshold"]:
        return f"{name} zeros only shrink storage, density {density:.3g} is above {entry['threshold']:.3g}"
    needs = {
        Pattern.UNSTRUCTURED: "they gain in 1x1 convolutions in floating point",
        Pattern.N_M: f"they gain in 8 or 16 bits with input channels in multiples of {N_M_INPUT_BITS} bits and output "
        f"channels of {N_M_OUTPUTS}",
        Pattern.CHANNEL: "less than one channel",
    }
    return f"{name} zeros only shrink storage, {needs.get(pattern, 'they gain in layers that mix channels')}"
