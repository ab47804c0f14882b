"""The spaces against what their papers and benchmarks say of them."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.choice import Choice
from search_spaces.counting import count
from search_spaces.slots import MAX_BRANCHES
from search_spaces.spaces import fbnet, flynet, macro, mnasnet, mobilenet_v3, proxylessnas, resnet
from search_spaces.spaces._layout import strides

GOLDEN = Path(__file__).parents[1] / "golden"
SPACES = discover.names("search_spaces.spaces")
# Products of what can be chosen, by hand.
SIZES = {
    "fbnet": 9**22,
    "macro": 6_561,
    "mnasnet": 36**6 * 48,
    "mobilenet_v3": 4 * (3 * 9**4) ** 5,
    "proxylessnas": 6**6 * 7**15,
    "tiny": 144,
}


def rows(name):
    with (GOLDEN / name).open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def made(name, **options):
    return discover.load("search_spaces.spaces", name, "space")(**options)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_exact(name):
    assert made(name).size == SIZES[name]
    assert isinstance(made(name).size, int)


@pytest.mark.parametrize("name", SPACES)
def test_a_network_of_every_space_counts_the_same_on_both_sides(name):
    space = made(name)
    network = space.freeze(np.asarray(space.sample(jax.random.key(0))))
    assert tuple(count(network)) == (network.params, network.macs)
    assert all(slot.branch_count <= MAX_BRANCHES for slot in space.slots)


def test_shared_weights_are_those_of_the_same_networks():
    """One block with a kernel and an expansion, where the published space has six blocks."""
    apart, shared = (proxylessnas.space(32, 3, 10, 0.5, shared_weights=value) for value in (False, True))
    rng = np.random.default_rng(0)
    genes = np.zeros(shared.num_decisions, int)
    blocks = np.asarray([rng.integers(0, count) for count in apart.cardinality])
    for name, block in zip(apart.names, blocks, strict=True):
        kernel, expand = block % 3, block // 3 % 2
        for place, found in enumerate(shared.names):
            if found.startswith(name.removesuffix("/block") + "/"):
                value = {"kernel": kernel, "expand": expand, "block": block // 6}[found.rpartition("/")[2]]
                genes[place] = value
    one, other = apart.freeze(blocks), shared.freeze(genes)
    assert (one.params, one.macs) == (other.params, other.macs)


@pytest.mark.parametrize("name", SPACES)
def test_one_network_and_populations_have_the_same_canonical_genes(name):
    space = made(name)
    genes = np.random.default_rng(0).integers(0, space.cardinality, (50, space.num_decisions), np.int32)
    population = np.asarray(jax.jit(jax.vmap(space.canonical))(genes))
    single = np.asarray([space.check(row) for row in genes])
    assert single.dtype == population.dtype and single.tolist() == population.tolist()


@pytest.mark.parametrize("size", [8, 17, 28, 32, 64, 96, 224])
@pytest.mark.parametrize("name", SPACES)
def test_every_space_takes_images_of_any_size_channels_and_classes(name, size):
    space = made(name, input_hw=size, input_channels=2, classes=7)
    layers = space.freeze(np.zeros(space.num_decisions, np.int32)).lower()
    assert layers[-1].out_channels == 7 and layers[0].in_channels == 2
    assert space.slots[-1].in_h >= 4


def test_small_images_have_the_published_strides_of_cifar_versions():
    assert strides((2, 1, 2, 2, 2, 1, 2, 1), 32) == (1, 1, 1, 2, 2, 1, 2, 1)
    assert strides((2, 1, 2, 2, 2, 1, 2, 1), 224) == (2, 1, 2, 2, 2, 1, 2, 1)
    assert [slot.in_h for slot in made("fbnet", input_hw=32).slots][1:23:4] == [32, 32, 16, 8, 8, 4]


@pytest.mark.parametrize("row", rows("nas_bench_macro.csv"), ids=lambda row: row["arch"])
def test_macro_networks_have_the_counts_of_the_benchmark(row):
    network = macro.space().freeze([int(digit) for digit in row["arch"]])
    assert (network.params, network.macs) == (int(row["params"]), int(row["flops"]))


def test_mnasnet_reads_and_writes_accel_nasbench():
    space = mnasnet.space()
    for row in rows("accel_nasbench.csv"):
        genes = mnasnet.read(space, row)
        assert all(int(row[column]) == value for column, value in mnasnet.write(space, genes).items())
        network = space.freeze(genes)
        assert network.params / 1e6 == pytest.approx(float(row["params_m"]), abs=6e-6)
        assert 1.0 < float(row["macs_m"]) * 1e6 / network.macs < 1.2  # the benchmark counts other operations too


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"b0_e": "3"}, "column b0_e is 3: the space has 1, 4, 6"),
        ({"b5_l": "many"}, "column b5_l is 'many': give a whole number"),
        ({"b6_se": None}, "b6_se"),
    ],
)
def test_rows_that_are_no_network_are_named(change, said):
    row = {**rows("accel_nasbench.csv")[0], **change}
    row = {name: value for name, value in row.items() if value is not None}
    with pytest.raises(InputError, match=said):
        mnasnet.read(mnasnet.space(), row)


def test_fbnet_refuses_a_block_that_is_none_of_the_nine():
    with pytest.raises(InputError, match="unknown block of fbnet 'k7_e6'"):
        fbnet.published(fbnet.space(), "own", ["k7_e6"] * 22)


def test_once_for_all_networks_are_points_of_mobilenet_v3():
    """The 389M network that its authors specialised (once-for-all, README; counts by its own blocks)."""
    space = mobilenet_v3.space(width=1.2, resolutions=1)
    largest = space.freeze(np.asarray(space.cardinality) - 1)
    assert [slot.out.values[0] for slot in largest.slots[:-1]][::4] == [24, 32, 48, 96, 136, 192]
    hidden = [layer.out_channels for layer in largest.lower() if layer.op.name == "DEPTHWISE"]
    assert hidden[1] == 144 and hidden[-1] == 1152


def test_resolution_is_a_gene_of_mobilenet_v3():
    space = mobilenet_v3.space()
    assert space.names[-1] == "input_hw" and space.image_hw == 224
    genes = np.zeros(space.num_decisions, np.int32)
    assert [space.freeze([*genes[:-1], gene]).input_hw for gene in range(4)] == [128, 160, 192, 224]
    small, large = (space.freeze([*genes[:-1], gene]) for gene in (0, 3))
    assert small.params == large.params and small.macs < large.macs
    assert mobilenet_v3.space(28).input_hw == Choice(16, 20, 24, 28)


def test_residual_additions_can_be_refused():
    everything, without = resnet.space(), resnet.space(residual_additions=False)
    assert any(case.name == "residual" for slot in everything.slots for case in slot.cases)
    for seed in range(3):
        network = without.freeze(np.asarray(without.sample(jax.random.key(seed))))
        assert all(layer.op.name != "ADD" for layer in network.lower())


def test_flynet_inside_a_stage_chooses_identity_or_nothing():
    space = flynet.space()
    residuals = {d.name: d.values for d in space.decisions if d.name.endswith("residual")}
    assert residuals["stages/4/1/residual"] == ("none", "default")
    assert residuals["stages/4/0/residual"] == ("none", "depthwise_pointwise", "light")
    assert residuals["stages/3/0/residual"] == ("none", "default", "depthwise_pointwise", "light")
    assert isinstance(space.stem.block, ConvNorm) and space.head.features == 288 and space.head.hidden == 512
