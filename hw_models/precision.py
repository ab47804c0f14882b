"""Number formats: their names, which one a device runs a layer in, and what a person asked for.

Names: `float32`, `float16`, `bfloat16`, `int8` (weights and activations alike), `w4a8` (weights 4 bits, activations
8). A device runs a layer in the narrowest of its precisions that holds the layer's weights and activations exactly (the
next supported width up), and of two equally narrow ones in the faster. Storage keeps its own bits. Devices whose kind
honours any width (`Keys.any_width`) compute in the layer's own.

Shape letters: `L` layers, `N` precisions of the device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hw_models.device import Device
from hw_models.errors import InputError
from hw_models.formats import FLOATS, WIDEST_INTEGER, Format, parse_format
from hw_models.keys import keys_of
from hw_models.workload import Dtype, Layer, Op, Workload

# Integers of at most this many bits are exact in the format (its significand, the implicit bit included).
INTEGER_BITS = {Dtype.FLOAT32: 24, Dtype.BFLOAT16: 8, Dtype.FLOAT16: 11}

# Operands may be unsupported and not wider at all (floats on integer units): they do not fit either.
LEAST_EXCESS = 2.0


class MissingPrecision(InputError):
    """Raised for a precision that the device lacks: commands with a fallback can offer it.

    Example:
        >>> raise MissingPrecision("precision 'int4' is not supported by pixel_3: choose one of float32, int8")
        Traceback (most recent call last):
        ...
        hw_models.precision.MissingPrecision: precision 'int4' is not supported by pixel_3: choose one of float32, int8
    """


class Run(NamedTuple):
    """The precision in which each layer computes; every leaf `[..., L]`.

    `peak_macs_per_s` is what the multipliers could do at best, `macs_per_s` what dense kernels reach. `supported` is
    false where no precision of the device holds the operands (the widest then stands in) and `excess` says how many
    times too wide they are (0 where supported). `converted` says that activations are stored in another width than the
    computing one; weights are unpacked in registers, at no cost of its own. `format_index` is the precision's place
    among those of the device.
    """

    macs_per_s: Array
    peak_macs_per_s: Array
    mac_j: Array
    weight_bits: Array
    act_bits: Array
    converted: Array
    supported: Array
    excess: Array
    format_index: Array


def _holds(carrier: Dtype, carrier_bits: int, dtype: Array, bits: Array) -> Array:
    """Whether numbers of `dtype` and `bits` are exact in the format `carrier`, bool."""
    integer = dtype == int(Dtype.INT)
    if carrier is Dtype.INT:
        return integer & (bits <= carrier_bits)
    exact = integer & (bits <= INTEGER_BITS[carrier])
    if carrier is Dtype.FLOAT32:
        return exact | ~integer
    return exact | (dtype == int(carrier))


def rates(device: Device) -> tuple[Array, Array]:
    """Multiply-accumulates per second of each precision of `device`, at the peak and as reached, `[N]`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> peak, reached = rates(load_device("zcu102"))
        >>> round(float(reached[0] / peak[0]), 3)
        0.7
    """

    def column(section: dict[str, float]) -> Array:
        return jnp.stack([jnp.asarray(section[name], jnp.float32) for name in device.precisions])

    peak = column(device.compute["macs_per_cycle"]) * device.compute["clock_hz"] * device.compute["units"]
    return peak, peak * column(device.compute["efficiency"])


def numbers_at(device: Device, index: Array) -> dict[str, Array]:
    """The fields of `Run` that the precisions at places `index` of the device give, each of the shape of `index`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> numbers_at(load_device("pixel_3"), jnp.asarray([0, 1]))["act_bits"].tolist()
        [32.0, 8.0]
    """
    formats = [parse_format(name) for name in device.precisions]
    peak, rate = rates(device)
    mac_j = jnp.stack([jnp.asarray(device.energy["mac_j"][name], jnp.float32) for name in device.precisions])
    return {
        "macs_per_s": rate[index],
        "peak_macs_per_s": peak[index],
        "mac_j": mac_j[index],
        "weight_bits": jnp.asarray([form.weight_bits for form in formats], jnp.float32)[index],
        "act_bits": jnp.asarray([form.act_bits for form in formats], jnp.float32)[index],
        "format_index": index,
    }


def choose(device: Device, layers: Workload) -> Run:
    """The precision that each layer runs in on `device`: arrays in, arrays out, `[..., L]`.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer, Op
        >>> rows = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8, weight_dtype=Dtype.INT, weight_bits=4,
        ...                           act_dtype=Dtype.INT, act_bits=6)])
        >>> choose(load_device("pixel_3"), rows).weight_bits.tolist()
        [8.0]
    """
    formats = [parse_format(name) for name in device.precisions]
    rate = rates(device)[1]
    held = jnp.stack(
        [
            _holds(f.weight_dtype, f.weight_bits, layers.weight_dtype, layers.weight_bits)
            & _holds(f.act_dtype, f.act_bits, layers.act_dtype, layers.act_bits)
            for f in formats
        ],
        axis=-1,
    )
    width = jnp.asarray([f.weight_bits + f.act_bits for f in formats], jnp.float32)
    supported = held.any(axis=-1)
    held_width = jnp.where(held, width, jnp.inf)
    narrowest = held & (held_width <= held_width.min(axis=-1, keepdims=True))
    index = jnp.where(supported, jnp.argmax(jnp.where(narrowest, rate, 0.0), axis=-1), jnp.argmax(width))
    own = numbers_at(device, index)
    ratio = (layers.weight_bits + layers.act_bits) / (own["weight_bits"] + own["act_bits"])
    return Run(
        **own,
        converted=layers.act_bits != own["act_bits"],
        supported=supported,
        excess=jnp.where(supported, 0.0, jnp.maximum(ratio, LEAST_EXCESS)),
    )


def check_bits(device: Device, weight_bits: tuple[int, ...], act_bits: tuple[int, ...]) -> None:
    """Raise InputError where bits that a search may choose run on `device` in no combination with the others.

    32 stands for numbers that are not rounded, which devices without floating point do not have.

    Example:
        >>> from hw_models.device_file import load_device
        >>> check_bits(load_device("zcu102"), (4, 8, 16), (8,))
        Traceback (most recent call last):
        ...
        hw_models.errors.InputError: 16 bits of weights do not run on zcu102 (int8): give 4/8
    """
    pairs = [(weight, act) for weight in weight_bits for act in act_bits]
    rows = [Layer(Op.CONV, 1, 1, 1, 1, 1, 1, **_of_bits(*pair)._asdict()) for pair in pairs]
    runs = dict(zip(pairs, np.asarray(choose(device, Workload.of(rows)).supported), strict=True))
    for place, (name, bits) in enumerate((("weights", weight_bits), ("activations", act_bits))):
        possible = [value for value in bits if any(runs[pair] for pair in pairs if pair[place] == value)]
        if impossible := [value for value in bits if value not in possible]:
            fix = f"give {'/'.join(map(str, possible))}" if possible else "give fewer bits"
            raise InputError(
                f"{' and '.join(map(str, impossible))} bits of {name} do not run on {device.name} "
                f"({', '.join(device.precisions)}): {fix}"
            )


def _of_bits(weight_bits: int, act_bits: int) -> Format:
    weights, acts = (
        (Dtype.INT, bits) if bits <= WIDEST_INTEGER else FLOATS["float32"] for bits in (weight_bits, act_bits)
    )
    return Format(*weights, *acts)


def carrier(device: Device, wanted: Format) -> str | None:
    """The name of the precision of `device` in which a layer of format `wanted` runs, None where there is none.

    Example:
        >>> from hw_models.device_file import load_device
        >>> carrier(load_device("zcu104_dataflow"), parse_format("w1a3"))
        'int4'
    """
    run = choose(device, Workload.of([Layer(Op.CONV, 1, 1, 1, 1, 1, 1, **wanted._asdict())]))
    return device.precisions[int(run.format_index[0])] if bool(run.supported[0]) else None


def apply_precision(
    device: Device, workload: Workload, precision: str | None = None, fallback: bool = False
) -> tuple[Workload, str, str]:
    """The workload in the precision it will run in, that precision's name, and a sentence that says why.

    Nothing asked for: layers still in float32 take the device's default precision. Layers that already carry a format
    of their own (bit genes, a quantised network) keep it. Not for use under `jit`: it returns text.

    Args:
        precision: a name the user gave, or None.
        fallback: where the device lacks `precision`, store weights in it and compute in the next width up, activations
            included; where no width holds it, use the default throughout.

    Raises:
        InputError: `precision` is no precision.
        MissingPrecision: the device lacks it and `fallback` is false.

    Example:
        >>> from hw_models.device_file import load_device
        >>> from hw_models.workload import Layer, Op
        >>> work = Workload.of([Layer(Op.CONV, 8, 8, 8, 8, 8, 8)])
        >>> apply_precision(load_device("zcu102"), work)[1:]
        ('int8', 'int8: the default of zcu102')
    """
    carried = None
    if precision is None:
        chosen, why = device.default_precision, f"the default of {device.name}"
    else:
        wanted = parse_format(precision)
        same = [name for name in device.precisions if parse_format(name) == wanted]
        if same:
            chosen, why = same[0], "as asked"
        elif keys_of(device.kind).any_width and carrier(device, wanted):
            chosen, why = precision, "as asked"
        elif not fallback:
            listed = ", ".join(device.precisions)
            raise MissingPrecision(f"precision '{precision}' is not supported by {device.name}: choose one of {listed}")
        else:
            carried = carrier(device, wanted)
            chosen = carried or device.default_precision
            why = f"{device.name} lacks {precision}, fallback allowed"
            if carried:
                why += f"; weights are stored as {precision}"
    target = parse_format(chosen)
    if carried:
        target = target._replace(weight_dtype=wanted.weight_dtype, weight_bits=wanted.weight_bits)
    plain_weights = workload.weight_dtype == int(Dtype.FLOAT32)
    plain_acts = workload.act_dtype == int(Dtype.FLOAT32)
    changed = workload._replace(
        weight_dtype=jnp.where(plain_weights, float(target.weight_dtype), workload.weight_dtype),
        weight_bits=jnp.where(plain_weights, float(target.weight_bits), workload.weight_bits),
        act_dtype=jnp.where(plain_acts, float(target.act_dtype), workload.act_dtype),
        act_bits=jnp.where(plain_acts, float(target.act_bits), workload.act_bits),
    )
    own = bool(np.any(np.asarray(~plain_weights | ~plain_acts) & (np.asarray(workload.count) > 0)))
    note = f"{chosen}: {why}" + ("; layers with a format of their own keep it" if own else "")
    return changed, chosen, note
