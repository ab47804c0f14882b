"""GPU: a queue of kernels, tiles that quantise the work, waves that quantise the tiles.

Equations:
    tiles  = ceil(m / tile_m) * ceil(n / tile_n) * groups;  waves = ceil(tiles / units)
    dense  = waves * tile_m * tile_n * round_up(k, align) / (clock * macs_per_cycle * efficiency)
    align  = 16 bytes of the computing precision: 4 float32, 8 float16, 16 int8 elements (tensor cores want channels in
             such multiples); a wider precision computes a layer whose padding makes it faster there
    kernel = max(launch, work), because the host launches ahead while the device works;
             work = max(compute, memory) + serial_share * min(compute, memory)
Every kernel streams its maps through the main memory: maps that would fit the second-level cache are not served from
it in the measurements at hand (A100, batch 64: counting on it lowers the rank correlation from 0.9997 to 0.997).
Depthwise layers cannot use matrix units: they run on the ordinary ones (`vector_macs_per_cycle`) and reach a smaller
share of the bandwidth (`depthwise_efficiency`). An eager framework runs normalisation and activation as kernels of
their own (`kernels_per_norm`), each of which reads and writes the map once; a compiled graph folds them away (0). At
batch 1 a network's time follows its number of kernels, not its work (once-for-all measurements: rank correlation
0.74-0.86 with layers, 0.21-0.29 with MACs).

Source: NVIDIA, "Deep Learning Performance: Matrix Multiplication Background" (tile and wave quantisation, alignment).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from hw_models.ablation import NOTHING, UNLIMITED
from hw_models.device import Device
from hw_models.formats import parse_format
from hw_models.keys import Free, Keys
from hw_models.memory import traffic
from hw_models.precision import Run, choose, numbers_at, rates
from hw_models.roofline import Times, ceil_div, gemm, on_vector_unit, overlapped, round_up, vector_unit_s
from hw_models.workload import Workload

ALIGN_BITS = 128

KEYS = Keys(
    required=("compute.tile_m", "compute.tile_n", "compute.vector_macs_per_cycle"),
    optional=("memory.depthwise_efficiency",),
    or_zero=("compute.kernels_per_norm", "compute.serial_share"),
    free=(
        Free("compute.efficiency"),
        Free("compute.vector_macs_per_cycle"),
        Free("compute.op_overhead_s"),
        Free("compute.run_overhead_s", start=1e-4),
        Free("compute.serial_share", start=0.3),
        Free("memory.efficiency"),
        Free("memory.depthwise_efficiency", start=0.5),
        Free("compute.kernels_per_norm", start=1.0),
    ),
)
TERMS = {
    "tiles and waves": {"compute.tile_m": 1.0, "compute.tile_n": 1.0},
    "ordinary units for depthwise": {"compute.vector_macs_per_cycle": UNLIMITED},
    "traffic of maps and weights": {"memory.dram_bytes_per_s": UNLIMITED},
    "kernels of normalisation": {"compute.kernels_per_norm": 0.0},
    "launches": {"compute.op_overhead_s": NOTHING},
}


def run(device: Device, layers: Workload) -> Run:
    """The precision that each layer computes in, `[..., L]`: a wider one where its padding makes it faster there.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.testing import stored
        >>> from hw_models.workload import Layer, Op
        >>> few, many = (stored(Layer(Op.CONV, 8, 8, 8, 8, channels, 8), "int8") for channels in (3, 64))
        >>> run(load_device("jetson_xavier"), Workload.of([few, many])).act_bits.tolist()
        [16.0, 8.0]
    """
    narrow = choose(device, layers)
    bits = jnp.asarray([parse_format(name).act_bits for name in device.precisions], jnp.float32)
    seconds = round_up(gemm(layers).k[..., None], ALIGN_BITS / bits) / rates(device)[1]
    own = jnp.arange(len(bits)) == narrow.format_index[..., None]
    matrix = (layers.multiplies > 0) & ~on_vector_unit(layers)
    wider = (bits > narrow.act_bits[..., None]) & matrix[..., None]
    # Of equally fast ones the narrow one, which costs less energy.
    slower = jnp.where(own, seconds, jnp.where(wider, seconds * (1 + 1e-6), jnp.inf))
    return narrow._replace(**numbers_at(device, jnp.argmin(slower, axis=-1)))


def layer_times(device: Device, layers: Workload, run: Run, gain: Array, batch: ArrayLike = 1) -> Times:
    """Seconds of each layer, `[..., L]`."""
    compute, memory = device.compute, device.memory
    size = gemm(layers, batch)
    tiles = ceil_div(size.m, compute["tile_m"]) * ceil_div(size.n, compute["tile_n"]) * size.groups
    waves = ceil_div(tiles, compute["units"])
    depth_s = round_up(size.k, ALIGN_BITS / run.act_bits) / run.macs_per_s
    dense = waves * compute["units"] * compute["tile_m"] * compute["tile_n"] * depth_s
    depthwise = on_vector_unit(layers)
    compute_s = layers.multiplies * jnp.where(depthwise, vector_unit_s(device, size), dense)

    moved = traffic(device, layers, gain, batch, jnp.bool_(False))
    share = jnp.where(depthwise, memory.get("depthwise_efficiency", 1.0), 1.0)
    memory_s = moved.memory_s / share
    launch_s = jnp.ones_like(compute_s) * compute["op_overhead_s"]
    main_s = jnp.maximum(launch_s, overlapped(compute_s, memory_s, compute.get("serial_share", 0.0)))
    extra = layers.norm * compute.get("kernels_per_norm", 0.0)
    touched_s = 2 * moved.output_s
    return Times(
        compute_s=compute_s,
        memory_s=memory_s + extra * touched_s,
        overhead_s=launch_s * (1 + extra),
        latency_s=main_s + extra * jnp.maximum(launch_s, touched_s),
        dram_bytes=moved.dram_bytes + extra * 2 * moved.output_dram_bytes,
    )
