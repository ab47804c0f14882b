"""Published networks against published counts, from two independent sides."""

import pytest

from hw_models.discover import names as files
from hw_models.errors import InputError
from search_spaces import published
from search_spaces.blocks.classifier import Classifier
from search_spaces.counting import count
from search_spaces.spaces import fbnet, flynet, mobilenet_v2, proxylessnas

# Parameters and multiply-accumulates of convolutions and linear layers, normalisation included, as the networks'
# own implementations have them (torchvision and timm; the CIFAR networks by counting layers; FBNet and ProxylessNAS by
# their authors' definitions). At 224 pixels, 240 for EfficientNet-B1, 32 for CIFAR.
EXACT = {
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "mnasnet_a1": (3_887_038, 311_579_072),
    "mnasnet_b1": (4_383_312, 314_415_872),
    "efficientnet_b1": (7_794_184, 686_802_832),
    "shufflenet_v2_1.5x": (3_503_624, 295_759_392),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet56": (853_018, 125_485_696),
    "wrn_28_10": (36_479_194, 5_243_328_768),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet264": (33_337_704, 5_751_653_376),
    "densenet40_k12": (1_019_722, 264_812_928),
    "densenet100_k12": (6_979_642, 1_769_516_448),
    "squeezenet_1.0": (1_248_424, 818_924_576),
    "vgg16": (138_357_544, 15_470_264_320),
    "inception_v1": (6_998_552, 1_582_671_872),
    "fbnet_a": (4_321_464, 249_921_848),
    "fbnet_b": (4_813_048, 296_614_728),
    "fbnet_c": (5_572_200, 384_960_160),
    "proxylessnas_mobile": (4_080_512, 320_427_584),
    "proxylessnas_cpu": (4_361_648, 439_243_864),
    "proxylessnas_gpu": (7_119_848, 465_260_160),
}
# How far a paper's own, rounded number may be from the exact one.
ROUNDED = {"fbnet_b": 0.07, "inception_v1": 0.06, "squeezenet_1.0": 0.001}


FAST = (  # one of each family; the others, and those of a hundred layers, are slow together
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mnasnet_a1",
    "efficientnet_b1",
    "shufflenet_v2_1.5x",
    "resnet18",
    "resnet56",
    "densenet40_k12",
    "squeezenet_1.0",
    "vgg16",
    "inception_v1",
    "fbnet_a",
    "proxylessnas_cpu",
    "flynet_h3_0.5x",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in published.names()]
)
def test_both_sides_count_the_same(name):
    network = published.factory(name)()
    assert network.name == name
    assert tuple(count(network)) == (network.params, network.macs)
    if name in EXACT:
        assert (network.params, network.macs) == EXACT[name]
    entry = published.table()[name]
    assert entry.source
    if not name.startswith("flynet"):
        tolerance = ROUNDED.get(name, 0.05)
        assert entry.params is None or network.params == pytest.approx(entry.params, rel=tolerance)
        assert entry.macs is None or network.macs == pytest.approx(entry.macs, rel=tolerance)


def test_every_network_is_held_to_exact_counts_or_to_its_paper():
    assert {name for name in published.names() if name not in EXACT} == {
        "resnet44",
        *(f"flynet_h3_{width}x" for width in ("0.4", "0.5", "0.6", "0.7", "0.8", "1.0")),
        *(f"flynet_h{heads}_0.5x" for heads in range(1, 6)),
    }


@pytest.mark.parametrize("name", [name for name in published.names() if name.startswith("flynet")])
def test_flynet_has_the_parameters_of_the_thesis(name):
    network, entry = published.factory(name)(), published.table()[name]
    if entry.params is None:
        assert network.params == pytest.approx(2.199e6, rel=0.01)
        return
    assert network.params == pytest.approx(entry.params, rel=0.10 if name.endswith("0.6x") else 0.035)
    assert 1.1 < entry.macs / network.macs < 1.35  # the thesis counts more than multiply-accumulates


def test_every_further_head_costs_what_the_thesis_says():
    params = [published.factory(f"flynet_h{heads}_0.5x")().params for heads in range(1, 6)]
    steps = [b - a for a, b in zip(params, params[1:], strict=False)]
    assert all(step == pytest.approx(0.03e6, rel=0.05) for step in steps)


def test_resnet44_has_the_weights_of_the_dissertation():
    """Its 655,418 leave normalisation out: two parameters for each of the channels of 43 convolutions."""
    network = published.factory("resnet44")()
    normalised = sum(2 * layer.out_channels for layer in network.lower() if layer.norm)
    assert network.params - normalised == published.table()["resnet44"].params == 655_418


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("mobilenet_v2", mobilenet_v2.space()),
        ("flynet_h3_0.5x", flynet.space()),
        ("flynet_h5_0.5x", flynet.space()),
        ("flynet_h3_0.8x", flynet.space(width=0.8)),
        ("fbnet_c", fbnet.space()),
        ("fbnet_a", fbnet.space(features=1504)),
        ("proxylessnas_mobile", proxylessnas.space(widths=(32, 16, 32, 40, 80, 96, 192, 320, 1280))),
    ],
)
def test_a_reference_is_a_pruning_of_its_space(name, space):
    """Its blocks and widths, at every position, are among those that the space can choose."""
    network = published.factory(name)()
    positions = {slot.name: slot for slot in space.slots}
    for slot in network.slots:
        choice = positions[slot.name]
        assert slot.out.values[0] in choice.out.values and slot.stride == choice.stride
        assert any(_prunes(slot.cases[0].block, case.block) for case in choice.cases), slot.name


def _prunes(block, whole):
    """Whether `block` is `whole` with a value for every choice."""
    chosen = {name: getattr(block, name, None) for name in whole.searched()}
    return type(block) is type(whole) and whole.with_values(**chosen) == block and all(
        value in whole.searched()[name].values for name, value in chosen.items()
    )  # fmt: skip


def test_names_and_files():
    assert set(files("search_spaces.references")) >= {"flynet", "mobilenet", "resnet"}
    with pytest.raises(InputError, match="did you mean 'mobilenet_v1'"):
        published.factory("mobilenetv1")
    with pytest.raises(InputError, match="only the paper's numbers are known"):
        published.factory("micronet_m1")
    assert "micronet_m1" not in published.names() and "micronet_m1" in published.names(built=False)


def test_only_the_large_flynet_trains_with_quantization_noise():
    """Below 1.6 million parameters the regulariser does harm (section 8.6)."""
    levels = {w: published.factory(f"flynet_h3_{w}x")().head for w in ("0.5", "0.8", "1.0")}
    assert [head.quantization_levels for head in levels.values()] == [0, 0, 8]
    assert isinstance(levels["1.0"], Classifier)
