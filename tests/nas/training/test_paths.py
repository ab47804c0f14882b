"""Rules by which a training step draws networks."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw_models.errors import InputError
from nas.training.extremes import extremes
from nas.training.paths import paths, phase_of
from search_spaces.spaces import fbnet, flynet, macro, mobilenet_v3, quickstart, tiny


def drawn(rule, count=50, progress=0.0):
    draw = jax.jit(jax.vmap(rule.draw, (0, None)))
    return np.asarray(draw(jax.random.split(jax.random.key(1), count), jnp.float32(progress)))


@pytest.mark.parametrize("name", ["uniform[networks=3]", "fair", "sandwich", "progressive"])
def test_every_rule_draws_legal_networks_and_repeats(name):
    space = quickstart.space()
    rule = paths(space, name)
    genes = drawn(rule, 20, 0.6)
    assert genes.shape == (20, len(rule.weights), space.num_decisions)
    assert sum(rule.weights) == pytest.approx(1)
    flat = genes.reshape(-1, space.num_decisions)
    assert (flat == np.asarray(jax.vmap(space.canonical)(flat))).all() and (flat < space.cardinality).all()
    assert (drawn(rule, 20, 0.6) == genes).all()


def test_uniform_is_the_space_s_own_sample():
    space = tiny.space()
    key = jax.random.key(4)
    assert (paths(space, "uniform").draw(key, jnp.float32(0))[0] == space.sample(key)).all()


def test_fair_uses_every_option_equally_often():
    space = macro.space()  # eight decisions of three options, none of them ever dead
    rule = paths(space, "fair")
    steps = drawn(rule, 600)
    for step in steps:
        kinds = Counter(step.T.ravel().tolist())
        assert set(kinds.values()) == {8}, "each of three networks has another option in all layers together"
    option = {name: place for place, name in enumerate(space.decisions[0].values)}
    alone = [d for d in range(8) if (np.sort(steps[..., d], axis=1) == np.arange(3)).all()]
    assert len(alone) == 4, "and at every layer by itself that has no equal beside it"
    # where it has, the later one is skipped, and those that are not have their turns equally often over steps
    for d in set(range(8)) - set(alone):
        shares = [(steps[..., d] == place).mean() for name, place in option.items() if name != "skip"]
        assert shares == pytest.approx([sum(shares) / 2] * 2, abs=0.02), d


def test_fair_is_fair_at_every_layer_of_a_space_without_layers_to_skip():
    space = flynet.space()
    steps = drawn(paths(space, "fair"), 50)
    always = [d for d in range(space.num_decisions) if np.asarray(jax.vmap(space.active)(steps[:, 0]))[:, d].all()]
    assert len(always) > 5
    for d in always:
        counts = np.stack([(steps[..., d] == value).sum(1) for value in range(space.cardinality[d])])
        assert counts.max() - counts.min() <= 1, space.names[d]


def test_fair_with_unequal_options_differs_by_one_at_most_and_not_in_the_mean():
    space = tiny.space()  # the first decision, always live, has 2 of at most 3 options
    step = drawn(paths(space, "fair"), 400)[..., 0]
    ones = step.sum(1)
    assert set(ones.tolist()) == {1, 2} and abs(ones.mean() - 1.5) < 0.1
    exact = drawn(paths(space, "fair[networks=6]"), 20)[..., 0]
    assert (exact.sum(1) == 3).all()


def test_sandwich_holds_both_ends_and_its_first_network_teaches():
    space = tiny.space()
    rule, ends = paths(space, "sandwich", random=3, distillation=0.5), extremes(space)
    genes = drawn(rule, 10)
    assert (genes[:, 0] == ends.largest).all() and (genes[:, 1] == ends.smallest).all()
    assert genes.shape[1] == 5 and rule.distillation == 0.5 and len(np.unique(genes[:, 2:].reshape(-1, 6), axis=0)) > 5
    assert rule.describe == {"name": "sandwich", "random": 3, "distillation": 0.5}


def test_progressive_opens_kernels_then_depths_then_widths_then_heads():
    space = tiny.space()
    rule, largest = paths(space, "progressive[full=0.2]"), extremes(space).largest
    kinds = [phase_of(name) for name in space.names]
    for progress, opened in ((0.1, set()), (0.35, {0}), (0.55, {0, 1}), (0.75, {0, 1, 2}), (0.95, {0, 1, 2, 3})):
        genes = drawn(rule, 200, progress)[:, 0]
        live = np.asarray(jax.vmap(space.active)(genes))
        moved = {kind for d, kind in enumerate(kinds) if ((genes[:, d] != largest[d]) & live[:, d]).any()}
        assert moved == opened, progress
    everything = drawn(rule, 300, 1.0)[:, 0]
    assert all(set(everything[:, d]) == set(range(space.cardinality[d])) for d in range(space.num_decisions))


def test_progressive_opens_the_second_largest_value_before_the_smallest():
    space = mobilenet_v3.space(resolutions=1)
    rule, d = paths(space, "progressive[full=0.25]"), space.names.index("stages/1/0/kernel")
    values = [sorted({space.decisions[d].values[g] for g in drawn(rule, 200, p)[:, 0, d]}) for p in (0.3, 0.45)]
    assert values == [[5, 7], [3, 5, 7]]  # three phases of a quarter each: it has no heads


def test_progressive_with_a_teacher_runs_the_largest_first():
    space = tiny.space()
    rule = paths(space, "progressive[networks=2,teach=0.5]")
    genes = drawn(rule, 5, 0.9)
    assert (genes[:, 0] == extremes(space).largest).all() and genes.shape[1] == 3 and rule.distillation == 0.5


@pytest.mark.parametrize(
    ("space", "name", "said"),
    [
        (tiny.space(), "sandwitch", "did you mean 'sandwich'"),
        (tiny.space(), "sandwich[randm=2]", "did you mean 'random'"),
        (tiny.space(), "sandwich[random=two]", "paths.random=two"),
        (tiny.space(), "sandwich[random=99]", "paths.random=99 is out of range: give 0 to 64"),
        (tiny.space(), "sandwich[distillation=1.5]", "paths.distillation=1.5"),
        (tiny.space(), "progressive[full=1.0]", "paths.full=1.0"),
        (tiny.space(), "uniform[networks=0]", "paths.networks=0"),
        (tiny.space(), 3, "paths=3 is not allowed"),
        (fbnet.space(), "progressive", "space fbnet has no decision on kernel"),
    ],
)
def test_bad_rules_are_named(space, name, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        paths(space, name)


COMPRESSED = tiny.space(bits="2/8/4", sparsity="channel", densities="1/0.5")


def test_compress_last_draws_whole_networks_first_and_any_after():
    space = COMPRESSED
    rule = paths(space, "compress_last[full=0.3,networks=2]")
    fewer = np.asarray([name.rpartition("/")[2] in ("weight_bits", "act_bits", "density") for name in space.names])
    most = np.asarray([np.argmax(decision.values) for decision in space.decisions])
    early, late = (drawn(rule, 60, at).reshape(-1, space.num_decisions) for at in (0.29, 0.31))
    alive = np.asarray(jax.vmap(space.active)(early))
    assert (early[:, fewer] == np.where(alive, most, 0)[:, fewer]).all(), "by value: 8 of (2, 8, 4), 1 of (1, 0.5)"
    for place in np.flatnonzero(~fewer):
        assert len(np.unique(early[:, place])) == space.cardinality[place], "architectures are open from the start"
    for place in range(space.num_decisions):
        assert len(np.unique(late[:, place])) == space.cardinality[place]
    assert (early == np.asarray(jax.vmap(space.canonical)(early))).all()


def test_auto_depends_on_whether_there_is_something_to_compress():
    assert paths(COMPRESSED, "auto").describe == {"name": "compress_last", "full": 0.8, "networks": 1}
    assert paths(tiny.space(), "auto").describe == {"name": "uniform", "networks": 1}
    assert paths(tiny.space(bits="4"), "auto").describe["name"] == "uniform", "one number of bits decides nothing"
    with pytest.raises(InputError, match="decides no bits and no densities: use uniform"):
        paths(tiny.space(), "compress_last")
    with pytest.raises(InputError, match="option of paths uniform, which auto is here 'full'"):
        paths(tiny.space(), "auto[full=0.3]")
