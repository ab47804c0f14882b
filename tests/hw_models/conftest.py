"""Published networks written out as layers by hand: an oracle that shares no code with the search spaces."""

from __future__ import annotations

import pytest

from hw_models.workload import Layer, Op, Workload

# Howard et al. 2019, arXiv 1905.02244, table 2: kernel, expanded channels, output channels, squeeze-excite, stride.
V3_SMALL = (
    (3, 16, 16, 1, 2),
    (3, 72, 24, 0, 2),
    (3, 88, 24, 0, 1),
    (5, 96, 40, 1, 2),
    (5, 240, 40, 1, 1),
    (5, 240, 40, 1, 1),
    (5, 120, 48, 1, 1),
    (5, 144, 48, 1, 1),
    (5, 288, 96, 1, 2),
    (5, 576, 96, 1, 1),
    (5, 576, 96, 1, 1),
)
# Sandler et al. 2018, arXiv 1801.04381, table 2: expansion, output channels, repeats, stride of the first.
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _conv(hw: int, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> Layer:
    out = -(-hw // stride)
    return Layer(Op.CONV, hw, hw, out, out, c_in, c_out, kernel, kernel, stride, norm=1)


def _bottleneck(hw: int, c_in: int, hidden: int, c_out: int, kernel: int, stride: int, se: int) -> list[Layer]:
    out = -(-hw // stride)
    residual = stride == 1 and c_in == c_out
    held = hw * hw * c_in if residual else 0
    rows = [] if hidden == c_in else [_conv(hw, c_in, hidden)]
    rows.append(Layer(Op.DEPTHWISE, hw, hw, out, out, hidden, hidden, kernel, kernel, stride, hidden, norm=1))
    if se:
        squeezed = _divisible(hidden / 4)
        rows += [
            Layer(Op.GLOBAL_POOL, out, out, 1, 1, hidden, hidden),
            Layer(Op.LINEAR, 1, 1, 1, 1, hidden, squeezed, bias=1),
            Layer(Op.LINEAR, 1, 1, 1, 1, squeezed, hidden, bias=1),
            Layer(Op.SCALE, out, out, out, out, hidden, hidden),
        ]
    rows.append(_conv(out, hidden, c_out))
    rows = [row._replace(held_elements=held) for row in rows]
    return rows + [Layer(Op.ADD, out, out, out, out, c_out, c_out)] * residual


def mobilenet_v3_small() -> list[Layer]:
    """Layers at 224x224, width 1.0, 1000 classes: 56.5 M MACs, 2.54 M parameters."""
    hw, channels, rows = 112, 16, [_conv(224, 3, 16, 3, 2)]
    for kernel, hidden, c_out, se, stride in V3_SMALL:
        rows += _bottleneck(hw, channels, hidden, c_out, kernel, stride, se)
        hw, channels = -(-hw // stride), c_out
    rows += [_conv(7, 96, 576), Layer(Op.GLOBAL_POOL, 7, 7, 1, 1, 576, 576)]
    return rows + [Layer(Op.LINEAR, 1, 1, 1, 1, i, o, bias=1) for i, o in ((576, 1024), (1024, 1000))]


def mobilenet_v2() -> list[Layer]:
    """Layers at 224x224, width 1.0, 1000 classes: 300.8 M MACs, 3.50 M parameters."""
    hw, channels, rows = 112, 32, [_conv(224, 3, 32, 3, 2)]
    for expand, c_out, repeats, first in V2:
        for i in range(repeats):
            stride = first if i == 0 else 1
            rows += _bottleneck(hw, channels, channels * expand, c_out, 3, stride, 0)
            hw, channels = -(-hw // stride), c_out
    rows += [_conv(7, 320, 1280), Layer(Op.GLOBAL_POOL, 7, 7, 1, 1, 1280, 1280)]
    return [*rows, Layer(Op.LINEAR, 1, 1, 1, 1, 1280, 1000, bias=1)]


@pytest.fixture(scope="session")
def networks() -> dict[str, Workload]:
    """Published networks as workloads of one length, so that tests share compilations."""
    layers = {"mobilenet_v3_small": mobilenet_v3_small(), "mobilenet_v2": mobilenet_v2()}
    return {name: Workload.of(rows, 80) for name, rows in layers.items()}


@pytest.fixture(scope="session")
def network_layers() -> dict[str, list[Layer]]:
    """The same networks as plain layers."""
    return {"mobilenet_v3_small": mobilenet_v3_small(), "mobilenet_v2": mobilenet_v2()}
