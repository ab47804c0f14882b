"""Keys of measured tables: what is in them, and that they can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models import InputError, Layer, Op
from hw_models.table_keys import block_key, blocks, ends, layer_key, parse_key
from hw_models.workload import TWO_OPERANDS, Dtype, Pattern

CONV = Layer(Op.CONV, 32, 32, 16, 16, 24, 40, 3, 3, 2)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({}, "conv 32x32x24>16x16x40 k3 s2"),
        ({"kernel_w": 1}, "conv 32x32x24>16x16x40 k3x1 s2"),
        ({"groups": 4}, "conv 32x32x24>16x16x40 k3 s2 g4"),
        ({"weight_dtype": Dtype.INT, "weight_bits": 8, "act_dtype": Dtype.INT, "act_bits": 8}, "... int8"),
        ({"weight_dtype": Dtype.INT, "weight_bits": 4, "act_dtype": Dtype.INT, "act_bits": 8}, "... w4a8"),
        ({"weight_dtype": Dtype.INT, "weight_bits": 4}, "... w4afloat32"),
        ({"weight_dtype": Dtype.FLOAT16, "weight_bits": 16, "act_dtype": Dtype.FLOAT16, "act_bits": 16}, "... float16"),
        ({"pattern": Pattern.N_M, "density": 0.5}, "... n_m:0.5"),
        ({"norm": 1, "bias": 1, "held_elements": 7, "group": 3}, "conv 32x32x24>16x16x40 k3 s2"),
    ],
)
def test_a_key_holds_what_changes_the_time(change: dict[str, int], key: str) -> None:
    assert layer_key(CONV._replace(**change)) == key.replace("...", "conv 32x32x24>16x16x40 k3 s2")


def test_groups_of_a_depthwise_convolution_go_without_saying() -> None:
    layer = Layer(Op.DEPTHWISE, 8, 8, 8, 8, 16, 48, 5, 5, groups=16)
    assert layer_key(layer) == "depthwise 8x8x16>8x8x48 k5"
    assert parse_key("depthwise 8x8x16>8x8x48 k5") == (layer,)


def test_the_precision_of_the_table_goes_without_saying() -> None:
    whole = CONV._replace(weight_dtype=Dtype.INT, weight_bits=8, act_dtype=Dtype.INT, act_bits=8)
    assert layer_key(whole, "int8") == layer_key(CONV, "int8") == layer_key(CONV, None) == layer_key(CONV)
    half = CONV._replace(weight_dtype=Dtype.INT, weight_bits=4)  # nobody chose the activations: the table's
    assert layer_key(half, "int8") == layer_key(CONV) + " w4a8"


def test_blocks_are_neighbours_of_one_group() -> None:
    rows = [CONV._replace(group=group) for group in (0, 0, 2, 0)]
    assert [len(block) for block in blocks(rows)] == [2, 1, 1]
    assert ends(rows) == ((32, 32, 24), (16, 16, 40))


def possible(layer: Layer) -> Layer:
    """The layer with channels that its groups divide, and one shape for sums and products of maps."""
    if layer.op in TWO_OPERANDS:
        return layer._replace(out_h=layer.in_h, out_w=layer.in_w, out_channels=layer.in_channels)
    groups = layer.groups
    return layer._replace(in_channels=layer.in_channels * groups, out_channels=layer.out_channels * groups)


sizes = st.integers(1, 512)
layers = st.builds(
    lambda op, hw, out_hw, inp, out, kernel, stride, groups, bits, pattern: Layer(
        op, hw, hw + 1, out_hw, out_hw, inp, out, *kernel, stride, groups,
        weight_bits=bits or 32, weight_dtype=Dtype.INT if bits else Dtype.FLOAT32,
        pattern=pattern, density=0.25 if pattern else 1.0,
    ),
    st.sampled_from(Op), sizes, sizes, sizes, sizes, st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 4),
    st.integers(1, 9), st.integers(0, 16), st.sampled_from(Pattern),
).map(possible)  # fmt: skip


@given(st.lists(layers, min_size=1, max_size=4), st.sampled_from([None, "float32", "int8", "w4a8"]))
def test_every_key_can_be_read_back(block: list[Layer], precision: str | None) -> None:
    key = block_key(block, precision)
    assert block_key(parse_key(key, precision), precision) == key
    assert [layer.macs for layer in parse_key(key, precision)] == [layer.macs for layer in block]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "is not a layer"),
        ("conv", "is not a layer"),
        ("conv 32x32>16x16", "write it as 'conv 32x32x16>16x16x24 k3 s2'"),
        ("depthwise 8x8x3>8x8x4 k3", "3 channels in and 4 out are no multiples of 3 groups"),
        ("conv 8x8x3>8x8x4 k3 g2", "no multiples of 2 groups"),
        ("add 8x8x3>8x8x4", "one shape"),
        ("conv 99999999999999999999x8x3>8x8x4 k3", "a size above 16,777,216"),
        ("convv 8x8x8>8x8x8", "did you mean 'conv'"),
        ("conv 8x8x0>8x8x8", "size of 0"),
        ("conv 8x8x8>8x8x8 q3", "'q3' in key"),
        ("conv 8x8x8>8x8x8 int99", "'int99' in key"),
        ("conv 8x8x8>8x8x8 chanel:0.5", "'chanel:0.5' in key"),
        ("conv 8x8x8>8x8x8 channel:1.5", "'channel:1.5' in key"),
        ("conv 8x8x8>8x8x8 s2 k3", "write 'conv 8x8x8>8x8x8 k3 s2'"),
        ("conv 8x8x8>8x8x8 k3x3", "write 'conv 8x8x8>8x8x8 k3'"),
        ("conv  8x8x8>8x8x8", "write 'conv 8x8x8>8x8x8'"),
        ("conv 8x8x8>8x8x8 float32", "write 'conv 8x8x8>8x8x8'"),
        ("conv 8x8x8>8x8x8+conv 8x8x8>8x8x8", "is not"),
    ],
)
def test_what_is_no_key_is_named(key: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_key(key)
    assert message in str(caught.value)
