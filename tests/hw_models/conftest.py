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


def _layer(op: Op, hw: tuple[int, int], c_in: int, c_out: int, kernel: tuple[int, int], stride: int = 1) -> Layer:
    out = [-(-size // stride) for size in hw]
    groups = c_in if op is Op.DEPTHWISE else 1
    return Layer(op, *hw, *out, c_in, c_out, *kernel, stride, groups, norm=1)


def mlperf_tiny() -> dict[str, list[Layer]]:
    """The four networks of MLPerf Tiny (Banbury et al. 2021, arXiv 2106.07597), from mlcommons/tiny (Apache-2.0).

    Image classification (ResNet-8, 12.5 M MACs), keyword spotting (DS-CNN, 2.66 M), visual wake words (MobileNetV1 at
    a quarter of its width, 7.49 M), anomaly detection (dense autoencoder, 0.264 M).
    """
    resnet, hw, channels = [_layer(Op.CONV, (32, 32), 3, 16, (3, 3))], 32, 16
    for c_out, stride in ((16, 1), (32, 2), (64, 2)):
        out = hw // stride
        shortcut = _layer(Op.CONV, (hw, hw), channels, c_out, (1, 1), 2)._replace(held_elements=out * out * c_out)
        resnet += [
            _layer(Op.CONV, (hw, hw), channels, c_out, (3, 3), stride)._replace(held_elements=hw * hw * channels),
            _layer(Op.CONV, (out, out), c_out, c_out, (3, 3))._replace(held_elements=hw * hw * channels),
            *[shortcut] * (stride == 2),
            Layer(Op.ADD, out, out, out, out, c_out, c_out),
        ]
        hw, channels = out, c_out
    resnet += [Layer(Op.GLOBAL_POOL, 8, 8, 1, 1, 64, 64), Layer(Op.LINEAR, 1, 1, 1, 1, 64, 10, bias=1)]

    keywords = [_layer(Op.CONV, (49, 10), 1, 64, (10, 4), 2)]
    for _ in range(4):
        keywords += [_layer(Op.DEPTHWISE, (25, 5), 64, 64, (3, 3)), _layer(Op.CONV, (25, 5), 64, 64, (1, 1))]
    keywords += [Layer(Op.GLOBAL_POOL, 25, 5, 1, 1, 64, 64), Layer(Op.LINEAR, 1, 1, 1, 1, 64, 12, bias=1)]

    wake, hw, channels = [_layer(Op.CONV, (96, 96), 3, 8, (3, 3), 2)], 48, 8
    steps = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
    for c_out, stride in steps:
        wake.append(_layer(Op.DEPTHWISE, (hw, hw), channels, channels, (3, 3), stride))
        hw //= stride
        wake.append(_layer(Op.CONV, (hw, hw), channels, c_out, (1, 1)))
        channels = c_out
    wake += [Layer(Op.GLOBAL_POOL, 3, 3, 1, 1, 256, 256), Layer(Op.LINEAR, 1, 1, 1, 1, 256, 2, bias=1)]

    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    anomaly = [_layer(Op.LINEAR, (1, 1), i, o, (1, 1)) for i, o in zip(widths, widths[1:], strict=False)]
    return {"ic": resnet, "kws": keywords, "vww": wake, "ad": anomaly}


def finn_networks() -> dict[str, list[Layer]]:
    """Networks of FINN's examples: the VGG-like CNV for CIFAR-10 (57.9 M MACs) and the keyword perceptron."""

    def conv(hw: int, c_in: int, c_out: int) -> Layer:
        return Layer(Op.CONV, hw, hw, hw - 2, hw - 2, c_in, c_out, 3, 3, norm=1)

    def pool(hw: int, channels: int) -> Layer:
        return Layer(Op.POOL, hw, hw, hw // 2, hw // 2, channels, channels, 2, 2, 2)

    cnv = [conv(32, 3, 64), conv(30, 64, 64), pool(28, 64), conv(14, 64, 128), conv(12, 128, 128), pool(10, 128)]
    cnv += [conv(5, 128, 256), conv(3, 256, 256)]
    cnv += [_layer(Op.LINEAR, (1, 1), i, o, (1, 1)) for i, o in ((256, 512), (512, 512), (512, 10))]
    words = [_layer(Op.LINEAR, (1, 1), i, o, (1, 1)) for i, o in ((490, 256), (256, 256), (256, 256), (256, 12))]
    return {"cnv": cnv, "kws_mlp": words}


@pytest.fixture(scope="session")
def tiny_networks() -> dict[str, list[Layer]]:
    """Networks of MLPerf Tiny and of FINN as plain layers, in float32."""
    return mlperf_tiny() | finn_networks()


@pytest.fixture(scope="session")
def networks() -> dict[str, Workload]:
    """Published networks as workloads of one length, so that tests share compilations."""
    layers = {"mobilenet_v3_small": mobilenet_v3_small(), "mobilenet_v2": mobilenet_v2()}
    return {name: Workload.of(rows, 512) for name, rows in layers.items()}


@pytest.fixture(scope="session")
def network_layers() -> dict[str, list[Layer]]:
    """The same networks as plain layers."""
    return {"mobilenet_v3_small": mobilenet_v3_small(), "mobilenet_v2": mobilenet_v2()}
