"""Which precision a layer runs in, and what happens to one that a device lacks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import Device, InputError, Layer, Op, Workload, device_names, estimate, load_device
from hw_models.compression import weight_bytes
from hw_models.estimate import apply_precision, fits, layer_costs
from hw_models.formats import parse_format
from hw_models.precision import choose
from hw_models.workload import Dtype

LAYER = Layer(Op.CONV, 14, 14, 14, 14, 32, 64, 3, 3, norm=1)


def _integer(weight_bits: int, act_bits: int) -> Layer:
    return LAYER._replace(weight_dtype=Dtype.INT, weight_bits=weight_bits, act_dtype=Dtype.INT, act_bits=act_bits)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("float32", (Dtype.FLOAT32, 32, Dtype.FLOAT32, 32)),
        ("bfloat16", (Dtype.BFLOAT16, 16, Dtype.BFLOAT16, 16)),
        ("float16", (Dtype.FLOAT16, 16, Dtype.FLOAT16, 16)),
        ("int8", (Dtype.INT, 8, Dtype.INT, 8)),
        ("w8a8", (Dtype.INT, 8, Dtype.INT, 8)),
        ("w4a8", (Dtype.INT, 4, Dtype.INT, 8)),
        ("int1", (Dtype.INT, 1, Dtype.INT, 1)),
    ],
)
def test_names_of_formats(name: str, expected: tuple[int, ...]) -> None:
    assert tuple(parse_format(name)) == expected


@pytest.mark.parametrize("name", ["", "int", "int0", "int17", "w4", "w4a0", "fp16", "INT8", "float64", "int8 "])
def test_other_names_are_input_errors(name: str) -> None:
    with pytest.raises(InputError, match="is not known: give float32"):
        parse_format(name)


@pytest.mark.parametrize("name", device_names())
def test_unasked_runs_at_the_default_and_names_it(name: str) -> None:
    device = load_device(name)
    work, chosen, note = apply_precision(device, Workload.of([LAYER]))
    assert chosen == device.default_precision
    assert note == f"{chosen}: the default of {name}"
    assert float(work.weight_bits[0]) == parse_format(chosen).weight_bits
    assert int(work.act_dtype[0]) == parse_format(chosen).act_dtype
    assert bool(fits(estimate(device, work)))


@pytest.mark.parametrize("name", device_names())
def test_asked_and_supported_is_used(name: str) -> None:
    device = load_device(name)
    for precision in device.precisions:
        work, chosen, note = apply_precision(device, Workload.of([LAYER]), precision)
        assert (chosen, note) == (precision, f"{precision}: as asked")
        run = choose(device, work)
        peak = device.compute["clock_hz"] * device.compute["units"] * device.compute["macs_per_cycle"][precision]
        assert float(run.peak_macs_per_s[0]) == pytest.approx(peak, rel=1e-6)
        assert not bool(run.converted[0])


def test_two_names_of_one_format_are_the_same_request() -> None:
    assert apply_precision(load_device("pixel_3"), Workload.of([LAYER]), "w8a8")[1] == "int8"


@pytest.mark.parametrize(
    ("name", "precision"), [("pixel_3", "int4"), ("pixel_3", "float16"), ("edge_tpu", "float32"), ("tpu_v2", "int8")]
)
def test_asked_and_missing_is_an_error_that_lists_what_there_is(name: str, precision: str) -> None:
    device = load_device(name)
    with pytest.raises(InputError) as caught:
        apply_precision(device, Workload.of([LAYER]), precision)
    message = str(caught.value)
    assert "\n" not in message
    for part in (precision, name, *device.precisions):
        assert part in message


@pytest.mark.parametrize(
    ("name", "precision", "chosen"),
    [
        ("pixel_3", "int4", "int8"),
        ("pixel_3", "w4a8", "int8"),
        ("pixel_3", "float16", "float32"),
        ("pixel_3", "int12", "float32"),
        ("tpu_v2", "int8", "bfloat16"),
        ("edge_tpu", "float32", "int8"),
    ],
)
def test_fallback_is_the_next_width_up_or_the_default(name: str, precision: str, chosen: str) -> None:
    device = load_device(name)
    work, got, note = apply_precision(device, Workload.of([LAYER]), precision, fallback=True)
    assert got == chosen
    held = int(work.weight_bits[0]), int(work.act_bits[0])
    assert held == ((8, 8) if precision == "float32" else (parse_format(precision)[1], parse_format(chosen)[3]))
    assert precision in note
    assert "fallback" in note


def test_unknown_precision_is_an_error_even_with_fallback() -> None:
    with pytest.raises(InputError, match="fp16"):
        apply_precision(load_device("a100"), Workload.of([LAYER]), "fp16", fallback=True)


def test_layers_with_their_own_bits_keep_them() -> None:
    work = Workload.of([_integer(4, 8), LAYER, LAYER._replace(act_dtype=Dtype.INT, act_bits=8)])
    changed, chosen, note = apply_precision(load_device("zcu102"), work)
    assert chosen == "int8"
    assert "keep it" in note
    assert changed.weight_bits.tolist() == [4, 8, 8]
    assert changed.act_bits.tolist() == [8, 8, 8]
    assert set(changed.weight_dtype.tolist()) == {float(Dtype.INT)}


def test_compute_runs_at_the_next_width_up_and_storage_keeps_its_bits() -> None:
    device = load_device("pixel_3")  # float32 and int8
    bits = np.asarray([1, 2, 4, 7, 8, 9, 12, 16])
    work = Workload.of([_integer(int(b), 8) for b in bits])
    run = jax.jit(choose)(device, work)
    assert run.weight_bits.tolist() == [8, 8, 8, 8, 8, 32, 32, 32]
    assert bool(run.supported.all())
    assert run.converted.tolist() == [False] * 5 + [True] * 3  # activations alone: weights are unpacked in registers
    assert weight_bytes(work).tolist() == [float(LAYER.weights * b / 8 + 64 * 4) for b in bits]


def test_bits_may_be_traced() -> None:
    device = load_device("zcu102")

    def latency(bits: jax.Array) -> jax.Array:
        work = Workload.of([_integer(8, 8)])
        return estimate(device, work._replace(weight_bits=bits[None], act_bits=bits[None])).latency_s

    prices = jax.jit(jax.vmap(latency))(jnp.asarray([2.0, 4.0, 8.0]))
    assert bool(jnp.all(jnp.diff(prices) >= 0))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("edge_tpu", LAYER),
        ("edge_tpu", _integer(9, 8)),
        ("edge_tpu", _integer(16, 16)),
        ("tpu_v2", LAYER),
        ("tpu_v2", _integer(9, 8)),
        ("tpu_v2", LAYER._replace(weight_dtype=Dtype.FLOAT16, weight_bits=16)),
        ("zcu102", LAYER._replace(weight_dtype=Dtype.BFLOAT16, weight_bits=16)),
    ],
)
def test_what_no_precision_holds_does_not_fit_and_stays_finite(name: str, layer: Layer) -> None:
    device = load_device(name)
    costs = estimate(device, Workload.of([layer]))
    assert not bool(fits(costs))
    assert all(bool(jnp.isfinite(leaf)) for leaf in costs)
    rows = layer_costs(device, Workload.of([layer], 4))
    assert rows.resource_fraction.shape == (4,)
    assert rows.resource_fraction[1:].tolist() == [0, 0, 0]


def test_float_units_hold_small_integers_exactly() -> None:
    device: Device = load_device("tpu_v2")  # bfloat16 only: eight significant bits
    run = choose(device, Workload.of([_integer(8, 8), _integer(9, 8)]))
    assert run.supported.tolist() == [True, False]
