"""Counts of published networks are exact, as Python integers and as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models import InputError, Layer, Op, Workload
from hw_models.workload import MULTIPLYING, Dtype, concatenate

# Parameters as in the papers' reference implementations; MACs at 224x224.
PUBLISHED = {"mobilenet_v3_small": (56_510_400, 2_542_856), "mobilenet_v2": (300_774_272, 3_504_872)}


@pytest.mark.parametrize("network", PUBLISHED)
def test_published_networks(network: str, network_layers: dict[str, list[Layer]]) -> None:
    rows = network_layers[network]
    assert (sum(row.macs for row in rows), sum(row.params for row in rows)) == PUBLISHED[network]
    work = Workload.of(rows, len(rows) + 3)
    assert np.asarray(work.macs, np.int64).sum() == PUBLISHED[network][0]
    assert np.asarray(work.params, np.int64).sum() == PUBLISHED[network][1]


@pytest.mark.parametrize(
    ("layer", "macs", "params"),
    [
        (Layer(Op.CONV, 8, 8, 4, 4, 3, 16, 3, 3, 2, norm=1), 27 * 16 * 16, 27 * 16 + 32),
        (Layer(Op.CONV, 8, 8, 8, 8, 16, 32, 3, 3, groups=4), 9 * 4 * 32 * 64, 9 * 4 * 32),
        (Layer(Op.DEPTHWISE, 8, 8, 8, 8, 16, 16, 5, 5, groups=16, norm=1), 25 * 16 * 64, 25 * 16 + 32),
        (Layer(Op.DEPTHWISE, 8, 8, 8, 8, 16, 48, 3, 3, groups=16), 9 * 48 * 64, 9 * 48),
        (Layer(Op.LINEAR, 1, 1, 1, 1, 64, 10, bias=1), 640, 650),
        (Layer(Op.CHANNEL_CONV, 64, 1, 64, 1, 1, 1, 3), 192, 3),
        (Layer(Op.POOL, 8, 8, 4, 4, 16, 16, 2, 2, 2), 0, 0),
        (Layer(Op.ADD, 8, 8, 8, 8, 16, 16), 0, 0),
    ],
)
def test_counts_by_hand(layer: Layer, macs: int, params: int) -> None:
    assert (layer.macs, layer.params) == (macs, params)
    work = Workload.of([layer])
    assert (int(work.macs[0]), int(work.params[0])) == (macs, params)
    assert int(work.multiplies[0]) == (layer.op in MULTIPLYING)


def test_elements() -> None:
    work = Workload.of([Layer(Op.ADD, 8, 8, 8, 8, 16, 16), Layer(Op.CONV, 8, 8, 4, 4, 3, 16, 3, 3, 2, norm=1)], 3)
    assert work.input_elements.tolist() == [2048, 192, 0]
    assert work.output_elements.tolist() == [1024, 256, 0]
    assert work.bias_elements.tolist() == [0, 16, 0]


def test_too_many_layers_is_an_input_error() -> None:
    with pytest.raises(InputError, match="2 layers do not fit a workload of length 1"):
        Workload.of([Layer(Op.ADD, 1, 1, 1, 1, 1, 1)] * 2, 1)


def test_with_precision_and_concatenate() -> None:
    work = Workload.of([Layer(Op.ADD, 1, 1, 1, 1, 1, 1)], 2).with_precision(Dtype.INT, 4, Dtype.INT, 8)
    both = concatenate([work, work])
    assert both.weight_bits.tolist() == [4] * 4
    assert both.act_bits.tolist() == [8] * 4
    assert both.count.tolist() == [1, 0, 1, 0]
