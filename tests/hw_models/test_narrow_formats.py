"""What narrow formats gain, device by device, and what `explain` says about formats and zeros."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hw_models import Device, InputError, Layer, Op, Workload, device_names
from hw_models.compression import weight_bytes
from hw_models.compression_matrix import BITS, KINDS, Gain
from hw_models.estimate import apply_precision, explain, run_of
from hw_models.formats import FLOATS, parse_format
from hw_models.remarks import computes_in, remarks
from hw_models.testing import device_named, prices, stored
from hw_models.workload import Dtype, Pattern

DEVICES = device_names()


def _holding(device: Device, bits: int) -> list[tuple[int, str]]:
    """Independent of the models: precisions that hold integers of that many bits exactly."""
    exact = {"float32": 24, "float16": 11, "bfloat16": 8}
    found = []
    for name in device.precisions:
        form = parse_format(name)
        limits = (form.weight_bits, form.act_bits) if form.weight_dtype is Dtype.INT else (exact[name], exact[name])
        if bits <= min(limits):
            found.append((form.weight_bits + form.act_bits, name))
    return sorted(found)


@pytest.mark.parametrize("name", DEVICES)
def test_integers_run_at_the_next_width_up_and_keep_their_bits(name: str) -> None:
    device = device_named(name)
    layer = Layer(Op.CONV, 14, 14, 14, 14, 64, 64, 3, 3)
    widths = (1, 2, 3, 4, 6, 8)
    work = Workload.of([stored(layer, f"int{bits}") for bits in widths])
    run = run_of(device, work)
    assert weight_bytes(work).tolist() == [layer.weights * bits / 8 for bits in widths]
    any_width = BITS["below 8 bits"][KINDS.index(device.kind)] is Gain.ANY_WIDTH
    shown = zip(widths, computes_in(device, work, run), remarks(device, work, run), strict=True)
    for i, (bits, computed, note) in enumerate(shown):
        if any_width:
            assert (float(run.weight_bits[i]), computed, note) == (bits, f"int{bits}", "")
        else:
            holding = _holding(device, bits)
            width = holding[0][0]
            assert float(run.weight_bits[i] + run.act_bits[i]) == width
            assert computed in [other for size, other in holding if size == width]
            assert note == ("" if computed == f"int{bits}" else f"stored as int{bits}, computed as {computed}")


@pytest.mark.parametrize("name", DEVICES)
def test_narrow_formats_gain_time_only_where_the_matrix_says_so(name: str) -> None:
    device = device_named(name)
    layer = Layer(Op.CONV, 28, 28, 28, 28, 128, 128, 3, 3)
    names = ("int8", "int6", "int4", "int3", "float32", "float16")
    costs = prices(device, [stored(layer, precision) for precision in names])
    times, fit = (dict(zip(names, leaf.tolist(), strict=True)) for leaf in (costs.compute_s, costs.resource_fraction))
    kind = KINDS.index(device.kind)
    if BITS["below 8 bits"][kind] is Gain.NEXT_WIDTH:
        assert times["int8"] == times["int6"] == times["int4"] == times["int3"]
    if BITS["float16"][kind] is Gain.REFUSED:
        assert fit["float16"] > 1
    elif "float16" not in device.precisions and "float32" in device.precisions:
        assert times["float16"] == times["float32"]
    if not any(precision in FLOATS for precision in device.precisions):
        assert fit["float32"] > 1
        with pytest.raises(InputError, match="choose one of"):
            apply_precision(device, Workload.of([layer]), "float32")


CASES: list[tuple[str, Callable[[Layer], Layer], str]] = [
    ("pixel_3", lambda x: stored(x, "w4a8"), "stored as w4a8, computed as int8"),
    ("pixel_3", lambda x: stored(x, "int8"), ""),
    ("pixel_3", lambda x: stored(x, "float16"), "stored as float16, computed as float32"),
    ("edge_tpu", lambda x: x, "edge_tpu cannot compute in float32"),
    ("pixel_3", lambda x: x._replace(density=0.5), "zeros without a pattern save nothing"),
    (
        "tpu_v2",
        lambda x: stored(x, "bfloat16")._replace(density=0.5, pattern=Pattern.N_M),
        "n_m zeros only shrink storage, tpu_v2 has no [sparsity.n_m]",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.5, pattern=Pattern.N_M),
        "n_m zeros: 2 times as fast",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.75, pattern=Pattern.N_M),
        "n_m zeros only shrink storage, density 0.75 is above 0.5",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.5, pattern=Pattern.N_M, in_channels=48),
        "n_m zeros only shrink storage, they gain in 8 or 16 bits",
    ),
    (
        "a100",
        lambda x: stored(x, "float16")._replace(density=0.26, pattern=Pattern.CHANNEL),
        "17 of 64 channels kept, the smaller layer",
    ),
    (
        "pixel_3",
        lambda x: x._replace(density=0.1, pattern=Pattern.UNSTRUCTURED),
        "unstructured zeros only shrink storage, they gain in 1x1 convolutions",
    ),
    (
        "cortex_a57",
        lambda x: stored(x, "w2a8")._replace(density=0.21, pattern=Pattern.UNSTRUCTURED),
        "stored as w2a8, runs by reduce and scale: the int8 activations at non-zero weights are added, then two "
        "multiplications an output; unstructured zeros: 5 times as fast",
    ),
    (
        "cortex_a57",
        lambda x: stored(x, "w2a8")._replace(density=0.6, pattern=Pattern.UNSTRUCTURED),
        "stored as w2a8, computed as int8; unstructured zeros only shrink storage, density 0.6 is above 0.5",
    ),
    (
        "tpu_v2",
        lambda x: stored(x, "w2a8")._replace(density=0.21, pattern=Pattern.UNSTRUCTURED),
        "stored as w2a8, computed as bfloat16; unstructured zeros only shrink storage, tpu_v2 has no "
        "[sparsity.unstructured] and no [sparsity.ternary]",
    ),
]


@pytest.mark.parametrize(("name", "change", "note"), CASES)
def test_explain_says_what_is_computed_and_why_zeros_gain(
    name: str, change: Callable[[Layer], Layer], note: str
) -> None:
    row = explain(device_named(name), Workload.of([change(Layer(Op.CONV, 28, 28, 28, 28, 64, 64, 3, 3))]))[0]
    assert row["note"].startswith(note) and bool(row["note"]) == bool(note)
    assert row["precision"] in device_named(name).precisions
