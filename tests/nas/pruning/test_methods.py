"""Pruning in one call: every method reaches its density, zeros stay, survivors are rewound."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from hw_models.errors import InputError
from nas.pruning import methods
from nas.pruning.masks import applied, masks_of
from nas.pruning.methods import METHODS, prune
from nas.pruning.shrink import shrink
from nas.pruning.targets import targets
from nas.training.standalone import train
from search_spaces.blocks.conv_norm import ConvNorm
from search_spaces.blocks.inverted_residual import InvertedResidual
from search_spaces.network import Network, fresh
from search_spaces.sparsity.training_rules import soft

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def space(network):
    return network(ConvNorm(), (8, 8))


@pytest.fixture(scope="module")
def short(recipe):
    return dataclasses.replace(recipe, epochs=1)


def _leaves(tree, masks):
    return [(np.asarray(leaf), np.asarray(mask)) for mask, leaf in zip(
        jax.tree.leaves(masks, is_leaf=lambda m: m is None), jax.tree.leaves(tree), strict=True) if mask is not None
    ]  # fmt: skip


@pytest.mark.parametrize("method", [name for name in METHODS if name != "layer"])
def test_every_method_reaches_its_density_and_keeps_zeros(space, lively, images, short, method):
    variables = None if method == "snip" else lively(space)
    made = prune(space, variables, images, method, 0.5, recipe=short, key=KEY)
    for leaf, mask in _leaves(made.variables["params"], made.masks):
        assert (leaf[~mask] == 0).all()
    structure = METHODS[method].structure
    by_path = {row.path: row for row in made.kept.layers}
    if structure != "output_channel":
        inner = [row for row in made.kept.layers if row.path not in ("stem_0/conv", "head/logits")]
        assert sum(r.kept_weights for r in inner) == sum(r.weights for r in inner) // 2
    elif METHODS[method].overall:
        channels = [int(made.masks[m][n]["scale"].sum()) for m, n in
                    [("stem_0", "norm"), ("stages_0_0", "norm"), ("stages_0_1", "norm"), ("head", "norm")]]  # fmt: skip
        assert 16 <= sum(channels) <= 24
    else:
        assert (by_path["stem_0/conv"].kept_weights, by_path["stages_0_0/conv"].kept_weights) == (36, 144)


def test_zeros_stay_zero_inside_the_training(space, lively, images, recipe):
    """By the constraint itself: what is returned has not been masked again."""
    found = targets(space, "weight")
    masks = masks_of(space, found, [np.arange(t.structure.count).reshape(t.structure.decisions) % 3 > 0 for t in found])
    variables = lively(space)
    start = {**variables, "params": applied(masks, variables["params"])}
    after = train(space, images, recipe, KEY, start, constrain=Partial(applied, masks))
    for leaf, mask in _leaves(after["params"], masks):
        assert (leaf[~mask] == 0).all() and (leaf[mask] != 0).all()


def test_soft_masks_let_pruned_weights_be_updated(space, lively, images, recipe):
    found = targets(space, "output_channel", names=("stages_0_0/conv",))
    masks = masks_of(space, found, [np.arange(8) < 4])
    kernel = masks["stages_0_0"]["conv"]["kernel"]

    def softly(params):
        inner = params["stages_0_0"]["conv"]
        return {**params, "stages_0_0": {**params["stages_0_0"], "conv": {"kernel": soft(inner["kernel"], kernel)}}}

    variables, seen = lively(space), []
    variables["params"]["stages_0_0"]["conv"]["kernel"] *= kernel

    def renew(share, params):
        seen.append((share, np.asarray(params["stages_0_0"]["conv"]["kernel"])[~np.asarray(kernel)]))
        return softly

    train(space, images, recipe, KEY, variables, renew=renew)
    assert [share for share, _ in seen] == [0.0, 0.5, 1.0]
    assert (seen[0][1] == 0).all() and (seen[1][1] != 0).any()


def test_soft_filters_reach_the_training_before(space, lively, images, recipe, monkeypatch):
    """Masks of two epochs, of kernels alone: a masked scale would let no gradient arrive."""
    made, count = [], methods.masks_of
    monkeypatch.setattr(methods, "masks_of", lambda *given: made.append(count(*given)) or made[-1])
    prune(space, lively(space), images, "soft_filter", 0.5, recipe=recipe, key=KEY)
    assert len(made) == 4 and made[0]["stem_0"]["norm"]["scale"] is None and made[0]["head"]["logits"]["kernel"] is None
    assert made[3]["stem_0"]["norm"]["scale"].sum() == 4


def test_survivors_return_to_their_initial_values(space, images, short):
    """With no epoch of fine-tuning what comes back is the start of it."""
    initial = fresh(space, jax.random.key(7))
    trained = train(space, images, short, KEY, initial)
    still = dataclasses.replace(short, epochs=0)
    made = prune(space, trained, images, "magnitude", 0.25, recipe=still, key=KEY, rewind=True, initial=initial)
    for first, after, mask in zip(
        jax.tree.leaves(initial["params"]),
        jax.tree.leaves(made.variables["params"]),
        jax.tree.leaves(made.masks, is_leaf=lambda m: m is None),
        strict=True,
    ):
        np.testing.assert_array_equal(after, first if mask is None else jnp.where(mask, first, 0))
    with pytest.raises(InputError, match="needs the weights before the training"):
        prune(space, trained, images, recipe=still, key=KEY, rewind=True)


def test_a_gradual_schedule_ends_at_its_density(space, lively, images, recipe):
    made = prune(space, lively(space), images, "filter_l2", 0.25, recipe=recipe, key=KEY, gradual=True)
    assert int(made.masks["stages_0_0"]["norm"]["scale"].sum()) == 2


def test_pruned_filters_can_be_removed(network, lively, images, short):
    """SE keeps its block whole: only what can be removed is pruned."""
    space = network(InvertedResidual(expand=2, attention="se"), (8, 8))
    made = prune(space, lively(space), images, "filter_l1", 0.5, recipe=short, key=KEY, to_shrink=True)
    small = shrink(space, made.variables, made.masks)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    same = [
        Network(*each).apply(v, x)
        for each, v in (((space, "xla"), made.variables), ((small.space, "xla"), small.variables))
    ]
    np.testing.assert_allclose(same[0], same[1], rtol=1e-5, atol=1e-5)
    assert small.space.params == made.kept.kept_params


def test_whole_blocks_are_dropped(network, lively, images, short):
    space = network(InvertedResidual(expand=2), (8, 8, 8, 8))
    variables = lively(space)
    for name in ("stages_0_0", "stages_0_3"):
        variables["params"][name] = jax.tree.map(lambda leaf: leaf * 0.1, variables["params"][name])
    made = prune(space, variables, images, "layer", 0.5, recipe=short, key=KEY)
    kinds = [slot.cases[0].block.kind for slot in shrink(space, made.variables, made.masks).space.slots[1:-1]]
    assert kinds == ["skip", "inverted_residual", "inverted_residual", "skip"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "magnitud"}, "unknown method 'magnitud': did you mean 'magnitude'"),
        ({"structure": "columns"}, "unknown structure 'columns': did you mean 'column'"),
        ({"density": 0}, r"density=0 leaves .* empty: give above 0 and at most 1"),
        ({"density": {"stem_0/conv": 0.0}}, r"density=0.0 leaves stem_0/conv empty"),
        ({"density": 1.5}, "density=1.5"),
        ({"density": {"stem_1": 0.5}}, "unknown target 'stem_1'"),
        ({"method": "apoz", "structure": "column"}, "criterion apoz does not serve structure column"),
        ({"method": "network_slimming", "density": {"stem_0/conv": 0.5}}, "cannot be shared overall"),
    ],
)
def test_bad_arguments_are_named(space, lively, images, short, given, said):
    arguments = {"method": "filter_l1", "density": 0.5} | given
    with pytest.raises(InputError, match=said):
        prune(space, lively(space), images, recipe=dataclasses.replace(short, epochs=0), key=KEY, **arguments)


def test_channels_that_n_m_cannot_divide_are_named(network, lively, images, short):
    space = network(ConvNorm(), (6, 8))
    with pytest.raises(InputError, match=r"stages_0_1/conv: 6 input channels are no multiple of 4: .*nearest: 8"):
        prune(space, lively(space), images, "n_m", 0.5, recipe=short, key=KEY)
