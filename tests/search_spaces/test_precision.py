"""Bits as options, genes and prices of every space."""

import dataclasses

import jax
import numpy as np
import pytest

from hw_models import discover, load_device
from hw_models.errors import InputError
from hw_models.workload import Dtype, Op
from nas.cost_table import cost_table
from nas.variants import Variants
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.choice import Choice
from search_spaces.encoding import space_from_json
from search_spaces.precision import MIXED, Scheme, made, parse_bits, with_bits, without_bits
from search_spaces.published import factory
from search_spaces.spaces import fbnet, quickstart, resnet, tiny

SPACES = [name for name in discover.names("search_spaces.spaces") if name not in ("mobilenet_v3", "mnasnet")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", None),
        (8, (8, 8)),
        ("8", (8, 8)),
        ("4/8", (Choice(4, 8), Choice(4, 8))),
        ("w4a8", (4, 8)),
        ("w2/4a8/16", (Choice(2, 4), Choice(8, 16))),
        ("mixed", (Choice(*MIXED), Choice(*MIXED))),
        ("w32a8", (32, 8)),
    ],
)
def test_bits_are_read(text, expected):
    assert parse_bits(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("17", "bits=17 is not allowed: give 1 to 16, or 32 for float32 (nearest: 16)"),
        ("0", "(nearest: 1)"),
        ("w4", "bits=w4 is not allowed: give none, mixed"),
        ("4/", "bits=4/ is not allowed"),
        ("int8", "bits=int8 is not allowed"),
    ],
)
def test_other_bits_are_refused(text, words):
    with pytest.raises(InputError) as error:
        parse_bits(text)
    assert words in str(error.value)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_takes_bits_and_is_the_same_without(name):
    function = discover.load("search_spaces.spaces", name, "space")
    plain, mixed = function(), function(bits="w2/8a4/8")
    assert function(bits="none") == plain and plain.scheme is None
    assert function(bits="none").fingerprint == plain.fingerprint != mixed.fingerprint
    added = [decision for decision in mixed.decisions if decision.name.endswith("_bits")]
    assert mixed.num_decisions == plain.num_decisions + len(added)
    assert {decision.values for decision in added} == {(2, 8), (4, 8)}
    assert not any(decision.name.startswith(("stem", "head")) for decision in added)
    genes = np.asarray(mixed.sample(jax.random.key(0)))
    frozen = mixed.freeze(genes)
    assert {layer.weight_bits for layer in frozen.lower()} <= {2, 8}
    assert frozen.params == without_bits(frozen).params and frozen.macs == without_bits(frozen).macs


def test_a_space_with_bits_survives_json_and_its_text_names_it_again():
    space = resnet.space(32, 3, 10, bits="w2/4a8", weight_quantizer="dorefa", granularity="tensor")
    assert space_from_json(space.to_json()) == space
    assert space.scheme == Scheme("dorefa", "affine", "tensor")
    genes = space.sample(jax.random.key(1))
    assert space.text(genes).startswith("resnet[bits=w2/4a8,classes=10,granularity=tensor,input_hw=32,")
    assert (space.parse(space.text(genes)) == np.asarray(genes)).all()
    frozen = space.freeze(genes)
    assert space_from_json(frozen.to_json()) == frozen


def test_bits_stand_in_the_layers_of_a_network():
    space = tiny.space(bits="w4a6", first_last_bits=None)
    layers = space.freeze([0] * space.num_decisions).lower()
    assert {(layer.weight_bits, layer.act_bits, layer.weight_dtype) for layer in layers} == {(4, 6, Dtype.INT)}
    exact = tiny.space(bits="w32a8").freeze([0] * tiny.space(bits="w32a8").num_decisions).lower()
    inner = [layer for layer in exact if layer.op == Op.DEPTHWISE]
    assert all(layer.weight_dtype == Dtype.FLOAT32 and layer.act_dtype == Dtype.INT for layer in inner)


def test_the_first_and_the_last_layer_are_pinned_as_asked():
    for pinned, expected in ((8, 8), (4, 4), (None, 2)):
        space = tiny.space(bits="2", first_last_bits=pinned)
        layers = space.freeze([0] * space.num_decisions).lower()
        assert layers[0].weight_bits == layers[-1].weight_bits == expected


def test_published_networks_take_bits():
    plain, rounded = factory("mobilenet_v3_small")(), factory("mobilenet_v3_small")(bits="w4a8")
    assert rounded.frozen and rounded.params == plain.params
    assert {layer.weight_bits for layer in rounded.lower()} == {4, 8}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_quantizer": "dorefa"}, "weight_quantizer=dorefa rounds nothing without bits: give bits as well"),
        ({"bits": "8", "weight_quantizer": "dorefaa"}, "did you mean 'dorefa'?"),
        ({"bits": "8", "weight_quantizer": "pact"}, "quantizer pact does not round weights"),
        ({"bits": "8", "act_quantizer": "ttq"}, "quantizer ttq does not round activations"),
        ({"bits": "8", "granularity": "row"}, "unknown granularity 'row'"),
        ({"bits": "w1a8"}, "bits: bits=1 are not known to quantizer symmetric: give 2 to 16, or 32"),
        ({"bits": "w1a8", "weight_quantizer": "bnn"}, "first_last_bits: bits=8 are not known to quantizer bnn"),
        ({"bits": "8", "weight_quantizer": "nary[u=1]"}, "unknown option of quantizer nary 'u'"),
        ({"bits": "8", "weight_quantizer": "nary[t=a]"}, "nary.t=a is not allowed: give a number"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(InputError) as error:
        tiny.space(**options)
    assert words in str(error.value)


def test_options_of_quantizers_are_read():
    assert made("fixed_clip[gamma=2.0]").gamma == 2.0 and made("dorefa").BITS == (1, 16)


@pytest.mark.parametrize("bits", [24, 0, True, 2.0])
def test_blocks_refuse_other_bits(bits):
    with pytest.raises(InputError, match="weight_bits"):
        ConvNorm(weight_bits=bits)


def test_variants_with_bits_are_priced_as_the_frozen_network_is():
    space = quickstart.space(bits="w2/8a4/8")
    table, device = cost_table(space, load_device("zcu104_dataflow")), load_device("zcu104_dataflow")
    for seed in range(3):
        genes = space.sample(jax.random.key(seed))
        frozen = space.freeze(genes)
        alone = cost_table(frozen, device).exact(np.zeros(0, np.int32))
        found = table.exact(genes)
        for name in ("latency_s", "weight_bytes", "peak_memory_bytes", "energy_j", "macs"):
            assert float(getattr(found, name)) == pytest.approx(float(getattr(alone, name)), rel=1e-5), name


def test_variants_know_their_blocks_and_layers():
    space = tiny.space(bits="w4/8a8")
    variants = Variants(space)
    work = variants.workload()
    for number, row in enumerate(variants.rows):
        assert (row.block is None) == (row.form is None)
        bits = [layer.weight_bits for layer in row.layers]
        assert np.asarray(work.weight_bits)[number, : len(bits)].tolist() == bits
        if row.block is not None:
            assert row.block.layers(row.io) == row.layers


def test_fewer_bits_never_take_more_bytes():
    space = fbnet.space(32, 3, 10, bits="w2/3/4/6/8/16/32a8")
    table = cost_table(space, load_device("raspberry_pi_4"))
    positions = [place for place, name in enumerate(space.names) if name.endswith("weight_bits")]
    genes = np.array(space.sample(jax.random.key(0)))
    sizes = []
    for value in range(7):
        genes[positions] = value
        sizes.append(float(table.exact(genes).weight_bytes))
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("device", "bits", "words"),
    [
        ("zcu102", "mixed", "16 and 32 bits of weights do not run on zcu102 (int8): give 2/3/4/6/8"),
        ("zcu104_dataflow", "w8a8/32", "32 bits of activations do not run on zcu104_dataflow"),
        ("zcu102", "w16a16", "16 bits of weights do not run on zcu102 (int8): give fewer bits"),
    ],
)
def test_bits_that_a_device_cannot_run_are_refused(device, bits, words):
    with pytest.raises(InputError) as error:
        cost_table(tiny.space(bits=bits), load_device(device))
    assert words in str(error.value)


def test_bits_can_be_searched_in_a_space_of_ones_own():
    stage = dataclasses.replace(tiny.space().stages[0], block=ConvNorm(weight_bits=Choice(4, 8), act_bits=8))
    space = dataclasses.replace(tiny.space(), stages=(stage,))
    assert space.names == ("stages/0/0/weight_bits",)
    assert with_bits(space, "none") == space


def test_32_bits_are_no_default_precision():
    from experiments.pricing import prepare

    with pytest.raises(InputError, match="32 bits of weights do not run on zcu104_dataflow"):
        prepare("mobilenet_v2[bits=w32a4]", "zcu104_dataflow")
    assert prepare("mobilenet_v2", "zcu104_dataflow").precision == "int4"
