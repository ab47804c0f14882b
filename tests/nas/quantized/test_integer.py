"""Integers: codes, products and rescaling against worked values; a network against its fake-quantized form."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nas.exporters._graph import INPUT, Graph, Node
from nas.model import Meta
from nas.quantized._codings import coding, placed
from nas.quantized._forms import FORMS, computed
from nas.quantized.folded import MULTIPLYING
from nas.quantized.integer import Coding, IntegerNetwork, Weights, layer_differences, rescaled
from nas.quantized.post_training import coded_weights, quantize
from search_spaces.spaces import quickstart

META = Meta("hand", ("a",), (0.0,), (1.0,))


def alone(op: str, codings: dict[str, Coding], inputs: tuple[str, ...], *arrays: Any, **attributes: Any) -> np.ndarray:
    """The codes (or reals) that one layer makes of codes."""
    width = arrays[0].shape[-1]
    shapes = {name: array.shape for name, array in zip(inputs, arrays, strict=True)} | {"y": (1, 2, 2, width)}
    node = Node(op, op, attributes, {}, inputs, ("y",))
    network = IntegerNetwork(Graph((node,), "y", shapes), codings, {}, META)
    return network.layer(node, arrays)[0]


def test_codes_of_the_survey() -> None:
    # equation 14 over -1 to 3 with 256 codes and the zero point rounded from 63.75, so that 0 is exact
    made = coding(-1.0, 3.0, 8)
    assert 1 / made.step == pytest.approx(63.75) and made.zero_point == 64 and made.dtype == np.uint8
    assert made.codes(np.asarray([-1.0, 1, 3, 4, -2, 0])).tolist() == [0, 128, 255, 255, 0, 64]
    assert made.values(np.asarray([64])).item() == 0.0
    # ReLU6 (rounding here is half to even: 42.5 gives 42)
    assert coding(0.0, 6.0, 8)[1:4] == (0, 0, 255)
    assert coding(0.0, 6.0, 8).codes(np.asarray([6.0, 7.0])).tolist() == [255, 255]
    assert Coding(1 / 42.5, 0, 0, 255, 8).codes(np.asarray([1.0])).item() == 42
    # equation 15 with n = 128: codes of one byte
    signed = coding(-2.0, 1.0, 8, signed=True)
    assert 1 / signed.step == pytest.approx(63.5) and signed.dtype == np.int8
    assert signed.codes(np.asarray([2.0, -2.0, 9.0])).tolist() == [127, -127, 127]
    assert coding(0.0, 1.0, 16).dtype == np.uint16 and coding(0.0, 1.0, 4).last == 15


def test_an_integer_product_of_the_survey() -> None:
    # equations 16 to 20: features over 0 to 2 in 255 codes, weights over -1 to 1 in 127 on either side, bias 0.1
    features, weight = np.asarray([[0.5, 1.0, 2.0]]), np.asarray([0.25, -1.0, 0.5]).reshape(1, 1, 3, 1, 1)
    before = Coding(2 / 255, 0, 0, 255, 8)
    weights = coded_weights(weight, np.asarray([0.1]), before.step, 8)
    assert before.codes(features).tolist() == [[64, 128, 255]]
    assert weights.codes.ravel().tolist() == [32, -127, 64] and weights.bias.item() == 1619
    node = Node("Linear", "l", {}, {}, (INPUT,), ("y",))
    network = IntegerNetwork(Graph((node,), "y", {"y": (1, 1)}), {INPUT: before}, {"y": weights}, META)
    (real,) = network.layer(node, (before.codes(features),))
    assert real.item() == pytest.approx(0.230415, abs=1e-6) and real.item() == pytest.approx(
        3731 * 6.17570e-5, rel=1e-5
    )


def test_zero_points_need_only_sums_of_rows_and_columns() -> None:
    # equation 36: the product of shifted codes is the product of codes with three corrections
    rng = np.random.default_rng(0)
    codes, weight = rng.integers(0, 256, (5, 40)), rng.integers(-127, 128, (7, 40))
    zero = 77
    weights = Weights(weight[None, :, :, None, None].astype(np.int8), np.ones((1, 7), np.float32), np.zeros((1, 7)), 8)
    node = Node("Linear", "l", {}, {}, (INPUT,), ("y",))
    codings = {INPUT: Coding(1.0, zero, 0, 255, 8)}
    network = IntegerNetwork(Graph((node,), "y", {"y": (1, 7)}), codings, {"y": weights}, META)
    assert network.layer(node, (codes,))[0].tolist() == (codes @ weight.T - zero * weight.sum(1)).tolist()


def test_tiny_weights_beside_a_bias_take_a_larger_step() -> None:
    weights = coded_weights(np.full((1, 2, 1, 1, 1), 1e-9) * [[[[[1]]], [[[1e9]]]]], np.asarray([3.0, 0.5]), 1e-4, 8)
    assert abs(int(weights.bias[0, 0])) <= 2**30 and weights.codes[0, 0].item() == 0
    restored = weights.bias * weights.step.astype(np.float64) * 1e-4
    np.testing.assert_allclose(restored[0], [3.0, 0.5], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_rescaling_is_rounding_of_the_real_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sums, factors = rng.integers(-(2**31), 2**31, (50, 8)), 10.0 ** rng.uniform(-9, 0, 8)
    assert np.abs(rescaled([(sums, factors)]) - sums * factors).max() <= 0.5 + 2.0**31 * 2.0**-31
    small = rng.integers(-(2**20), 2**20, (50, 8))
    assert (rescaled([(small, factors)]) == np.rint(small * factors)).mean() > 0.999
    both = rescaled([(small, factors), (small[::-1], factors / 3)])
    assert (both == np.rint(small * factors + small[::-1] * factors / 3)).mean() > 0.999
    assert rescaled([(np.asarray([-3, -1, 1, 3, 5]), np.float64(0.5))]).tolist() == [-2, 0, 0, 2, 2], "half to even"


def test_additions_and_joins_rescale_what_is_in_other_steps() -> None:
    codings = {"a": Coding(0.5, 10, 0, 255, 8), "b": Coding(0.25, 0, 0, 255, 8), "y": Coding(1.0, 100, 0, 255, 8)}
    a, b = np.full((1, 2, 2, 1), 14), np.full((1, 2, 2, 1), 12)
    assert alone("Add", codings, ("a", "b"), a, b).ravel().tolist() == [105] * 4  # 2 + 3
    assert alone("Maximum", codings, ("a", "b"), a, b).ravel().tolist() == [103] * 4
    assert alone("Concat", codings, ("a", "b"), a, b)[0, 0, 0].tolist() == [102, 103]
    x = np.arange(16).reshape(1, 4, 4, 1)
    assert alone("Pool", codings, ("b",), x, function="max", kernel=2, stride=2).ravel().tolist() == [
        101,
        102,
        103,
        104,
    ]
    del codings["y"]
    assert alone("Maximum", codings, ("a", "b"), a, b).ravel().tolist() == [3.0] * 4, "in reals, to the last digit"
    assert alone("Activation", codings, ("a",), a - 8, function="relu").ravel().tolist() == [0.0] * 4
    codings["y"] = Coding(1.0, 100, 0, 255, 8)
    assert alone("FitChannels", codings, ("a",), a, features=1).ravel().tolist() == [102] * 4


@pytest.mark.parametrize(
    ("stride", "groups", "kind"), [(1, 1, "SAME"), (2, 2, "SAME"), (2, 1, "VALID"), (1, 8, "SAME")]
)
def test_convolution_is_that_of_xla(stride: int, groups: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.normal(0, 1, (2, 7, 8, 8)), rng.normal(0, 1, (8, 8 // groups, 3, 3))
    dimensions = ("NHWC", "OIHW", "NHWC")
    expected = lax.conv_general_dilated(
        jnp.asarray(x, jnp.float32),
        jnp.asarray(weight, jnp.float32),
        (stride, stride),
        kind,
        feature_group_count=groups,
        dimension_numbers=dimensions,
    )
    attributes = {"kernel": 3, "stride": stride, "groups": groups, "padding": kind.lower()}
    node = Node("Conv", "c", attributes, {"weight": weight[None]}, (INPUT,), ("y",))
    (found,) = computed(Graph((node,), "y", {"y": expected.shape}), node, (x,))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_clamps_are_done_by_the_codes_before_them() -> None:
    shapes = dict.fromkeys((INPUT, "a", "b", "c", "d"), (1, 2, 2, 1))
    relu = Node("Activation", "relu", {"function": "relu6"}, {}, ("a",), ("b",))
    nodes = (
        Node("Conv", "conv", {}, {}, (INPUT,), ("a",)),
        relu,
        Node("Pool", "pool", {"function": "max"}, {}, ("b",), ("c",)),
        Node("Conv", "logits", {}, {}, ("c",), ("d",)),
    )
    codings = {
        name: coding(low, high, 8) for name, low, high in ((INPUT, -1, 1), ("a", -9, 9), ("b", 0, 5), ("c", 0, 4))
    }
    graph, found = placed(Graph(nodes, "d", shapes), codings)
    assert [node.op for node in graph.nodes] == ["Conv", "Pool", "Conv"] and graph.nodes[1].inputs == ("a",)
    assert found["a"] == found["c"] == codings["c"], "rounding once, in the steps of what is needed"
    shared = (*nodes[:2], Node("Add", "add", {}, {}, ("a", "b"), ("c",)), nodes[3])
    graph, found = placed(Graph(shared, "d", shapes), codings | {"b": coding(-2, 9, 8)})
    assert graph.nodes[1].path == relu.path and found["a"] == codings["a"]
    assert found["b"].first == found["b"].zero_point > 0
    assert found["b"].values(np.asarray(found["b"].last)).item() == pytest.approx(6, abs=found["b"].step)


def test_a_network_is_its_fake_quantized_form_within_one_unit(untrained: Any) -> None:
    """Layer by layer on identical inputs, with attention, heads and residuals."""
    space = quickstart.space(input_hw=14)
    seen: set[str] = set()
    for seed, options in enumerate(({}, {"symmetric_acts": True}, {"weight_bits": 4, "act_bits": 5}, {"act_bits": 16})):
        model = untrained(space.freeze(space.sample(jax.random.key(seed))), seed)
        images = np.random.default_rng(seed).integers(0, 256, (12, 14, 14, 1), np.uint8)
        differences = layer_differences(quantize(model, images, **options), images)
        assert max(difference.units for difference in differences) <= 1
        assert np.mean([difference.share for difference in differences]) < 5e-3, "ties alone"
        seen |= {difference.op for difference in differences}
    assert {"Conv", "Depthwise", "Pointwise", "Linear", "Add", "GlobalPool", "Scale", "ChannelConv"} <= seen


def test_a_wrong_layer_is_seen(untrained: Any) -> None:
    space = quickstart.space(input_hw=14)
    model = untrained(space.freeze(space.sample(jax.random.key(0))))
    images = np.random.default_rng(0).integers(0, 256, (4, 14, 14, 1), np.uint8)
    network = quantize(model, images)

    class Wrong(IntegerNetwork):
        def layer(self, node: Node, inputs: Any) -> Any:
            return tuple(np.asarray(y) + 2 for y in super().layer(node, inputs))

    assert min(difference.units for difference in layer_differences(Wrong(*network), images)) >= 1.5


def test_every_leaf_layer_has_a_form() -> None:
    from nas.exporters._emit import EMIT

    assert {*FORMS, *MULTIPLYING, "Norm"} == set(EMIT), "see nas/quantized/_forms.py"
