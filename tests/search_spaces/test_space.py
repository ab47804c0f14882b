"""Spaces as trees and as genes."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models import discover
from hw_models.errors import InputError
from search_spaces.blocks.classifier import Classifier
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.flynet import FlyNet
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.choice import Choice
from search_spaces.encoding import space_from_json
from search_spaces.space import SearchSpace, Stage

SPACES = discover.names("search_spaces.spaces")


def made(name):
    return discover.load("search_spaces.spaces", name, "space")()


def small(*stages, hw=8):
    return SearchSpace("small", hw, 1, 4, Stage(ConvNorm(3), 8), stages, Classifier())


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_canonical_legal_and_cover_every_value(name):
    space = made(name)
    genes = np.asarray(jax.jit(jax.vmap(space.sample))(jax.random.split(jax.random.key(0), 4000)))
    assert genes.dtype == np.int32 and genes.shape == (4000, space.num_decisions)
    assert (genes >= 0).all() and (genes < space.cardinality).all()
    assert (np.asarray(jax.vmap(space.canonical)(genes)) == genes).all()
    assert (genes.max(0) == space.cardinality - 1).all()
    assert space.size == int(np.prod([int(n) for n in space.cardinality], dtype=object))


@pytest.mark.parametrize("name", SPACES)
def test_mutation_changes_a_live_gene_and_crossover_mixes_parents(name):
    space = made(name)
    keys = jax.random.split(jax.random.key(1), 300)
    a = jax.vmap(space.sample)(keys)
    b = jax.vmap(space.sample)(jax.random.split(jax.random.key(2), 300))
    mutated = jax.jit(jax.vmap(space.mutate, (0, 0, None)))(keys, a, 0.0)
    assert (np.asarray(mutated) != np.asarray(a)).any(1).all(), "a mutation at rate 0 still changes one gene"
    child = np.asarray(jax.vmap(space.crossover)(keys, a, b))
    live = np.asarray(jax.vmap(space.active)(child))
    assert ((child == np.asarray(a)) | (child == np.asarray(b)))[live].all()
    for rows in (mutated, child):
        assert (np.asarray(jax.vmap(space.canonical)(rows)) == np.asarray(rows)).all()


@pytest.mark.parametrize("name", SPACES)
def test_text_and_json_round_trip(name):
    space = made(name)
    genes = np.asarray(space.sample(jax.random.key(3)))
    assert (space.parse(space.text(genes)) == genes).all()
    assert (space.parse(".".join(map(str, genes))) == genes).all()
    again = space_from_json(json.loads(json.dumps(space.to_json())))
    assert again == space and again.fingerprint == space.fingerprint
    frozen = space.freeze(genes)
    assert frozen.frozen and space_from_json(json.loads(json.dumps(frozen.to_json()))) == frozen


def test_equal_networks_have_equal_canonical_genes():
    space = made("tiny")
    networks = {}
    for genes in itertools.product(*(range(n) for n in space.cardinality)):
        canonical = tuple(np.asarray(space.canonical(jnp.asarray(genes))).tolist())
        networks.setdefault(space.freeze(genes), set()).add(canonical)
    assert all(len(found) == 1 for found in networks.values())
    assert len(networks) == len(set.union(*networks.values()))


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
        (lambda: Choice(), "empty Choice"),
        (lambda: Choice(3, 3), "repeats a value"),
        (lambda: small(Stage(FlyNet(heads=6), 8)), "heads=6"),
        (lambda: small(Stage(InvertedResidual(attention="sse"), 8)), "stages/0/0/inverted_residual: unknown attention"),
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
    ],
)  # fmt: skip
def test_bad_input_is_named(build, said):
    with pytest.raises(InputError, match="(?s)" + said.replace("(", r"\(").replace(")", r"\)")) as caught:
        build()
    assert "\n" not in str(caught.value)
