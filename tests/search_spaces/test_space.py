"""Spaces as trees and as genes."""

import dataclasses
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from hw_models.errors import InputError
from search_spaces import encoding
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inception import Inception
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.blocks.residual import Residual
from search_spaces.blocks.shufflenet_v2 import ShuffleNetV2
from search_spaces.blocks.skip import Skip
from search_spaces.choice import Choice
from search_spaces.encoding import space_from_json
from search_spaces.space import SearchSpace, Stage
from search_spaces.texts import resolve
from search_spaces.widths import ConstantRatio

SPACES = discover.names("search_spaces.spaces")


def made(name, **options):
    return discover.load("search_spaces.spaces", name, "space")(**options)


def small(*stages, hw=8):
    return SearchSpace("small", hw, 1, 4, Stage(ConvNorm(3), 8), stages, Classifier())


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_canonical_legal_and_cover_every_value(name):
    space = made(name)

    @jax.jit
    @jax.vmap
    def drawn(key):
        genes = space.sample(key)
        return genes, space.canonical(genes)

    genes, canonical = map(np.asarray, drawn(jax.random.split(jax.random.key(0), 4000)))
    assert genes.dtype == np.int32 and genes.shape == (4000, space.num_decisions)
    assert (genes >= 0).all() and (genes < space.cardinality).all()
    assert (canonical == genes).all()
    assert (genes.max(0) == space.cardinality - 1).all()
    assert space.size == int(np.prod([int(n) for n in space.cardinality], dtype=object))


# one with a depth, one with everything, one whose layers may change places, one whose stages decide for their layers
@pytest.mark.parametrize("name", ["tiny", "quickstart", "macro", "mnasnet"])
def test_mutation_changes_a_live_gene_and_crossover_mixes_parents(name):
    space = made(name)
    keys = jax.random.split(jax.random.key(1), 300)
    a = jax.vmap(space.sample)(keys)
    b = jax.vmap(space.sample)(jax.random.split(jax.random.key(2), 300))
    mutated = jax.jit(jax.vmap(space.mutate, (0, 0, None)))(keys, a, 0.0)
    assert (np.asarray(mutated) != np.asarray(a)).any(1).all(), "a mutation at rate 0 still changes one gene"
    child = np.asarray(jax.vmap(space.crossover)(keys, a, b))
    live = np.asarray(jax.vmap(space.active)(child))
    if not space._interchangeable:  # where layers may change places, so may what a parent gave
        assert ((child == np.asarray(a)) | (child == np.asarray(b)))[live].all()
    for rows in (mutated, child):
        assert (np.asarray(jax.vmap(space.canonical)(rows)) == np.asarray(rows)).all()


@pytest.mark.parametrize("name", SPACES)
def test_text_and_json_round_trip(name):
    space = made(name)
    genes = np.asarray(jax.jit(space.sample)(jax.random.key(3)))
    assert (space.parse(space.text(genes)) == genes).all()
    assert (space.parse(".".join(map(str, genes))) == genes).all()
    again = space_from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and again.fingerprint == space.fingerprint
    frozen = space.freeze(genes)
    assert frozen.frozen and space_from_json(json.loads(json.dumps(frozen.to_json()))) == frozen


def test_equal_networks_have_equal_canonical_genes():
    space = made("tiny")
    networks = {}
    every = np.asarray(list(itertools.product(*(range(n) for n in space.cardinality))), np.int32)
    for genes, canonical in zip(every, jax.jit(jax.vmap(space.canonical))(every).tolist(), strict=True):
        networks.setdefault(space.freeze(genes), set()).add(tuple(canonical))
    assert all(len(found) == 1 for found in networks.values())
    assert len(networks) == len(set.union(*networks.values()))


def test_skipped_layers_are_last_in_their_stage():
    """The 6,561 encodings of the macro space are the 3,969 networks that its authors trained."""
    space = made("macro")
    every = np.asarray(list(itertools.product(range(3), repeat=8)))
    canonical = np.asarray(jax.jit(jax.vmap(space.canonical))(every))
    assert len({tuple(row) for row in canonical}) == 3969
    assert (np.asarray(jax.vmap(space.canonical)(canonical)) == canonical).all()
    networks = {tuple(row): space.freeze(row) for row in canonical[::97]}
    for genes, own in zip(every[::97], canonical[::97], strict=True):
        assert space.freeze(genes) == networks[tuple(own)]
    assert np.asarray(space.canonical(jnp.asarray([1, 0, 2, 0, 1, 0, 0, 2]))).tolist() == [1, 0, 2, 1, 0, 0, 2, 0]


def test_only_layers_that_are_alike_change_places():
    skip = Choice(ConvNorm(3), Skip())
    between = small(Stage((ConvNorm(3), skip, ConvNorm(5), skip), 8, 4))
    assert [block.kind for block in between.freeze([1, 0]).stages[0].block] == [
        "conv_norm",
        "skip",
        "conv_norm",
        "conv_norm",
    ]
    wider = small(Stage(Choice(ConvNorm(3), Skip(project=True)), (8, 8, 16, 16), 4))
    assert wider.check([0, 1, 0, 0]).tolist() == [0, 1, 0, 0]


def test_a_frozen_space_has_one_network_to_mutate_and_cross():
    frozen = made("tiny").freeze([0] * 6)
    key, genes = jax.random.key(0), jnp.zeros(0, jnp.int32)
    for found in (frozen.mutate(key, genes, 0.5), frozen.crossover(key, genes, genes), frozen.sample(key)):
        assert found.shape == (0,)
    assert int(frozen.distance(genes, genes)) == 0


def test_a_choice_of_one_value_is_that_value():
    space = small(Stage(FlyNet(kernel=Choice(3), heads=Choice(2)), 8))
    assert space.frozen and space.params == small(Stage(FlyNet(kernel=3, heads=2), 8)).params


def test_equal_options_make_equal_text():
    wide = made("flynet", width=2)
    assert wide.fingerprint == made("flynet", width=2.0).fingerprint
    genes = np.zeros(wide.num_decisions, np.int32)
    assert (resolve(wide.text(genes)).genes == genes).all()
    own = made("proxylessnas", widths=(40, 24, 32, 56, 112, 128, 256, 432, 1728))
    assert resolve(own.text([0] * 21)).space == own
    assert space_from_json(json.loads(json.dumps(own.to_json()))) == own
    assert made("proxylessnas", widths=[40, 24, 32, 56, 112, 128, 256, 432, 1728]) == own
    assert small(Stage(InvertedResidual(3, 4), 8)).fingerprint == small(Stage(InvertedResidual(3, 4.0), 8)).fingerprint


def test_distance_counts_what_two_networks_decide_differently():
    space = made("tiny")
    distance = jax.jit(space.distance)
    a, b = jnp.asarray([0, 0, 0, 0, 0, 0]), jnp.asarray([1, 0, 0, 0, 2, 0])
    assert (int(distance(a, a)), int(distance(a, b)), int(distance(b, a))) == (0, 2, 2)
    # a deeper stage decides about one block more, which counts even where its gene is the same
    assert int(distance(a, jnp.asarray([0, 0, 0, 1, 0, 0]))) == 2
    assert int(distance(a, jnp.asarray([0, 0, 0, 0, 0, 2]))) == 0, "dead genes are no difference"
    own = small(Stage(Choice(Skip(), InvertedResidual(Choice(3, 5), 2)), 8, 3))
    raw = jnp.asarray([0, 1, 0, 1, 1, 0])
    assert int(own.distance(raw, own.canonical(raw))) == 0, "nor is the place of a skipped layer"


def test_options_that_are_off_leave_the_fingerprint():
    """A space of before stays readable, and its networks keep their text, when a block gets a new option."""
    space = made("tiny")
    tree = space.to_json()
    for key in ("widths", "residual_additions"):
        del tree[key]
    assert space_from_json(tree) == space
    short = encoding.to_json(space, defaults=False)
    assert "residual_additions" not in short and "padding" not in json.dumps(short)
    assert space_from_json(space.to_json()).fingerprint == space.fingerprint


def test_decode_names_live_decisions_only():
    space = made("tiny")
    shallow = space.decode(np.zeros(space.num_decisions, int))
    assert "stages/1/1/heads" not in shallow and shallow["stages/1/depth"] == 1
    deep = space.decode([0, 0, 0, 1, 0, 2])
    assert deep["stages/1/1/heads"] == 3


def test_shared_stages_take_one_decision_for_all_repeats():
    block = InvertedResidual(kernel=Choice(3, 5), expand=2)
    shared = small(Stage(block, 8, Choice(1, 2), 1, shared=True))
    own = small(Stage(block, 8, Choice(1, 2), 1))
    assert shared.num_decisions == own.num_decisions - 1
    frozen = shared.freeze([1, 1])
    assert [block.kernel for block in frozen.stages[0].block] == [5, 5]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: small(Stage(FlyNet(Choice()), 8)), "stages/0/0/kernel: an empty Choice"),
        (lambda: small(Stage(Choice(FlyNet(heads=Choice()), Skip()), 8)), "stages/0/0/flynet/heads: an empty Choice"),
        (lambda: small(Stage(Choice(), 8)), "stages/0/0/block: an empty Choice"),
        (lambda: small(Stage(FlyNet(), Choice())), "stages/0/width: an empty Choice"),
        (lambda: small(Stage(FlyNet(), 8, Choice())), "stages/0/depth: an empty Choice"),
        (lambda: small(Stage(FlyNet(), 8), hw=Choice()), "input_hw: an empty Choice"),
        (lambda: Choice(3, 3), "repeats a value"),
        (lambda: small(Stage(FlyNet(heads=6), 8)), "heads=6"),
        (lambda: small(Stage(InvertedResidual(attention="sse"), 8)), "stages/0/0/attention: unknown attention"),
        (lambda: small(Stage(InvertedResidual(), 0)), "stages/0/width: width 0"),
        (lambda: small(Stage(InvertedResidual(), 8, Choice(0, 1))), "stages/0/depth: 0"),
        (lambda: small(Stage(InvertedResidual(), 8, 1, 3)), "stride 3"),
        (lambda: small(Stage(InvertedResidual(activation=Choice("relu", "relu6")), 8)), "cannot be searched"),
        (lambda: small(Stage(InvertedResidual(Choice(3, 5, 7, 9, 11), Choice(1, 2, 3)), 8)), "15 branches"),
        (lambda: small(Stage("block", 8)), "is not a block"),
        (lambda: small(Stage(InvertedResidual(kernel=4), 8)), "kernel=4"),
        (lambda: small(Stage(FlyNet(expand=-1), 8)), "expand=-1"),
        (lambda: small(Stage(InvertedResidual(activation="relux"), 8)), "unknown activation 'relux'"),
        (lambda: small(Stage(InvertedResidual(expand=1, hidden=16), 8)), "hidden=16 with expand=1"),
        (lambda: small(hw=0), "input_hw=0"),
        (lambda: made("tiny").freeze([0, 0]), "2 genes given, space tiny has 6 decisions"),
        (lambda: made("tiny").freeze([0, 0, 9, 0, 0, 0]), "stages/1/width is 9: give 0 to 1 (values 8, 16)"),
        (lambda: made("tiny").parse("quickstart:0.0"), "is of space 'quickstart'"),
        (lambda: made("tiny").parse("0.0.0.x"), "not whole numbers"),
        (lambda: made("tiny").parse("tiny:0.0.0.0.0.0#deadbeef"), "fingerprint deadbeef"),
        (lambda: made("tiny").lower(), "still has 6 decisions"),
        (lambda: small(Stage(InvertedResidual(7), 8), hw=2), "stages/0/0/kernel: kernel=7 is larger than"),
        (lambda: small(Stage(Residual(group_width=Choice(None, 3)), 8)), "stages/0/0/group_width: group_width=3"),
        (lambda: small(Stage(Skip(), 8, 1, 2)), "stages/0/0/skip: "),
        (lambda: small(Stage(Skip(), 16)), "stages/0/0/skip: "),
        (lambda: small(Stage(ShuffleNetV2(), 9)), "stages/0/0/shufflenet_v2: "),
        (lambda: small(Stage(FlyNet(attention="ecca"), 8)), "unknown attention 'ecca': did you mean 'eca'"),
        (lambda: small(Stage(FlyNet(residual="lite"), 8)), "unknown residual 'lite': did you mean 'light'"),
        (lambda: small(Stage(InvertedResidual(), (8, 8), 3)), "stages/0: 2 widths for depth 3"),
        (lambda: small(Stage(InvertedResidual(), (8, 16), Choice(1, 2))), "stages/0/depth cannot be searched"),
        (lambda: small(Stage(InvertedResidual(), None)), "stages/0/width is None"),
        (lambda: small(Stage(InvertedResidual(), True)), "width True"),
        (lambda: made("mobilenet_v3", resolutions=5), "resolutions=5 is out of range"),
        (lambda: made("flynet", width=0), "width=0.0 is out of range"),
        (lambda: made("resnet", widths="linear"), "unknown rule for widths 'linear'"),
        (lambda: made("proxylessnas", widths=(16,)), "give 9 numbers"),
        (lambda: small(Stage(Choice(FlyNet(kernel=Choice(3, 8)), Skip()), 8)), "stages/0/0/flynet/kernel: kernel=8"),
        (lambda: small(Stage(ConvNorm(3, norm=4), 8)), "conv_norm.norm=4 is not allowed: give True or False"),
        (lambda: small(Stage(ConvNorm([3]), 8)), "conv_norm.kernel=[3] is not allowed: give a tuple, or one value"),
        (lambda: small(Stage(InvertedResidual(expand=float("nan")), 8)), "inverted_residual.expand=nan"),
        (lambda: small(Stage(InvertedResidual(hidden=True), 8)), "inverted_residual.hidden=True is not allowed"),
        (lambda: small(Stage(ConvNorm(3, padding="valid"), 8, Choice(1, 2))), "depth cannot be searched where a block"),
        (lambda: small(Stage(ConvNorm(3), 8, stride=True)), "stride True is not allowed"),
        (lambda: small(Stage(ConvNorm(3), 8, shared="yes")), "shared='yes' is not allowed"),
        (lambda: small(Stage(ConvNorm(3), 10**12)), "at most 65,536"),
        (lambda: small(Stage(Classifier(), 8)), "block classifier ends a network"),
        (lambda: small(ConvNorm(3)), "stages/0: ConvNorm"),
        (lambda: dataclasses.replace(made("tiny"), head=Choice(Classifier(4), Classifier(6))), "give a Classifier"),
        (lambda: dataclasses.replace(made("tiny"), head=ConvNorm(3)), "give a Classifier without choices"),
        (lambda: dataclasses.replace(made("tiny"), widths="linear"), "give ConstantRatio or Exponential"),
        (lambda: dataclasses.replace(made("tiny"), widths=ConstantRatio(16, 2.0)), "no stage leaves its width"),
        (lambda: dataclasses.replace(made("tiny"), name="a:b"), "name='a:b' is not allowed"),
        (lambda: dataclasses.replace(made("tiny"), stages=[]), "give a tuple of Stages"),
        (lambda: made("mobilenet_v2", width=-1), "width=-1.0 is out of range"),
        (lambda: made("fbnet", features="wide"), "features='wide' is not allowed: give a whole number"),
        (lambda: made("tiny", input_hw=None), "input_hw=None is not allowed"),
        (lambda: made("tiny").check([0, 0, 0, 0, 0, 0.5]), "give whole numbers"),
        (lambda: made("tiny").check(["a"] * 6), "give whole numbers"),
        (lambda: made("tiny").check([True] * 6), "give whole numbers"),
        (lambda: made("tiny").check([[1], [1, 2], 0, 0, 0, 0]), "stages/0/0/kernel is [1]: give whole numbers"),
        (lambda: made("tiny").check(3), "genes 3 are not allowed"),
        (lambda: made("tiny").check([2**63, 0, 0, 0, 0, 0]), "is 9223372036854775808: give 0 to"),
        (lambda: made("tiny").parse(f"{10**30}.0.0.0.0.0"), f"is {10**30}: give 0 to"),
        (lambda: made("tiny").decode([9] * 6), "is 9: give 0 to"),
        (lambda: made("tiny").decode([-1] * 6), "is -1: give 0 to"),
        (lambda: made("tiny").decode([0]), "1 genes given"),
        (lambda: made("tiny").parse("tiny[classes=5]:0.0.0.0.0.0"), "has classes=5, this space has classes=10: give"),
        (lambda: Choice([3, 5], [3, 7]), "give tuples for lists"),
        (lambda: small(Stage(InvertedResidual(gate="sigmod"), 8)), "stages/0/0/gate: unknown gate 'sigmod'"),
        (lambda: small(Stage(Inception((2, 3)), 8)), "stages/0/0/kernels: kernels[0]=2"),
        (lambda: made("tiny").check([0, 0]), "the first missing is stages/1/width"),
        (lambda: dataclasses.replace(made("tiny"), residual_additions=False),
         "stages/0/0/inverted_residual: it adds its input"),
        (lambda: dataclasses.replace(made("tiny"), input_hw=Choice(8, 1)), "input_hw=1"),
    ],
)  # fmt: skip
def test_bad_input_is_named(build, said):
    with pytest.raises(InputError, match="(?s)" + re.escape(said)) as caught:
        build()
    assert "\n" not in str(caught.value)
